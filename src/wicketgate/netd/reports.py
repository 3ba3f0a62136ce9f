"""What is said of what netd finds outside: the file for the API process, and lines in the log, both bounded in time."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from wicketgate.model.observed import Machine, Observations
from wicketgate.model.resources import AttachedNetwork

_logger = logging.getLogger("wicketgate.netd")

WRITE_SECONDS: Final = 0.5
"""The file is written no more often than this,"""
TROUBLE_SECONDS: Final = 5.0
"""and this often while it cannot be."""
AT_ONCE: Final = 20
AGAIN_SECONDS: Final = 6.0
"""So many lines are logged at once, and one more each time that has passed: whoever is on a link can cause them."""
MODE: Final = 0o644


class Report:
    """The file that tells what was found (`model.observed`): whole each time, under its name in one step."""

    def __init__(self, file: Path | None) -> None:
        """Begins with what an earlier netd has written. `file`: None for none."""
        self._file = file
        self._told = _earlier(file)
        self.machines: dict[str, Machine] = {} if self._told is None else dict(self._told.machines)
        """Instance -> what was found of it. To be changed by `note` and `forget`."""
        self._subnets: Mapping[str, AttachedNetwork] = {}
        self._revision = 0
        self._changed = True  # an earlier file may be another's
        self._next = 0.0
        self._trouble = ""

    def follow(self, revision: int, subnets: Mapping[str, AttachedNetwork]) -> None:
        """The World that is in force, and what subnets are bound to."""
        self._revision = revision
        self._changed |= self._subnets != subnets
        self._subnets = subnets

    def note(self, instance_id: str, machine: Machine | None) -> None:
        """What was found of an instance; None: it is not looked for."""
        if self.machines.get(instance_id) == machine:
            return
        self._changed = True
        if machine is None:
            del self.machines[instance_id]
        else:
            self.machines[instance_id] = machine

    def keep(self, instance_ids: Collection[str]) -> None:
        """Forget all other instances."""
        for instance_id in self.machines.keys() - set(instance_ids):
            self.note(instance_id, None)

    @property
    def due(self) -> float | None:
        """When there is something to write, of the monotonic clock; None when there is not."""
        return self._next if self._changed and self._file is not None else None

    def write(self, now: float) -> None:
        """Write what has changed, if it is time. Trouble is logged once and stops nothing."""
        if self._file is None or not self._changed or now < self._next:
            return
        found = Observations(revision=self._revision, subnets=dict(self._subnets), machines=self.machines)
        try:
            _replace(self._file, msgspec.json.encode(found))
        except OSError as error:
            self._next = now + TROUBLE_SECONDS
            if self._trouble != str(error):
                self._trouble = str(error)
                _logger.error("what was found outside cannot be written to %s: %s", self._file, error.strerror)
            return
        self._next, self._changed, self._trouble = now + WRITE_SECONDS, False, ""


def _replace(file: Path, data: bytes) -> None:
    """Raises OSError, and then leaves the file as it was."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    with os.fdopen(descriptor, "wb") as new:
        os.fchmod(new.fileno(), MODE)  # whatever the umask
        new.write(data)
    temporary.replace(file)


def _earlier(file: Path | None) -> Observations | None:
    if file is None:
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=Observations)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        _logger.error("what was found outside before is forgotten: %s cannot be read: %s", file, error)
        return None


class Limited:
    """Logs no more lines than a bucket holds; what was left out is said with the next."""

    def __init__(self) -> None:
        self._left, self._filled_at, self._omitted = float(AT_ONCE), 0.0, 0

    def say(self, level: int, words: str, now: float) -> None:
        """Log a line; `now` is of the monotonic clock."""
        self._left = min(self._left + max(now - self._filled_at, 0.0) / AGAIN_SECONDS, AT_ONCE)
        self._filled_at = now
        if self._left < 1:
            self._omitted += 1
            return
        self._left -= 1
        omitted, self._omitted = self._omitted, 0
        _logger.log(level, "%s%s", words, f" ({omitted} lines like this are left out)" if omitted else "")
