"""`wicketgate machines`: register machines that exist, one or a file of them; list them; forget them.

Exit code 0: it is as asked; 1: some are registered, but not as the file says; 255: something is wrong, and nothing, or
not all, was done.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from wicketgate.client.errors import ClientError, InvalidUse, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wicketgate.client.api import Ec2
    from wicketgate.client.inventory import Format, Row, Wrong
    from wicketgate.client.machines import Machine, Plan

DIFFERS: Final = 1
FAILED: Final = 255
_OPTIONS: Final = (
    click.option("--profile", help="A profile of the AWS credentials and config files."),
    click.option("--region", help="The region to sign for."),
    click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others."),
    click.option("--endpoint-url", metavar="URL", help="Where the APIs are."),
)

Verb = TypeVar("Verb", bound=Callable[..., Any])


def _of_deployment(verb: Verb) -> Verb:
    """The options that say where and as whom."""
    for option in reversed(_OPTIONS):
        verb = option(verb)
    return verb


@contextmanager
def _api(options: dict[str, str | None]) -> Iterator[Ec2]:
    """The EC2 API, as options and environment say. Raises ConfigurationError."""
    from wicketgate.client.api import Ec2
    from wicketgate.client.lookup import Caller

    connection = Caller.resolve(os.environ, **options).connection("ec2")
    try:
        yield Ec2(connection)
    finally:
        connection.close()


def _failed(error: ClientError) -> int:
    click.echo(f"wicketgate: {error}", err=True)
    return error.exit_code


@click.group()
def command() -> None:
    """Register machines that exist on a network of the gateway's host, list them, forget them.

    Nothing is done to a machine: what is registered is that it is there. Terminated, it is forgotten.
    """


# -- registering -------------------------------------------------------------------------------------------------------


@command.command()
@click.argument("address")
@click.option("--subnet", metavar="ID", default="", help="Its subnet.  [default: the one whose range holds ADDRESS]")
@click.option("--name", metavar="NAME", default="", help="Its name: the tag Name.")
@click.option("--group", "groups", metavar="GROUP", multiple=True, help="A security group, by id or name.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="A tag.")
@click.option("--dry-run", is_flag=True, help="Check everything, and register nothing.")
@_of_deployment
def add(
    address: str,
    subnet: str,
    name: str,
    groups: tuple[str, ...],
    tags: tuple[str, ...],
    *,
    dry_run: bool,
    **options: str | None,
) -> int:
    """Register the machine at ADDRESS, and print its id."""
    from wicketgate.client.inventory import Row, Wrong, checked, tags_of

    try:
        row = checked(Row(0, address, name, subnet, groups, tags_of(tags)))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if isinstance(row, Wrong):
        raise click.UsageError(row.words)
    try:
        with _api(options) as ec2:
            return _carry_out(ec2, [row], "", dry_run=dry_run)
    except ClientError as error:
        return _failed(error)


@command.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False))
@click.option("--format", "kind", type=click.Choice(["csv", "ini", "yaml"]), help="[default: by the file's name]")
@click.option("--subnet", metavar="ID", default="", help="The subnet of those for which the file names none.")
@click.option("--group", "groups", metavar="GROUP", multiple=True, help="The groups of those for which it names none.")
@click.option("--dry-run", is_flag=True, help="Check everything, and register nothing.")
@_of_deployment
def import_(
    file: Path,
    kind: str | None,
    subnet: str,
    groups: tuple[str, ...],
    *,
    dry_run: bool,
    **options: str | None,
) -> int:
    """Register the machines that FILE lists: CSV with a header, or an Ansible inventory (docs/machines.md).

    What is registered already stays as it is, so that the same file may be imported again and again. Every row is
    checked before the first one is registered.
    """
    from wicketgate.client.inventory import format_of, read

    try:
        found = read(_text_of(file), cast("Format", kind or format_of(file.name)))
        rows = [row._replace(subnet=row.subnet or subnet, groups=row.groups or groups) for row in found.rows]
        if not rows and not found.wrong:
            raise InvalidUse(f"{file} lists no machines.")
        with _api(options) as ec2:
            return _carry_out(ec2, rows, str(file), found.wrong, dry_run=dry_run)
    except ClientError as error:
        return _failed(error)


def _text_of(file: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return data.decode()
    except OSError as error:
        raise InvalidUse(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidUse(f"{file}: no UTF-8 at byte {error.start}") from error


def _carry_out(ec2: Ec2, rows: Sequence[Row], file: str, wrong: Sequence[Wrong] = (), *, dry_run: bool) -> int:
    """Check all rows, say what is wrong with any, and register those that are not there, unless something is wrong."""
    from wicketgate.client.machines import plan

    planned = plan(ec2, rows)
    for line, words in sorted({*wrong, *planned.wrong}):
        click.echo(f"wicketgate: {_place(file, line)}{printable(words)}", err=True)
    if wrong or planned.wrong:
        count = len({line for line, _ in (*wrong, *planned.wrong)})
        click.echo(f"wicketgate: nothing was registered: {_counted(count, 'line')} cannot be used", err=True)
        return FAILED
    for row, machine in planned.same if not file else ():  # who adds one wants its id
        click.echo(f"{row.address}: {machine.id}")
    for row, machine, difference in planned.other:
        click.echo(f"{row.address}: {machine.id} is registered with {printable(difference)}; left as it is")
    made = 0 if dry_run else _register(ec2, planned, file)
    if dry_run:
        for wish in planned.new:
            click.echo(f"{wish.row.address}: would be registered in {wish.subnet}")
    _sum_up(planned, made, dry_run=dry_run)
    return DIFFERS if planned.other else 0


def _register(ec2: Ec2, planned: Plan, file: str) -> int:
    """Register what is new; how many. Raises ClientError, after saying at which row."""
    from wicketgate.client.machines import register

    for count, wish in enumerate(planned.new):
        try:
            click.echo(f"{wish.row.address}: {register(ec2, wish)}")
        except ClientError:
            place = _place(file, wish.row.line)
            click.echo(f"wicketgate: {place}stopped at {wish.row.address}, {count} were registered before it", err=True)
            raise
    return len(planned.new)


def _place(file: str, line: int) -> str:
    return f"{file}:{line}: " if line else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _sum_up(planned: Plan, made: int, *, dry_run: bool) -> None:
    parts = [f"{len(planned.new)} to be registered"] if dry_run else [f"{made} registered"]
    if planned.same:
        parts.append(f"{len(planned.same)} there already")
    if planned.other:
        parts.append(f"{len(planned.other)} different")
    click.echo(", ".join(parts) + ("" if made or planned.new else "; nothing changed"), err=True)


# -- listing and forgetting --------------------------------------------------------------------------------------------


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with groups and tags.")
@_of_deployment
def list_(*, as_json: bool, **options: str | None) -> int:
    """List the registered machines: where they are, and whether they answered when last looked for."""
    from wicketgate.client.machines import machines

    try:
        with _api(options) as ec2:
            found = machines(ec2)
    except ClientError as error:
        return _failed(error)
    if as_json:
        click.echo(json.dumps([_data(one) for one in found], ensure_ascii=False, indent=2))
        return 0
    rows = [(one.id, one.name, one.address, one.subnet, one.state, one.since, one.note) for one in found]
    _table(("ID", "NAME", "ADDRESS", "SUBNET", "STATE", "SINCE", "NOTE"), rows)
    return 0


def _data(machine: Machine) -> dict[str, Any]:
    return {
        **machine._asdict(),
        "addresses": list(machine.addresses),
        "groups": list(machine.groups),
        "tags": dict(machine.tags),
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [header, *([printable(cell) or "-" for cell in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(header))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="ID|ADDRESS...")
@_of_deployment
def remove(names: tuple[str, ...], **options: str | None) -> int:
    """Forget registered machines, by id or address. Nothing is done to them, and new tunnels no longer reach them."""
    from wicketgate.client.machines import forget, machines, named

    try:
        with _api(options) as ec2:
            those = named(machines(ec2), names)
            forget(ec2, those)
    except ClientError as error:
        return _failed(error)
    for one in those:
        click.echo(f"{one.address}: {one.id} is forgotten")
    return 0
