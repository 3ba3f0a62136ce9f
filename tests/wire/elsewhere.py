"""Run `wicketgate` as if on Windows: `python -m tests.wire.elsewhere VERB ...`.

The standard library is loaded first, because it is of this system. Then what Windows does not have goes: modules that
cannot be imported, `poll`, signals, functions of `os` and `socket`; and `select` refuses what is no socket, as Winsock
does. It is no Windows: paths, consoles and the C library's behaviour stay Linux's.
"""

from __future__ import annotations

import asyncio  # loaded so that none of the standard library sees a changed platform
import configparser
import getpass
import http.client
import importlib.abc
import json
import logging
import os
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import xml.etree.ElementTree
from collections.abc import Sequence
from types import ModuleType

import click.testing
import websockets.speedups

LOADED = (asyncio, configparser, getpass, http.client, json, logging, shutil, ssl, subprocess, tempfile, threading)
LOADED += (urllib.parse, urllib.request, xml.etree.ElementTree, click.testing, websockets.speedups)
MODULES = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog", "readline", "curses", "spwd", "crypt")
GONE: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *(
            "fork",
            "geteuid",
            "getuid",
            "getgid",
            "getegid",
            "setuid",
            "chown",
            "set_blocking",
            "get_blocking",
            "killpg",
        ),
        *("memfd_create", "setns", "unshare", "posix_spawn", "sendfile", "mkfifo", "uname", "getpgid", "setsid"),
    ),
    select: ("poll", "epoll", "POLLIN", "POLLOUT", "POLLERR", "POLLHUP", "POLLNVAL"),
    signal: ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGALRM", "pthread_sigmask", "alarm"),
    socket: ("AF_UNIX", "AF_NETLINK", "AF_PACKET", "SCM_RIGHTS", "send_fds", "recv_fds", "CMSG_LEN"),
}


class Absent(importlib.abc.MetaPathFinder):
    """Modules that Windows has not."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Refuse them."""
        if fullname.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    """What `socket.socketpair` is on Windows: two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        return one, listening.accept()[0]


def move() -> None:
    """Leave Linux."""
    for module, names in GONE.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]
    sys.meta_path.insert(0, Absent())
    whole = select.select

    def sockets_only(reads: Sequence[int], writes: Sequence[int], others: Sequence[int], timeout: float) -> object:
        for fd in (*reads, *writes, *others):
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise OSError(10038, "An operation was attempted on something that is not a socket")  # WSAENOTSOCK
        if not (reads or writes or others):
            raise OSError(10022, "An invalid argument was supplied")  # WSAEINVAL
        return whole(reads, writes, others, timeout)

    select.select = sockets_only  # type: ignore[assignment]
    ssl.enum_certificates = lambda _store: []  # type: ignore[attr-defined]  # Windows' certificate stores, empty
    socket.socketpair = loopback_pair  # type: ignore[assignment]
    sys.platform = "win32"


if __name__ == "__main__":
    move()
    from wicketgate.cli import main

    main()
