"""`python -m wicketgate.lab`: what `wicketgate lab` runs inside the sandbox."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
from pathlib import Path

from wicketgate.lab.lab import Lab
from wicketgate.lab.machines import ACCOUNT
from wicketgate.lab.topology import TopologyError, load
from wicketgate.lab.tour import Row, Tour, missing_for_tour
from wicketgate.model import WicketgateError


def main() -> int:
    """Bring the lab up; walk the tour, or stay until Ctrl-C. Exit code 1 for a mismatch, 2 for a bad file."""
    parser = argparse.ArgumentParser(prog="wicketgate lab")
    parser.add_argument("--topology", type=Path)
    parser.add_argument("--tour", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        topology = load(arguments.topology)
    except TopologyError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.tour and (missing := missing_for_tour(topology)):
        print(f"wicketgate lab: the tour needs {missing}, which this topology has not", file=sys.stderr)
        return 2
    lab = Lab(topology)
    try:
        lab.start()
        if arguments.tour:
            return _tour(lab, as_json=arguments.json)
        _stay(lab)
    except WicketgateError as error:
        print(f"wicketgate lab: {error}", file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"wicketgate lab: {error.filename} is missing; run make lab, or see scripts/bootstrap", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        lab.stop()
    return 0


def _tour(lab: Lab, *, as_json: bool) -> int:
    """Walk the tour and print it. Returns the exit code."""

    def progress(row: Row) -> None:
        if not as_json and sys.stderr.isatty():
            print(f"\r\033[K{'ok  ' if row.passed else 'FAIL'} {row.section}: {row.what}", end="", file=sys.stderr)

    rows = Tour(lab, progress).run()
    if not as_json and sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    failed = [row for row in rows if not row.passed]
    if as_json:
        print(json.dumps({"rows": [row.as_dict() for row in rows], "failed": len(failed)}, indent=1))
    elif sys.stdout.isatty():
        _print_rich(rows)
    else:
        for row in rows:
            mark = "ok  " if row.passed else "FAIL"
            print(f"{mark} | {row.section} | {row.what} | expected: {row.expected} | seen: {row.seen}")
    if not as_json:
        print(f"{len(rows)} statements tried with real packets, {len(failed)} not as expected")
    return 1 if failed else 0


def _print_rich(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="EC2 Instance Connect Endpoint: security groups and IAM, expected and seen", show_lines=False)
    for column in ("", "what", "expected", "seen"):
        table.add_column(column, overflow="fold")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_section()
            table.add_row("", Text(section, style="bold"))
        mark = Text("ok", style="green") if row.passed else Text("FAIL", style="bold red")
        # Not markup: what was seen may hold brackets.
        table.add_row(mark, *(Text(words) for words in (row.what, row.expected, row.seen)))
    Console().print(table)


def _stay(lab: Lab) -> None:
    """Print what to try and wait for Ctrl-C or SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: ended.set())
    print("\n".join(_to_try(lab)), flush=True)
    ended.wait()


def _to_try(lab: Lab) -> list[str]:
    """What there is in this lab, and commands for it."""
    clients = ", ".join(f"{name} {address}" for name, address in lab.topology.clients.items())
    users = ", ".join(lab.keys)
    lines = [
        "The lab is up; Ctrl-C ends it. In another terminal:",
        "",
        "  wicketgate lab shell [--client NAME] [--user NAME] [-- COMMAND]",
        "",
        "is a shell of a client on the internet. AWS's own tools work there as they are.",
        f"Clients: {clients}. Users: {users}.",
        "",
    ]
    for vpc in lab.topology.vpcs:
        endpoint = lab.endpoint(vpc.name)
        kept = "on" if endpoint.preserve_client_ip else "off"
        lines.append(f"VPC {vpc.name}: endpoint {endpoint.id}, client IP preservation {kept}")
        for one in vpc.instances:
            instance = lab.instance(vpc.name, one.name)
            address = ", ".join(lab.interface(instance).addresses)
            lines.append(f"  {one.name:10} {address:15} {instance.id}  groups: {', '.join(one.groups)}")
    first = next((vpc for vpc in lab.topology.vpcs if vpc.instances), None)
    if first is None:
        return lines
    instance = lab.instance(first.name, first.instances[0].name)
    address = lab.address(first.name, first.instances[0].name)
    lines += [
        "",
        "To try in that shell:",
        "",
        "  aws ec2 describe-instances --query 'Reservations[].Instances[].[InstanceId,PrivateIpAddress,State.Name]'",
        f"  aws ec2-instance-connect ssh --os-user {ACCOUNT} --connection-type eice --instance-id {instance.id}",
        f"  wicketgate ssh {ACCOUNT}@{instance.id}",
        "",
        "With the lab's own key, through either client as ssh's ProxyCommand:",
        "",
    ]
    for aws in (None, "aws"):
        proxy = lab.tunnel_command(first.name, address, aws=aws)
        lines.append(f"  {shlex.join(lab.ssh_command(proxy, address))}")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
