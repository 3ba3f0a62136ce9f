"""What the kernel says, for comparison with what the API says."""

from __future__ import annotations

import subprocess


def in_namespace(namespace, *command):
    """What a command says in a network namespace."""
    done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=True)
    return done.stdout


def kernel_rules(vpc):
    """The ruleset of a VPC, without its counters' values."""
    return in_namespace(vpc, "nft", "--stateless", "list", "ruleset")
