"""Would routes and security groups pass this flow? The pure reading of intent, for wording and proof.

Written from AWS's documents and our own decisions alone, apart from the compiler: it is the other half of the
differential test.
"""

from wicketgate.paths.groups import allows, first_match
from wicketgate.paths.judge import Flow, covering, judge, judge_flow
from wicketgate.paths.tracking import Sides, Tracking, judge_packet, tracking

__all__ = [
    "Flow",
    "Sides",
    "Tracking",
    "allows",
    "covering",
    "first_match",
    "judge",
    "judge_flow",
    "judge_packet",
    "tracking",
]
