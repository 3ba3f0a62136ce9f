"""IAM users of a deployment, with policies narrow enough to show what each call needs."""

from __future__ import annotations

import itertools
import json

from tests.api.deployment import ACCOUNT, REGION

_numbers = itertools.count(1)


def arn(resource):
    """The ARN of an EC2 resource of the deployment; `*` stays."""
    return resource if resource == "*" or resource.startswith("arn:") else f"arn:aws:ec2:{REGION}:{ACCOUNT}:{resource}"


def allow(action, resource="*", **condition):
    """A statement that allows one action on one resource, under conditions as `StringEquals={"ec2:Vpc": ...}`."""
    statement = {"Effect": "Allow", "Action": action, "Resource": arn(resource)}
    return statement | ({"Condition": condition} if condition else {})


class User:
    """One IAM user with an access key and one inline policy."""

    def __init__(self, deployment, iam):
        self.deployment, self.iam = deployment, iam
        self.name = f"user-{next(_numbers)}"
        self.arn = iam.create_user(UserName=self.name)["User"]["Arn"]
        key = iam.create_access_key(UserName=self.name)["AccessKey"]
        self.key = key["AccessKeyId"], key["SecretAccessKey"]
        self.ec2 = deployment.client("ec2", *self.key)

    def may(self, *statements):
        """Have these statements, and no others, as the user's policy."""
        self.iam.put_user_policy(
            UserName=self.name,
            PolicyName="p",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": list(statements)}),
        )

    def denied(self, action, resource="*"):
        """What EC2 answers when this user may not: (code, message, status)."""
        service = "" if ":" in action else "ec2:"
        reason = f"because no identity-based policy allows the {service}{action} action"
        words = (
            f"User: {self.arn} is not authorized to perform: {service}{action} on resource: {arn(resource)} {reason}"
        )
        return "UnauthorizedOperation", f"You are not authorized to perform this operation. {words}", 403
