"""May this principal do this to that? The IAM policy language: read, match, evaluate. Pure."""

from wicketgate.iam.evaluate import Decision, Request, evaluate
from wicketgate.iam.patterns import Context, wildcard_match
from wicketgate.iam.policy import MalformedPolicy, Statement, read_document, read_policies

__all__ = [
    "Context",
    "Decision",
    "MalformedPolicy",
    "Request",
    "Statement",
    "evaluate",
    "read_document",
    "read_policies",
    "wildcard_match",
]
