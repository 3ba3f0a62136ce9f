"""Calls that no careful client makes: parameters at random, by the service models' shapes. None may break anything."""

import datetime
import os
import random
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from tests.api.worlds import IMAGE, network_world
from wicketgate import api
from wicketgate.api.offers import offered

CALLS = int(os.environ.get("WICKETGATE_STRANGE_CALLS", "250"))
SEED = int(os.environ.get("WICKETGATE_STRANGE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)

TEXTS = (
    *(
        "",
        "a",
        "default",
        "web",
        "x" * 300,
        "*",
        "?",
        "\\",
        "a'b",
        '<&>"',
        "\N{KEY}\N{CYRILLIC SMALL LETTER ZHE}",
        "tag:Name",
    ),
    *(
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.1.0/24",
        "::/0",
        "10.0.1.9",
        "2001:db8::/32",
        "1/2/3",
        "10.0.0.0/33",
        "%zz",
        "+",
    ),
    *("tcp", "udp", "icmp", "icmpv6", "-1", "50", "256", "true", "true ", "us-east-1a", "use1-az1", IMAGE, "t3.micro"),
    *(
        "vpc",
        "instance",
        "vpc-id",
        "group-id",
        "tag-key",
        "state",
        "name",
        "aws:x",
        "sg-",
        "i-0",
        "sgr-1",
        "123456789012",
    ),
    *(
        "arn:aws:iam::123456789012:role/x",
        "arn:aws:iam::aws:policy/AdministratorAccess",
        "{}",
        "[]",
        '{"Statement": 1}',
    ),
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}',
    '{"Statement": {"Effect": "Deny", "NotAction": ["a:b"], "NotResource": [], "Condition": {"X": {"y": []}}}}',
)
NUMBERS = (-(2**31), -1, 0, 1, 2, 5, 22, 50, 255, 1000, 65535, 65536, 2**31 - 1)


class Strange:
    """Makes parameters."""

    def __init__(self, ids, seed):
        self.ids = ids
        self.random = random.Random(seed)

    def value(self, shape, name="", depth=0):
        """A value of a shape; `name`: of the member."""
        make = getattr(self, f"_{shape.type_name}", None)
        return make(shape, name, depth) if make else self._string(shape, name, depth)

    def _structure(self, shape, _name, depth):
        chosen = {}
        for name, member in shape.members.items():
            often = 0.97 if name in shape.required_members else 0.5 if depth else 0.35
            if name != "DryRun" and depth < 6 and self.random.random() < often:
                chosen[name] = self.value(member, name, depth + 1)
        return chosen

    def _list(self, shape, name, depth):
        return [self.value(shape.member, name, depth + 1) for _ in range(self.random.choice((0, 1, 1, 1, 2, 3)))]

    def _map(self, shape, name, depth):
        return {self.random.choice(TEXTS): self.value(shape.value, name, depth + 1)}

    def _string(self, shape, name, _depth):
        if shape.enum and self.random.random() < 0.8:
            return self.random.choice(shape.enum)
        fitting = [one for one in self.ids if one.rpartition("-")[0] and self._fits(name, one)]
        if fitting and self.random.random() < 0.8:
            return self.random.choice(fitting)
        return self.random.choice(self.random.choice((TEXTS, self.ids)))

    @staticmethod
    def _fits(name, one):
        prefixes = {
            "vpc": "vpc",
            "subnet": "subnet",
            "rule": "sgr",
            "group": "sg",
            "interface": "eni",
            "endpoint": "eice",
        }
        prefixes |= {"instance": "i", "resource": ""}
        wanted = next((prefix for word, prefix in prefixes.items() if word in name.lower()), None)
        return wanted == "" or one.rpartition("-")[0] == wanted

    def _integer(self, _shape, _name, _depth):
        return self.random.choice(NUMBERS)

    _long = _integer

    def _boolean(self, _shape, _name, _depth):
        return self.random.random() < 0.5

    def _timestamp(self, _shape, _name, _depth):
        return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def _blob(self, _shape, _name, _depth):
        return b"blob"

    def _double(self, _shape, _name, _depth):
        return self.random.choice((0.0, -1.5, 1e300))

    _float = _double


@pytest.mark.slow
def test_strange_calls(deployment, ec2, monkeypatch):
    """Every answer is success or a refusal with words: never a failure of ours, whatever is asked."""
    ids = [*network_world(ec2).ids.values(), "i-99999999999999999", "sg-99999999999999999", "vpc-1"]
    for rule in ec2.describe_security_group_rules()["SecurityGroupRules"][:5]:
        ids.append(rule["SecurityGroupRuleId"])
    strange = Strange(ids, SEED)
    monkeypatch.setenv("AWS_DATA_PATH", str(Path(api.__file__).parent / "models"))  # where our own service's model is
    clients = {
        service: deployment.client(service, parameter_validation=False, read_timeout=30)
        for service in ("ec2", "iam", "sts", "ec2-instance-connect", "cloudtrail", "wicketgate")
    }
    actions = sorted({*offered(), ("cloudtrail", "LookupEvents")})
    outcomes = {"success": 0, "refused": 0}
    for number in range(CALLS):
        service, action = strange.random.choice(actions)
        client = clients[service]
        shape = client.meta.service_model.operation_model(action).input_shape
        parameters = strange.value(shape) if shape is not None else {}
        try:
            getattr(client, xform_name(action))(**parameters)
            outcomes["success"] += 1
        except ClientError as error:
            told = error.response
            place = f"seed {SEED}, call {number}: {action} {parameters} -> {told['Error']}"
            assert told["ResponseMetadata"]["HTTPStatusCode"] < 500, place
            assert told["Error"]["Message"], place
            outcomes["refused"] += 1
        except (ValueError, TypeError, AttributeError, BotoCoreError) as error:
            # Only what the SDK cannot send may fail in the SDK.
            assert "response" not in str(error).lower(), f"seed {SEED}, call {number}: {action} {parameters}: {error}"
    assert min(outcomes.values()) > CALLS / 40, outcomes
