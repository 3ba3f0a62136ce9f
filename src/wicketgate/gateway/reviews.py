"""Where revocation is immediate, tunnels that would not be admitted now are closed: after each change, and as time goes
by (a session's key ends, a policy's hours are over).

A change is acknowledged when this is done, so that what is acknowledged is enforced. A thousand tunnels take a while:
the event loop gets its turn every few milliseconds in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Collection, Iterable
from typing import Final, Protocol

from wicketgate.admit import Opened, Review
from wicketgate.gateway.tunnel import Tunnel
from wicketgate.model import World

_logger = logging.getLogger("wicketgate.gateway")

AGAIN_SECONDS: Final = 5.0
"""How late the passing of time is noticed."""
_SLICE_SECONDS: Final = 0.005
"""How long the event loop waits for us at a time."""

_DECIDING: Final = (
    "settings",
    "vpcs",
    "subnets",
    "groups",
    "interfaces",
    "instances",
    "endpoints",
    "users",
    "user_groups",
    "roles",
    "managed_policies",
    "prefix_lists",
    "peerings",
    "route_tables",
)
"""Fields of the World that may decide about any tunnel. Access keys decide about their own alone."""


class Reviewing(Protocol):
    """`wicketgate.admit.review`: would an open tunnel be admitted now?"""

    def __call__(self, world: World, opened: Opened, now: float) -> Review:
        """Ask again; pure."""
        ...


class Reviews:
    """Looks at a gateway's tunnels again. `start` begins to look as time goes by."""

    def __init__(self, tunnels: Collection[Tunnel], review: Reviewing) -> None:
        """`tunnels` is the gateway's own set, which changes."""
        self._tunnels = tunnels
        self._review = review
        self._world = World()
        self._immediate: frozenset[str] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Task[None] | None = None

    def start(self, world: World) -> None:
        """Begin."""
        self._take(world)
        self._timer = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._again)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._round is not None:
            self._round.cancel()

    def after(self, world: World) -> Awaitable[None] | None:
        """A new World: what closes the tunnels that it does not admit; None when it cannot concern any."""
        before = self._world
        self._take(world)
        if not self._immediate or not self._tunnels:
            return None
        if any(getattr(before, field) is not getattr(world, field) for field in _DECIDING):
            return self._look(self._tunnels)
        mine = [one for one in self._tunnels if _key(before, one) is not _key(world, one)]
        return self._look(mine) if mine else None

    def _take(self, world: World) -> None:
        self._world = world
        self._immediate = frozenset(vpc.id for vpc in world.vpcs if world.revocation(vpc.id) == "immediate")

    def _again(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(AGAIN_SECONDS, self._again)
        if self._immediate and (self._round is None or self._round.done()):
            self._round = loop.create_task(self._look(self._tunnels))

    async def _look(self, tunnels: Iterable[Tunnel]) -> None:
        started = time.monotonic()
        for tunnel in list(tunnels):
            if time.monotonic() - started > _SLICE_SECONDS:
                await asyncio.sleep(0)
                started = time.monotonic()
            self._look_at(tunnel)

    def _look_at(self, tunnel: Tunnel) -> None:
        endpoint = self._world.endpoint(tunnel.grant.endpoint_id)
        if endpoint is None or not tunnel.stands:
            return
        if self._world.vpc_of_subnet(endpoint.subnet_id).id not in self._immediate:
            return
        review = self._review(self._world, tunnel.opened, time.time())
        if (failure := review.verdict.failure) is not None:
            _logger.info("tunnel %s: access revoked: %s: %s", tunnel.request_id, failure.name, failure.reason)
            tunnel.revoke(review.told, f"Access revoked: {failure.name}: {failure.reason}")


def _key(world: World, tunnel: Tunnel) -> object:
    return world.access_key(tunnel.opened.access_key_id)
