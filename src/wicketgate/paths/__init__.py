"""Would routes and security groups pass this flow? The pure reading of intent, for wording and proof."""

from wicketgate.paths.groups import allows, first_match
from wicketgate.paths.judge import Flow, judge, judge_flow

__all__ = ["Flow", "allows", "first_match", "judge", "judge_flow"]
