#!/usr/bin/python3 -IS
"""sshd's AuthorizedKeysCommand on an instance: prints the SSH keys that were just pushed for a user.

    # /etc/ssh/sshd_config
    AuthorizedKeysCommand /usr/local/libexec/wicketgate_keycommand.py --root /etc/wicketgate/ssh-root.pem %u %f
    AuthorizedKeysCommandUser nobody

One file, Python 3.9 or later, its standard library and nothing else: it runs on other people's machines. It reads the
keys from instance metadata and believes none of them that is not signed, for this instance and for a time that is not
over, by a signer whose certificate the pinned root has issued. Exit 0 with key lines, 255 without any; why goes to
syslog (authpriv). A user without pushed keys, which is every ordinary login, is no event.

A machine that reaches no link-local address asks a server over TLS, with a credential of its own, for the same
(`wicketgate host-setup` writes that line): --server URL --instance ID --credential FILE, and --ca FILE if need be.

What of X.509 (RFC 5280) is read: a signer issued by the root directly, both by sha256WithRSAEncryption and in force;
basicConstraints and keyUsage. No other critical extension, no intermediate, no revocation: the root signs signers
only, and a new root is pinned to be rid of one. Signatures of keys: RSA-PSS, SHA-256, salt 32 (RFC 8017 section 9.1).
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import pwd
import re
import signal
import socket
import sys
import syslog
import time
from datetime import datetime, timezone

ADDRESSES = ("169.254.169.254:80", "[fd00:ec2::254]:80")
"""Where instance metadata is: for who has IPv4, and for who has not."""
REQUEST_SECONDS = 1.0
CONNECT_SECONDS = 2.0
"""To find a server, connect and agree on TLS. sshd asks for every key that a client offers, and waits."""
OVERALL_SECONDS = 5
TOKEN_TTL = 5
MAX_ANSWER = 256 * 1024
"""Bytes of one answer of metadata, its head included."""
MAX_KEYS = 64
"""Keys that are printed at most."""
NOTHING = 255
"""The exit code for "no key": what sshd's AuthorizedKeysCommand of EC2 Instance Connect gives."""

# The names that SendSSHPublicKey takes (its service model, InstanceOSUser).
USER = re.compile(
    r"[A-Za-z_][A-Za-z0-9@._-]{0,30}[A-Za-z0-9$_-]?|(?=.{2,32}\Z)[0-9]{1,32}[A-Za-z@._-][A-Za-z0-9@._-]*[A-Za-z0-9$_-]?"
)
INSTANCE = re.compile(r"i-[0-9a-f]{8,32}")
ZONE = re.compile(r"[a-z0-9-]{1,60}[0-9][a-z]{1,3}")
DOMAIN = re.compile(r"(?:[a-z0-9-]{1,63}\.)*[a-z0-9-]{1,63}")
KEY_LINE = re.compile(r"(ssh-[a-z0-9-]{1,30}) ([A-Za-z0-9+/]{1,8192}={0,2})(?: [\x20-\x7e]*)?")
TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
SERVER = re.compile(r"https://([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?(/[A-Za-z0-9/_.-]*)?")
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


class Refused(Exception):
    """There is no key to trust, and why."""


class Unreachable(Refused):
    """Nothing answers at an address of metadata."""


class NoKeys(Exception):
    """Nothing was pushed for the user."""


# -- DER (ITU-T X.690), as far as certificates need it -----------------------------------------------------------------

INTEGER, BIT_STRING, OCTET_STRING, OID, BOOLEAN = 0x02, 0x03, 0x04, 0x06, 0x01
SEQUENCE, SET, UTC_TIME, GENERALIZED_TIME = 0x30, 0x31, 0x17, 0x18

SHA256_WITH_RSA = "1.2.840.113549.1.1.11"
RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
COMMON_NAME = "2.5.4.3"
BASIC_CONSTRAINTS, KEY_USAGE = "2.5.29.19", "2.5.29.15"


class Der:
    """A run of DER values, read from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def more(self) -> bool:
        """Whether there is another value."""
        return self.at < len(self.data)

    def peek(self) -> int:
        """The next value's tag; 0 at the end."""
        return self.data[self.at] if self.more() else 0

    def value(self, tag: int) -> bytes:
        """The content of the next value, which must have this tag."""
        return self.whole(tag)[1]

    def whole(self, tag: int) -> tuple[bytes, bytes]:
        """The next value with its head, and its content."""
        start, data = self.at, self.data
        if len(data) < start + 2 or data[start] != tag:
            raise Refused(f"a certificate has {self.peek():#04x} where {tag:#04x} belongs")
        length, head = data[start + 1], 2
        if length >= 0x80:
            count = length & 0x7F
            octets = data[start + 2 : start + 2 + count]
            if not 1 <= count <= 3 or len(octets) != count:
                raise Refused("a certificate has a length that cannot be")
            length, head = int.from_bytes(octets, "big"), 2 + count
            if length < 0x80 or octets[0] == 0:
                raise Refused("a certificate has a length that is not DER")
        end = start + head + length
        if end > len(data):
            raise Refused("a certificate is cut off")
        self.at = end
        return data[start:end], data[start + head : end]

    def end(self) -> None:
        """Nothing may follow."""
        if self.more():
            raise Refused("a certificate has more in it than belongs there")


def oid(content: bytes) -> str:
    """An object identifier as text."""
    if not content or content[-1] & 0x80:
        raise Refused("a certificate has a broken object identifier")
    numbers, number = [], 0
    for octet in content:
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def natural(content: bytes) -> int:
    """A positive INTEGER."""
    if not content or content[0] & 0x80 or (len(content) > 1 and content[0] == 0 and not content[1] & 0x80):
        raise Refused("a certificate has a number that is not positive DER")
    return int.from_bytes(content, "big")


def bits(content: bytes) -> bytes:
    """A BIT STRING of whole octets."""
    if not content or content[0] != 0:
        raise Refused("a certificate has a bit string of odd length")
    return content[1:]


def moment(der: Der) -> float:
    """A validity time (RFC 5280 section 4.1.2.5) in seconds since the epoch."""
    tag = der.peek()
    text = der.value(tag if tag == UTC_TIME else GENERALIZED_TIME).decode("ascii", "replace")
    if tag == UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    if not re.fullmatch(r"[0-9]{14}Z", text):
        raise Refused("a certificate has a time that is not DER")
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        raise Refused("a certificate has a time that cannot be") from None


# -- certificates ------------------------------------------------------------------------------------------------------


class Certificate:
    """What of a certificate we go by."""

    def __init__(self, data: bytes) -> None:
        outer = Der(data)
        body = Der(outer.value(SEQUENCE))
        outer.end()
        self.signed, content = body.whole(SEQUENCE)
        algorithm = body.value(SEQUENCE)
        self.signature = bits(body.value(BIT_STRING))
        body.end()
        fields = Der(content)
        version = Der(fields.value(0xA0))
        if version.value(INTEGER) != b"\x02":
            raise Refused("a certificate is not of version 3")
        natural(fields.value(INTEGER))
        if fields.value(SEQUENCE) != algorithm or oid(Der(algorithm).value(OID)) != SHA256_WITH_RSA:
            raise Refused("a certificate is not signed by sha256WithRSAEncryption")
        self.issuer = fields.whole(SEQUENCE)[0]
        validity = Der(fields.value(SEQUENCE))
        self.begins, self.ends = moment(validity), moment(validity)
        validity.end()
        self.subject, names = fields.whole(SEQUENCE)
        self.common_names = common_names(Der(names))
        self.key = RsaKey(Der(fields.value(SEQUENCE)))
        self.is_ca = False
        self.usage: int | None = None
        self._extensions(Der(Der(fields.value(0xA3)).value(SEQUENCE)))
        fields.end()

    def _extensions(self, extensions: Der) -> None:
        seen: set[str] = set()
        while extensions.more():
            extension = Der(extensions.value(SEQUENCE))
            name = oid(extension.value(OID))
            critical = extension.peek() == BOOLEAN and extension.value(BOOLEAN) == b"\xff"
            content = Der(extension.value(OCTET_STRING))
            extension.end()
            if name in seen:
                raise Refused(f"a certificate has the extension {name} twice")
            seen.add(name)
            if name == BASIC_CONSTRAINTS:
                constraints = Der(content.value(SEQUENCE))
                self.is_ca = constraints.peek() == BOOLEAN and constraints.value(BOOLEAN) == b"\xff"
            elif name == KEY_USAGE:
                usage = content.value(BIT_STRING)
                self.usage = usage[1] if len(usage) > 1 else 0
            elif critical:
                raise Refused(f"a certificate has the critical extension {name}, which is not known here")

    def in_force(self, now: float) -> bool:
        """Whether its time has come and is not over."""
        return self.begins <= now < self.ends


def common_names(names: Der) -> list[str]:
    """The common names in a Name (RFC 5280 section 4.1.2.4)."""
    found = []
    while names.more():
        parts = Der(names.value(SET))
        while parts.more():
            part = Der(parts.value(SEQUENCE))
            if oid(part.value(OID)) == COMMON_NAME:
                found.append(part.value(part.peek()).decode("utf-8", "replace"))
    return found


class RsaKey:
    """A public key (RFC 8017), its sizes bounded, because who gives it may mean harm."""

    def __init__(self, info: Der) -> None:
        algorithm = Der(info.value(SEQUENCE))
        if oid(algorithm.value(OID)) != RSA_ENCRYPTION:
            raise Refused("a certificate's key is not RSA")
        numbers = Der(Der(bits(info.value(BIT_STRING))).value(SEQUENCE))
        self.modulus, self.exponent = natural(numbers.value(INTEGER)), natural(numbers.value(INTEGER))
        numbers.end()
        self.bits = self.modulus.bit_length()
        if not 2048 <= self.bits <= 4096 or not self.modulus & 1:
            raise Refused(f"a certificate's key has {self.bits} bits; 2048 to 4096 are taken")
        if self.exponent != 65537:
            raise Refused("a certificate's key has an exponent other than 65537")

    def _encoded(self, signature: bytes, length: int) -> bytes:
        """The message representative of a signature (RFC 8017 section 5.2.2), or nothing for one out of range."""
        number = int.from_bytes(signature, "big")
        if len(signature) != (self.bits + 7) // 8 or number >= self.modulus:
            return b""
        opened = pow(number, self.exponent, self.modulus)
        return opened.to_bytes(length, "big") if opened >> 8 * length == 0 else b""

    def pkcs1(self, message: bytes, signature: bytes) -> bool:
        """RSASSA-PKCS1-v1_5 with SHA-256 (section 8.2.2): the one right encoding is made and compared."""
        length = (self.bits + 7) // 8
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(message).digest()
        return self._encoded(signature, length) == b"\0\1" + b"\xff" * (length - len(digest) - 3) + b"\0" + digest

    def pss(self, message: bytes, signature: bytes) -> bool:
        """RSASSA-PSS with SHA-256, MGF1 with SHA-256, salt of 32 octets (sections 8.1.2 and 9.1.2)."""
        size = self.bits - 1
        length = (size + 7) // 8
        encoded = self._encoded(signature, length)
        if len(encoded) < 66 or encoded[-1] != 0xBC:
            return False
        masked, digest = encoded[:-33], encoded[-33:-1]
        spare = 8 * length - size
        if masked[0] >> (8 - spare):
            return False
        mask = b"".join(
            hashlib.sha256(digest + count.to_bytes(4, "big")).digest() for count in range(len(masked) // 32 + 1)
        )
        block = bytearray(left ^ right for left, right in zip(masked, mask))
        block[0] &= 0xFF >> spare
        salt = bytes(block[-32:])
        if bytes(block[:-32]) != b"\0" * (len(block) - 33) + b"\1":
            return False
        return hashlib.sha256(b"\0" * 8 + hashlib.sha256(message).digest() + salt).digest() == digest


def pem(text: str) -> list[Certificate]:
    """The certificates of a PEM text (RFC 7468)."""
    found = re.findall(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,16384})-----END CERTIFICATE-----", text)
    try:
        return [Certificate(base64.b64decode("".join(one.split()), validate=True)) for one in found[:4]]
    except binascii.Error:
        raise Refused("a certificate is not base64 text") from None


def trusted_signer(chain: list[Certificate], root: Certificate, name: str, now: float) -> RsaKey:
    """The key of the chain's first certificate, if the pinned root vouches for it under this name."""
    if not chain:
        raise Refused("metadata shows no signer certificate")
    signer = chain[0]
    if not root.is_ca or not root.in_force(now):
        raise Refused("the pinned root is no CA's certificate, or not in force")
    if signer.issuer != root.subject or not root.key.pkcs1(signer.signed, signer.signature):
        raise Refused("the signer's certificate is not issued by the pinned root")
    if signer.is_ca or (signer.usage is not None and not signer.usage & 0x80):
        raise Refused("the signer's certificate is not one for signatures")
    if signer.common_names != [name]:
        raise Refused(f"the signer's certificate is for {plain(', '.join(signer.common_names))}, not {name}")
    if not signer.in_force(now):
        raise Refused("the signer's certificate is not in force")
    return signer.key


# -- pushed keys -------------------------------------------------------------------------------------------------------


class Pushed:
    """One pushed key: comment lines, key line and signature as metadata shows them."""

    def __init__(self, lines: list[str]) -> None:
        self.fields: dict[str, str] = {}
        signed: list[str] = []
        rest = list(lines)
        while rest and rest[0].startswith("#"):
            line = rest.pop(0)
            name, equals, value = line[1:].partition("=")
            if not equals or name in self.fields:
                raise Refused("a pushed key has a comment line that is none, or one twice")
            self.fields[name] = value
            signed.append(line)
        match = KEY_LINE.fullmatch(rest[0]) if rest else None
        if match is None:
            raise Refused("a pushed key is no key line")
        self.line = rest.pop(0)
        self.signed = "".join(f"{line}\n" for line in [*signed, self.line]).encode()
        try:
            self.signature = base64.b64decode("".join(rest), validate=True)
            blob = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raise Refused("a pushed key is not base64 text") from None
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        self.fingerprint = f"SHA256:{digest}"

    def check(self, instance: str, now: float, key: RsaKey) -> None:
        """Raise Refused unless it is for this instance, in time, and signed."""
        if self.fields.get("Instance") != instance:
            raise Refused("a pushed key is for another instance")
        timestamp = self.fields.get("Timestamp", "")
        if not re.fullmatch(r"[0-9]{1,12}", timestamp) or int(timestamp) <= now:
            raise Refused("a pushed key is over")
        if not key.pss(self.signed, self.signature):
            raise Refused("a pushed key's signature is wrong")


def blobs(text: str) -> list[list[str]]:
    """The runs of lines between empty lines."""
    return [run.split("\n") for run in re.split(r"\n{2,}", text.strip("\n")) if run]


# -- instance metadata -------------------------------------------------------------------------------------------------


class Metadata:
    """Instance metadata (IMDSv2). Plain HTTP on purpose: no proxies, no redirects, one deadline for a whole answer."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        self.host, self.port = "", 0
        self.token = ""

    def start(self) -> None:
        """Get a session token, from the first address that answers; the others are not asked then."""
        problems = []
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            self.host, self.port = host.strip("[]"), int(port)
            try:
                return self._start()
            except Unreachable as problem:
                problems.append(str(problem))
        raise Refused("; ".join(problems))

    def _start(self) -> None:
        headers = f"X-aws-ec2-metadata-token-ttl-seconds: {TOKEN_TTL}\r\nContent-Length: 0\r\n"
        status, body = self._ask("PUT", "/latest/api/token", headers)
        if status != 200 or not TOKEN.fullmatch(body):
            raise Refused(f"metadata gives no token ({status})")
        self.token = body

    def exists(self, path: str) -> bool:
        """Whether there is something at a path."""
        return self._read("HEAD", path)[0] == 200

    def get(self, path: str, pattern: re.Pattern[str] | None = None) -> str:
        """The text at a path, which has to look as expected."""
        status, body = self._read("GET", path)
        if status != 200:
            raise Refused(f"metadata answers {status} for {path}")
        body = body.strip("\n") if pattern else body
        if pattern and not pattern.fullmatch(body):
            raise Refused(f"metadata has {plain(body[:80])!r} as {path}")
        return body

    def _read(self, method: str, path: str) -> tuple[int, str]:
        return self._ask(method, f"/latest/meta-data/{path}", f"X-aws-ec2-metadata-token: {self.token}\r\n")

    def _ask(self, method: str, path: str, headers: str) -> tuple[int, str]:
        deadline = time.monotonic() + REQUEST_SECONDS
        host = f"[{self.host}]" if ":" in self.host else self.host
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
        try:
            with socket.create_connection((self.host, self.port), REQUEST_SECONDS) as connection:
                connection.sendall(request.encode("ascii"))
                return _answer(_received(connection, deadline), method)
        except socket.timeout:
            raise Refused(f"metadata takes longer than {REQUEST_SECONDS:g} s") from None
        except OSError as error:
            raise Unreachable(f"metadata at {self.host} does not answer: {error}") from None


class Server(Metadata):
    """The same over TLS, for machines that reach no link-local address: one connection, a bearer token (RFC 6750)."""

    def __init__(self, url: str, address: str, ca: str, credential: str) -> None:
        """`address`: `IP[:PORT]` in the place of what the name leads to; `ca`: file, empty = the system's roots."""
        match = SERVER.fullmatch(url)
        if match is None:
            raise Refused(f"--server {plain(url)}: expected https://HOST[:PORT][/PATH]")
        self.name, self.prefix = match[1], (match[3] or "").rstrip("/")
        place = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[0-9.]+|[0-9A-Fa-f:.]+(?<!:))(?::([0-9]{1,5}))?", address)
        if address and place is None:
            raise Refused(f"--address {plain(address)}: expected IP[:PORT], an IPv6 address in brackets")
        super().__init__((place[1].strip("[]") if place else self.name,))
        self.port = int((place[2] if place else None) or match[2] or 443)
        self.ca, self.credential = ca, credential

    def start(self) -> None:
        """Connect, and make sure of the name."""
        import ssl  # takes longer than all the rest, and link-local metadata needs none of it

        self.token = self._own_token()
        deadline = time.monotonic() + CONNECT_SECONDS
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise Refused(f"the CA {self.ca} cannot be read: {error}") from None
        try:
            self.connection = context.wrap_socket(self._connected(deadline), server_hostname=self.name)
        except ssl.SSLCertVerificationError as error:
            raise Refused(f"the certificate of {self.name} is not trusted: {error.verify_message}") from None
        except socket.timeout:
            raise Refused(f"{self.name} takes longer than {CONNECT_SECONDS:g} s to answer") from None
        except OSError as error:
            raise Unreachable(f"no TLS connection to {self.name}: {error}") from None

    def _own_token(self) -> str:
        try:
            with open(self.credential, encoding="ascii") as file:  # noqa: PTH123  # as in `pinned`
                token = file.read(1024).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"this machine's credential {self.credential} cannot be read: {error}") from None
        if not TOKEN.fullmatch(token):
            raise Refused(f"{self.credential} holds no credential")
        return token

    def _connected(self, deadline: float) -> socket.socket:
        problem: OSError = socket.timeout()
        for family, kind, protocol, _, place in self._found(deadline):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            connection = socket.socket(family, kind, protocol)
            connection.settimeout(min(left, REQUEST_SECONDS))
            try:
                connection.connect(place)
            except OSError as error:
                problem = error
                connection.close()
                continue
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            return connection
        raise problem

    def _found(self, deadline: float) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        """The addresses of the server. A resolver that hangs is left hanging: no signal would end its call."""
        import threading  # as above

        found: list[list[tuple[int, int, int, str, tuple[object, ...]]]] = []
        problems: list[OSError] = []

        def ask() -> None:
            try:
                found.append(socket.getaddrinfo(self.addresses[0], self.port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
            except OSError as error:
                problems.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(max(deadline - time.monotonic(), 0))
        if problems:
            raise problems[0]
        if not found:
            raise socket.timeout
        return found[0]

    def _read(self, method: str, path: str) -> tuple[int, str]:
        deadline = time.monotonic() + REQUEST_SECONDS
        request = f"{method} {self.prefix}/latest/meta-data/{path} HTTP/1.1\r\nHost: {self.name}\r\n"
        request += f"Authorization: Bearer {self.token}\r\n\r\n"
        try:
            self.connection.settimeout(REQUEST_SECONDS)
            self.connection.sendall(request.encode("ascii"))
            status, body = _answer(_one_answer(self.connection, deadline, method), method)
        except socket.timeout:
            raise Refused(f"{self.name} takes longer than {REQUEST_SECONDS:g} s") from None
        except OSError as error:
            raise Unreachable(f"{self.name} does not answer: {error}") from None
        if status == 401:
            raise Refused(f"{self.name} does not take this machine's credential: `wicketgate host-setup` makes another")
        if status not in (200, 404):
            raise Refused(f"{self.name} answers {status}")
        return status, body


def _one_answer(connection: socket.socket, deadline: float, method: str) -> bytes:
    """One answer of several on a connection: its head, and as much more as that says."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _some(connection, deadline, data)
    length = re.search(rb"\r\ncontent-length:[ \t]*([0-9]{1,7})[ \t]*\r\n", data[: end + 2].lower())
    whole = end + 4 + (int(length[1]) if length and method != "HEAD" else 0)
    while len(data) < whole:
        data += _some(connection, deadline, data)
    return bytes(data)


def _some(connection: socket.socket, deadline: float, before: bytearray) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout
    connection.settimeout(left)
    chunk = connection.recv(65536)
    if not chunk:
        raise Refused("the server's answer is cut off")
    if len(before) + len(chunk) > MAX_ANSWER:
        raise Refused(f"the server answers with more than {MAX_ANSWER} bytes")
    return chunk


def _received(connection: socket.socket, deadline: float) -> bytes:
    data = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout
        connection.settimeout(left)
        chunk = connection.recv(65536)
        if not chunk:
            return bytes(data)
        data += chunk
        if len(data) > MAX_ANSWER:
            raise Refused(f"metadata answers with more than {MAX_ANSWER} bytes")


def _answer(data: bytes, method: str) -> tuple[int, str]:
    """Status and text of an answer that was read to its end (RFC 9112)."""
    head, end, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.[01] ([0-9]{3})(?: .*)?", line)
    if not end or match is None:
        raise Refused("metadata does not answer by HTTP")
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    if "transfer-encoding" in headers:
        raise Refused("metadata answers in a form that is not read here")
    if method != "HEAD" and headers.get("content-length", str(len(body))) != str(len(body)):
        raise Refused("metadata's answer is cut off")
    try:
        return int(match[1]), body.decode("ascii")
    except UnicodeDecodeError:
        raise Refused("metadata's answer is not plain text") from None


# -- the command -------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text for one line of a log: whatever is not printable ASCII becomes `?`."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:300]


def known(user: str) -> None:
    """Raise NoKeys for a name that no key could be pushed for, or that is no account here."""
    if not USER.fullmatch(user):
        raise NoKeys
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise NoKeys from None


def pinned(path: str) -> Certificate:
    """The root certificate of a file."""
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123  # importing pathlib takes longer than reading
            found = pem(file.read(65536))
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the pinned root {path} cannot be read: {error}") from None
    if len(found) != 1:
        raise Refused(f"{path} has to hold the one root certificate; it has {len(found)}")
    return found[0]


def source(options: argparse.Namespace) -> Metadata:
    """Who is asked for keys."""
    if not options.server:
        return Metadata((options.address,) if options.address else ADDRESSES)
    if not options.credential or not INSTANCE.fullmatch(options.instance):
        raise Refused("--server takes --credential FILE and --instance i-...")
    return Server(options.server, options.address or "", options.ca, options.credential)


def valid_keys(options: argparse.Namespace) -> list[Pushed]:
    """The keys to trust, in the order of the checks that EC2 Instance Connect's own script makes."""
    metadata = source(options)
    metadata.start()
    # Who was told which instance it is takes no keys of another one, whatever the server says.
    instance = options.instance or metadata.get("instance-id/", INSTANCE)
    known(options.user)
    path = f"managed-ssh-keys/active-keys/{options.user}/"
    if not metadata.exists(path):
        raise NoKeys
    root = pinned(options.root)
    region = re.sub(r"[a-z]+\Z", "", metadata.get("placement/availability-zone/", ZONE))
    domain = metadata.get("services/domain/", DOMAIN)
    chain = pem(metadata.get("managed-ssh-keys/signer-cert/"))
    now = time.time()
    key = trusted_signer(chain, root, f"managed-ssh-signer.{region}.{domain}", now)
    valid: list[Pushed] = []
    problems: list[str] = []
    for lines in blobs(metadata.get(path)):
        try:
            pushed = Pushed(lines)
            if options.fingerprint not in ("", pushed.fingerprint) or len(valid) == MAX_KEYS:
                continue
            pushed.check(instance, now, key)
            valid.append(pushed)
        except Refused as problem:
            problems.append(str(problem))
    if problems and not valid:
        raise Refused("; ".join(dict.fromkeys(problems)))
    if not valid:
        raise NoKeys
    return valid


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Print the SSH keys pushed for a user (sshd's AuthorizedKeysCommand).")
    parser.add_argument("--root", default="/etc/wicketgate/ssh-root.pem", help="the pinned root certificate (PEM)")
    parser.add_argument(
        "--address", help=f"where instance metadata is (default: {', '.join(ADDRESSES)}), or the server"
    )
    parser.add_argument("--server", default="", help="ask this server over TLS: https://HOST[:PORT][/PATH]")
    parser.add_argument("--ca", default="", help="the CA of the server's certificate (default: the system's roots)")
    parser.add_argument("--credential", default="", help="what to show the server: a file")
    parser.add_argument("--instance", default="", help="the instance that this machine is, for a server")
    parser.add_argument("user", help="%%u: the account that logs in")
    parser.add_argument("fingerprint", nargs="?", default="", help="%%f: of the key that is offered (SHA256:...)")
    options = parser.parse_args()
    if options.fingerprint and not FINGERPRINT.fullmatch(options.fingerprint):
        raise Refused(f"{plain(options.fingerprint)!r} is no SHA256 fingerprint")
    return options


def too_long(_signal: int, _frame: object) -> None:
    """The alarm."""
    raise Refused(f"metadata takes longer than {OVERALL_SECONDS} s in all")


def main() -> int:
    """Print what is valid; the exit code."""
    # A copy goes to standard error: a terminal, or the log of an sshd that keeps one of its own (`sshd -E`).
    syslog.openlog("wicketgate-keycommand", syslog.LOG_PID | syslog.LOG_PERROR, syslog.LOG_AUTHPRIV)
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(OVERALL_SECONDS)
    try:
        keys = valid_keys(arguments())
    except NoKeys:
        return NOTHING
    except Refused as problem:
        syslog.syslog(syslog.LOG_WARNING, f"no pushed SSH key is used: {plain(str(problem))}")
        return NOTHING
    signal.alarm(0)
    sys.stdout.write("".join(f"{key.line}\n" for key in keys))
    sys.stdout.flush()
    for key in keys:
        who, request = plain(key.fields.get("Caller", "")), plain(key.fields.get("Request", ""))
        syslog.syslog(syslog.LOG_INFO, f"pushed SSH key {key.fingerprint}, request {request}, by {who}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
