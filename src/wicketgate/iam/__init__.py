"""May this principal do this to that? The IAM policy language: read, match, evaluate. Pure."""

from wicketgate.iam.context import add_tags, caller_context
from wicketgate.iam.evaluate import Decision, Miss, Request, allows, decide, evaluate
from wicketgate.iam.patterns import Context, wildcard_match
from wicketgate.iam.policy import MalformedPolicy, Statement, read_document, read_policies
from wicketgate.iam.trust import Trust, TrustStatement, may_assume, read_trust

__all__ = [
    "Context",
    "Decision",
    "MalformedPolicy",
    "Miss",
    "Request",
    "Statement",
    "Trust",
    "TrustStatement",
    "add_tags",
    "allows",
    "caller_context",
    "decide",
    "evaluate",
    "may_assume",
    "read_document",
    "read_policies",
    "read_trust",
    "wildcard_match",
]
