"""Files that list machines: CSV, and Ansible inventories in INI and YAML; into rows, each with its line.

A file is read whole: what is wrong in it is gathered, not raised, so that everything can be told at once.

CSV has a header. The columns `address`, `name`, `subnet`, `groups` (separated by spaces or semicolons) and `tags`
(`KEY=VALUE;KEY=VALUE`) are known, all but the first may be missing, and any other column is a tag of that name.

Of an inventory each host is a row (Ansible documentation, "How to build your inventory"): its address is `ansible_host`
or the host's own name; `wicketgate_subnet` and `wicketgate_groups` say the rest, for a host or in the variables of its
groups. Each of its groups becomes a tag `ansible:GROUP` without a value, so that `tag-key` finds its members and IAM
policies can name them.
"""

from __future__ import annotations

import csv
import io
import ipaddress
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from wicketgate.client.errors import InvalidUse, printable

Format = Literal["csv", "ini", "yaml"]

MAX_ROWS: Final = 10_000
"""Rows of one file: a range such as host[1:999999999] is a slip."""
GROUP_TAG: Final = "ansible:"
_EVERY: Final = ("all", "ungrouped")
"""Groups that say nothing of a host."""
_is_range = re.compile(r"(.*?)\[([0-9]+|[a-zA-Z]):([0-9]+|[a-zA-Z])(?::([0-9]+))?\](.*)").fullmatch
_section = re.compile(r"\[([^]=]*)\]\s*(?:[#;].*)?").fullmatch
_words = re.compile(r"[\s;]+").split


class Row(NamedTuple):
    """One machine as a file has it."""

    line: int
    """Counted from 1; 0 for one that stands in no file."""
    address: str
    """In canonical form."""
    name: str = ""
    subnet: str = ""
    """Id; empty = the one whose range holds the address."""
    groups: tuple[str, ...] = ()
    """Ids or names; () = the VPC's default group."""
    tags: Mapping[str, str] = {}
    """Beside the name."""


class Wrong(NamedTuple):
    """Why a line cannot be used."""

    line: int
    words: str


class Read(NamedTuple):
    """What a file says."""

    rows: list[Row]
    wrong: list[Wrong]


def format_of(name: str) -> Format:
    """The format that a file's name stands for: INI is what Ansible takes a file without a suffix for."""
    suffix = name.rpartition(".")[2].lower()
    if suffix in ("yml", "yaml"):
        return "yaml"
    return "csv" if suffix == "csv" else "ini"


def read(text: str, kind: Format) -> Read:
    """The rows of a file and what is wrong in it, by lines. Raises InvalidUse for YAML where PyYAML is missing."""
    found = _csv(text) if kind == "csv" else _hosts(_ini(text) if kind == "ini" else _yaml(text))
    first: dict[tuple[str, str], Row] = {}
    for row in found.rows:
        before = first.setdefault((row.address, row.subnet), row)
        if before is not row:  # on one line two hosts of a range may be
            found.wrong.append(Wrong(row.line, f"{row.address} stands in line {before.line} already"))
    return Read(found.rows, sorted(found.wrong))


def checked(row: Row) -> Row | Wrong:
    """The row with its address in canonical form and a tag `Name` as its name, or why it is none."""
    tags = dict(row.tags)
    tagged = tags.pop("Name", "")
    if row.name and tagged not in ("", row.name):
        return Wrong(row.line, f"it has two names, {printable(row.name)} and, as the tag Name, {printable(tagged)}")
    row = row._replace(name=row.name or tagged, tags=tags)
    try:
        return row._replace(address=str(ipaddress.ip_address(row.address)))
    except ValueError:
        words = f"{printable(row.address)!r} is no IP address" if row.address else "there is no address"
        return Wrong(row.line, words)


def words_of(text: str) -> tuple[str, ...]:
    """Names that are separated by spaces or semicolons."""
    return tuple(one for one in _words(text) if one)


def tags_of(texts: Sequence[str]) -> dict[str, str]:
    """Tags from `KEY=VALUE`. Raises ValueError, in words, for anything else."""
    tags = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ValueError(f"the tag {printable(text)!r} is not KEY=VALUE")
        tags[key.strip()] = value.strip()
    return tags


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _csv(text: str) -> Read:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    found = Read([], [])
    header: list[str] = []
    try:
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                if problem := _header_problem(header):
                    return Read([], [Wrong(line, problem)])
                continue
            row = _csv_row(line, header, cells)
            if isinstance(row, Row):
                found.rows.append(row)
            else:
                found.wrong.append(row)
    except csv.Error as error:
        found.wrong.append(Wrong(reader.line_num, f"no CSV: {error}"))
    if not header and not found.wrong:
        found.wrong.append(Wrong(1, "there is no header: address,name,subnet,groups"))
    return found


def _header_problem(header: Sequence[str]) -> str:
    if "address" not in header:
        return f"the header has no column address: {printable(','.join(header))}"
    double = [name for name in header if header.count(name) > 1]
    if double:
        return f"the column {printable(double[0])!r} stands in the header twice"
    return "" if all(header) else "a column of the header has no name"


def _csv_row(line: int, header: Sequence[str], cells: Sequence[str]) -> Row | Wrong:
    if len(cells) != len(header):
        return Wrong(line, f"{len(cells)} cells, and the header has {len(header)}")
    has = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    known = [has.pop(name, "") for name in ("address", "name", "subnet", "groups", "tags")]
    try:
        tags = tags_of([one for one in known[4].split(";") if one.strip()])
    except ValueError as error:
        return Wrong(line, str(error))
    tags |= {name: value for name, value in has.items() if value}
    return checked(Row(line, known[0], known[1], known[2], words_of(known[3]), tags))


# -- inventories -------------------------------------------------------------------------------------------------------


@dataclass
class _Group:
    hosts: set[str] = field(default_factory=set)
    children: set[str] = field(default_factory=set)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class _Inventory:
    hosts: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Name -> line of its first mention and its own variables."""
    groups: dict[str, _Group] = field(default_factory=dict)
    wrong: list[Wrong] = field(default_factory=list)

    def group(self, name: str) -> _Group:
        """The group of this name, made when it is first named."""
        return self.groups.setdefault(name, _Group())

    def add(self, line: int, pattern: str, group: str, variables: Mapping[str, str]) -> None:
        """Add the hosts that a name with ranges stands for."""
        name = ""
        for name in _expanded(pattern):
            if len(self.hosts) >= MAX_ROWS and name not in self.hosts:
                self.wrong.append(Wrong(line, f"{printable(pattern)} makes more than {MAX_ROWS} hosts"))
                return
            self.hosts.setdefault(name, (line, {}))[1].update(variables)
            self.group(group).hosts.add(name)
        if not name:
            self.wrong.append(Wrong(line, f"the range {printable(pattern)} ends before it begins"))

    def groups_of(self, host: str) -> list[str]:
        """The groups that a host is in by itself or through others, the widest first: what a narrower one says of a
        variable holds (Ansible: a child group's before its parent's)."""
        found: set[str] = set()
        waiting = [name for name, group in self.groups.items() if host in group.hosts]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._parents(name)
        return sorted(found, key=lambda name: (self._depth(name, ()), name))

    def _parents(self, name: str) -> list[str]:
        return [one for one, group in self.groups.items() if name in group.children]

    def _depth(self, name: str, below: tuple[str, ...]) -> int:
        """How many groups stand above, at most; a group within itself counts once."""
        above = [one for one in self._parents(name) if one != name and one not in below]
        return max((1 + self._depth(one, (*below, name)) for one in above), default=0)


def _expanded(pattern: str) -> Iterator[str]:
    """The names that `host[01:10]`, `db[a:c]` or `n[0:8:2]` stand for (Ansible's ranges: both ends are in)."""
    match = _is_range(pattern)
    if match is None:
        yield pattern
        return
    head, first, last, step, tail = match.groups()
    stride = int(step or 1) or 1
    if first.isdigit() and last.isdigit():
        middles = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1, stride))
    elif first.isdigit() or last.isdigit():
        yield pattern
        return
    else:
        middles = (chr(code) for code in range(ord(first), ord(last) + 1, stride))
    for middle in middles:
        for rest in _expanded(tail):
            yield f"{head}{middle}{rest}"


def _hosts(inventory: _Inventory) -> Read:
    """The rows of an inventory."""
    found = Read([], list(inventory.wrong))
    for name, (line, own) in inventory.hosts.items():
        member = inventory.groups_of(name)
        has: dict[str, str] = dict(inventory.groups["all"].variables) if "all" in inventory.groups else {}
        for group in member:
            has |= inventory.groups[group].variables
        has |= own
        tags = {f"{GROUP_TAG}{group}": "" for group in member if group not in _EVERY}
        row = checked(
            Row(
                line=line,
                address=has.get("ansible_host", name),
                name=name,
                subnet=has.get("wicketgate_subnet", ""),
                groups=words_of(has.get("wicketgate_groups", "")),
                tags=tags,
            )
        )
        if isinstance(row, Row):
            found.rows.append(row)
        elif "ansible_host" in has:
            found.wrong.append(Wrong(line, f"host {printable(name)}: ansible_host {row.words}"))
        else:
            found.wrong.append(Wrong(line, f"host {printable(name)} has no ansible_host, and is no IP address itself"))
    return found


# -- INI ---------------------------------------------------------------------------------------------------------------


def _ini(text: str) -> _Inventory:
    found = _Inventory()
    group, kind = "ungrouped", "hosts"
    for line, written in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        stripped = written.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if section := _section(stripped):
            group, _, kind = section[1].strip().partition(":")
            kind = kind or "hosts"
            if not group or kind not in ("hosts", "children", "vars"):
                found.wrong.append(Wrong(line, f"{printable(stripped)} is no section: [G], [G:children] or [G:vars]"))
                kind = "vars"  # what follows is not for hosts
            found.group(group)
            continue
        try:
            _ini_line(found, line, stripped, group, kind)
        except ValueError as error:
            found.wrong.append(Wrong(line, str(error)))
    return found


def _ini_line(found: _Inventory, line: int, written: str, group: str, kind: str) -> None:
    """One line within a section. Raises ValueError, in words."""
    if kind == "vars":
        name, value = _variable(written)
        found.group(group).variables[name] = value.strip("\"'")
        return
    try:
        first, *others = shlex.split(written, comments=True)
    except ValueError as error:
        raise ValueError(f"{printable(written)!r}: {error}") from error
    if kind == "children":
        found.group(group).children.add(first)
        found.group(first)
        return
    found.add(line, first, group, dict(map(_variable, others)))


def _variable(written: str) -> tuple[str, str]:
    name, equals, value = written.partition("=")
    if not equals:
        raise ValueError(f"{printable(written)!r} is no variable: NAME=VALUE")
    return name.strip(), value.strip()


# -- YAML --------------------------------------------------------------------------------------------------------------


def _yaml(text: str) -> _Inventory:
    try:
        import yaml
    except ImportError as error:
        raise InvalidUse("An inventory in YAML needs PyYAML: pip install pyyaml, or give it as INI or CSV.") from error
    found = _Inventory()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        found.wrong.append(Wrong(mark.line + 1 if mark else 1, f"no YAML: {error.problem}"))
        return found
    except (yaml.YAMLError, RecursionError) as error:
        found.wrong.append(Wrong(1, f"no YAML: {' '.join(str(error).split())}"))
        return found
    for name, node in _entries(found, root, "the inventory"):
        _yaml_group(found, name, node, ())
    return found


def _entries(found: _Inventory, node: Any, what: str) -> Iterator[tuple[Any, Any]]:
    """Keys and values of a mapping, as nodes; nothing of what is empty, and a worded line for anything else."""
    if node is None or (node.id == "scalar" and node.value in ("", "~", "null")):
        return
    if node.id != "mapping":
        found.wrong.append(Wrong(node.start_mark.line + 1, f"{printable(what)} is no mapping"))
        return
    for key, value in node.value:
        if key.id == "scalar":
            yield key, value
        else:
            found.wrong.append(Wrong(key.start_mark.line + 1, f"a key of {printable(what)} is no name"))


def _yaml_group(found: _Inventory, named: Any, node: Any, within: tuple[str, ...]) -> None:
    name: str = named.value
    if name in within:
        found.wrong.append(Wrong(named.start_mark.line + 1, f"the group {printable(name)} is within itself"))
        return
    group = found.group(name)
    for key, value in _entries(found, node, f"the group {name}"):
        if key.value == "hosts":
            for host, variables in _entries(found, value, f"hosts of {name}"):
                found.add(host.start_mark.line + 1, host.value, name, _scalars(found, variables, host.value))
        elif key.value == "children":
            for child, inner in _entries(found, value, f"children of {name}"):
                group.children.add(child.value)
                _yaml_group(found, child, inner, (*within, name))
        elif key.value == "vars":
            group.variables.update(_scalars(found, value, name))
        else:
            words = f"{printable(key.value)!r} of the group {printable(name)} is not hosts, children or vars"
            found.wrong.append(Wrong(key.start_mark.line + 1, words))


def _scalars(found: _Inventory, node: Any, what: str) -> dict[str, str]:
    """The variables that are plain values; of a list, its plain values in a row."""
    values = {}
    for key, value in _entries(found, node, what):
        if value.id == "scalar":
            values[key.value] = value.value
        elif value.id == "sequence":
            values[key.value] = " ".join(one.value for one in value.value if one.id == "scalar")
    return values
