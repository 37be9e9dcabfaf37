"""Every error of ours is an `EntrostatError`, and the command line shows each in plain lines."""

import ast
from pathlib import Path

import pytest
from typer.testing import CliRunner

import entrostat
from entrostat.cli import app
from entrostat.errors import EntrostatError

SOURCE = Path(entrostat.__file__).parent
INSIDE_THE_SANDBOX = {"grading/wire.py"}  # has the standard library alone there


def test_every_error_has_the_one_base():
    errors = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for file in SOURCE.rglob("*.py")
        if file.relative_to(SOURCE).as_posix() not in INSIDE_THE_SANDBOX
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name != "EntrostatError"
    }
    assert len(errors) > 15
    assert [name for name, bases in errors.items() if not {"EntrostatError", *errors} & set(bases)] == []


class OwnError(EntrostatError, ValueError):
    pass


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (OwnError("FIELD is 3;\nmend it"), ["error: FIELD is 3;", "error: mend it"]),
        (
            PermissionError(13, "Permission denied", "FILE"),
            ["error: FILE: Permission denied; free space, fix its permissions or choose another path"],
        ),
    ],
)
def test_a_command_ends_an_error_in_plain_lines(error, lines, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr("entrostat.cli.reporting.refuse_missing_run", fails)
    result = CliRunner().invoke(app, ["report", "run"])
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0].startswith(
        "error: FIELD is 3;" if isinstance(error, OwnError) else "error: FILE: Permission denied"
    )
    assert all(line.startswith("error: ") for line in lines)


def test_a_fault_of_ours_is_not_taken_for_the_users(monkeypatch):
    monkeypatch.setattr("entrostat.cli.reporting.refuse_missing_run", lambda *_: 1 / 0)
    assert isinstance(CliRunner().invoke(app, ["report", "run"]).exception, ZeroDivisionError)
