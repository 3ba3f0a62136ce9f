"""The files of an audit trail: which belong together, in which order, and how they are opened.

gateway-a0.jsonl                       is written to
gateway-a0.jsonl-20261126              logrotate(8) with dateext renamed it; a later date continues an earlier one
gateway-a0.jsonl.1                     the same without dateext; .1 continues .2
gateway-a0.jsonl-20261125.gz           and compressed; while the plain one is there, too, it may not be whole yet
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

_audit_file = re.compile(r"(?P<name>.+\.jsonl)(?:\.(?P<number>[0-9]+)|-(?P<date>[0-9]{8}[0-9-]*))?(?:\.gz)?").fullmatch

_NEWEST: Final = (2, 0, "")


def is_audit_file(name: str) -> bool:
    """Whether a file of this name holds audit lines."""
    return _audit_file(name) is not None


def is_rotated(name: str) -> bool:
    """Whether it is one that is not written to any more."""
    return _age(name) != _NEWEST


def chains(paths: Iterable[Path]) -> list[list[Path]]:
    """Files that continue each other, oldest first, in the order of their names."""
    found: dict[str, list[Path]] = {}
    for path in _once(paths):
        match = _audit_file(path.name)
        found.setdefault(str(path.with_name(match["name"]) if match else path), []).append(path)
    return [sorted(found[name], key=lambda path: _age(path.name)) for name in sorted(found)]


def chain_of(path: Path) -> list[Path]:
    """The files before `path`, oldest first, and `path`. Raises OSError when its directory cannot be listed."""
    others = path.parent.iterdir()
    rotated = [one for one in _once(others) if (match := _audit_file(one.name)) and match["name"] == path.name]
    return sorted({path, *rotated}, key=lambda one: _age(one.name))


def _once(paths: Iterable[Path]) -> list[Path]:
    """Without the packed ones that stand beside what they are made of."""
    there = set(paths)
    return [path for path in there if path.suffix != ".gz" or path.with_suffix("") not in there]


def _age(name: str) -> tuple[int, int, str]:
    """What sorts the files of a chain, the oldest first."""
    match = _audit_file(name)
    if match is None or not (match["number"] or match["date"]):
        return _NEWEST
    return (0, -int(match["number"]), "") if match["number"] else (1, 0, match["date"])


def open_audit_file(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed if it has to be. Raises OSError.

    The directory may be another process's: neither a link nor a pipe under that name is followed or waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return _unpacked(file, path) if path.suffix == ".gz" else file


def _unpacked(packed: BinaryIO, path: Path) -> BinaryIO:
    """A copy that can be read back and forth, which a compressed stream cannot be at any tolerable speed."""
    with contextlib.ExitStack() as undo, packed, gzip.open(packed) as stream:
        plain = undo.enter_context(tempfile.TemporaryFile())
        try:
            shutil.copyfileobj(stream, plain)
        except (EOFError, zlib.error) as error:
            raise OSError(errno.EIO, "Not a whole gzip file", str(path)) from error
        plain.seek(0)
        undo.pop_all()
    return plain
