"""Making true what `plan` lists: each thing is compared with what is there, and made only where it differs.

Files are written whole beside their place, synced and renamed. Nothing is followed through a symbolic link below a
directory that somebody else than root owns.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from wicketgate.install.manifest import InstallError, Manifest, digest
from wicketgate.install.plan import Account, Directory, Gone, Handed, Link, TextFile, Thing


@dataclass
class Site:
    """Where it is installed, and how accounts are made there."""

    root: Path
    """`/`, or the directory of another system's files."""
    ids: Callable[[str], tuple[int, int] | None]
    """User and group id of an account; None when there is none."""
    groups: Callable[[str], int | None]
    make_account: Callable[[str], None]
    dry_run: bool = False
    say: Callable[[str], None] = print
    changed: list[str] = field(default_factory=list)
    """Paths and accounts that were made or changed, or would be."""

    def place(self, path: str) -> Path:
        """Where a path of the installation is seen from here."""
        return self.root / path.lstrip("/")

    def owner(self, user: str, group: str) -> tuple[int, int] | None:
        """Numbers of a user and a group; None while one of them is still to be made. Raises InstallError."""
        user_ids, group_id = self.ids(user), self.groups(group)
        if user_ids is not None and group_id is not None:
            return user_ids[0], group_id
        if self.dry_run:
            return None
        raise InstallError(f"there is no user {user} or no group {group}, although they should have been made")


def carry_out(things: Iterable[Thing], site: Site, manifest: Manifest) -> None:
    """Make everything true that is not, and say each thing that is made.

    `manifest` is that of the installation before: it tells what the operator has changed since. Raises InstallError.
    """
    for thing in things:
        try:
            said = list(_MAKERS[type(thing)](thing, site, manifest))
        except OSError as error:
            place = getattr(thing, "path", "") or getattr(thing, "name", "")
            raise InstallError(f"{place}: {error.strerror}") from error
        for line in said:
            site.say(line)
            site.changed.append(getattr(thing, "path", "") or getattr(thing, "name", ""))


def made(things: Iterable[Thing], before: Manifest, site: Site) -> Manifest:
    """The manifest of an installation that holds these things; `version` and the like are the caller's to fill in."""
    accounts, directories, links, files = set(before.accounts), set(before.directories), [], {}
    for thing in things:
        match thing:
            case Account(name) if name in site.changed:
                accounts.add(name)  # one that somebody else made stays when we go
            case Directory(path):
                directories.add(path)
            case Link(path):
                links.append(path)
            case TextFile(path):
                # What the operator has changed stays known by what was written, so that it stays the operator's.
                kept = thing.operators and path not in site.changed and path in before.files
                files[path] = before.files[path] if kept else "" if thing.theirs else digest(thing.text)
    return Manifest(
        accounts=sorted(accounts),
        directories=sorted(directories),
        links=sorted(links),
        files=dict(sorted(files.items())),
    )


def begun(things: Iterable[Thing], before: Manifest, site: Site) -> Manifest:
    """The manifest to keep while these things are made: what is there wherever the run should end."""
    accounts, directories, links = set(before.accounts), set(before.directories), set(before.links)
    files = dict(before.files)
    for thing in things:
        match thing:
            case Account(name) if site.ids(name) is None:
                accounts.add(name)
            case Directory(path):
                directories.add(path)
            case Link(path):
                links.add(path)
            case TextFile(path):
                files.setdefault(path, "" if thing.theirs else digest(thing.text))
    return msgspec.structs.replace(
        before,
        accounts=sorted(accounts),
        directories=sorted(directories),
        links=sorted(links),
        files=dict(sorted(files.items())),
        unfinished=True,
    )


def _account(thing: Account, site: Site, _manifest: Manifest) -> Iterator[str]:
    if site.ids(thing.name) is None:
        if not site.dry_run:
            site.make_account(thing.name)
        yield f"make system user {thing.name}"


def _directory(thing: Directory, site: Site, _manifest: Manifest) -> Iterator[str]:
    place = site.place(thing.path)
    if not place.is_dir():
        if not site.dry_run:
            place.mkdir(mode=0o700, parents=True)
        yield f"make directory {thing.path} ({thing.owner}:{thing.group} {thing.mode:04o})"
        if not site.dry_run:
            _own(place, site.owner(thing.owner, thing.group), thing.mode)
        return
    wanted = site.owner(thing.owner, thing.group)
    status = place.stat()
    if (status.st_uid, status.st_gid) != wanted or stat.S_IMODE(status.st_mode) != thing.mode:
        if not site.dry_run:
            _own(place, wanted, thing.mode)
        yield f"set owner and mode of {thing.path}: {thing.owner}:{thing.group} {thing.mode:04o}"


def _own(place: Path, owner: tuple[int, int] | None, mode: int) -> None:
    if owner is not None:
        os.chown(place, *owner, follow_symlinks=False)
    place.chmod(mode)  # after chown(2), which takes the set-group-ID bit away


def _file(thing: TextFile, site: Site, manifest: Manifest) -> Iterator[str]:
    place = site.place(thing.path)
    there = place.read_text(encoding="utf-8", errors="replace") if place.is_file() else None
    if there is None:
        verb = "write"
    elif there == thing.text or thing.once:
        yield from _mode(thing, place, site)
        return
    elif thing.operators and digest(there) != manifest.files.get(thing.path):
        yield from _theirs_alone(thing, place, site)
        return
    else:
        verb = "write again"
    if not site.dry_run:
        _write(place, thing.text, thing.mode)
    yield f"{verb} {thing.path}"


def _mode(thing: TextFile, place: Path, site: Site) -> Iterator[str]:
    status = place.stat()
    if stat.S_IMODE(status.st_mode) != thing.mode or (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        if not site.dry_run:
            _own(place, (os.geteuid(), os.getegid()), thing.mode)
        yield f"set owner and mode of {thing.path}: root:root {thing.mode:04o}"


def _theirs_alone(thing: TextFile, place: Path, site: Site) -> Iterator[str]:
    """Whoever can write the operator's file tells root what to do."""
    status = place.stat()
    if status.st_mode & 0o022 or status.st_uid != os.geteuid():
        mode = stat.S_IMODE(status.st_mode) & ~0o022
        if not site.dry_run:
            _own(place, (os.geteuid(), status.st_gid), mode)
        yield f"set owner and mode of {thing.path}: root {mode:04o}: others could write it"


def _write(place: Path, text: str, mode: int) -> None:
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, new = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(new).replace(place)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


def _link(thing: Link, site: Site, _manifest: Manifest) -> Iterator[str]:
    place = site.place(thing.path)
    if place.is_symlink() and str(place.readlink()) == thing.target:
        return
    if not site.dry_run:
        place.unlink(missing_ok=True)
        place.symlink_to(thing.target)
    yield f"link {thing.path} -> {thing.target}"


def _gone(thing: Gone, site: Site, manifest: Manifest) -> Iterator[str]:
    place = site.place(thing.path)
    if not place.is_symlink() and not (place.is_file() and digest(place.read_text()) == manifest.files.get(thing.path)):
        return
    if not site.dry_run:
        place.unlink()
    yield f"remove {thing.path}"


def _handed(thing: Handed, site: Site, _manifest: Manifest) -> Iterator[str]:
    wanted = site.owner(thing.owner, thing.group)
    place = site.place(thing.path)
    count = 0
    if place.exists():
        count = hand_over(place, wanted, readable=thing.readable, dry_run=site.dry_run)
    if count and wanted is not None:
        yield f"give {count} files in {thing.path} to {thing.owner}"
    elif count:
        yield f"give what is in {thing.path} to {thing.owner}"


def hand_over(place: Path, owner: tuple[int, int] | None, *, readable: bool = False, dry_run: bool = False) -> int:
    """Give all files below a directory (or one file) to somebody; how many were not as wanted.

    `readable`: the group may read files, too. Neither symbolic links nor files with further names are followed or
    changed: whoever owned the directory may have put them there, and may do so meanwhile. Raises OSError.
    """

    def give(name: str, directory: int) -> int:
        return _give(name, directory, owner, 0o040 if readable else 0, dry_run=dry_run)

    if not place.is_dir():
        parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return give(place.name, parent)
        finally:
            os.close(parent)
    count = 0
    for _, directories, files, descriptor in os.fwalk(place, follow_symlinks=False):
        count += sum(give(name, descriptor) for name in (*directories, *files))
    return count


def give_tree(place: Path, owner: tuple[int, int] | None) -> int:
    """`hand_over` of a directory with itself; how many were somebody else's. Raises OSError."""
    parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _give(place.name, parent, owner, 0, dry_run=False) + hand_over(place, owner)
    finally:
        os.close(parent)


def _give(name: str, directory: int, owner: tuple[int, int] | None, bits: int, *, dry_run: bool) -> int:
    try:
        # What is looked at is what is changed, whatever takes its name in between.
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return 0  # a log that was rotated away
    try:
        status = os.fstat(descriptor)
        is_file = stat.S_ISREG(status.st_mode)
        plain = stat.S_ISDIR(status.st_mode) or (is_file and status.st_nlink == 1)
        mode = stat.S_IMODE(status.st_mode) | (bits if is_file else 0)
        if not plain or ((status.st_uid, status.st_gid) == owner and mode == stat.S_IMODE(status.st_mode)):
            return 0
        if owner is not None and not dry_run:
            os.chown(f"/proc/self/fd/{descriptor}", *owner)
            if is_file:
                Path(f"/proc/self/fd/{descriptor}").chmod(mode & 0o777)
        return 1
    finally:
        os.close(descriptor)


_Maker = Callable[..., Iterator[str]]
_MAKERS: Final[Mapping[type, _Maker]] = {
    Account: _account,
    Directory: _directory,
    TextFile: _file,
    Link: _link,
    Handed: _handed,
    Gone: _gone,
}
