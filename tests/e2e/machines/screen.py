"""A screen that nobody sits at: Xvfb, whose frame buffer is a file, and pictures of it."""

from __future__ import annotations

import itertools
import os
import secrets
import struct
import subprocess
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.machines.site import inside, with_own_tmp

_numbers = itertools.count(9)  # each its own: connections to a server that was killed keep its port busy for a while
WIDTH, HEIGHT = 1024, 768


@dataclass(frozen=True)
class Picture:
    """What was on a screen: rows of (red, green, blue) bytes."""

    width: int
    height: int
    rows: tuple[bytes, ...]

    def colours(self):
        """Colour -> number of its pixels."""
        return Counter(row[at : at + 3] for row in self.rows for at in range(0, 3 * self.width, 3))

    def share(self, colour):
        """The part of the screen, from 0 to 1, that has exactly this colour."""
        return self.colours()[bytes(colour)] / (self.width * self.height)

    def box(self, colour):
        """Left, top, right and bottom pixel of this colour."""
        wanted = bytes(colour)
        found = [
            (at // 3, y)
            for y, row in enumerate(self.rows)
            if wanted in row
            for at in range(0, 3 * self.width, 3)
            if row[at : at + 3] == wanted
        ]
        return min(x for x, _ in found), min(y for _, y in found), max(x for x, _ in found), max(y for _, y in found)

    def save(self, path):
        """Write it as PNG (RFC 2083)."""
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + row for row in self.rows))
        parts = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
        chunks = (struct.pack(">I", len(b)) + t + b + struct.pack(">I", zlib.crc32(t + b)) for t, b in parts)
        Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


class Screen:
    """An X server at a client's place in the network, for whoever has its cookie."""

    def __init__(self, namespace: str, directory: Path):
        self.namespace, self.directory = namespace, directory
        self.display = f":{next(_numbers)}"
        # By TCP: ssh looks for a local display in /tmp alone, and this one has a /tmp of its own.
        self.environment = {"DISPLAY": f"127.0.0.1{self.display}", "XAUTHORITY": str(directory / "Xauthority")}
        self._server = None
        self._taken = 0

    def start(self):
        """Start it; returns when it answers."""
        cookie = [
            "xauth",
            "-q",
            "-f",
            self.environment["XAUTHORITY"],
            "add",
            self.environment["DISPLAY"],
            ".",
            secrets.token_hex(16),
        ]
        subprocess.run(cookie, check=True, capture_output=True)
        server = ["Xvfb", self.display, "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-fbdir", str(self.directory)]
        command = with_own_tmp(*server, "-listen", "tcp", "-nolisten", "unix", "-auth", self.environment["XAUTHORITY"])
        log = self.directory / "Xvfb.log"
        with log.open("wb") as said:
            self._server = subprocess.Popen(inside(self.namespace, *command), stdout=said, stderr=said)
        deadline = time.monotonic() + 20
        while self.run("xdpyinfo", check=False).returncode != 0:
            assert self._server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "Xvfb does not answer"
            time.sleep(0.05)

    def end(self):
        """End it, and with it whatever shows something."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def run(self, *command, check=True):
        """Run an X client beside it."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(inside(self.namespace, *command), env=environment, capture_output=True, check=check)

    def press(self, key, x, y):
        """Press a key with the pointer at a place, as somebody at the screen would."""
        self.run("xdotool", "mousemove", str(x), str(y), "key", key)

    def picture(self):
        """What it shows: its frame buffer is a file in the form of xwd(1), 32 bits a pixel, blue first."""
        data = (self.directory / "Xvfb_screen0").read_bytes()
        fields = struct.unpack_from(">20I", data)  # CARD32s, as X11/XWDFile.h has them
        size, width, height, line, colours = (fields[at] for at in (0, 4, 5, 12, 19))
        start = size + 12 * colours
        rows = []
        for y in range(height):
            row = data[start + y * line : start + y * line + 4 * width]
            pixels = bytearray(3 * width)
            pixels[0::3], pixels[1::3], pixels[2::3] = row[2::4], row[1::4], row[0::4]
            rows.append(bytes(pixels))
        return Picture(width, height, tuple(rows))

    def wait_for(self, colour, share, seconds=20.0):
        """Take pictures until this colour has this share of the screen; the picture, whatever it shows in the end.

        Kept as PNG below WICKETGATE_SCREENSHOTS, if that names a directory, for people to look at.
        """
        deadline = time.monotonic() + seconds
        while (picture := self.picture()).share(colour) < share and time.monotonic() < deadline:
            time.sleep(0.1)
        if directory := os.environ.get("WICKETGATE_SCREENSHOTS"):
            name = os.environ["PYTEST_CURRENT_TEST"].rpartition("::")[2].partition(" ")[0].replace("/", "-")
            self._taken += 1
            picture.save(Path(directory) / f"{name}-{self._taken}.png")
        return picture
