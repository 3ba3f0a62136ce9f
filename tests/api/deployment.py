"""A real deployment inside the sandbox: API process, netd, gateway; and the stock SDK as its client."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import boto3
import botocore.config
import botocore.session

from wicketgate.configuration import Configuration
from wicketgate.daemon import Serve
from wicketgate.lab import machines

DOMAIN = "wicketgate.test"
REGION = "us-east-1"
ACCOUNT = "123456789012"
API = f"api.{DOMAIN}"
ROOT = ("AKIAROOTROOTROOTROOT", "root/secret/for/tests/only/0000000000000")


class Deployment:
    """One `Serve` on port 443 of the sandbox."""

    def __init__(self, name: str, **settings):
        self.configuration = Configuration(
            state_directory=str(Path("/run/deployments") / name),
            domain=DOMAIN,
            workers=1,
            account_id=ACCOUNT,
            region=REGION,
            **settings,
        )
        self.serve = None

    def start(self):
        """Start it; returns when it answers."""
        python, environment = readable()
        listener = socket.create_server(("", 443), backlog=1024)  # a machine's own network leads here, too
        self.serve = Serve(
            configuration=self.configuration, listeners=[listener], python=python, environment=environment, root=ROOT
        )
        self.serve.start()
        os.environ["AWS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = str(self.serve.bundle)

    def stop(self):
        """End it."""
        self.serve.stop()
        for listener in self.serve.listeners:
            listener.close()

    def client(self, service, key=ROOT[0], secret=ROOT[1], token=None, **config):
        """A boto3 client; each has a connection pool of its own. No retries: a test sees every error."""
        return client_of(service, key, secret, token, **config)

    def audit(self):
        """Every audit line of the API process, oldest first."""
        import json

        return [json.loads(line) for line in self.serve.audit_files[0].read_text().splitlines()]


def client_of(service, key, secret, token=None, *, endpoint=f"https://{API}", verify=None, **config):
    """A boto3 client of any deployment."""
    return boto3.session.Session(key, secret, token, region_name=REGION).client(
        service,
        endpoint_url=endpoint,
        verify=verify,
        config=botocore.config.Config(retries={"total_max_attempts": 1}, **config),
    )


_python = None


def readable():
    """Interpreter and environment for processes with an id of their own; the sandbox is prepared for clients too."""
    global _python
    if _python is None:
        machines.ROOT.mkdir(parents=True, exist_ok=True)
        _python = machines.readable_python()
        machines.own_etc({API: "127.0.0.1"})
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return _python


@contextmanager
def deployed(name, **settings):
    """A Deployment of this name for the body; its state stays, for another one of the name."""
    made = Deployment(name, **settings)
    made.start()
    try:
        yield made
    finally:
        made.stop()
