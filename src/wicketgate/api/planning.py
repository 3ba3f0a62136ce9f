"""API calls that are only planned: from a JSON text to actions with validated parameters.

The text is a list of objects such as `{"Action": "AuthorizeSecurityGroupIngress", "GroupId": "sg-...", ...}`: members
and types are those of the service models, as in `aws ... --cli-input-json`; `Service` tells apart actions of one name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from botocore.validate import ParamValidator

from wicketgate.api.offers import offered
from wicketgate.api.service import Catalogue
from wicketgate.api.shapes import read_blob, read_timestamp
from wicketgate.control.call import Operation
from wicketgate.explain.reach_change import Planned, PlanRefused

_READERS: Final = {"blob": read_blob, "timestamp": read_timestamp}
"""What JSON has no type for, from its text."""


def read_plan(text: str, catalogue: Catalogue) -> tuple[Planned, ...]:
    """The calls of a plan. Raises PlanRefused that names the call and what is wrong with it."""
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise PlanRefused(f"the plan is no JSON: {error}") from error
    listed = [listed] if isinstance(listed, dict) else listed
    if not isinstance(listed, list):
        raise PlanRefused("the plan must be a list of calls such as {'Action': 'ModifyInstanceConnectEndpoint', ...}")
    return tuple(_read_call(place, one, catalogue) for place, one in enumerate(listed, start=1))


def _read_call(place: int, data: Any, catalogue: Catalogue) -> Planned:
    if not isinstance(data, dict) or not isinstance(data.get("Action"), str):
        raise PlanRefused(f"call {place}: an object with Action is needed")
    operation = _operation(place, data["Action"], data.get("Service"))
    where = f"call {place}, {operation.name}"
    parameters = {name: value for name, value in data.items() if name not in ("Action", "Service")}
    shape = catalogue.services[operation.service].model.operation_model(operation.name).input_shape
    if shape is None:
        return Planned(operation, {})
    try:
        read = _converted(shape, parameters)
    except ValueError as error:
        raise PlanRefused(f"{where}: {error}") from error
    for name in read:
        if name not in shape.members:
            raise PlanRefused(f"{where}: there is no parameter {name}; there are {', '.join(sorted(shape.members))}")
    report = ParamValidator().validate(read, shape)
    if report.has_errors():
        raise PlanRefused(f"{where}: {report.generate_report()}")
    return Planned(operation, read)


def _operation(place: int, action: str, service: Any) -> Operation:
    found = [one for (named, name), one in offered().items() if name == action and service in (None, named)]
    if len(found) != 1:
        services = ", ".join(one.service for one in found)
        problem = f"several services have it, add Service: {services}" if found else "no such action is offered"
        raise PlanRefused(f"call {place}, {action}: {problem}")
    return found[0]


def _converted(shape: Any, value: Any) -> Any:
    """A value with what JSON writes as text turned into what it means. Raises ValueError."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        return {
            name: _converted(shape.members[name], one) if name in shape.members else one for name, one in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [_converted(shape.member, one) for one in value]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {name: _converted(shape.value, one) for name, one in value.items()}
    reader = _READERS.get(shape.type_name)
    return reader(value) if reader is not None and isinstance(value, str) else value
