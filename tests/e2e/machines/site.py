"""A site with machines that exist without us: namespaces on a bridge, made with ip(8), and servers as Debian has them.

                          bridge br-site (of the host that netd runs on)
                             |         |          |            |
     router .254 (their default gateway) |  m1 .11 .. m10 .20   archive .100 (no machine of ours knows its port 8080)

Nothing here uses the package that is tested, but for the one account that the sandbox's /etc has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wicketgate.lab import sandbox
from wicketgate.lab.machines import ACCOUNT_ID, home

BRIDGE = "br-site"
CIDR = "10.9.0.0/24"
ROUTER = "10.9.0.254"
ARCHIVE = "10.9.0.100"
ENDPOINT_ADDRESSES = ("10.9.0.250",)
ADDRESSES = tuple(f"10.9.0.{number}" for number in range(11, 21))
DESKTOP, TEXT = (0x2A, 0x6F, 0xB0), (0xFF, 0xD0, 0x00)
"""Colours that nothing else on a screen has: of the desktop's background, of the window on it."""
WORKS = 7
"""What the desktop's question exits with when somebody answers it."""

# Answers each request with the address that it came from.
_ARCHIVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("the archive, asked by " + self.client_address[0]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer((sys.argv[1], 8080), Handler).serve_forever()
"""


def ip(*words, namespace=None):
    """One ip(8) command, in a namespace if one is given."""
    subprocess.run(
        ["ip", *(["-n", namespace] if namespace else []), *words], check=True, capture_output=True, text=True
    )


def inside(namespace, *command):
    """A command's words that run it in a network namespace."""
    return ["nsenter", f"--net=/run/netns/{namespace}", *command]


def as_account(*command):
    """A command's words that run it as the machine's unprivileged account, whoever made the sandbox."""
    if sandbox.all_ids():
        return ["setpriv", f"--reuid={ACCOUNT_ID}", f"--regid={ACCOUNT_ID}", "--clear-groups", *command]
    return ["unshare", "-U", f"--map-user={ACCOUNT_ID}", f"--map-group={ACCOUNT_ID}", *command]


def with_own_tmp(*command):
    """A command's words that give it a /tmp of its own: X servers of one number meet there."""
    return ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /tmp && exec "$@"', "sh", *command]


@dataclass
class Host:
    """One machine: a namespace with an address, and what runs there."""

    name: str
    address: str
    directory: Path
    namespace: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name, *command, environment=None):
        """Start a program there; what it says goes to a file of its name."""
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                inside(self.namespace, *command),
                env={"PATH": os.environ["PATH"], "HOME": str(home()), **(environment or {})},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, *command, environment=None, **options):
        """Run a program there to its end; what it printed."""
        done = subprocess.run(
            inside(self.namespace, *command),
            env={"PATH": os.environ["PATH"], "HOME": str(home()), **(environment or {})},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def configuration(self):
        """Its links with addresses, routes of both families, and rules, as text."""
        commands = (
            "ip address",
            "ip route show table all",
            "ip -6 route show table all",
            "ip rule",
            "nft list ruleset",
        )
        return "\n".join(self.run(*command.split()) for command in commands)

    def listens(self, port):
        """Whether something listens on a TCP port."""
        return bool(self.run("ss", "-Hltn", "sport", "=", f":{port}").strip())

    def listen(self, name, port, *command, environment=None):
        """Start a server; returns when it listens on its port."""
        process = self.start(name, *command, environment=environment)
        self.await_listening(name, port, process)
        return process

    def await_listening(self, name, port, process, seconds=20.0):
        """Return when a server listens on its port; one that ended instead is shown with its last words."""
        deadline = time.monotonic() + seconds
        while not self.listens(port):
            said = (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]
            assert process.poll() is None, f"{name} on {self.name} ended: {said}"
            assert time.monotonic() < deadline, f"{name} on {self.name} does not listen: {said}"
            time.sleep(0.05)

    def end(self):
        """End all that was started there, and what it started itself."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()

    # -- servers -------------------------------------------------------------------------------------------------------

    def serve_ssh(self, authorized_keys, *more_addresses):
        """OpenSSH's sshd, for the account that the sandbox's /etc has, at its address and others that it has."""
        (self.directory / "authorized_keys").write_text(authorized_keys)
        key = self.directory / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        listening = "".join(f"ListenAddress {one}\n" for one in (self.address, *more_addresses))
        (self.directory / "sshd_config").write_text(
            f"Port 22\n{listening}HostKey {key}\nPidFile none\n"
            f"AuthorizedKeysFile {self.directory}/authorized_keys\nStrictModes no\nUsePAM no\nUseDNS no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nX11Forwarding yes\n"
            f"AddressFamily {'any' if more_addresses else 'inet'}\n"
            "Subsystem sftp internal-sftp\nPrintMotd no\nLogLevel VERBOSE\n"
        )
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.directory / "sshd_config")]
        if not sandbox.all_ids():  # without further ids sshd can be one account only, which may not have low ports
            self.run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0")
            command = as_account(*command)
        self.listen("sshd", 22, *command)

    def serve_desktop(self):
        """xrdp, in front of an X server with a coloured desktop.

        The session is one that runs already: xrdp-sesman would log its user in through PAM, and that takes a host's
        accounts and passwords. What RDP carries is the same.
        """
        x = ["Xtigervnc", ":1", "-SecurityTypes", "None", "-rfbport", "5901", "-localhost", "-nolisten", "unix", "-ac"]
        self.listen("xvnc", 5901, *with_own_tmp(*x, "-geometry", "800x600", "-depth", "24"))
        self.run("xsetroot", "-solid", _hexadecimal(DESKTOP), environment={"DISPLAY": ":1"})
        key = [self.directory / "rdp-key.pem", self.directory / "rdp-certificate.pem"]
        self.run(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={self.name}"),
            *("-keyout", str(key[0]), "-out", str(key[1])),
        )
        (self.directory / "xrdp.ini").write_text(
            f"[Globals]\nini_version=1\nfork=true\nport=tcp://{self.address}:3389\nsecurity_layer=tls\n"
            f"crypt_level=high\ncertificate={key[1]}\nkey_file={key[0]}\nssl_protocols=TLSv1.2, TLSv1.3\n"
            "autorun=Desktop\nallow_channels=true\nbitmap_cache=true\nmax_bpp=32\n"
            f"[Logging]\nLogFile={self.directory}/xrdp.log\nLogLevel=INFO\nEnableSyslog=false\n"
            "[Channels]\nrdpdr=false\nrdpsnd=false\n"
            "[Desktop]\nname=Desktop\nlib=libvnc.so\nip=127.0.0.1\nport=5901\nusername=na\npassword=\n"
        )
        self.listen("xrdp", 3389, "xrdp", "--nodaemon", "--config", str(self.directory / "xrdp.ini"))

    def ask(self):
        """Show a window on its desktop; the process, which ends with WORKS when somebody answers."""
        return self.start("question", *question(f"This is {self.name}, {self.address}."), environment={"DISPLAY": ":1"})

    def serve_postgresql(self, password):
        """A PostgreSQL server with a cluster of its own, as the machine's account, for the user `postgres`."""
        (programs,) = Path("/usr/lib/postgresql").glob("*/bin")
        data, secret = self.directory / "data", self.directory / "password"
        secret.write_text(password)
        data.mkdir()
        if sandbox.all_ids():
            os.chown(data, ACCOUNT_ID, ACCOUNT_ID)
        initdb = [str(programs / "initdb"), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        self.run(*as_account(*initdb, "-E", "UTF8", "--locale=C", "-D", str(data)))
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {CIDR} scram-sha-256\n")
        options = ["-h", self.address, "-p", "5432", "-k", "", "-c", "fsync=off", "-c", "log_connections=on"]
        self.listen("postgres", 5432, *as_account(str(programs / "postgres"), "-D", str(data), *options))


def question(words, name="question"):
    """xmessage's command line: a window of its own colour whose one button, or Return, has it exit with WORKS."""
    look = ["-bg", _hexadecimal(TEXT), "-fg", "#202020", "-geometry", "500x200+100+100", "-name", name]
    return ["xmessage", *look, "-buttons", f"It works:{WORKS}", "-default", "It works", words]


def _hexadecimal(colour):
    return "#{:02x}{:02x}{:02x}".format(*colour)


class Site:
    """The bridge, the router that is the machines' own, the machines, and a server that only they reach."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.hosts = [self._host(f"m{number}", address) for number, address in enumerate(ADDRESSES, 1)]
        self.archive = self._host("archive", ARCHIVE)
        self.router = self._host("router", ROUTER)

    def _host(self, name, address):
        directory = self.directory / name
        directory.mkdir(mode=0o755, parents=True)
        return Host(name, address, directory, f"site-{name}")

    def build(self):
        """Make bridge, namespaces and links, and have all of them up."""
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        for host in (*self.hosts, self.archive, self.router):
            ip("netns", "add", host.namespace)
            ip("link", "set", "lo", "up", namespace=host.namespace)
            host.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")  # link-local addresses at once, for good
            ip("link", "add", f"s-{host.name}", "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            ip("link", "set", f"s-{host.name}", "master", BRIDGE, "up")
            ip("address", "add", f"{host.address}/24", "dev", "eth0", namespace=host.namespace)
            ip("link", "set", "eth0", "up", namespace=host.namespace)
            if host is not self.router:
                ip("route", "add", "default", "via", ROUTER, namespace=host.namespace)

    def configuration(self):
        """Name -> what is configured on each of them: links, addresses, routes, nftables' rules."""
        return {host.name: host.configuration() for host in (*self.hosts, self.archive, self.router)}

    def serve_archive(self):
        """An HTTP server that tells who asks, on the host that is no machine of ours."""
        self.archive.listen("archive", 8080, sys.executable, "-c", _ARCHIVE, ARCHIVE)

    def end(self):
        """End all programs and take the site down."""
        for host in (*self.hosts, self.archive, self.router):
            host.end()
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", host.namespace)
        with suppress(subprocess.CalledProcessError):
            ip("link", "delete", BRIDGE)
