"""A few calls of the APIs (EC2, EC2 Instance Connect, our own) without an SDK: signed POSTs over the standard library's
TLS.

Every wait has a limit. Nothing is sent twice, but for a call on a kept connection that the server had closed meanwhile.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

from wicketgate import __version__
from wicketgate.client.errors import ConfigurationError, Refused, TunnelFailed, printable
from wicketgate.sigv4.header import signed_headers
from wicketgate.sigv4.presign import Credentials

TIMEOUT = 10.0
"""Seconds to connect, and again for each read of the answer."""
MAX_ANSWER = 16 * 1024 * 1024
EC2_VERSION = "2016-11-15"
INSTANCE_CONNECT_TARGET = "AWSEC2InstanceConnectService"
WICKETGATE_TARGET = "Wicketgate"

Element = ElementTree.Element

_LET_GO = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""How it shows that the server had closed a kept connection; http.client has one more of its own."""


class ApiRefused(Refused):
    """The API answered with an error; `code` is AWS's, for example `InvalidInstanceID.NotFound`."""

    def __init__(self, code: str, message: str, action: str, request_id: str) -> None:
        where = f" (request id {request_id})" if request_id else ""
        super().__init__(printable(" ".join(f"{action}: {code}: {message}{where}".split())))
        self.code = code
        self.message = printable(" ".join(message.split()))


class _Answer(NamedTuple):
    status: int
    body: bytes
    request_id: str


class Connection:
    """One service's API, over one connection that is made when first used and kept."""

    def __init__(
        self,
        url: str,
        service: str,
        credentials: Credentials,
        region: str,
        context: ssl.SSLContext,
        *,
        timeout: float = TIMEOUT,
    ) -> None:
        """`url` is `https://host[:port][/]`; raises ConfigurationError for another."""
        parts = urlsplit(url)
        try:
            port = parts.port or 443
        except ValueError:
            port = 0
        if parts.scheme != "https" or not parts.hostname or not port or parts.path not in ("", "/") or parts.query:
            raise ConfigurationError(
                f"The endpoint URL {printable(url)!r} should be https://HOST or https://HOST:PORT."
            )
        self._service = service
        self._credentials = credentials
        self._region = region
        self._name = parts.hostname
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._host = host if port == 443 else f"{host}:{port}"
        self._connection = http.client.HTTPSConnection(parts.hostname, port, timeout=timeout, context=context)
        self._timeout = timeout

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def post(self, content_type: str, body: bytes, headers: Mapping[str, str]) -> _Answer:
        """The answer to one signed request; raises TunnelFailed when there is none."""
        sent = {"host": self._host, "content-type": content_type, **headers}
        signed = signed_headers(
            sent, body, self._credentials, region=self._region, service=self._service, now=time.time()
        )
        signed["user-agent"] = f"wicketgate/{__version__}"
        with self._worded():
            if self._connection.sock is not None:
                try:
                    return self._exchange(body, signed)
                except (*_LET_GO, http.client.RemoteDisconnected):
                    self._connection.close()
            return self._exchange(body, signed)

    @contextmanager
    def _worded(self) -> Iterator[None]:
        """What can go wrong on the way, in one line."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise TunnelFailed(
                f"The certificate of {self._name} is not trusted: {error.verify_message}. Name its CA with "
                "--ca-bundle, AWS_CA_BUNDLE or SSL_CERT_FILE."
            ) from error
        except TimeoutError as error:
            raise TunnelFailed(f"No answer from {self._host} for {self._timeout:.0f} s.") from error
        except http.client.RemoteDisconnected as error:
            raise TunnelFailed(f"{self._host} closed the connection without an HTTP answer.") from error
        except http.client.HTTPException as error:
            raise TunnelFailed(f"The answer of {self._host} is no HTTP answer: {type(error).__name__}.") from error
        except OSError as error:
            raise TunnelFailed(f"Cannot reach {self._host}: {error.strerror or error}.") from error

    def _exchange(self, body: bytes, headers: Mapping[str, str]) -> _Answer:
        self._connection.request("POST", "/", body, dict(headers))
        response = self._connection.getresponse()
        content = response.read(MAX_ANSWER + 1)
        if len(content) > MAX_ANSWER:
            raise TunnelFailed(f"The answer of {self._host} is larger than {MAX_ANSWER} bytes.")
        return _Answer(response.status, content, response.headers.get("x-amzn-requestid", ""))


class Ec2:
    """The EC2 Query API."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def call(self, action: str, parameters: Mapping[str, str]) -> Element:
        """The answer's root element; raises ApiRefused with AWS's code and words, TunnelFailed without an answer."""
        form = urlencode({"Action": action, "Version": EC2_VERSION, **parameters}).encode()
        answer = self._connection.post("application/x-www-form-urlencoded; charset=utf-8", form, {})
        try:
            root = ElementTree.fromstring(answer.body)
        except ElementTree.ParseError as error:
            raise _unreadable(action, answer) from error
        if answer.status != 200:
            code, message = root.findtext(".//{*}Code"), root.findtext(".//{*}Message")
            if not code:
                raise _unreadable(action, answer)
            request_id = root.findtext(".//{*}RequestID") or answer.request_id
            raise ApiRefused(code, message or "", action, request_id)
        return root

    def pages(self, action: str, parameters: Mapping[str, str]) -> Iterator[Element]:
        """The root elements of all pages."""
        token = ""
        while True:
            root = self.call(action, {**parameters, **({"NextToken": token} if token else {})})
            yield root
            token = root.findtext("{*}nextToken") or ""
            if not token:
                return


class _Json:
    """An API that speaks JSON 1.1."""

    _target: ClassVar[str]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def call(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The answer; raises ApiRefused with AWS's code and words, TunnelFailed without an answer."""
        target = {"x-amz-target": f"{self._target}.{action}"}
        answer = self._connection.post("application/x-amz-json-1.1", json.dumps(parameters).encode(), target)
        try:
            said = json.loads(answer.body)
        except ValueError as error:
            raise _unreadable(action, answer) from error
        if not isinstance(said, dict):
            raise _unreadable(action, answer)
        if answer.status != 200:
            code = str(said.get("__type", "")).rpartition("#")[2]
            if not code:
                raise _unreadable(action, answer)
            raise ApiRefused(code, str(said.get("message") or said.get("Message") or ""), action, answer.request_id)
        return said


class InstanceConnect(_Json):
    """The EC2 Instance Connect API."""

    _target = INSTANCE_CONNECT_TARGET


class Wicketgate(_Json):
    """What a wicketgate says about itself: its own API."""

    _target = WICKETGATE_TARGET


def _unreadable(action: str, answer: _Answer) -> TunnelFailed:
    shown = printable(answer.body[:80].decode(errors="replace"))
    return TunnelFailed(f"{action}: the answer (HTTP {answer.status}) is not one of the AWS API: {shown!r}.")
