"""IAM and STS: users, groups, roles, access keys, policies, and sessions of roles. Importing it offers all actions.

Names are unique without regard to case and looked up as they are written. Codes and texts of refusals are those that
AWS was recorded to give, as far as such records are public.
"""

from wicketgate.control.identity import (
    access_keys,
    attachments,
    groups,
    inline_policies,
    managed_policies,
    policy_versions,
    roles,
    sts,
    tags,
    users,
)

__all__ = [
    "access_keys",
    "attachments",
    "groups",
    "inline_policies",
    "managed_policies",
    "policy_versions",
    "roles",
    "sts",
    "tags",
    "users",
]
