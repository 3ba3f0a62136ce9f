"""`wicketgate install`: what is planned, that making it twice makes nothing, and systemd's own opinion of the units."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from wicketgate import configuration
from wicketgate.configuration import Configuration
from wicketgate.install import Manifest, Site, carry_out, host, plan
from wicketgate.install.carry import begun, hand_over, made
from wicketgate.install.manifest import InstallError, digest, read_manifest, write_manifest
from wicketgate.install.plan import LETTERS, Choice, Link, TextFile, settings_text
from wicketgate.install.remove import remove_files, remove_settings
from wicketgate.install.switch import follow, next_letter, replace, stop, upgrade
from wicketgate.install.work import _parsed, _schemas
from wicketgate.store.records import Codec

NOTHING = Manifest()


def choice(**changes: object) -> Choice:
    """An installation as it is by default, but for some settings."""
    settings = Configuration(**{"domain": "gate.example.com", **changes})
    return Choice(
        configuration=settings,
        settings_text=settings_text({"domain": settings.domain}),
        python=sys.executable,
        instances=2,
        root_credential="[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\n",
    )


class Place:
    """A root directory in which every account is whoever runs the tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.accounts: list[str] = []
        self.said: list[str] = []

    def site(self, *, dry_run: bool = False) -> Site:
        """A fresh run."""
        self.said = []
        return Site(
            root=self.root,
            ids=lambda name: (os.geteuid(), os.getegid()) if name in ("root", *self.accounts) else None,
            groups=lambda name: os.getegid() if name in ("root", *self.accounts) else None,
            make_account=self.accounts.append,
            dry_run=dry_run,
            say=self.said.append,
        )

    def install(self, wanted: Choice, before: Manifest = NOTHING, *, dry_run: bool = False) -> Manifest:
        """What was made."""
        site = self.site(dry_run=dry_run)
        carry_out(plan(wanted), site, before)
        return made(plan(wanted), before, site)

    def files(self) -> dict[str, bytes | str]:
        """Everything below the root."""
        return {
            str(path.relative_to(self.root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_dry_run_says_the_same_and_makes_nothing(place):
    """The list of a dry run is the list of the run itself, line by line; nothing is written and no user made."""
    place.install(choice(), dry_run=True)
    planned = place.said
    assert (place.files(), place.accounts) == ({}, [])
    place.install(choice())
    # whose files are handed over is known once they are there
    assert place.said == planned
    assert len(planned) > 40


def test_the_second_time_makes_nothing(place):
    """Idempotent: not a line said, not a byte changed, and the secret is the first one."""
    manifest = place.install(choice())
    before = place.files()
    again = place.install(choice(), manifest)
    assert place.said == []
    assert place.files() == before
    assert again == manifest


def test_the_credential_is_written_once(place):
    """Another run has another secret at hand and leaves the first in its place; its mode is put right."""
    manifest = place.install(choice())
    path = place.root / "etc/wicketgate/root-credential"
    first = path.read_text()
    path.chmod(0o644)
    other = Choice(**{**vars(choice()), "root_credential": "another"})
    place.install(other, manifest)
    assert path.read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert place.said == ["set owner and mode of /etc/wicketgate/root-credential: root:root 0600"]


def test_modes_are_exact(place):
    """What only some may enter is so, and gateways' audit files come to belong to the API process's group."""
    place.install(choice())
    state = place.root / "var/lib/wicketgate"
    assert {name: oct((state / name).stat().st_mode & 0o7777) for name in (
        "netd", "store", "audit/api", "audit/gateway", "public")} == {
        "netd": "0o700", "store": "0o700", "audit/api": "0o700", "audit/gateway": "0o2750", "public": "0o755",
    }  # fmt: skip
    (state / "store").chmod(0o755)
    place.install(choice())
    assert (state / "store").stat().st_mode & 0o777 == 0o700


def test_the_operators_file_is_theirs(place):
    """Changed since it was written: never written again. Not changed: a new version's comments reach it."""
    manifest = place.install(choice())
    path = place.root / "etc/wicketgate/wicketgate.toml"
    newer = Choice(**{**vars(choice()), "settings_text": "# newer\n"})
    path.write_text(path.read_text() + "\n# mine\n")
    kept = place.install(newer, manifest)
    assert place.said == []
    assert path.read_text().endswith("# mine\n")
    assert kept.files["/etc/wicketgate/wicketgate.toml"] == manifest.files["/etc/wicketgate/wicketgate.toml"]
    path.write_text(choice().settings_text)
    place.install(newer, manifest)
    assert path.read_text() == "# newer\n"


def test_the_settings_file_says_every_setting(place):
    """Each is there with its comment; those that were given are set, and it is read as it was written."""
    text = settings_text({"domain": "gate.example.com", "listen_addresses": ["10.0.0.1", "fd00::1"], "port": 8443})
    assert tomllib.loads(text) == {
        "domain": "gate.example.com", "listen_addresses": ["10.0.0.1", "fd00::1"], "port": 8443
    }  # fmt: skip
    for name in configuration.SETTINGS:
        assert re.search(rf"^#?{name} = ", text, re.MULTILINE)
    assert _parsed(text).listen_addresses == ("10.0.0.1", "fd00::1")


def test_listening_addresses_are_the_socket_units(place):
    """One line for each, IPv6 in brackets."""
    place.install(choice(listen_addresses=("10.0.0.1", "fd00::1"), port=8443))
    unit = (place.root / "etc/systemd/system/wicketgate-gateway.socket").read_text()
    assert re.findall("^ListenStream=(.*)$", unit, re.MULTILINE) == ["10.0.0.1:8443", "[fd00::1]:8443"]


def test_the_operators_certificate_is_a_credential(place):
    """Its files are loaded by systemd; taken out of the settings again, the drop-in goes."""
    own = {"certificate_file": "/etc/wicketgate/tls/c.pem", "private_key_file": "/etc/wicketgate/tls/k.pem"}
    manifest = place.install(choice(**own))
    drop_in = place.root / "etc/systemd/system/wicketgate-gateway@.service.d/certificate.conf"
    assert "LoadCredential=certificate:/etc/wicketgate/tls/c.pem\n" in drop_in.read_text()
    assert "LoadCredential=private-key:/etc/wicketgate/tls/k.pem\n" in drop_in.read_text()
    place.install(choice(), manifest)
    assert not drop_in.exists()
    assert "remove /etc/systemd/system/wicketgate-gateway@.service.d/certificate.conf" in place.said


def test_a_state_of_serve_is_taken_over(tmp_path):
    """Files of former owners are handed over; links and files with further names are not touched."""
    store = tmp_path / "store"
    (store / "deep").mkdir(parents=True)
    (store / "deep" / "store.db").write_text("x")
    (store / "outside").symlink_to("/etc/passwd")
    os.link(store / "deep" / "store.db", store / "second-name")
    somebody = (os.geteuid() + 1, os.getegid() + 1)
    assert hand_over(store, somebody, dry_run=True) == 1  # the directory alone
    (store / "second-name").unlink()
    assert hand_over(store, somebody, dry_run=True) == 2
    assert hand_over(store, (os.geteuid(), os.getegid())) == 0
    (store / "deep" / "store.db").chmod(0o600)
    assert hand_over(store, (os.geteuid(), os.getegid()), readable=True) == 1
    assert (store / "deep" / "store.db").stat().st_mode & 0o777 == 0o640


def test_uninstalling_leaves_what_it_says(place):
    """Units, links and users' files go, a file that was changed stays; state and settings only without --purge."""
    manifest = place.install(choice())
    write_manifest(place.root, manifest)
    assert read_manifest(place.root) == manifest
    changed = place.root / "etc/logrotate.d/wicketgate"
    changed.write_text("# mine\n")
    remove_files(manifest, place.site(), "/var/lib/wicketgate", purge=False)
    assert read_manifest(place.root) == manifest, "it goes last"
    said = place.said
    remove_settings(place.site(), purge=False)
    left = {path for path in place.files() if not path.startswith("var/lib/wicketgate/")}
    assert left == {
        "etc/logrotate.d/wicketgate",
        "etc/wicketgate/wicketgate.toml",
        "etc/wicketgate/links.toml",
        "etc/wicketgate/root-credential",
    }
    assert "keep /etc/logrotate.d/wicketgate: somebody has changed it since it was installed" in said
    assert not (place.root / "etc/systemd/system/wicketgate.target.wants").exists()
    changed.unlink()
    remove_files(manifest, place.site(), "/var/lib/wicketgate", purge=True)
    remove_settings(place.site(), purge=True)
    assert place.files() == {}


def test_a_manifest_that_cannot_be_read_is_told(place):
    """It is never taken for none at all."""
    (place.root / "etc/wicketgate").mkdir(parents=True)
    (place.root / "etc/wicketgate/.installed.json").write_text("{")
    with pytest.raises(InstallError, match="cannot be read"):
        read_manifest(place.root)


def lines(commands):
    return [" ".join(one.arguments) for one in commands]


SERVING = {"wicketgate-gateway@a0.service": "active", "wicketgate-gateway@a1.service": "active"}


def test_upgrading_replaces_gateways_last():
    """netd, then the API process, then metadata; new gateways before the old ones are told to take no more."""
    commands = lines(upgrade(SERVING, "b", 2))
    assert commands[0] == "systemctl daemon-reload"
    assert commands[2:5] == [f"systemctl restart wicketgate-{name}.service" for name in ("netd", "api", "metadata")]
    assert commands[5:] == lines(replace(SERVING, "b", 2)) == [
        "systemctl start wicketgate-gateway@b0.service wicketgate-gateway@b1.service",
        "systemctl kill --signal=SIGUSR1 --kill-who=main wicketgate-gateway@a*.service",
    ]  # fmt: skip


def test_gateways_that_still_drain_are_not_taken_for_new_ones():
    """An upgrade while gateways of the one before have tunnels takes a third letter, and leaves nobody without any."""
    units = {**SERVING, "wicketgate-gateway@b0.service": "active", "wicketgate-gateway@c0.service": "failed"}
    assert next_letter("b", units) == "c"
    assert next_letter("z", {"wicketgate-gateway@z0.service": "active"}) == "a"
    assert lines(replace(units, "c", 1)) == [
        "systemctl start wicketgate-gateway@c0.service",
        "systemctl kill --signal=SIGUSR1 --kill-who=main wicketgate-gateway@a*.service",
        "systemctl kill --signal=SIGUSR1 --kill-who=main wicketgate-gateway@b*.service",
    ]
    with pytest.raises(InstallError, match="every letter"):
        next_letter("a", {f"wicketgate-gateway@{letter}0.service": "active" for letter in LETTERS})


def test_gateways_that_do_not_serve_yet_are_stopped():
    """SIGUSR1 would end them as a failure, after which systemd starts them again."""
    units = {"wicketgate-gateway@b0.service": "activating", "wicketgate-gateway@a0.service": "active"}
    assert lines(replace(units, "c", 1)) == [
        "systemctl stop wicketgate-gateway@b0.service",
        "systemctl start wicketgate-gateway@c0.service",
        "systemctl kill --signal=SIGUSR1 --kill-who=main wicketgate-gateway@a*.service",
    ]


def test_new_gateways_that_do_not_start_are_stopped_again():
    """The old ones go on serving; nothing is left that is started again and again."""
    ran: list[str] = []

    def run(arguments):
        ran.append(" ".join(arguments))
        if arguments[1] == "start":
            raise InstallError("no")
        return ""

    with pytest.raises(InstallError, match="no"):
        follow(replace(SERVING, "b", 1), run, lambda _words: None)
    assert ran == [
        "systemctl start wicketgate-gateway@b0.service", "systemctl stop wicketgate-gateway@b0.service"
    ]  # fmt: skip


def test_what_systemd_does_not_know_is_not_stopped():
    """systemctl fails for a unit that is not loaded, so a second `uninstall` after an interrupted one would."""
    assert stop({}) == []
    assert lines(stop({"wicketgate.target": "active", **SERVING})) == [
        "systemctl stop wicketgate-gateway@a0.service wicketgate-gateway@a1.service",
        "systemctl stop wicketgate.target",
    ]


def test_a_run_that_is_cut_short_is_known(place):
    """What may be there is written down before it is made: `uninstall` finds it, and the next run sees to the rest."""
    site = place.site()
    noted = begun(plan(choice()), NOTHING, site)
    assert noted.unfinished
    carry_out(plan(choice())[:20], site, NOTHING)
    assert set(place.files()) <= {path.lstrip("/") for path in (*noted.files, *noted.links)}
    assert noted.accounts == sorted(place.accounts)
    remove_files(noted, place.site(), noted.state, purge=True)
    remove_settings(place.site(), purge=True)
    assert place.files() == {}


def test_the_operators_own_file_stays_theirs(place):
    """One that was there before us is never taken for ours, however often it is installed; nobody else may write it."""
    path = place.root / "etc/wicketgate/wicketgate.toml"
    path.parent.mkdir(parents=True)
    path.write_text('# mine\ndomain = "gate.example.com"\n')
    path.chmod(0o666)
    theirs = dataclasses.replace(choice(), settings_text=path.read_text(), settings_theirs=True)
    manifest = place.install(theirs)
    assert manifest.files["/etc/wicketgate/wicketgate.toml"] == ""
    place.install(choice(), manifest)
    assert path.read_text().startswith("# mine\n")
    assert path.stat().st_mode & 0o777 == 0o644


def test_only_accounts_of_our_own_are_removed(place):
    """One that was there before is not in the manifest."""
    place.accounts.append("wicketgate-api")
    assert place.install(choice()).accounts == ["wicketgate-gateway", "wicketgate-metadata"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("wicketgate-api:x:1000:1000::/home/x:/bin/bash", "who may log in"),
        ("wicketgate-api:x:1000:1000::/home/x:", "who may log in"),
        ("wicketgate-api:x:0:0::/:/usr/sbin/nologin", "is root"),
        ("wicketgate-api:x:990:990::/:/usr/sbin/nologin", ""),
        ("other:x:1000:1000::/:/bin/bash", ""),
    ],
)
def test_a_user_who_is_somebody_is_refused(tmp_path, line, words):
    """A service must not run as a person, or as root."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(line + "\n")
    if words:
        with pytest.raises(InstallError, match=words):
            host.check_account(tmp_path, "wicketgate-api")
    else:
        host.check_account(tmp_path, "wicketgate-api")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"state_directory": "/var/lib"}, "not for one program alone"),
        ({"state_directory": "/"}, "not for one program alone"),
        ({"state_directory": "/srv/../etc"}, "not for one program alone"),
        ({"state_directory": "/home/me/state"}, "do not see /home"),
        ({"state_directory": "/tmp/state"}, "do not see /tmp"),
        ({"state_directory": "state"}, "an absolute path"),
        ({"state_directory": "/srv/two words"}, "an absolute path"),
        ({"key_file": "/etc/%n.key"}, "an absolute path"),
        ({"certificate_file": "/etc/a:b.pem", "private_key_file": "/etc/k.pem"}, "certificate_file '/etc/a:b.pem'"),
    ],
)
def test_paths_that_cannot_stand_in_units_are_refused(settings, words):
    """Nor a state directory whose owner and mode are not ours to set, or that `--purge` must not empty."""
    with pytest.raises(InstallError, match=words):
        host.check_paths(Configuration(**settings))
    host.check_paths(Configuration(state_directory="/srv/wicketgate", key_file="/etc/wicketgate/seal.key"))


def test_a_full_disk_is_told_with_its_file(place, monkeypatch):
    """In one line, and nothing half written is left."""
    monkeypatch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InstallError, match=r"^/etc/sysusers\.d/wicketgate\.conf: No space left on device$"):
        place.install(choice())
    assert place.files() == {}


def test_two_runs_at_once_are_refused(tmp_path):
    """A certificate's deploy hook while apt upgrades."""
    (tmp_path / "etc").mkdir()
    with host.alone(tmp_path), pytest.raises(InstallError, match="another wicketgate install"), host.alone(tmp_path):
        pass
    with host.alone(tmp_path):
        pass


def test_purging_leaves_what_is_not_ours(place):
    """A state directory that something else lives in keeps that; links are removed and never followed."""
    manifest = place.install(choice())
    state = place.root / "var/lib/wicketgate"
    (state / "mine").write_text("x")
    outside = place.root / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (state / "logs").symlink_to(outside)
    remove_files(manifest, place.site(), "/var/lib/wicketgate", purge=True)
    assert [path.name for path in state.iterdir()] == ["mine"]
    assert (outside / "file").exists()


def test_the_noted_schemas_are_the_stores():
    """The forms that an upgrade compares are those that the store itself writes."""

    class NoSeal:
        key_id = ""

    assert _schemas() == Codec(NoSeal()).schemas()  # type: ignore[arg-type]  # seals nothing here


def test_links_are_what_systemctl_enable_would_make():
    """Everything that [Install] asks for is enabled, each gateway by its instance."""
    wanted = {thing.path.rpartition("/")[2]: thing.target for thing in plan(choice()) if isinstance(thing, Link)}
    units = {thing.path for thing in plan(choice()) if isinstance(thing, TextFile) and "[Install]" in thing.text}
    assert {target for target in wanted.values() if target.startswith("/")} == units
    assert {"wicketgate-gateway@a0.service", "wicketgate-gateway@a1.service"} <= wanted.keys()
    assert digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
