"""IPv4-mapped blocks in policies."""

from wicketgate.iam.operators import _block, _inside


def test_mapped_block_is_ipv4():
    """A block of IPv4-mapped addresses holds the IPv4 addresses it maps, and no others."""
    assert _inside("203.0.113.10", _block("::ffff:203.0.113.0/120"), {})
    assert not _inside("203.0.114.10", _block("::ffff:203.0.113.0/120"), {})
