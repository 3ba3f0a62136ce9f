"""Regions, Availability Zones and account attributes: one region, three zones, all always available.

A zone is a name that subnets carry; on one host it changes nothing else.
"""

from __future__ import annotations

import re
from typing import Any, Final

from wicketgate.control import common
from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.model import ApiError, World

ZONES: Final = ("a", "b", "c")
DOMAIN: Final = "wicketgate.test"
"""Under which the service's own names stand, as amazonaws.com at AWS, unless the caller passes another."""

_GEOGRAPHY: Final = {"north": "n", "south": "s", "east": "e", "west": "w", "central": "c", "gov": "g"}
_is_direction = re.compile(r"(?:north|south|east|west|central|gov)+").fullmatch
_directions = re.compile("|".join(_GEOGRAPHY)).findall


def zones(region: str) -> tuple[str, ...]:
    """Names of the region's Availability Zones, e.g. `us-east-1a`."""
    return tuple(region + letter for letter in ZONES)


def zone_id(zone: str) -> str:
    """The zone's id in AWS's spelling: `us-east-1a` -> `use1-az1`, `ap-southeast-2b` -> `apse2-az2`.

    AWS shuffles the letters between accounts; here there is one account, and the order is the alphabet's.
    """
    region, letter = zone[:-1], zone[-1:]
    short = "".join(
        "".join(_GEOGRAPHY[word] for word in _directions(part)) if _is_direction(part) else part
        for part in region.split("-")
    )
    return f"{short}-az{ord(letter) - ord('a') + 1}" if letter.isalpha() else f"{short}-az1"


def zone_of(region: str, subnet_zone: str) -> str:
    """A subnet's zone; the region's first when it was made without one."""
    return subnet_zone or zones(region)[0]


def checked_zone(world: World, name: str | None, identifier: str | None) -> str:
    """The zone meant by a name or an id; the first when neither is given. Raises InvalidParameterValue."""
    offered = zones(world.region)
    by_id = {zone_id(zone): zone for zone in offered}
    if name and name not in offered:
        raise _no_zone(name, "availabilityZone", offered)
    if identifier and identifier not in by_id:
        raise _no_zone(identifier, "availabilityZoneId", tuple(by_id))
    if name and identifier and by_id[identifier] != name:
        raise ApiError(
            "InvalidParameterCombination",
            f"AvailabilityZone {name} and AvailabilityZoneId {identifier} are different zones. Give one of them.",
        )
    return name or (by_id[identifier] if identifier else offered[0])


def _no_zone(value: str, parameter: str, offered: tuple[str, ...]) -> ApiError:
    return ApiError(
        "InvalidParameterValue",
        f"Value ({value}) for parameter {parameter} is invalid. "
        f"Subnets can currently only be created in the following availability zones: {', '.join(offered)}.",
    )


@operation("ec2")
def describe_availability_zones(call: Call) -> Outcome:
    """DescribeAvailabilityZones. Names and ids that do not exist: InvalidParameterValue."""
    answers = [_zone_answer(call.world, zone) for zone in zones(call.world.region)]
    answers = _named(answers, "ZoneName", call.parameters.get("ZoneNames"), "availability zone")
    answers = _named(answers, "ZoneId", call.parameters.get("ZoneIds"), "availability zone ID")
    getters = {
        name: (lambda answer, member=member: answer.get(member))
        for name, member in {
            "group-long-name": "GroupLongName",
            "group-name": "GroupName",
            "message": "Message",
            "opt-in-status": "OptInStatus",
            "parent-zone-id": "ParentZoneId",
            "parent-zone-name": "ParentZoneName",
            "region-name": "RegionName",
            "state": "State",
            "zone-id": "ZoneId",
            "zone-name": "ZoneName",
            "zone-type": "ZoneType",
        }.items()
    }
    return Outcome({"AvailabilityZones": common.select(answers, call.parameters.get("Filters"), getters)})


def _zone_answer(world: World, zone: str) -> dict[str, Any]:
    return {
        "State": "available",
        "OptInStatus": "opt-in-not-required",
        "Messages": [],
        "RegionName": world.region,
        "ZoneName": zone,
        "ZoneId": zone_id(zone),
        "GroupName": f"{world.region}-zg-1",
        "NetworkBorderGroup": world.region,
        "ZoneType": "availability-zone",
    }


def _named(answers: list[dict[str, Any]], member: str, names: list[str] | None, noun: str) -> list[dict[str, Any]]:
    if not names:
        return answers
    missing = [name for name in names if name not in {answer[member] for answer in answers}]
    if missing:
        raise ApiError("InvalidParameterValue", f"Invalid {noun}: [{', '.join(missing)}]")
    return [answer for answer in answers if answer[member] in names]


@operation("ec2")
def describe_regions(call: Call, domain: str = DOMAIN) -> Outcome:
    """The one region this is, with its endpoint under `domain`. Others: InvalidParameterValue."""
    region = call.world.region
    answer = {"RegionName": region, "Endpoint": f"ec2.{region}.{domain}", "OptInStatus": "opt-in-not-required"}
    answers = _named([answer], "RegionName", call.parameters.get("RegionNames"), "region")
    chosen = common.select(
        answers,
        call.parameters.get("Filters"),
        {
            "endpoint": lambda one: one["Endpoint"],
            "opt-in-status": lambda one: one["OptInStatus"],
            "region-name": lambda one: one["RegionName"],
        },
    )
    return Outcome({"Regions": chosen})


@operation("ec2")
def describe_account_attributes(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """DescribeAccountAttributes: what there is of them; numbers are the quotas in force."""
    default = next((vpc.id for vpc in call.world.vpcs if vpc.is_default), "none")
    attributes = {
        "supported-platforms": "VPC",
        "vpc-max-security-groups-per-interface": str(quotas.groups_per_interface),
        "default-vpc": default,
    }
    wanted = call.parameters.get("AttributeNames") or list(attributes)
    return Outcome(
        {
            "AccountAttributes": [
                {"AttributeName": name, "AttributeValues": [{"AttributeValue": value}]}
                for name, value in attributes.items()
                if name in wanted
            ]
        }
    )
