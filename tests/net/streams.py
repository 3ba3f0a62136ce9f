"""Streams of numbered UDP packets between machines, in a process of their own, and which of them did not arrive.

    python -m tests.net.streams    reads the streams as JSON, sends until its input ends, then says what was lost

Of each stream a packet is sent every TICK seconds. A stream is one flow with an echo, or a new flow with every
packet: the first shows what becomes of open flows, the second what becomes of those that begin just now.
"""

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.net.families import datagram
from wicketgate.kernel import netns

TICK = 0.004
DRAIN = 0.5
"""Seconds in which the last packets arrive."""
FIRST_PORT, LAST_PORT = 10_000, 32_000
_PACKET = struct.Struct("=IId")
"""Number of the stream, number of the packet, when it was sent (monotonic clock)."""


@dataclass(frozen=True)
class Stream:
    """Where from and where to; `fresh`: a new flow with every packet, and no echo."""

    name: str
    sender: str
    receiver: str
    source: str
    destination: str
    port: int
    fresh: bool = False


class Streams:
    """The process, for the time of a `with` block; afterwards `sent`, `arrived` and `lost` by stream."""

    def __init__(self, streams):
        self._streams = streams
        self.sent, self.arrived, self.lost = {}, {}, {}

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.net.streams"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
        )
        self._process.stdin.write(json.dumps([asdict(one) for one in self._streams]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "running\n"
        return self

    def __exit__(self, kind, error, trace):
        said, _ = self._process.communicate()
        assert self._process.returncode == 0
        for name, (sent, arrived, lost) in json.loads(said).items():
            self.sent[name], self.arrived[name], self.lost[name] = sent, arrived, lost


class _Pump:
    def __init__(self, streams):
        self.streams = streams
        self.heard = {}
        for one in streams:
            self.heard.setdefault((one.receiver, one.destination, one.port), None)
        for receiver, address, port in self.heard:
            self.heard[receiver, address, port] = _patient(datagram(receiver, address, port))
        self.open = {one: _patient(datagram(one.sender, one.source, 0)) for one in streams if not one.fresh}
        self.sent = [{} for _ in streams]
        self.arrived, self.echoed = [set() for _ in streams], [set() for _ in streams]
        self.poll = select.epoll()
        self.by_number = {sock.fileno(): sock for sock in (*self.heard.values(), *self.open.values())}
        for number in self.by_number:
            self.poll.register(number, select.EPOLLIN)

    def send(self, number):
        for index, one in enumerate(self.streams):
            now = time.monotonic()
            data = _PACKET.pack(index, number, now)
            self.sent[index][number] = now
            with contextlib.suppress(OSError):  # no address or no route just now: lost as well
                self._send(one, number, data)

    def _send(self, one, number, data):
        if not one.fresh:
            self.open[one].sendto(data, (one.destination, one.port))
            return
        with self._fresh(one, FIRST_PORT + number % (LAST_PORT - FIRST_PORT)) as sock:
            sock.sendto(data, (one.destination, one.port))

    def _fresh(self, one, port):
        netns.enter(one.sender)
        sock = socket.socket(socket.AF_INET6 if ":" in one.source else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((one.source, port))
        except OSError:
            sock.close()
            raise
        return sock

    def receive(self, seconds):
        deadline = time.monotonic() + seconds
        heard = {sock.fileno() for sock in self.heard.values()}
        while True:
            for number, _ in self.poll.poll(max(0.0, deadline - time.monotonic())):
                sock = self.by_number[number]
                with contextlib.suppress(BlockingIOError):
                    while True:
                        data, sender = sock.recvfrom(64)
                        index, packet, _ = _PACKET.unpack(data)
                        if number not in heard:
                            self.echoed[index].add(packet)
                            continue
                        self.arrived[index].add(packet)
                        if not self.streams[index].fresh:
                            sock.sendto(data, sender)
            if time.monotonic() >= deadline:
                return

    def result(self):
        found = {}
        for index, one in enumerate(self.streams):
            there = self.arrived[index] if one.fresh else self.arrived[index] & self.echoed[index]
            lost = sorted(moment for packet, moment in self.sent[index].items() if packet not in there)
            found[one.name] = len(self.sent[index]), len(self.arrived[index]), lost
        return found


def _patient(sock):
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return sock


def main():
    """Send and receive until there is no more input."""
    pump = _Pump([Stream(**one) for one in json.loads(sys.stdin.readline())])
    print("running", flush=True)
    number, due = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        pump.send(number)
        number += 1
        due = max(due + TICK, time.monotonic())
        pump.receive(max(0.0, due - time.monotonic()))
    pump.receive(DRAIN)
    print(json.dumps(pump.result()), flush=True)


if __name__ == "__main__":
    main()
