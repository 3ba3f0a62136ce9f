"""`python -m wicketgate.api CONFIG`: started by `serve`, unprivileged; the only process that opens the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import uvloop

from wicketgate import ipc, pki, ssh_signer
from wicketgate.api.config import ApiConfig
from wicketgate.api.http import Connection
from wicketgate.api.machines import Machines
from wicketgate.api.observing import observe
from wicketgate.api.server import Api
from wicketgate.api.writer import Enforcing, Writer
from wicketgate.audit import AuditLog
from wicketgate.audit.chain import chain_of
from wicketgate.audit.reading import AuditDirectories, events, seconds_of
from wicketgate.control.endpoints import dns_name
from wicketgate.control.machine_credentials import MachineTrust
from wicketgate.followers import GATEWAY, METADATA, NETD, Followers
from wicketgate.model import AccessKey, Change, Resource, Settings, WicketgateError, World, apply_change
from wicketgate.store import RootCredential, Store, open_store, root_credential, root_credential_shown
from wicketgate.tunnel.names import public_names

_logger = logging.getLogger("wicketgate.api")

ACKNOWLEDGE_SECONDS = 90.0
"""How long `serve` may take to have everything follow; above what it gives its children."""


class _Vault:
    """`pki.Vault` in the store, sealed."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, name: str) -> bytes | None:
        return self._store.secret(f"pki/{name}")

    def put(self, name: str, data: bytes) -> None:
        self._store.put_secret(f"pki/{name}", data)


def certificate_names(world: World, domain: str) -> tuple[str, ...]:
    """The DNS names that clients use: of the APIs, and one wildcard for each form of endpoints' names."""
    apis = (f"api.{domain}", f"*.{world.region}.{domain}")
    return (*apis, *public_names(dns_name(world, "*", domain)))


def _given_root() -> RootCredential | None:
    """The operator's, which others cannot read in our environment."""
    given = os.environ.get("WICKETGATE_ROOT_ACCESS_KEY_ID"), os.environ.get("WICKETGATE_ROOT_SECRET_ACCESS_KEY")
    return RootCredential(access_key_id=given[0], secret_access_key=given[1]) if given[0] and given[1] else None


def _opening(config: ApiConfig, store: Store, world: World, signer: ssh_signer.SshSigner) -> ipc.Opening:
    """What the store knows that others need."""
    opening = ipc.Opening(signer_chain=signer.chain, signer_root=signer.root)
    if config.own_certificate:
        return opening
    issued = pki.issue(_Vault(store), certificate_names(world, config.domain))
    return msgspec.structs.replace(opening, certificate=issued.certificate, key=issued.key, ca=issued.ca)


def _open(config: ApiConfig, store: Store, feed: ipc.Feed, signer: ssh_signer.SshSigner) -> World:
    """Tell `serve` what it needs, then the World; returns it when it is in force."""
    world = store.load()
    chosen = _given_root()
    root = root_credential(store, chosen)
    opening = _opening(config, store, world, signer)
    if root.to_be_shown:
        opening = msgspec.structs.replace(
            opening, root_access_key_id=root.access_key_id, root_secret_access_key=root.secret_access_key
        )
    feed.publish(0, msgspec.json.encode(opening))
    if root.to_be_shown:
        root_credential_shown(store)
    world = brought_up_to_date(config.settings, store, world, root, given=chosen is not None)
    feed.enforce(world, None)
    return world


def _take_followers(config: ApiConfig, store: Store, signer: ssh_signer.SshSigner) -> tuple[Followers, World]:
    """Publish what others need and take who follows; returns them and the World. There is no `serve`."""
    world, chosen = store.load(), _given_root()
    opening = _opening(config, store, world, signer)
    _publish(Path(config.public_directory), opening)
    world = brought_up_to_date(config.settings, store, world, root_credential(store, chosen), given=chosen is not None)
    roles = {config.netd_user: NETD, config.gateway_user: GATEWAY, config.metadata_user: METADATA}
    followers = Followers(world, roles, ipc.Opening(certificate=opening.certificate, key=opening.key))
    followers.listen(socket.socket(fileno=config.followers_fd))
    return followers, world


def _publish(directory: Path, opening: ipc.Opening) -> None:
    try:
        if opening.ca:
            pki.publish(directory / "ca.pem", opening.ca)
            pki.write_bundle(directory / "bundle.pem", directory / "ca.pem")
        pki.publish(directory / "ssh-signer.pem", opening.signer_chain)
        pki.publish(directory / "ssh-root.pem", opening.signer_root)
    except OSError as error:
        raise pki.CertificateError(f"certificates cannot be published in {directory}: {error.strerror}") from error


def brought_up_to_date(settings: Settings, store: Store, world: World, root: RootCredential, *, given: bool) -> World:
    """The World with this start's settings and root credential, committed if they differ.

    Keys that root made by the API stay (they have a time of creation, those of starts have none), and a credential that
    was not `given` by the operator but made here stays away once root has deleted it.
    """
    puts: list[Resource] = [] if world.settings == settings else [settings]
    key = AccessKey(id=root.access_key_id, secret=root.secret_access_key)
    there = [one for one in world.access_keys if not one.user_name and not one.role_name]
    deletes = [("access-key", one.id) for one in there if one.id != key.id and not one.created_at]
    wanted = given or bool(deletes) or world.revision == 0
    if wanted and not any((one.id, one.secret) == (key.id, key.secret) for one in there):
        puts.append(key)
    change = Change(puts=tuple(puts), deletes=tuple(deletes), time=time.time())
    if change.empty:
        return world
    after = apply_change(world, change)
    store.commit(change, world.revision)
    return after


def _machine_trust(config: ApiConfig, store: Store, signer: ssh_signer.SshSigner) -> MachineTrust:
    """What machines that ask over TLS pin: the certificate's CA too, if it is ours."""
    ca = b"" if config.own_certificate else _Vault(store).get("ca.pem") or b""
    return MachineTrust(signer_root=signer.root.decode(), certificate_authority=ca.decode())


def _write_notes(store: Store, audit: AuditLog) -> None:
    """Write the audit lines of Changes that an earlier process committed and did not come to write."""
    for note in store.notes():
        event = json.loads(note)
        since = seconds_of(event)
        if all(one.get("requestID") != event["requestID"] for one in events(chain_of(audit.path), since=since - 1)):
            _logger.warning("wrote the audit line of request %s for an earlier process", event["requestID"])
            audit.append(event)


def _end_with(feed: ipc.Feed, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """End when `serve` is gone."""
    feed.wait_for_end()
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending already
        loop.call_soon_threadsafe(ended.set)


def _audit_paths(config: ApiConfig) -> Iterable[Path]:
    if config.other_audit_directory:
        return AuditDirectories(Path(config.audit_file).parent, Path(config.other_audit_directory))
    return [Path(config.audit_file), *(Path(f"/proc/self/fd/{fd}") for fd in config.other_audit_fds)]


async def _serve(
    config: ApiConfig, store: Store, audit: AuditLog, feed: Enforcing, *, world: World, signer: ssh_signer.SshSigner
) -> None:
    loop = asyncio.get_running_loop()
    _write_notes(store, audit)
    writer = Writer(store, feed, world)
    paths = _audit_paths(config)
    values = {
        "quotas": (config.quotas, config.endpoint_quotas),
        "vpc_quotas": (config.quotas,),
        "domain": (config.domain,),
        "trust": (_machine_trust(config, store, signer),),
    }
    api = Api(writer, audit, paths, values, signer.sign, Machines(config.domain, signer.chain.decode()))
    api.warm()
    connections: set[Connection] = set()
    server = await loop.create_unix_server(
        lambda: Connection(api.handle, connections), sock=socket.socket(fileno=config.listen_fd)
    )
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGHUP, audit.reopen)
    if isinstance(feed, ipc.Feed):
        # An API process that outlived `serve` unnoticed would keep the store from the next one.
        threading.Thread(target=_end_with, args=(feed, loop, ended), name="watch feed", daemon=True).start()
    tasks = [loop.create_task(writer.tick())]
    if config.observations:
        tasks.append(loop.create_task(observe(writer, Path(config.observations))))
    ipc.ready()
    try:
        await ended.wait()
    finally:
        server.close()
        for connection in list(connections):
            connection.close()
        for task in tasks:
            task.cancel()
        await writer.close()
        audit.stop()


def serve(config: ApiConfig) -> int:
    """Run until the end; the exit code."""
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        store = open_store(
            Path(config.store), key_file=Path(config.key_file) if config.key_file else None, identity=config.identity
        )
        audit = AuditLog(Path(config.audit_file))
        audit.start()  # before anybody is told that there is an API
        signer = ssh_signer.ensure(_Vault(store), config.identity.region, config.domain)
        feed: Enforcing
        if config.feed_fd is None:
            feed, world = _take_followers(config, store, signer)
        else:
            feed = ipc.Feed("serve", socket.socket(fileno=config.feed_fd), ACKNOWLEDGE_SECONDS)
            world = _open(config, store, feed, signer)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each gateway worker may hand on many connections
        uvloop.run(_serve(config, store, audit, feed, world=world, signer=signer))
        store.close()
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate api: {error}\n")
        return 1
    return 0


def main() -> int:
    """Run as a process of `serve`'s; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends `serve`, which ends us
    return serve(msgspec.json.decode(sys.argv[1], type=ApiConfig))


if __name__ == "__main__":
    sys.exit(main())
