"""The API process's inside, whole but for its sockets: real store, audit file, writer and feed, signed requests."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from urllib.parse import urlencode

import uvloop

from wicketgate import ipc
from wicketgate.api.http import Peer, Request
from wicketgate.api.server import Api
from wicketgate.api.service import VERSIONS, Catalogue
from wicketgate.api.writer import Writer
from wicketgate.audit import AuditLog
from wicketgate.model import AccessKey, Change, Policy, User, Vpc, VpcPeeringConnection
from wicketgate.sigv4.header import signed_headers
from wicketgate.sigv4.presign import Credentials
from wicketgate.store import open_store

CATALOGUE = Catalogue.load()
ROOT = AccessKey(id="AKIAROOTROOTROOTROOT", secret="root's secret")
ANNA = AccessKey(id="AKIAANNAANNAANNAANNA", secret="anna's secret", user_name="anna")
ALLOW = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
WORLD = Change(
    puts=(ROOT, ANNA, User(name="anna", id="AIDA0000000000000ANNA", policies=(Policy(name="all", document=ALLOW),)))
)
SOURCE = "198.51.100.7"


class Followers:
    """What `serve` is to the API process: takes Updates, enforces and acknowledges them; it waits while not `free`."""

    def __init__(self, world):
        self.world = world
        self.free = threading.Event()
        self.free.set()
        self.got = threading.Event()
        ours, theirs = socket.socketpair()
        self.feed = ipc.Feed("serve", ours, 30)
        threading.Thread(target=self._follow, args=(theirs,), daemon=True).start()

    def _follow(self, sock):
        with sock, contextlib.suppress(EOFError, OSError):
            while True:
                self.world = ipc.updated(self.world, ipc.read_frame(sock))
                self.got.set()
                self.free.wait(10)
                sock.sendall(ipc.acknowledgement(self.world.revision))


class Server:
    """An API over a World of its own."""

    def __init__(self, directory):
        self.store = open_store(directory / "store")
        self.store.commit(WORLD, 0)
        world = self.store.load()
        self.followers = Followers(world)
        self.audit = AuditLog(directory / "api.jsonl")
        self.audit.start()
        self.writer = Writer(self.store, self.followers.feed, world)
        self.api = Api(self.writer, self.audit, [self.audit.path], catalogue=CATALOGUE)

    async def close(self):
        """Stop, everything on disk."""
        await self.writer.close()
        self.audit.stop()
        self.followers.feed.close()
        self.store.close()

    async def call(self, key, service, action, **parameters):
        """Status and text of the answer to a query-protocol call, signed by a key."""
        body = urlencode({"Action": action, "Version": VERSIONS[service], **parameters}).encode()
        return await self.send(key, service, body)

    async def send(self, key, service, body, path="/", **headers):
        """The same for any body; more headers are signed as well."""
        given = {"host": "api.test", **{name.replace("_", "-"): value for name, value in headers.items()}}
        credentials = Credentials(key.id, key.secret, key.session_token)
        signed = signed_headers(
            given, body, credentials, region="us-east-1", service=service, now=time.time(), path=path
        )
        return await self.handle(signed, body, path)

    async def handle(self, headers, body=b"", path="/", query="", method="POST"):
        """The same for headers as they are."""
        reply = await self.api.handle(
            Request(method=method, path=path, query=query, headers=headers, body=body, peer=Peer(source_ip=SOURCE))
        )
        return reply.status, reply.body.decode()

    def lines(self):
        """The audit trail so far."""
        return [json.loads(line) for line in self.audit.path.read_text().splitlines()]


def played(scenario):
    """A test of an `async def scenario(server)`, in the loop that the API process runs in."""

    def test(tmp_path):
        async def run():
            server = Server(tmp_path)
            try:
                await scenario(server)
            finally:
                server.followers.free.set()
                await server.close()

        uvloop.run(asyncio.wait_for(run(), 20))

    test.__doc__, test.__name__ = scenario.__doc__, scenario.__name__
    return test


async def _overtaken(server, action, **parameters):
    """The answer to anna's CreateUser, which waits for the writer while this call of root's is carried out."""
    server.followers.free.clear()
    server.followers.got.clear()
    first = asyncio.create_task(server.call(ROOT, "iam", action, **parameters))
    await asyncio.to_thread(server.followers.got.wait, 5)
    waiting = asyncio.create_task(server.call(ANNA, "iam", "CreateUser", UserName="mallory"))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "it has to wait for the writer"
    server.followers.free.set()
    status, body = await first
    assert status == 200, body
    return await waiting


@played
async def test_policy_withdrawn_while_waiting(server):
    """A call that waits for the writer is decided by what its caller may do when its turn has come."""
    status, body = await _overtaken(server, "DeleteUserPolicy", UserName="anna", PolicyName="all")
    assert (status, "<Code>AccessDenied</Code>" in body) == (403, True), body
    assert server.writer.world.user("mallory") is None


@played
async def test_key_withdrawn_while_waiting(server):
    """The same for a key that was made inactive."""
    status, body = await _overtaken(server, "UpdateAccessKey", UserName="anna", AccessKeyId=ANNA.id, Status="Inactive")
    assert (status, "<Code>InvalidClientTokenId</Code>" in body) == (403, True), body
    assert server.writer.world.user("mallory") is None


@played
async def test_untouched_while_waiting(server):
    """And a caller from whom nothing was taken gets what he asked for."""
    status, body = await _overtaken(server, "CreateUser", UserName="bob")
    assert status == 200, body
    assert {user.name for user in server.writer.world.users} == {"anna", "bob", "mallory"}


@played
async def test_too_long_to_ask_about(server):
    """What no resource can be called is refused before IAM's policies, whoever wrote them, are asked about it."""
    for parameters in (
        {"InstanceId.1": "i-" + "a" * 100_000},
        {"ResourceId.1": "i-1", "Tag.1.Key": "k", "Tag.1.Value": "v" * 100_000},
    ):
        action = "CreateTags" if "ResourceId.1" in parameters else "TerminateInstances"
        status, body = await server.call(ANNA, "ec2", action, **parameters)
        assert (status, "<Code>InvalidParameterValue</Code>" in body) == (400, True), body
        assert "characters. At most 2048 are possible." in body


@played
async def test_requests_for_peering_run_out(server):
    """The server lets a request expire after a week, and forgets a deleted connection after two hours."""
    week, now = 7 * 86_400.0, time.time()
    ends = {"requester_vpc_id": "vpc-1", "accepter_vpc_id": "vpc-2"}
    peerings = (
        VpcPeeringConnection(id="pcx-1", link="pcx1", created_at=now - week + 60, **ends),
        VpcPeeringConnection(id="pcx-2", link="pcx2", created_at=now - week, **ends),
        VpcPeeringConnection(id="pcx-3", link="pcx3", status="deleted", ended_at=now - 7200, **ends),
    )
    vpcs = (Vpc(id="vpc-1", cidr_block="10.0.0.0/16"), Vpc(id="vpc-2", cidr_block="10.1.0.0/16"))
    async with server.writer.lock:
        await server.writer.commit(Change(puts=(*vpcs, *peerings)))
    await server.writer.settle()
    found = {one.id: one.status for one in server.writer.world.peerings}
    assert found == {"pcx-1": "pending-acceptance", "pcx-2": "expired"}
    assert server.store.load().peerings == server.writer.world.peerings
