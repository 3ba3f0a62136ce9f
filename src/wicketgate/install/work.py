"""The whole of `wicketgate install`, `upgrade` and `uninstall`, for the command line and the Debian package alike."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import secrets
import sqlite3
import string
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from wicketgate import __version__, pki
from wicketgate.configuration import Configuration, load, root_credential_in
from wicketgate.install import host, remove, switch
from wicketgate.install.carry import Site, begun, carry_out, made
from wicketgate.install.manifest import InstallError, Manifest, digest, read_manifest, write_manifest
from wicketgate.install.plan import (
    ACCOUNTS,
    ROOT_CREDENTIAL,
    SETTINGS_FILE,
    TARGET,
    TEMPLATE,
    Choice,
    Thing,
    plan,
    settings_text,
)
from wicketgate.model import KINDS
from wicketgate.seal import ensure_key
from wicketgate.store.records import UPGRADERS
from wicketgate.store.schema import LAYOUT

Say = Callable[[str], None]

_KEY_ID_ALPHABET: Final = string.ascii_uppercase + "234567"
_SECRET_ALPHABET: Final = string.ascii_letters + string.digits + "+/"


class Work:
    """One run of a verb: what it found, what it does."""

    def __init__(self, root: Path, *, dry_run: bool, say: Say) -> None:
        """Read what is installed already. Raises InstallError."""
        host.check_root()
        self.site: Site = host.site(root, dry_run=dry_run, say=say)
        self.before = read_manifest(root)
        self.here = root == Path("/")
        self.systemd = self.here and host.booted()
        self.python = f"{sys.prefix}/bin/python"

    # -- install -------------------------------------------------------------------------------------------------------

    def install(self, given: Mapping[str, object], instances: int | None, *, start: bool) -> None:
        """Make everything be there, then start it. Raises InstallError and ConfigurationError."""
        with host.alone(self.site.root):
            self._install(given, instances, start=start)

    def _install(self, given: Mapping[str, object], instances: int | None, *, start: bool) -> None:
        text, configuration = self._settings(given)
        running = self._running()
        self._check(configuration, ports=start and not running)
        self._make_key(configuration)
        before = self.before or Manifest()
        count = instances or before.instances or configuration.worker_count
        choice = self._choice(configuration, text, count, before.letter)
        things = plan(choice)
        self._carry_out(things, before, choice)
        self._tell_credential(configuration)
        if not self.systemd:
            self.site.say("nothing was started: " + ("systemd does not run here" if self.here else "another system's"))
        elif not start:
            self.site.say("nothing was started, as you wished: systemctl daemon-reload && systemctl start "
                          "wicketgate.target")  # fmt: skip
        elif not running:
            self._run(switch.start(count))
            self.site.say(f"wicketgate serves https://api.{configuration.domain}: DNS has to lead "
                          f"*.{configuration.domain} here")  # fmt: skip
        else:
            self._restart_what_changed(before, choice)
        self._finish()

    def _restart_what_changed(self, before: Manifest, choice: Choice) -> None:
        if not self.site.changed and not before.unfinished:
            self.site.say("everything is as it should be")
            self._run(switch.start(choice.instances))  # what has failed since is tried again
            return
        if not self.site.changed:
            self.site.say("the last run did not come to its end: what runs is restarted")
        if any(path.endswith(".socket") for path in self.site.changed):
            self.site.say("sockets changed: they are opened anew, with all tunnels cut, by: "
                          "systemctl daemon-reload && systemctl restart wicketgate.target")  # fmt: skip
            return
        self._switch(before, choice)

    # -- upgrade -------------------------------------------------------------------------------------------------------

    def upgrade(self, *, gateways_only: bool) -> None:
        """Put this version in the place of the one that is installed. Raises InstallError and ConfigurationError."""
        with host.alone(self.site.root):
            self._upgrade(gateways_only=gateways_only)
            self._finish()

    def _upgrade(self, *, gateways_only: bool) -> None:
        before = self.before
        if before is None:
            raise InstallError("nothing is installed here: wicketgate install")
        text, configuration = self._settings({})
        self._check_files(configuration)
        self._check_store(Path(configuration.state_directory) / "store" / "store.db")
        letter = self._next_letter(before) if self._running() else before.letter
        choice = self._choice(configuration, text, before.instances or configuration.worker_count, letter)
        if gateways_only:
            self._replace_gateways(before, choice)
            return
        if self.here:
            host.check_environment(Path(self.python))
        self.site.say(f"from version {before.version} to {__version__}")
        self._carry_out(plan(choice), before, choice, keep_links=True)
        self._drop_old_links(before, choice)
        if self._running():
            self._run(switch.upgrade(self._gateways(), letter, choice.instances))
        else:
            self.site.say("nothing was restarted: nothing runs here")

    def _switch(self, before: Manifest, choice: Choice) -> None:
        letter = self._next_letter(before)
        choice = dataclasses.replace(choice, letter=letter)
        self._carry_out(plan(choice), self._written(), choice, keep_links=True)
        self._drop_old_links(before, choice)
        self._run(switch.upgrade(self._gateways(), letter, choice.instances))

    def _gateways(self) -> dict[str, str]:
        """The gateways that systemd knows of: name -> ActiveState."""
        return host.units(TEMPLATE.replace("@", "@*"))

    def _next_letter(self, before: Manifest) -> str:
        return switch.next_letter(before.letter, self._gateways())

    def _replace_gateways(self, before: Manifest, choice: Choice) -> None:
        """New gateways alone: they read the certificate's files at their start."""
        if not self._running():
            raise InstallError("nothing runs here by systemd, so there are no gateways to replace")
        self._carry_out(plan(choice), before, choice, keep_links=True)
        self._drop_old_links(before, choice)
        self._run([*switch.reload(), *switch.replace(self._gateways(), choice.letter, choice.instances)])

    def _drop_old_links(self, before: Manifest, choice: Choice) -> None:
        """What was started at boot and is no more: the other letter's gateways. Not before the new ones have theirs."""
        now = set(made(plan(choice), Manifest(), self.site).links)
        for path in before.links:
            if path not in now and self.site.place(path).is_symlink():
                self.site.say(f"remove {path}")
                if not self.site.dry_run:
                    self.site.place(path).unlink()

    # -- uninstall -----------------------------------------------------------------------------------------------------

    def uninstall(self, *, purge: bool) -> None:
        """Take everything away but state and settings, which `purge` takes too. Raises InstallError, FabricError."""
        with host.alone(self.site.root):
            self._uninstall(purge=purge)

    def _uninstall(self, *, purge: bool) -> None:
        manifest = self.before
        if manifest is None:
            raise InstallError("nothing is installed here")
        if self.systemd:
            self._run(switch.stop(host.units("wicketgate*")))
        if self.here:
            remove.remove_from_kernel(self.site)
        remove.remove_files(manifest, self.site, manifest.state, purge=purge)
        for account in manifest.accounts:
            self.site.say(f"remove system user {account}")
            if not self.site.dry_run and self.site.ids(account) is not None:
                host.remove_account(self.site.root, account)
        if self.systemd:
            self._run(switch.reload())
        remove.remove_settings(self.site, purge=purge)

    # -- what all need -------------------------------------------------------------------------------------------------

    def _settings(self, given: Mapping[str, object]) -> tuple[str, Configuration]:
        """The text of the settings file as it should be, and what it says.

        A file that is the operator's stays as it is: then what is given has to be in it. Raises InstallError and
        ConfigurationError.
        """
        place = self.site.place(SETTINGS_FILE)
        there = place.read_text(encoding="utf-8") if place.exists() else None
        configuration = load(file=place) if there is not None else Configuration()
        if there is not None and not self._is_ours(there):
            for name, value in given.items():
                if getattr(configuration, name) != value:
                    raise InstallError(
                        f"{SETTINGS_FILE} is yours and is not written again: set {name} there, then try again"
                    )
            return there, configuration
        values = {**(tomllib.loads(there) if there is not None else {}), **given}
        text = settings_text(values)
        return text, _parsed(text)

    def _is_ours(self, there: str) -> bool:
        """Whether the settings file is as we wrote it, be it in a run that did not come to its end."""
        ours = (self.before or Manifest()).files.get(SETTINGS_FILE)
        return digest(there) == ours or there == settings_text(tomllib.loads(there))

    def _running(self) -> bool:
        """Whether systemd has the target up."""
        return self.systemd and host.active(TARGET)

    def _check(self, configuration: Configuration, *, ports: bool) -> None:
        """Whether this machine can run it. Raises InstallError, ConfigurationError, CertificateError."""
        for name in ACCOUNTS:
            host.check_account(self.site.root, name)
        self._check_files(configuration)
        if not self.here:
            if not os.path.lexists(self.site.place(self.python)):
                self.site.say(f"{self.python}, which the units start, is not there yet: install wicketgate there, too")
            return  # that system's kernel and ports are not these
        host.check_environment(Path(self.python))
        host.check_kernel()
        _check_serve(Path(configuration.state_directory))
        self._check_store(Path(configuration.state_directory) / "store" / "store.db")
        if ports and self.systemd and not host.active("wicketgate-gateway.socket"):
            host.check_ports(configuration)

    def _check_files(self, configuration: Configuration) -> None:
        """The operator's files, before anything is restarted.

        Raises InstallError, ConfigurationError, CertificateError.
        """
        host.check_paths(configuration)
        if configuration.root_credential_file:
            root_credential_in(self.site.place(configuration.root_credential_file))
        if configuration.certificate_file:
            files = pki.check_files(
                self.site.place(configuration.certificate_file), self.site.place(configuration.private_key_file)
            )
            api = f"api.{configuration.domain}"
            if not {api, f"*.{configuration.domain}"} & set(files.names):
                self.site.say(f"{configuration.certificate_file} does not name {api}: clients will refuse it there")

    def _make_key(self, configuration: Configuration) -> None:
        """A sealing key of the operator's own place, which the API process cannot write. Raises SealError."""
        if configuration.key_file and not self.site.dry_run:
            store = self.site.place(f"{configuration.state_directory}/store/store.db")
            ensure_key(self.site.place(configuration.key_file), may_create=not store.exists())

    def _check_store(self, path: Path) -> None:
        """A store that a newer version wrote is refused before anything is changed. Raises InstallError."""
        place = self.site.place(str(path))
        if not place.exists():
            return
        try:
            # Whoever opens a WAL database makes files beside it, but for one that says that nobody else writes.
            idle = "" if place.with_name(place.name + "-wal").exists() else "&immutable=1"
            with contextlib.closing(sqlite3.connect(f"file:{place}?mode=ro{idle}", uri=True)) as database:
                (layout,) = database.execute("PRAGMA user_version").fetchone()
                (schemas,) = database.execute("SELECT value FROM meta WHERE name = 'schemas'").fetchone()
        except (sqlite3.Error, TypeError):
            # The API process holds it for itself alone; what it wrote is what is installed.
            layout, schemas = self._noted_schemas()
        known = _schemas()
        newer = [kind for kind, number in msgspec.json.decode(schemas).items() if number > known.get(kind, 0)]
        if layout > LAYOUT or newer:
            what = f"resources ({', '.join(sorted(newer))})" if newer else f"tables (layout {layout})"
            raise InstallError(
                f"the store {path} holds {what} in a form that a newer wicketgate wrote, and this is {__version__}: "
                "install that one again, or put back a backup of the state from before it"
            )

    def _noted_schemas(self) -> tuple[int, str]:
        before = self.before or Manifest()
        return before.layout, msgspec.json.encode(before.schemas).decode()

    def _choice(self, configuration: Configuration, text: str, count: int, letter: str) -> Choice:
        return Choice(
            configuration=configuration,
            settings_text=text,
            settings_theirs=not self._is_ours(text),
            python=self.python,
            instances=count,
            letter=letter,
            root_credential=_new_credential(),
        )

    def _carry_out(self, things: list[Thing], before: Manifest, choice: Choice, *, keep_links: bool = False) -> None:
        if not choice.settings_theirs and self.site.place(SETTINGS_FILE).exists():
            there = self.site.place(SETTINGS_FILE).read_text(encoding="utf-8")
            before = msgspec.structs.replace(before, files={**before.files, SETTINGS_FILE: digest(there)})
        carry_out(things[:1], self.site, before)
        if not self.site.dry_run:
            intended = msgspec.structs.replace(
                begun(things, before, self.site), state=choice.configuration.state_directory
            )
            write_manifest(self.site.root, intended)
        carry_out(things[1:], self.site, before)
        if not keep_links:
            self._drop_old_links(before, choice)
        if self.site.dry_run:
            return
        done = made(things, before, self.site)
        write_manifest(
            self.site.root,
            msgspec.structs.replace(
                done,
                version=__version__,
                python=choice.python,
                letter=choice.letter,
                instances=choice.instances,
                state=choice.configuration.state_directory,
                unfinished=True,
                layout=LAYOUT,
                schemas=_schemas(),
            ),
        )

    def _finish(self) -> None:
        """The run came to its end."""
        if not self.site.dry_run:
            write_manifest(self.site.root, msgspec.structs.replace(self._written(), unfinished=False))

    def _written(self) -> Manifest:
        return read_manifest(self.site.root) or Manifest()

    def _tell_credential(self, configuration: Configuration) -> None:
        if ROOT_CREDENTIAL in self.site.changed:
            self.site.say(f"the root credential is in {ROOT_CREDENTIAL}, for root alone: make users with it")
            if self.site.place(f"{configuration.state_directory}/store/store.db").exists():
                self.site.say("it takes the place of the one that the store had")

    def _run(self, commands: list[switch.Command]) -> None:
        def run(arguments: Sequence[str]) -> str:
            return "" if self.site.dry_run else host.run(arguments)

        switch.follow(commands, run, self.site.say)


def _parsed(text: str) -> Configuration:
    """What a settings file says that is not there yet. Raises ConfigurationError."""
    descriptor = os.memfd_create("settings")
    with os.fdopen(descriptor, "w+", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        return load(file=Path(f"/proc/self/fd/{descriptor}"))


def _schemas() -> dict[str, int]:
    return {kind: len(UPGRADERS.get(kind, ())) + 1 for kind in KINDS}


def _new_credential() -> str:
    """A file with a new root credential, in the forms that IAM gives access keys (IAM API Reference, AccessKey)."""
    key_id = "AKIA" + "".join(secrets.choice(_KEY_ID_ALPHABET) for _ in range(16))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(40))
    return f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n"


def _check_serve(state: Path) -> None:
    """`wicketgate serve` must not run on the state that is taken over. Raises InstallError."""
    lock = state / "run" / "lock"
    if not lock.exists():
        return
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InstallError(f"a wicketgate serve runs on the state directory {state}: end it first") from None
    finally:
        os.close(descriptor)
