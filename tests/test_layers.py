"""The house of docs/DESIGN.md section 3 as data, and what each room may import.

Each check prints `file:line` of what breaks it, and what would be right.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "wicketgate"

ROWS: tuple[tuple[str, frozenset[str]], ...] = (
    ("model", frozenset({"model"})),
    ("engines", frozenset({"sigv4", "iam", "paths", "rules", "tunnel"})),
    ("admission", frozenset({"admit", "control"})),
    ("explanation", frozenset({"explain"})),
    ("drivers", frozenset({"kernel", "audit", "ipc", "follow", "followers", "pki", "seal", "ssh_signer", "store"})),
    ("servers", frozenset({"netd", "gateway", "metadata", "api"})),
    ("composition", frozenset({"client", "lab", "cli", "daemon", "units", "install", "configuration"})),
)
"""Top row first. A room imports only rooms of rows above its own."""

SIDEWAYS = {
    "cli": frozenset({"client", "lab", "daemon", "configuration", "install"}),  # verbs start things
    "follow": frozenset({"ipc"}),  # the same feed, in an event loop
    "followers": frozenset({"ipc"}),  # its other end
    "ssh_signer": frozenset({"pki"}),  # kept in the same vaults
    "store": frozenset({"seal"}),  # secrets are sealed where they are kept
    "api": frozenset({"metadata"}),  # machines that ask over TLS are told what others are at 169.254.169.254
    "lab": frozenset({"daemon", "configuration"}),  # the lab is the same processes over a made-up network
    "daemon": frozenset({"configuration"}),
    "units": frozenset({"configuration"}),
    "install": frozenset({"configuration"}),  # settings decide what is installed
}
"""Imports within the last row: composition is its job. Elsewhere there are none."""

PURE = frozenset({"model", "sigv4", "iam", "paths", "rules", "tunnel", "admit", "control", "explain"})
IMPURE_MODULES = frozenset(
    {"asyncio", "socket", "ssl", "select", "selectors", "subprocess", "sqlite3", "time", "os", "random", "threading"}
)
"""What brings in I/O, the clock or another hidden input. (`datetime` is for arithmetic; `.now()` is checked apart.)"""

CLOCKS = frozenset({"now", "utcnow", "today"})

BROAD_EXCEPT_BUDGET = 5
"""`except Exception` and wider that do not raise again: only where a task or process ends and must say why."""

TOO_HEAVY_FOR_THE_CLIENT = ("botocore", "msgspec", "cryptography", "asyncio", "uvloop", "picows", "rich", "structlog")

Import = tuple[Path, int, str]


def sources() -> list[Path]:
    """All modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room a file lies in: the first part of its path; "" for the package's own `__init__.py`."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module imported anywhere in a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative: resolved against the file's package
                base = path.relative_to(PACKAGE.parent).parent.parts
                module = ".".join((*base[: len(base) - node.level + 1], *([module] if module else [])))
            if module == "wicketgate":
                for alias in node.names:
                    yield node.lineno, f"wicketgate.{alias.name}"
            else:
                yield node.lineno, module


def row_of(room: str) -> int:
    """Index of the row that a room stands in; -1 if it stands in none."""
    return next((index for index, (_, rooms) in enumerate(ROWS) if room in rooms), -1)


def place(path: Path, line: int) -> str:
    """`file:line` as editors read it."""
    return f"{path.relative_to(PACKAGE.parent.parent)}:{line}"


def crossings(path: Path) -> Iterator[str]:
    """Imports of a file that its row forbids, worded."""
    room = room_of(path)
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] != "wicketgate" or len(parts) < 2 or parts[1] in ("__version__", room):
            continue
        other = parts[1]
        if other in SIDEWAYS.get(room, ()):
            continue
        if row_of(other) >= row_of(room):
            above = sorted(set().union(*(rooms for _, rooms in ROWS[: max(row_of(room), 0)])))
            yield f"{place(path, line)}: {room} imports {other}; it may import {', '.join(above) or 'no other room'}"


def test_every_room_stands_in_a_row() -> None:
    """A new room is given its place in the house before it is used."""
    homeless = {room_of(path) for path in sources()} - {""} - set().union(*(rooms for _, rooms in ROWS))
    assert not homeless, f"add to ROWS (and to docs/DESIGN.md section 3): {sorted(homeless)}"


def test_rooms_import_only_rows_above_their_own() -> None:
    """No import points sideways or down the house."""
    found = [line for path in sources() if room_of(path) for line in crossings(path)]
    assert not found, "\n".join(found)


def test_engines_know_no_io_and_no_clock() -> None:
    """What reasons gets the time and the facts passed in."""
    found = [
        f"{place(path, line)}: {room_of(path)} is pure and imports {module}"
        for path in sources()
        if room_of(path) in PURE
        for line, module in imports(path)
        if module.split(".")[0] in IMPURE_MODULES
    ]
    assert not found, "\n".join(found)


def test_engines_ask_no_clock_through_datetime() -> None:
    """`datetime.now()` is a hidden input as much as `time.time()`."""
    found = [
        f"{place(path, node.lineno)}: {node.func.attr}() reads the clock; take `now` as a parameter"
        for path in sources()
        if room_of(path) in PURE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS
    ]
    assert not found, "\n".join(found)


def broad_excepts(tree: ast.AST) -> Iterator[int]:
    """Lines of handlers that catch everything and keep it: one that cleans up and raises again hides nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and not _raises_again(node):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = [kind.id if isinstance(kind, ast.Name) else kind for kind in caught]
            if any(name in (None, "Exception", "BaseException") for name in names):
                yield node.lineno


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_broad_excepts_stay_within_their_budget() -> None:
    """Errors are named where they are caught; a handful of task boundaries excepted."""
    found = [place(path, line) for path in sources() for line in broad_excepts(ast.parse(path.read_text("utf-8")))]
    listing = "\n".join(found)
    assert len(found) <= BROAD_EXCEPT_BUDGET, f"{len(found)} broad excepts, at most {BROAD_EXCEPT_BUDGET}:\n{listing}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("try: pass\nexcept Exception: pass", [2]),
        ("try: pass\nexcept: pass", [2]),
        ("try: pass\nexcept (ValueError, BaseException): pass", [2]),
        ("try: pass\nexcept ValueError: pass", []),
        ("try: pass\nexcept BaseException:\n    print()\n    raise", []),
        ("try: pass\nexcept Exception:\n    raise ValueError", [2]),
    ],
)
def test_the_broad_except_finder_finds_them(code: str, expected: list[int]) -> None:
    """The budget counts bare, Exception and BaseException handlers, alone or in a tuple, unless they raise again."""
    assert list(broad_excepts(ast.parse(code))) == expected


def test_the_crossing_finder_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that imports a driver, inside a function and relatively, is printed with its line."""
    package = tmp_path / "src" / "wicketgate"
    (package / "iam").mkdir(parents=True)
    bad = package / "iam" / "bad.py"
    bad.write_text("def f():\n    from ..kernel import dial\n    from wicketgate import audit, model\n")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    assert [line.split(";")[0] for line in crossings(bad)] == [
        "src/wicketgate/iam/bad.py:2: iam imports kernel",
        "src/wicketgate/iam/bad.py:3: iam imports audit",
    ]


def test_the_client_starts_light() -> None:
    """Opening a tunnel imports no SDK, no model and no event loop: every `ssh` would wait for them."""
    code = (
        "import sys, wicketgate.cli.open_tunnel, wicketgate.client.tunnel;"
        f"print(*[name for name in {TOO_HEAVY_FOR_THE_CLIENT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
