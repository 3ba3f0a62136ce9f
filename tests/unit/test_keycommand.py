"""The AuthorizedKeysCommand, run as sshd runs it by a bare Python, against an HTTP server in the place of metadata:
what it prints for good keys, and that every forgery gets nothing."""

import ast
import base64
import importlib.util
import os
import pwd
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.net_world import small_world
from tests.unit.test_control_instance_connect import KEY, OTHER, SEND, SIGNER, call
from tests.unit.test_control_instance_connect import RUNNING as INSTANCE

FILE = Path(__file__).parents[2] / "keycommand" / "wicketgate_keycommand.py"
USER = pwd.getpwuid(os.getuid()).pw_name
FINGERPRINT = "SHA256:" + "A" * 43
KEYS = f"managed-ssh-keys/active-keys/{USER}"
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

specification = importlib.util.spec_from_file_location("wicketgate_keycommand", FILE)
keycommand = importlib.util.module_from_spec(specification)
specification.loader.exec_module(keycommand)


class Handler(BaseHTTPRequestHandler):
    """Metadata's paths from a dict: texts, or functions that answer by themselves."""

    def do_PUT(self):
        """A token."""
        self.server.asked.append((self.command, self.path, self.headers["X-aws-ec2-metadata-token-ttl-seconds"]))
        self.answer(self.server.paths.get("token", "the-token"))

    def do_GET(self):
        """What the path has, for who has a token."""
        self.server.asked.append((self.command, self.path, self.headers["X-aws-ec2-metadata-token"]))
        found = self.server.paths.get(self.path.removeprefix("/latest/meta-data/").strip("/"))
        if callable(found):
            found(self)
        elif found is None:
            self.send_error(404)
        else:
            self.answer(found)

    do_HEAD = do_GET  # noqa: N815  # the base class's naming

    def answer(self, text):
        """200 with a text."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def log_message(self, *_arguments):
        """Say nothing."""


def blob(line=KEY, *, instance=INSTANCE, expires=None, sign=SIGNER.sign, caller="arn:aws:iam::123456789012:root"):
    """A pushed key's signed form, written by hand."""
    expires = int(time.time()) + 60 if expires is None else expires
    signed = f"#Timestamp={expires}\n#Instance={instance}\n#Caller={caller}\n#Request=req-9\n{line}\n"
    return signed + base64.encodebytes(sign(signed.encode())).decode()


@pytest.fixture
def server(tmp_path):
    """A running server with one good key, and the root pinned in a file."""
    (tmp_path / "root.pem").write_bytes(SIGNER.root)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        running.root = tmp_path / "root.pem"
        running.asked = []
        running.paths = {
            "instance-id": INSTANCE,
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


def command(server, *arguments, user=USER):
    """Run it as sshd does; (exit code, key lines, log lines)."""
    options = ["--root", str(server.root), "--address", f"127.0.0.1:{server.server_port}"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", FILE, *options, user, *arguments],
        capture_output=True,
        text=True,
        env={},
        timeout=20,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def refused(server, words, *arguments, user=USER):
    """It prints no key, exits with 255 and logs one line with these words."""
    code, keys, log = command(server, *arguments, user=user)
    assert (code, keys) == (255, [])
    assert len(log) == 1, log
    assert words in log[0]
    assert log[0].startswith("wicketgate-keycommand["), "what syslog got"


def nothing(server, *arguments, user=USER):
    """It prints no key, exits with 255 and has nothing to log."""
    assert command(server, *arguments, user=user) == (255, [], [])


# -- what is let in ----------------------------------------------------------------------------------------------------


def test_a_pushed_key_is_printed(server):
    """The key of SendSSHPublicKey itself, with one log line; the requests are those of the stock script, in order."""
    (pushed,) = SEND.run(call(small_world(), now=time.time())).change.puts
    server.paths[KEYS] = pushed.blob + "\n"
    code, keys, log = command(server)
    assert (code, keys) == (0, [KEY])
    fingerprint = subprocess.run(["ssh-keygen", "-lf", "-"], input=KEY, capture_output=True, text=True, check=True)
    said = f"pushed SSH key {fingerprint.stdout.split()[1]}, request req-1, by arn:aws:iam::123456789012:root"
    assert [line.partition(": ")[2] for line in log] == [said]
    assert server.asked[0] == ("PUT", "/latest/api/token", "5")
    assert [(verb, path.removeprefix("/latest/meta-data/"), token) for verb, path, token in server.asked[1:]] == [
        ("GET", "instance-id/", "the-token"),
        ("HEAD", f"{KEYS}/", "the-token"),
        ("GET", "placement/availability-zone/", "the-token"),
        ("GET", "services/domain/", "the-token"),
        ("GET", "managed-ssh-keys/signer-cert/", "the-token"),
        ("GET", f"{KEYS}/", "the-token"),
    ]


def test_several_keys_and_the_one_offered(server):
    """All that are valid, or the one that the client offers; a bad one beside a good one does no harm."""
    server.paths[KEYS] = "\n".join([blob(), blob(OTHER, expires=1), blob(f"{OTHER} me@laptop"), "junk\n"])
    assert command(server)[:2] == (0, [KEY, f"{OTHER} me@laptop"])
    offered = subprocess.run(["ssh-keygen", "-lf", "-"], input=OTHER, capture_output=True, text=True, check=True)
    assert command(server, offered.stdout.split()[1])[:2] == (0, [f"{OTHER} me@laptop"])
    server.paths[KEYS] = blob()
    nothing(server, FINGERPRINT)


def test_unknown_comment_lines_are_signed_too(server):
    """A later version may add some."""
    signed = f"#Timestamp={int(time.time()) + 9}\n#Instance={INSTANCE}\n#Later=x\n{KEY}\n"
    server.paths[KEYS] = signed + base64.b64encode(SIGNER.sign(signed.encode())).decode()
    assert command(server)[:2] == (0, [KEY])


def test_a_log_line_is_one_line(server):
    """Whatever the signed form says of its caller."""
    server.paths[KEYS] = blob(caller="arn:x\r\x1b[2J\tadmin")
    _, _, log = command(server)
    assert [line.rpartition(" by ")[2] for line in log] == ["arn:x??[2J?admin"]


# -- ordinary logins ---------------------------------------------------------------------------------------------------


def test_no_pushed_key_is_no_event(server):
    """404 for the user: nothing in the log."""
    del server.paths[KEYS]
    nothing(server)


@pytest.mark.parametrize(
    "user", ["no-such-user", "../../../x", f"{USER}/", "a b", "$(id)", "a;id", "a\nb", "", "é", "root%2f", "-x"]
)
def test_users_that_are_none(server, user):
    """Names of no account, and names that no key can be pushed for, are never asked about."""
    code, keys, _ = command(server, user=user)
    assert code != 0
    assert keys == []
    assert [path for _, path, _ in server.asked if "active-keys" in path] == []


# -- forged and damaged keys -------------------------------------------------------------------------------------------


def _tampered(old, new):
    good = blob()
    assert old in good
    return good.replace(old, new)


FORGERIES = {
    "another key under the signature": (lambda: _tampered(KEY, OTHER), "signature is wrong"),
    "another caller": (lambda: _tampered(":root", ":toor"), "signature is wrong"),
    "a comment line taken away": (lambda: _tampered("#Request=req-9\n", ""), "signature is wrong"),
    "a later end": (lambda: re.sub("Timestamp=.*", "Timestamp=99999999999", blob()), "signature is wrong"),
    "another instance": (lambda: blob(instance="i-99999999999999999"), "for another instance"),
    "over": (lambda: blob(expires=int(time.time())), "is over"),
    "no end": (lambda: blob(expires=""), "is over"),
    "a negative end": (lambda: blob(expires=-1), "is over"),
    "no signature": (lambda: blob(sign=lambda _: b""), "signature is wrong"),
    "a short signature": (lambda: blob(sign=lambda data: SIGNER.sign(data)[1:]), "signature is wrong"),
    "a long signature": (lambda: blob(sign=lambda data: b"\0" + SIGNER.sign(data)), "signature is wrong"),
    "zero": (lambda: blob(sign=lambda _: bytes(256)), "signature is wrong"),
    "one": (lambda: blob(sign=lambda _: bytes(255) + b"\1"), "signature is wrong"),
    "above the modulus": (lambda: blob(sign=lambda _: b"\xff" * 256), "signature is wrong"),
    "PKCS #1 v1.5": (
        lambda: blob(sign=lambda data: SIGNER.key.sign(data, padding.PKCS1v15(), hashes.SHA256())),
        "signature is wrong",
    ),
    "another salt": (
        lambda: blob(
            sign=lambda data: SIGNER.key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 20), hashes.SHA256())
        ),
        "signature is wrong",
    ),
    "SHA-512": (
        lambda: blob(
            sign=lambda data: SIGNER.key.sign(data, padding.PSS(padding.MGF1(hashes.SHA512()), 32), hashes.SHA512())
        ),
        "signature is wrong",
    ),
    "another signer's key": (
        lambda: blob(sign=lambda data: OTHER_KEY.sign(data, PSS, hashes.SHA256())),
        "signature is wrong",
    ),
    "options before the key": (lambda: blob(f'command="id" {KEY}'), "no key line"),
    "a second key line": (lambda: _tampered(f"{KEY}\n", f"{KEY}\n{OTHER}\n"), "not base64"),
    "a certificate": (lambda: blob(f"cert-authority {KEY}"), "no key line"),
    "one comment line twice": (lambda: _tampered("#Instance", f"#Instance={INSTANCE}\n#Instance"), "one twice"),
    "a comment line without value": (lambda: _tampered("#Request=req-9", "#"), "that is none"),
    "a carriage return in the key line": (lambda: blob(f"{KEY}\rx"), "no key line"),
    "nothing but comment lines": (lambda: "#Timestamp=1\n", "no key line"),
}
OTHER_KEY = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_key(server, name):
    """Nothing is printed, and the log says why."""
    make, words = FORGERIES[name]
    server.paths[KEYS] = make()
    refused(server, words)


# -- forged signers ----------------------------------------------------------------------------------------------------

NAME = "managed-ssh-signer.us-east-1.wicketgate.test"
ROOT_KEY = rsa.generate_private_key(65537, 2048)
NOW = datetime.now(UTC).replace(microsecond=0)


def issue(
    name=NAME,
    key=OTHER_KEY,
    *,
    issuer="root",
    by=ROOT_KEY,
    begin=NOW - timedelta(hours=1),
    end=NOW + timedelta(hours=1),
    ca=False,
    digest=hashes.SHA256,
    extra=None,
    usage=True,
    names=1,
):
    """A certificate, in PEM."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)] * names
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.RelativeDistinguishedName([one]) for one in attributes]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(usage, *[False] * 4, ca, not usage, False, False), critical=True)
    )
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    return builder.sign(by, digest()).public_bytes(serialization.Encoding.PEM).decode()


ROOT_PEM = issue("root", ROOT_KEY, ca=True, end=NOW + timedelta(days=9))


def signed_by_other(server, chain, root=ROOT_PEM):
    """Have the server show a chain and a key signed by its key; pin a root."""
    server.paths["managed-ssh-keys/signer-cert"] = chain
    server.paths[KEYS] = blob(sign=lambda data: OTHER_KEY.sign(data, PSS, hashes.SHA256()))
    server.root.write_text(root)


@pytest.mark.parametrize("bits", [2048, 2055, 2049, 3072, 4096])
def test_keys_of_any_size_that_is_taken(server, bits):
    """The encoding's length depends on the size of the modulus: one that is no multiple of eight, too."""
    key = rsa.generate_private_key(65537, bits)
    signed_by_other(server, issue(key=key) + ROOT_PEM)
    server.paths[KEYS] = blob(sign=lambda data: key.sign(data, PSS, hashes.SHA256()))
    assert command(server)[:2] == (0, [KEY])


SIGNERS = {
    "no certificate": (lambda: "", "no signer certificate"),
    "garbage between the markers": (
        lambda: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "a certificate has",
    ),
    "a text that is no base64": (lambda: "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----", "not base64"),
    "another root": (lambda: issue(by=OTHER_KEY), "not issued by the pinned root"),
    "signed by itself": (lambda: issue(issuer=NAME, by=OTHER_KEY), "not issued by the pinned root"),
    "another issuer's name": (lambda: issue(issuer="other"), "not issued by the pinned root"),
    "over": (lambda: issue(end=NOW - timedelta(seconds=1)), "not in force"),
    "not begun": (lambda: issue(begin=NOW + timedelta(minutes=30)), "not in force"),
    "another region": (lambda: issue("managed-ssh-signer.eu-west-1.wicketgate.test"), "is for managed-ssh-signer.eu"),
    "another domain": (lambda: issue(NAME + ".evil"), "is for"),
    "two names": (lambda: issue(names=2), "is for"),
    "a CA": (lambda: issue(ca=True), "not one for signatures"),
    "not for signatures": (lambda: issue(usage=False), "not one for signatures"),
    "SHA-512": (lambda: issue(digest=hashes.SHA512), "not signed by sha256WithRSAEncryption"),
    "an elliptic curve": (lambda: issue(key=ec.generate_private_key(ec.SECP256R1())), "key is not RSA"),
    "1024 bits": (lambda: issue(key=rsa.generate_private_key(65537, 1024)), "1024 bits"),
    "exponent 3": (lambda: issue(key=rsa.generate_private_key(3, 2048)), "exponent other than 65537"),
    "an unknown critical extension": (
        lambda: issue(extra=x509.NameConstraints([x509.DNSName("x")], None)),
        "critical extension 2.5.29.30",
    ),
    "the root in the signer's place": (lambda: ROOT_PEM, "not one for signatures"),
    "the good signer second": (lambda: issue(by=OTHER_KEY) + issue(), "not issued by the pinned root"),
}


@pytest.mark.parametrize("name", SIGNERS)
def test_forged_signer(server, name):
    """A key signed by whom the pinned root does not vouch for, as the signer here and now, is not printed."""
    make, words = SIGNERS[name]
    signed_by_other(server, issue())
    assert command(server)[0] == 0, "the same is printed with a good chain"
    server.paths["managed-ssh-keys/signer-cert"] = make()
    refused(server, words)


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("", "has to hold the one root certificate; it has 0"),
        (ROOT_PEM * 2, "it has 2"),
        (issue("root", ROOT_KEY, ca=False), "no CA's certificate"),
        (issue("root", ROOT_KEY, ca=True, end=NOW - timedelta(seconds=1)), "or not in force"),
        (SIGNER.root.decode(), "not issued by the pinned root"),
        ("\xe9", "cannot be read"),
    ],
)
def test_roots_that_are_none(server, root, words):
    """The pinned file is held to the same."""
    signed_by_other(server, issue(), root)
    refused(server, words)


def test_without_a_pinned_root_nothing_is_trusted(server):
    """A missing file."""
    server.root.unlink()
    refused(server, "cannot be read")


GOOD_DER = base64.b64decode("".join(issue().splitlines()[1:-1]))
GOOD_ROOT = keycommand.pem(ROOT_PEM)[0]


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_damaged_certificates(data):
    """No byte of a signer's certificate can be changed, cut or added, and nothing but Refused comes of trying."""
    assert keycommand.trusted_signer([keycommand.Certificate(GOOD_DER)], GOOD_ROOT, NAME, NOW.timestamp())
    damaged = bytearray(GOOD_DER)
    start = data.draw(st.integers(0, len(damaged)))
    end = data.draw(st.integers(start, min(len(damaged), start + 4)))
    damaged[start:end] = data.draw(st.binary(max_size=4))
    if bytes(damaged) == GOOD_DER:
        return
    with pytest.raises(keycommand.Refused):
        keycommand.trusted_signer([keycommand.Certificate(bytes(damaged))], GOOD_ROOT, NAME, NOW.timestamp())


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.binary(max_size=8),
        lambda inner: st.lists(inner, max_size=4).map(
            lambda parts: b"\x30" + bytes([min(127, sum(map(len, parts)))]) + b"".join(parts)
        ),
        max_leaves=20,
    )
)
def test_garbage_certificates(garbage):
    """Bytes that were never a certificate are refused, whatever they are."""
    with pytest.raises(keycommand.Refused):
        keycommand.Certificate(garbage)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="#=\n AZaz09+/", max_size=200))
def test_garbage_keys(text):
    """Text that was never a pushed key is refused, whatever it is."""
    key = keycommand.Certificate(GOOD_DER).key
    for lines in keycommand.blobs(text):
        with pytest.raises(keycommand.Refused):
            keycommand.Pushed(lines).check(INSTANCE, 0, key)


# -- a metadata service that misbehaves --------------------------------------------------------------------------------


def test_nobody_answers(server):
    """No metadata at all."""
    server.server_close()
    refused(server, "does not answer")


class SixServer(ThreadingHTTPServer):
    """The same over IPv6."""

    address_family = socket.AF_INET6


def test_metadata_over_ipv6(server):
    """Where nothing answers over IPv4 the next address is asked, and then it alone; Host is as HTTP has it."""
    with SixServer(("::1", server.server_port), Handler) as six:
        six.daemon_threads, six.asked = True, []
        six.paths = {"instance-id": lambda handler: handler.answer(handler.headers["Host"])}
        thread = threading.Thread(target=six.serve_forever, args=(0.01,))
        thread.start()
        try:
            nobody = f"127.0.0.1:{unused_port()}"
            metadata = keycommand.Metadata((nobody, f"[::1]:{server.server_port}"))
            metadata.start()
            assert metadata.get("instance-id") == "[::1]"
            keycommand.Metadata((f"127.0.0.1:{server.server_port}", f"[::1]:{server.server_port}")).start()
            assert (len(server.asked), len(six.asked)) == (1, 2)
        finally:
            six.shutdown()
            thread.join()
    with pytest.raises(keycommand.Refused, match=r"127\.0\.0\.1 does not answer: .*; metadata at ::1 does not answer"):
        keycommand.Metadata((nobody, f"[::1]:{server.server_port}")).start()


def unused_port():
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("token", "a\r\nX: y", "no token"),
        ("instance-id", "i-1/../..", "as instance-id/"),
        ("instance-id", "", "as instance-id/"),
        ("placement/availability-zone", "us-east-1a.evil", "as placement/availability-zone/"),
        ("services/domain", "wicketgate.test\nx", "as services/domain/"),
        ("services/domain", None, "answers 404 for services/domain/"),
        ("managed-ssh-keys/signer-cert", None, "answers 404 for managed-ssh-keys/signer-cert/"),
        (KEYS, "é", "not plain text"),
    ],
)
def test_answers_that_are_not_as_expected(server, path, text, words):
    """Each is refused by name."""
    server.paths[path] = text
    refused(server, words)


def _huge(handler):
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        pass


def _trickle(handler):
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(40):
            handler.wfile.write(b"x")
            time.sleep(0.1)
    except OSError:
        pass


def _chunked(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def _short(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"i-11111111111111111")


def _redirect(handler):
    handler.send_response(302)
    handler.send_header("Location", "http://127.0.0.1:1/")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        (_huge, "more than 262144 bytes"),
        (_trickle, "longer than 1 s"),
        (_chunked, "in a form that is not read"),
        (_short, "cut off"),
        (_redirect, "answers 302"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n\r\n"), "not answer by HTTP"),
        (lambda _: None, "not answer by HTTP"),
    ],
    ids=["huge", "trickle", "chunked", "cut off", "redirect", "other protocol", "nothing"],
)
def test_misbehaviour(server, misbehave, words):
    """It ends soon, without a key."""
    server.paths["instance-id"] = misbehave
    started = time.monotonic()
    refused(server, words)
    assert time.monotonic() - started < 3


def test_overall_time(server):
    """Seven answers that are each in time, by a little, are not in time together."""

    def late(text):
        def answer(handler):
            time.sleep(0.9)
            handler.answer(text)

        return answer

    server.paths = {path: late(text) for path, text in server.paths.items()}
    started = time.monotonic()
    refused(server, "longer than 5 s in all")
    assert 4.5 < time.monotonic() - started < 6.5


def test_a_fingerprint_that_is_none(server):
    """sshd gives `SHA256:...`; anything else is not understood, and so nothing is let in."""
    refused(server, "no SHA256 fingerprint", "MD5:00")


MINIMAL = {
    "__future__",
    "argparse",
    "base64",
    "binascii",
    "collections",
    "contextlib",
    "datetime",
    "hashlib",
    "pwd",
    "re",
    "signal",
    "socket",
    "struct",
    "sys",
    "syslog",
    "time",
}
"""Modules that Debian's python3-minimal has (`dpkg -L libpython3.11-minimal`, built-in ones): it lacks most others."""


def test_it_needs_the_standard_library_alone():
    """Bare Python 3.9 is enough, even Debian's python3-minimal: no other module is imported, no newer syntax used."""
    imported = re.findall(r"^(?:import|from) (\w+)", FILE.read_text(), re.MULTILINE)
    assert set(imported) <= MINIMAL
    ast.parse(FILE.read_text(), feature_version=(3, 9))
    assert FILE.stat().st_mode & 0o111
