"""World -> ruleset -> nftables, and `walk`, the executable model of what the kernel does with it. Pure."""

from wicketgate.rules.compile import (
    APPLIED,
    ENDPOINT_MARK_MASK,
    METADATA_ADDRESS,
    METADATA_PORT,
    TABLE,
    compile_endpoint,
    compile_vpc,
    endpoint_mark,
)
from wicketgate.rules.ir import Chain, Hook, Rule, Ruleset
from wicketgate.rules.netlink import rewriting
from wicketgate.rules.nft import BATCH, batches, changes, fingerprint, render
from wicketgate.rules.walk import Packet, Walk, walk

__all__ = [
    "APPLIED",
    "BATCH",
    "ENDPOINT_MARK_MASK",
    "METADATA_ADDRESS",
    "METADATA_PORT",
    "TABLE",
    "Chain",
    "Hook",
    "Packet",
    "Rule",
    "Ruleset",
    "Walk",
    "batches",
    "changes",
    "compile_endpoint",
    "compile_vpc",
    "endpoint_mark",
    "fingerprint",
    "render",
    "rewriting",
    "walk",
]
