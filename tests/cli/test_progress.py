"""The line of progress at every width: whole words and numbers, the step and the time left always."""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from entrostat.cli.progress import fitted, progress, working

FIGURES = ("pass@1 report 0.31", "entropy 0.45", "pass@1 select 0.28")


@given(
    name=st.text("grpo-1é日", max_size=40),
    done=st.integers(0, 10**7),
    more=st.integers(0, 10**7),
    width=st.integers(1, 200),
    figures=st.lists(st.sampled_from(FIGURES), unique=True),
)
def test_a_line_fits_and_holds_whole_parts_only(name, done, more, width, figures):
    count, left = f"step {done}/{done + more}", "1:02:03 left"
    line = fitted(name, done, done + more, left, figures, "step", width)
    assert cell_len(line.plain) <= max(width, len(count) + 2 + len(left))
    parts = [part for part in line.plain.split("  ") if part]
    assert [part for part in parts if part.strip("━")] == [
        part for part in (name, count, left, *figures) if part and part in parts
    ]
    assert count in parts
    assert left in parts


def test_more_width_shows_no_less():
    def shown(width):
        return set(fitted("grpo", 12, 60, "2:03 left", FIGURES, "step", width).plain.split("  "))

    parts = [{part for part in shown(width) if not set(part) <= set("━")} for width in range(20, 130)]
    assert all(narrow <= wide for narrow, wide in pairwise(parts))
    assert {"grpo", "step 12/60", "2:03 left"} <= parts[60 - 20]
    assert "━" in fitted("grpo", 12, 60, "2:03 left", FIGURES, "step", 80).plain
    assert set(FIGURES) <= parts[120 - 20]


PROGRAM = """
from entrostat.cli.progress import progress
with progress("a-run-with-a-name", "step") as tell:
    for step in (40, 41, 1000):
        tell(step, 1000, ["entropy 0.45", "pass@1 report 0.31"])
"""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_real_terminal_no_number_is_cut(columns):
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment["TERM"] = "xterm-256color"
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:
                break
            if not block:
                break
            written += block
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert max(map(len, lines)) <= columns
    assert "step 1000/1000" in lines[-1]
    assert "…" not in text


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 10**6, 1))
    monkeypatch.setattr("entrostat.cli.progress.time.monotonic", lambda: next(clock))
    with progress("grpo", "step") as tell:
        for step in range(101):
            tell(step, 100, ["entropy 0.45"])
    lines = capsys.readouterr().err.splitlines()
    assert 8 <= len(lines) <= 13
    assert re.fullmatch(r"grpo  step \d+/100  \d+:\d\d left  entropy 0\.45", lines[3])


def test_what_takes_long_says_what_it_is(monkeypatch, capsys):
    monkeypatch.setattr("entrostat.cli.progress.QUIET", 0.01)
    with working("reading runs/x"):
        __import__("time").sleep(0.2)
    with working("this is quick"):
        pass
    assert capsys.readouterr().err == "reading runs/x\n"


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_a_table_that_does_not_fit_becomes_lines_and_loses_nothing(monkeypatch, capsys, width):
    from entrostat.cli import screen

    table = Table(caption="what it is")
    rows = [["a-run", "0.206", "0.272@40", "1.287"], ["other [1]", "-", "0.300@5", "12.5"]]
    for heading in ("run", "start", "peak@", "H start"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    monkeypatch.setattr(screen, "console", Console(width=width))
    screen.print_table(table)
    text = capsys.readouterr().out
    assert all(value in text for row in rows for value in row)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
