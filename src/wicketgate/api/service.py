"""Which service, operation and protocol a request is for, and that operation's codec.

    catalogue = Catalogue.load()
    call = catalogue.identify(message, offered)     ApiError: no such service, version or action
    (authenticate and authorise call.service, call.operation)
    parameters = call.parse()                       ApiError: what is wrong with them
    reply = call.answer(output, request_id)         or catalogue.speaker(message).error(api_error, request_id)

A service is told by the X-Amz-Target header, else by the credential scope, else by Version. All of it is driven by
botocore's service models; an operation is compiled when first used, or ahead of time with `Service.warm`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from botocore.loaders import Loader
from botocore.model import OperationNotFoundError, ServiceModel

from wicketgate.api import json11, xml
from wicketgate.api.faults import Fault, Faults, Kind, OutputError, Protocol, shown, worded
from wicketgate.api.json11 import JsonCompiler, json_answer, json_error, parse_document
from wicketgate.api.query import QueryCompiler, merged, parse_form, tree
from wicketgate.model import ApiError

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request's body, and of its query string. The largest input of the models, an IAM policy, has 128 KiB."""

VERSIONS: Final = {
    "ec2": "2016-11-15",
    "iam": "2010-05-08",
    "sts": "2011-06-15",
    "cloudtrail": "2013-11-01",
    "ec2-instance-connect": "2018-04-02",
    "wicketgate": "2026-11-26",
}
"""The services spoken, by signing name, with one version of each. The first, EC2, answers who cannot be told."""

_OWN_MODELS: Final = Path(__file__).parent / "models"
"""Of the last one, which is ours; in the form and place that botocore and the AWS CLI look for them."""

_EC2_NAMESPACE: Final = "http://ec2.amazonaws.com/doc/2016-11-15/"
"""With the slash at the end, which the model leaves out and AWS sends."""

_scope = re.compile(r"Credential=[^/,\s]{1,128}/[0-9]{1,8}/[^/,\s]{0,64}/([^/,\s]{1,64})/aws4_request").search
_scope_in_query = re.compile(r"(?:^|&)X-Amz-Credential=([^&]+)").search
_version_in_query = re.compile(r"(?:^|&)Version=([0-9-]+)(?:&|$)").search


@dataclass(frozen=True, slots=True)
class Message:
    """An HTTP request as far as the wire formats go."""

    headers: Mapping[str, str]
    """By lower-case name."""
    query: str = ""
    """The query string as it stands in the request line."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation's compiled codec."""

    name: str
    parse: Callable[[Any, Faults], dict[str, Any]]
    """Form parameters or JSON body to input."""
    write: Callable[[dict[str, Any], str], bytes]
    """Output and request id to body."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose service and operation are known; its parameters are not parsed yet."""

    service: Service
    operation: str
    raw: dict[str, str] | bytes = field(repr=False)
    """Form parameters without Action, Version and those of the signature; or a JSON body."""

    def parse(self) -> dict[str, Any]:
        """The input by botocore's member names. Raises ApiError that says what is wrong with it."""
        faults: Faults = []
        try:
            value = self.service.operation(self.operation).parse(self.raw, faults)
        except RecursionError:
            value = {}
            faults.append(Fault(Kind.SYNTAX, "", limit="The request is nested too deeply."))
        if faults:
            raise worded(faults, self.service.protocol, self.service.name)
        return value

    def answer(self, output: dict[str, Any], request_id: str) -> Reply:
        """The answer. Raises OutputError, our bug, if the output does not fit the operation's shape."""
        return self.service.answer(self.operation, output, request_id)


class Service:
    """One AWS API: its model, its protocol, its operations' codecs."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.model = model
        self.protocol = Protocol(model.metadata["protocol"])
        self.version: str = model.metadata["apiVersion"]
        self.namespace = _EC2_NAMESPACE if name == "ec2" else str(model.metadata.get("xmlNamespace", ""))
        self.actions: frozenset[str] = frozenset(model.operation_names)
        self._operations: dict[str, Operation] = {}
        ec2 = self.protocol is Protocol.EC2
        self._query, self._xml, self._json = QueryCompiler(ec2=ec2), xml.XmlCompiler(ec2=ec2), JsonCompiler()
        self._errors = {shape.error_code: shape for shape in model.error_shapes}

    def operation(self, name: str) -> Operation:
        """The codec of an operation of the model. Raises KeyError for an unknown one."""
        if (compiled := self._operations.get(name)) is None:
            compiled = self._operations[name] = self._compile(name)
        return compiled

    def warm(self, operations: Iterable[str]) -> None:
        """Compile these operations now rather than at their first call."""
        for name in operations:
            self.operation(name)

    def _compile(self, name: str) -> Operation:
        try:
            model = self.model.operation_model(name)
        except OperationNotFoundError:
            raise KeyError(f"{self.name} has no operation {name}") from None
        if self.protocol is Protocol.JSON:
            return Operation(name, self._json_input(model.input_shape), self._json_output(model.output_shape))
        output = model.output_shape
        fields = self._xml.fields(output) if output is not None else None
        if self.protocol is Protocol.EC2:
            write = xml.ec2_answer(name, self.namespace, fields)
        else:
            wrapper = output.serialization.get("resultWrapper", f"{name}Result") if output is not None else ""
            write = xml.query_answer(name, self.namespace, wrapper, fields)
        return Operation(name, self._form_input(model.input_shape), write)

    def _form_input(self, shape: Any) -> Callable[[Any, Faults], dict[str, Any]]:
        parser = self._query.parser(shape) if shape is not None else None

        def parse(form: dict[str, str], faults: Faults) -> dict[str, Any]:
            root = tree(form, faults)
            if parser is not None:
                value: dict[str, Any] = parser(root, "", faults)
                return value
            faults += [Fault(Kind.UNKNOWN, name) for name in root]
            return {}

        return parse

    def _json_input(self, shape: Any) -> Callable[[Any, Faults], dict[str, Any]]:
        parser = self._json.parser(shape) if shape is not None else None

        def parse(body: bytes, faults: Faults) -> dict[str, Any]:
            document = parse_document(body, faults)
            if faults:
                return {}
            if parser is not None:
                value: dict[str, Any] = parser(document, "", faults)
                return value
            faults += [Fault(Kind.UNKNOWN, name[:64]) for name in document]
            return {}

        return parse

    def _json_output(self, shape: Any) -> Callable[[dict[str, Any], str], bytes]:
        convert: json11.Converter | None = self._json.converter(shape) if shape is not None else None
        return lambda output, request_id: json_answer(convert, output)

    def answer(self, operation: str, output: dict[str, Any], request_id: str) -> Reply:
        """The answer of an operation. Raises OutputError, our bug, if the output does not fit its shape."""
        write = self.operation(operation).write
        try:
            body = write(output, request_id)
        except (TypeError, ValueError, AttributeError) as error:
            raise OutputError(f"{operation} answered with what its shape cannot carry: {error}") from error
        return Reply(200, (self._content_type, ("x-amzn-RequestId", request_id)), body)

    def error(self, error: ApiError, request_id: str) -> Reply:
        """An error in this service's format."""
        headers = (self._content_type, ("x-amzn-RequestId", request_id))
        if self.protocol is Protocol.EC2:
            return Reply(error.http_status, headers, xml.ec2_error(error, request_id))
        if self.protocol is Protocol.QUERY:
            return Reply(error.http_status, headers, xml.query_error(error, request_id, self.namespace))
        shape = self._errors.get(error.code)
        member = "Message" if shape is not None and "Message" in shape.members else "message"
        return Reply(error.http_status, (*headers, ("x-amzn-ErrorType", error.code)), json_error(error, member))

    def modelled_status(self, code: str) -> int | None:
        """The HTTP status that the model gives an error code (IAM: NoSuchEntity is 404), if it does."""
        shape = self._errors.get(code)
        status = shape.metadata.get("error", {}).get("httpStatusCode") if shape is not None else None
        return int(status) if status is not None else None

    @property
    def _content_type(self) -> tuple[str, str]:
        json = self.protocol is Protocol.JSON
        return ("Content-Type", "application/x-amz-json-1.1" if json else "text/xml;charset=UTF-8")

    # -- which operation ----------------------------------------------------------------------------------------------

    def checked(self, action: str, offered: Collection[str] | None) -> str:
        """The action, if the model has it and it is offered (None: all of them are); raises ApiError if not."""
        if action not in self.actions:
            raise self._unknown_action(action)
        if offered is not None and action not in offered:
            code = "UnsupportedOperationException" if self.protocol is Protocol.JSON else "UnsupportedOperation"
            raise ApiError(code, f"{action} is an action of {self.name} that wicketgate does not offer.")
        return action

    def _unknown_action(self, action: str) -> ApiError:
        if self.protocol is Protocol.JSON:
            return ApiError("UnknownOperationException", f"{self.name} has no operation {shown(action)}.")
        if self.protocol is Protocol.EC2:
            return ApiError("InvalidAction", f"The action {shown(action)} is not valid for this web service.")
        return self._not_in_version(action, self.version)

    @staticmethod
    def _not_in_version(action: str, version: str) -> ApiError:
        return ApiError("InvalidAction", f"Could not find operation {shown(action)} for version {shown(version)}")

    def check_version(self, action: str, version: str | None) -> None:
        """Raise ApiError unless the request is for the version that this service speaks."""
        if version == self.version:
            return
        if self.protocol is not Protocol.EC2:
            raise self._not_in_version(action, version or "NO_VERSION_SPECIFIED")
        if not version:
            raise ApiError("MissingParameter", "The request must contain the parameter Version")
        message = f"The requested version ({shown(version)}) of service AmazonEC2 does not exist; use {self.version}."
        raise ApiError("NoSuchVersion", message)


class Catalogue:
    """All services, and which one a request is for."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.services = {service.name: service for service in services}
        self._by_version = {
            service.version: service for service in self.services.values() if service.protocol is not Protocol.JSON
        }
        self._by_target = {
            str(service.model.metadata["targetPrefix"]): service
            for service in self.services.values()
            if service.protocol is Protocol.JSON
        }

    @classmethod
    def load(cls, versions: Mapping[str, str] = VERSIONS) -> Catalogue:
        """The services of these names and versions, from botocore's models and ours (0.1 s, most of it EC2's)."""
        loader = Loader(extra_search_paths=[str(_OWN_MODELS)])
        return cls(
            Service(name, ServiceModel(loader.load_service_model(name, "service-2", version), name))
            for name, version in versions.items()
        )

    def speaker(self, message: Message) -> Service:
        """The service in whose format to answer, whatever is wrong with the request. Never raises."""
        target, _, _ = message.headers.get("x-amz-target", "").rpartition(".")
        if target in self._by_target:
            return self._by_target[target]
        named = self.services.get(_signed_for(message) or "")
        if "x-amz-target" in message.headers or "amz-json" in message.headers.get("content-type", ""):
            json = named is not None and named.protocol is Protocol.JSON
            return named if json and named is not None else next(iter(self._by_target.values()))
        version = _version_in_query(message.query) or _version_in_query(message.body[:4096].decode("latin-1"))
        return named or self._by_version.get(version[1] if version else "", next(iter(self.services.values())))

    def identify(self, message: Message, offered: Mapping[str, Collection[str]] | None = None) -> Call:
        """What a request asks for.

        `offered` names the operations on offer by service; None offers all of the models. Raises ApiError, to be
        written by `speaker`: UnsupportedOperation (a service or operation not offered), InvalidAction,
        UnknownOperationException, MissingAction, NoSuchVersion, MalformedQueryString, RequestEntityTooLarge.
        """
        for what, size in (("body", len(message.body)), ("query string", len(message.query))):
            if size > MAX_BODY:
                text = f"The {what} has {size} bytes; at most {MAX_BODY} are read."
                raise ApiError("RequestEntityTooLarge", text, status=413)
        if "x-amz-target" in message.headers:
            return self._identify_target(message, offered)
        form = merged(_query_parameters(message.query), parse_form(message.body))
        signed_for = _signed_for(message)
        if signed_for is not None and signed_for not in self.services:
            raise ApiError("UnsupportedOperation", self._not_a_service(signed_for))
        service = self.speaker(message)
        if service.protocol is Protocol.JSON:
            raise ApiError("UnknownOperationException", f"{service.name} needs the header X-Amz-Target.")
        action, version = form.pop("Action", ""), form.pop("Version", None)
        if not action:
            raise ApiError("MissingAction", "The request must contain the parameter Action")
        service.check_version(action, version)
        return Call(service, service.checked(action, _offers(offered, service)), form)

    def _identify_target(self, message: Message, offered: Mapping[str, Collection[str]] | None) -> Call:
        prefix, _, action = message.headers["x-amz-target"].rpartition(".")
        service = self._by_target.get(prefix)
        if service is None:
            known = ", ".join(self._by_target)
            text = f"X-Amz-Target names the service {shown(prefix)!r}; known are: {known}."
            raise ApiError("UnknownOperationException", text)
        return Call(service, service.checked(action, _offers(offered, service)), message.body)

    def _not_a_service(self, name: str) -> str:
        return f"The request is signed for {shown(name)}, which wicketgate does not offer: {', '.join(self.services)}."


def _offers(offered: Mapping[str, Collection[str]] | None, service: Service) -> Collection[str] | None:
    return None if offered is None else offered.get(service.name, ())


def _signed_for(message: Message) -> str | None:
    """The service of the credential scope, by header or query; None for an unsigned request."""
    if found := _scope(message.headers.get("authorization", "")):
        return found[1]
    if (found := _scope_in_query(message.query)) and (scope := _scope(f"Credential={unquote(found[1])}")):
        return scope[1]
    return None


def _query_parameters(query: str) -> dict[str, str]:
    """A query string's parameters without the signature's own."""
    if not query:
        return {}
    parameters = parse_form(query.encode(errors="surrogatepass"), plus_is_space=False)
    return {name: value for name, value in parameters.items() if not name.startswith("X-Amz-")}
