"""The AuthorizedKeysCommand of a machine that asks a server over TLS: whom it believes, and how long it waits.

As in `test_keycommand.py`, run as sshd runs it; the server is one of the standard library, with a certificate of ours.
"""

import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

import pytest

from tests.unit.test_control_instance_connect import KEY, OTHER, SIGNER
from tests.unit.test_keycommand import FILE, INSTANCE, KEYS, MINIMAL, USER, Handler, blob, keycommand, unused_port
from tests.unit.test_ssh_signer import Memory
from wicketgate import pki

NAME = "api.wicketgate.test"
TOKEN = f"mc-{'1' * 17}.{'s' * 43}"


class Kept(Handler):
    """The paths of a machine's metadata on kept connections, for who shows the token."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):  # noqa: N802  # the base class's naming
        """As the API process answers."""
        self.server.asked.append((self.command, self.path, self.headers["Host"], self.headers["Authorization"]))
        self.server.peers.add(self.client_address)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_error(401)
            return
        found = self.server.paths.get(self.path.removeprefix("/machine/latest/meta-data/").strip("/"))
        if callable(found):
            found(self)
        elif found is None:
            self.send_error(404)
        else:
            self.answer(found)

    do_HEAD = do_GET  # noqa: N815  # the base class's naming


@contextmanager
def serving(directory, name=NAME):
    """A server whose certificate has this name."""
    issued = pki.issue(Memory(), (name,))
    for file, data in (("ca", issued.ca), ("cert", issued.certificate), ("key", issued.key), ("root", SIGNER.root)):
        (directory / f"{file}.pem").write_bytes(data)
    (directory / "credential").write_text(f"{TOKEN}\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), Kept) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True, do_handshake_on_connect=False)
        running.daemon_threads = True
        running.directory, running.asked, running.peers = directory, [], set()
        running.handle_error = lambda *_: None
        running.paths = {
            "placement/availability-zone": "us-east-1a",
            "services/domain": "wicketgate.test",
            "managed-ssh-keys/signer-cert": SIGNER.chain.decode(),
            KEYS: blob() + "\n",
        }
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def server(tmp_path):
    """A running server with one good key."""
    with serving(tmp_path) as running:
        yield running


def command(server, *, url=f"https://{NAME}/machine", instance=INSTANCE, **options):
    """Run it as sshd does; (exit code, key lines, log lines)."""
    here = server.directory
    given = {"root": here / "root.pem", "ca": here / "ca.pem", "credential": here / "credential"}
    given |= {"server": url, "instance": instance, "address": f"127.0.0.1:{server.server_port}"}
    words = [f"--{option}={value}" for option, value in (given | options).items() if value is not None]
    done = subprocess.run(
        [sys.executable, "-I", "-S", FILE, *words, USER], capture_output=True, text=True, env={}, timeout=20
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def refused(server, words, **options):
    """It prints no key, exits with 255 and logs one line with these words."""
    code, keys, log = command(server, **options)
    assert (code, keys, len(log)) == (255, [], 1), log
    assert words in log[0]


def test_a_pushed_key_is_printed(server):
    """By five requests on one connection, each with the bearer's token and the server's name."""
    code, keys, log = command(server)
    assert (code, keys, len(log)) == (0, [KEY], 1)
    assert [(verb, path.removeprefix("/machine/latest/meta-data/")) for verb, path, _, _ in server.asked] == [
        ("HEAD", f"{KEYS}/"),
        ("GET", "placement/availability-zone/"),
        ("GET", "services/domain/"),
        ("GET", "managed-ssh-keys/signer-cert/"),
        ("GET", f"{KEYS}/"),
    ]
    assert {(host, shown) for _, _, host, shown in server.asked} == {(NAME, f"Bearer {TOKEN}")}
    assert len(server.peers) == 1


def test_an_ordinary_login_is_one_request_and_no_event(server):
    """Nothing was pushed: nothing is printed and nothing is logged."""
    del server.paths[KEYS]
    assert command(server) == (255, [], [])
    assert [verb for verb, *_ in server.asked] == ["HEAD"]


def test_the_machine_knows_which_instance_it_is(server):
    """Keys that were pushed for another one are refused, whatever the server says the machine is."""
    server.paths["instance-id"] = other = "i-22222222222222222"
    server.paths[KEYS] = "\n".join([blob(instance=other), blob(OTHER)]) + "\n"
    assert command(server)[:2] == (0, [OTHER])
    server.paths[KEYS] = blob(instance=other)
    refused(server, "a pushed key is for another instance")


def test_over_and_forged_keys_are_refused_as_from_link_local_metadata(server):
    """TLS vouches for the server, the signature for the key."""
    server.paths[KEYS] = blob(expires=int(time.time()) - 1)
    refused(server, "a pushed key is over")
    server.paths[KEYS] = blob(sign=lambda _: b"x" * 256)
    refused(server, "signature is wrong")


# -- who is believed, and what is shown to whom ------------------------------------------------------------------------


def test_a_server_without_the_name_is_shown_nothing(tmp_path):
    """The pinned address changes where the machine asks, not whom it believes."""
    with serving(tmp_path, "api.elsewhere.test") as server:
        refused(server, f"the certificate of {NAME} is not trusted: Hostname mismatch")
        assert server.asked == []


def test_a_server_of_another_ca_is_shown_nothing(server, tmp_path):
    """Neither with a CA pinned nor by the system's roots."""
    (tmp_path / "other.pem").write_bytes(pki.issue(Memory(), (NAME,)).ca)
    refused(server, "is not trusted", ca=tmp_path / "other.pem")
    refused(server, "is not trusted", ca=None)
    assert server.asked == []


def test_a_wrong_credential_says_what_helps(server, tmp_path):
    """401 is told apart from everything else."""
    (tmp_path / "credential").write_text("mc-1.wrong")
    refused(server, "does not take this machine's credential: `wicketgate host-setup` makes another")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"credential": "/no/such"}, "credential /no/such cannot be read"),
        ({"credential": "/dev/null"}, "/dev/null holds no credential"),
        ({"credential": None}, "--server takes --credential FILE and --instance"),
        ({"instance": None}, "--server takes --credential FILE and --instance"),
        ({"instance": "i-x"}, "--server takes --credential FILE and --instance"),
        ({"ca": "/no/such"}, "the CA /no/such cannot be read"),
        ({"root": "/no/such"}, "the pinned root /no/such cannot be read"),
        ({"url": "http://api.wicketgate.test/machine"}, "expected https://HOST[:PORT]"),
        ({"url": "https://api.wicketgate.test/x y"}, "expected https://HOST[:PORT]"),
        ({"address": "api.wicketgate.test"}, "expected IP[:PORT]"),
        ({"address": "127.0.0.1:"}, "expected IP[:PORT]"),
    ],
)
def test_what_it_cannot_work_with(server, options, words):
    """Each in one line of the log."""
    refused(server, words, **options)


@pytest.mark.parametrize(
    ("url", "address", "place"),
    [
        ("https://api.test/machine", "", ("api.test", 443)),
        ("https://api.test:8443/machine/", "", ("api.test", 8443)),
        ("https://api.test:8443", "192.0.2.1", ("192.0.2.1", 8443)),
        ("https://api.test", "192.0.2.1:444", ("192.0.2.1", 444)),
        ("https://api.test", "[2001:db8::1]:444", ("2001:db8::1", 444)),
        ("https://api.test", "2001:db8::1", ("2001:db8::1", 443)),
    ],
)
def test_where_it_asks(url, address, place):
    """A pinned address has its own port, or the URL's."""
    made = keycommand.Server(url, address, "", "")
    assert (made.addresses[0], made.port, made.name) == (*place, "api.test")


# -- how long a login waits --------------------------------------------------------------------------------------------


def _halves(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"us-east-1a")
    handler.close_connection = True


def _huge(handler):
    handler.answer("x" * 300_000)


def _hangs(_handler):
    time.sleep(3)


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        (_halves, "cut off"),
        (_huge, "more than 262144 bytes"),
        (_hangs, "longer than 1 s"),
        (lambda handler: handler.send_error(500), "answers 500"),
        (lambda handler: handler.send_error(429), "answers 429"),
    ],
)
def test_misbehaviour(server, misbehave, words):
    """It ends soon, without a key."""
    server.paths["services/domain"] = misbehave
    started = time.monotonic()
    refused(server, words)
    assert time.monotonic() - started < 3


def test_nobody_listens(server):
    """A refused connection costs no time."""
    started = time.monotonic()
    refused(server, f"no TLS connection to {NAME}", address=f"127.0.0.1:{unused_port()}")
    assert time.monotonic() - started < 1


def test_somebody_listens_who_never_speaks(server):
    """Two seconds, then sshd goes on."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        refused(server, "longer than 2 s", address=f"127.0.0.1:{silent.getsockname()[1]}")
        assert 1.5 < time.monotonic() - started < 3


def test_a_name_that_leads_nowhere(server):
    """The resolver's own words."""
    refused(server, "no TLS connection to nowhere.invalid", url="https://nowhere.invalid/machine", address=None)


def test_a_resolver_that_hangs(monkeypatch):
    """Its call cannot be interrupted, so it is left behind."""
    monkeypatch.setattr(keycommand.socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    asking = keycommand.Server("https://api.test", "", "", "")
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asking._found(started + 0.2)
    assert time.monotonic() - started < 1


def test_it_needs_little_of_the_standard_library():
    """Debian's python3-minimal has what is imported only for a server, too."""
    text = FILE.read_text()
    inside = {line.split()[1] for line in text.splitlines() if line.startswith("        import ")}
    assert inside == {"ssl", "threading"}
    assert not inside & MINIMAL
