"""World -> ruleset -> nftables, and `walk`, the executable model of what the kernel does with it. Pure."""

from wicketgate.rules.compile import compile_endpoint, compile_vpc
from wicketgate.rules.ir import Chain, Hook, Rule, Ruleset
from wicketgate.rules.load import loading
from wicketgate.rules.names import (
    APPLIED,
    DNS_ADDRESSES,
    ENDPOINT_MARK_MASK,
    ENDPOINT_MARK_SHIFT,
    INITIATOR_UNTRACKED,
    METADATA_ADDRESS,
    METADATA_ADDRESS6,
    METADATA_PORT,
    RESPONDER_UNTRACKED,
    TABLE,
    TIME_ADDRESSES,
    endpoint_mark,
)
from wicketgate.rules.netlink import rewriting
from wicketgate.rules.nft import changes, fingerprint, render
from wicketgate.rules.refill import Present, refilling
from wicketgate.rules.walk import Packet, Walk, walk

__all__ = [
    "APPLIED",
    "DNS_ADDRESSES",
    "ENDPOINT_MARK_MASK",
    "ENDPOINT_MARK_SHIFT",
    "INITIATOR_UNTRACKED",
    "METADATA_ADDRESS",
    "METADATA_ADDRESS6",
    "METADATA_PORT",
    "RESPONDER_UNTRACKED",
    "TABLE",
    "TIME_ADDRESSES",
    "Chain",
    "Hook",
    "Packet",
    "Present",
    "Rule",
    "Ruleset",
    "Walk",
    "changes",
    "compile_endpoint",
    "compile_vpc",
    "endpoint_mark",
    "fingerprint",
    "loading",
    "refilling",
    "render",
    "rewriting",
    "walk",
]
