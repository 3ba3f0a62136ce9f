"""Taking an installation away: what the manifest lists, and what netd made in the kernel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from wicketgate.install.carry import Site, give_tree, hand_over
from wicketgate.install.manifest import MANIFEST, Manifest, digest
from wicketgate.install.plan import ETC, LINKS_FILE, ROOT_CREDENTIAL, SETTINGS_FILE, STATE_PARTS
from wicketgate.kernel import lan, netns
from wicketgate.kernel.fabric import OURS, Fabric
from wicketgate.model import World

KEPT: Final = (SETTINGS_FILE, LINKS_FILE, ROOT_CREDENTIAL)
"""The operator's files, which only `purge` removes."""


def remove_files(manifest: Manifest, site: Site, state: str, *, purge: bool) -> None:
    """Remove links, files and directories that were made; say what is kept. Raises OSError."""
    for path in manifest.links:
        if not _below(path, state) and site.place(path).is_symlink():
            _unlink(path, site)
    for path, written in manifest.files.items():
        place = site.place(path)
        if path in KEPT or not place.is_file():
            continue
        if digest(place.read_text(encoding="utf-8", errors="replace")) == written:
            _unlink(path, site)
        else:
            site.say(f"keep {path}: somebody has changed it since it was installed")
    for path in sorted(manifest.directories, reverse=True):
        if not _below(path, state) and not _below(path, ETC):
            _remove_if_empty(path, site)
    _remove_state(site, state, purge=purge)


def remove_settings(site: Site, *, purge: bool) -> None:
    """The last step, for the manifest goes with it: what is interrupted before can be done again. Raises OSError."""
    place = site.place(ETC)
    if purge:
        site.say(f"remove {ETC} with all that is in it")
        if not site.dry_run and place.exists():
            manifest = site.place(MANIFEST)
            for one in set(place.iterdir()) - {manifest}:
                if one.is_dir() and not one.is_symlink():
                    shutil.rmtree(one)
                else:
                    one.unlink()
            manifest.unlink(missing_ok=True)
            place.rmdir()
        return
    site.say(f"keep {ETC} (--purge removes it)")
    if not site.dry_run:
        hand_over(place, site.owner("root", "root"))  # a sealing key was the API process's
        site.place(MANIFEST).unlink(missing_ok=True)


def _remove_state(site: Site, state: str, *, purge: bool) -> None:
    """What is ours in the state directory, and the directory if nothing else is there."""
    place = site.place(state)
    if not place.exists():
        return
    parts = [place / name for name in STATE_PARTS]
    if not purge:
        # Its owners are removed, and the next users with their numbers must not get it.
        site.say(f"keep {state}, which belongs to root now (--purge removes it)")
        if not site.dry_run:
            for part in parts:
                if part.is_dir() and not part.is_symlink():
                    give_tree(part, site.owner("root", "root"))
        return
    site.say(f"remove {state} with all that is in it")
    if site.dry_run:
        return
    for part in parts:
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)
    if any(place.iterdir()):
        site.say(f"keep {state}: there is more in it than was made here")
    else:
        place.rmdir()


def remove_from_kernel(site: Site) -> None:
    """Remove our network namespaces, with their links and rules; devices of the host go back first. Raises FabricError.

    netd must not run any more.
    """
    ours = sorted(name for name in netns.names() if OURS.fullmatch(name) or lan.is_lan(name))
    for name in ours:
        back = ", giving its device back to the host" if lan.is_lan(name) else ""
        site.say(f"remove network namespace {name}{back}")
    if site.dry_run or not ours:
        return
    lan.release_all()
    fabric = Fabric()
    try:
        fabric.apply(World())
    finally:
        fabric.close()


def _below(path: str, directory: str) -> bool:
    return Path(path).is_relative_to(directory)


def _unlink(path: str, site: Site) -> None:
    site.say(f"remove {path}")
    if not site.dry_run:
        site.place(path).unlink()


def _remove_if_empty(path: str, site: Site) -> None:
    place = site.place(path)
    if place.is_dir() and not any(place.iterdir()) and not site.dry_run:
        place.rmdir()
