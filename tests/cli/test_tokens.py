"""The per-token view: where the marks and colours stand, and that no completion speaks to the terminal."""

import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from entrostat.cli import app
from entrostat.cli.screen import visible
from entrostat.cli.token_view import render
from entrostat.runs import Run

SGR = re.compile(r"\x1b\[[0-9;]*m")


def sample(text, sensitivity, advantage=1.0, **fields):
    tokens = {"text": text, "logp": [-0.5] * len(text), "entropy": [0.3] * len(text), "sensitivity": sensitivity}
    found = {"step": 3, "split": "train", "task": "t", "prompt": "p", "completion": "".join(text), "outcome": "wrong"}
    return {**found, "advantage": advantage, "tokens": tokens, **fields}


def shown(line, by="polarity", coloured=False, width=40):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=coloured, color_system="truecolor" if coloured else None)
    for part in render(line, by, [], width, coloured):
        console.print(part)
    return out.getvalue()


def test_marks_stand_under_the_strong_tokens_and_say_the_direction_of_the_update():
    line = sample(["def ", "f", "(x)", "\n", "  x"], [0.4, 0.01, -0.2, 0.0, -0.1], advantage=-1.0)
    text = shown(line)
    assert "def f(x)↵\n---- +++\n  x\n+++\n" in text
    assert "+ expands, - contracts" in text
    assert "def f(x)↵\n++++ ---\n  x\n---\n" in shown(line, "sensitivity")


def test_marks_keep_below_characters_that_are_two_cells_wide():
    assert "漢字x\n    +" in shown(sample(["漢字", "x"], [0.0, 1.0]))


def test_a_long_line_is_cut_at_the_width_and_its_marks_with_it():
    text = shown(sample(["a" * 30, "b" * 30], [0.0, 1.0]))
    assert "a" * 30 + "b" * 10 + "\n" + " " * 30 + "+" * 10 + "\n" + "b" * 20 + "\n" + "+" * 20 in text


def test_the_colour_of_a_token_grows_with_its_size_and_turns_with_its_sign():
    text = shown(sample(["A", "B", "C", "D"], [1.0, 0.25, 0.0, -1.0]), coloured=True)
    found = {name: re.search(rf"48;2;(\d+);(\d+);(\d+)m{name}", text).groups() for name in "ABCD"}
    grounds = {name: tuple(map(int, colour)) for name, colour in found.items()}
    assert grounds["A"] == (213, 94, 0)
    assert grounds["D"] == (0, 114, 178)
    assert all(
        abs(half - (one + other) / 2) <= 1
        for half, one, other in zip(grounds["B"], grounds["A"], grounds["C"], strict=True)
    )


@pytest.mark.parametrize("by", ["polarity", "sensitivity", "surprisal"])
def test_a_legend_gives_the_scale(by):
    line = sample(["a", "b"], [0.123, -0.05], advantage=2.0)
    scale = {"polarity": "0.246", "sensitivity": "0.123", "surprisal": "0.5"}[by]
    for coloured in (True, False):
        assert scale in shown(line, by, coloured)


def test_a_completion_with_advantage_zero_is_said_to_move_nothing():
    assert "polarity is 0 at every token" in shown(sample(["a"], [0.3], advantage=0.0))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(), min_size=1, max_size=8), st.booleans(), st.integers(20, 100))
def test_no_completion_reaches_the_terminal_as_anything_but_printable_characters(pieces, coloured, width):
    line = sample(pieces, [0.1] * len(pieces), task="".join(pieces), outcome="".join(pieces))
    text = shown(line, coloured=coloured, width=width)
    assert all(character.isprintable() or character == "\n" for character in (SGR.sub("", text) if coloured else text))


def test_escapes_and_direction_overrides_are_shown_and_not_obeyed():
    assert visible("\x1b]0;title\x07\r\x9b2J\u202etxt\ud800\n") == "␛]0;title␇␍\\u{9b}2J\\u{202e}txt\\u{d800}↵"
    text = SGR.sub("", shown(sample(["\x1b[2J", "[red]b[/red]"], [0.1, 0.1]), coloured=True))
    assert "\x1b" not in text
    assert "␛[2J[red]b[/red]" in text


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


@pytest.fixture
def folder(tmp_path):
    made = Run.create(tmp_path / "run", {}, 0, {}, {})
    made.log_samples(3, "train", [sample(["a", "b"], [0.1, -0.2]), sample(["c"], [0.1], task="u", advantage=None)])
    made.log_samples(5, "train", [{"task": "t", "prompt": "p", "completion": "c", "outcome": "wrong"}])
    return made.path


def test_the_last_step_with_tokens_is_shown_unless_one_is_named(folder):
    assert "step 3, t, wrong, advantage +1" in run("tokens", folder).stdout
    assert "other tasks of this step: u" in run("tokens", folder, "--step", 3).stdout
    assert json.loads(run("tokens", folder, "--task", "u", "--json").stdout)["completion"] == "c"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", 5], "--step: got 5"),
        (["--task", "x"], "step 3 has t, u"),
        (["--task", "u"], "--by: got polarity, but this sample was kept without it"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(folder, arguments, message):
    result = run("tokens", folder, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_older_run_folder_is_refused_in_one_line(tmp_path):
    made = Run.create(tmp_path / "old", {}, 0, {}, {})
    made.log_samples(5, "train", [{"task": "t", "prompt": "p", "completion": "c", "outcome": "wrong"}])
    result = run("tokens", made.path)
    assert result.exit_code == 1
    assert "no sample is kept token by token" in result.stderr
    assert cell_len(result.stderr) < 300
