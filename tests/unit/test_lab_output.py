"""The tour's table as a person at a terminal sees it. (Lines, `--json` and exit codes: tests/net/test_sandbox.py.)"""

from __future__ import annotations

import os
import pty
import subprocess
import sys

CODE = """
from wicketgate.lab.__main__ import _print_rich
from wicketgate.lab.tour import Row
_print_rich([
    Row("endpoint outbound", "plain: a member", "login from 10.0.0.10", "login from 10.0.0.10", True),
    Row("endpoint outbound", "plain: [another] port", "refused: no outbound rule", "login from 10.0.0.11", False),
    Row("IAM", "nobody", "refused: denied; 0 packets", "refused: denied; 0 packets", True),
])
"""


def test_table_at_a_terminal():
    """Expected and seen side by side, sections named once, a mismatch marked by word and colour."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140"}
    environment.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", CODE], stdout=theirs, env=environment, check=True)
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
    except OSError:  # how Linux tells the end of a terminal (EIO)
        pass
    finally:
        os.close(ours)
    lines = text.decode().splitlines()
    (failed,) = [line for line in lines if "FAIL" in line]
    assert "\x1b[1;31mFAIL" in failed
    for words in ("plain: [another] port", "refused: no outbound rule", "login from 10.0.0.11"):
        assert words in failed
    assert sum("endpoint outbound" in line for line in lines) == 1
    assert sum("\x1b[32mok" in line for line in lines) == 2
