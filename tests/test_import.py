"""Importing the package stays light."""

import subprocess
import sys
from importlib import import_module

import pytest

import entrostat


def imported(code: str) -> set[str]:
    """The heavy modules among those that a fresh interpreter has imported after `code`."""
    heavy = {"torch", "scipy", "transformers", "matplotlib", "pydantic", "yaml", "typer", "rich", "jinja2"}
    command = [sys.executable, "-c", f"import sys; {code}; print(*({heavy} & set(sys.modules)))"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_imports_none_of_its_dependencies():
    assert imported("import entrostat") == set()


def test_its_names_bring_torch_and_no_more_than_torch_brings():
    assert imported("from entrostat import EntropyController, policy_loss") == imported("import torch")


def test_a_log_is_diagnosed_without_torch():
    assert imported("from entrostat.diagnosis import diagnose, read_log") <= {"scipy"}


@pytest.mark.parametrize("log", ["absent.jsonl", "."])
def test_a_log_that_is_not_read_is_refused_without_torch(log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = "from typer.testing import CliRunner as Runner; from entrostat.cli import app"
    assert not {"torch", "transformers"} & imported(f"{runner}; Runner().invoke(app, ['diagnose', {log!r}])")


def test_every_name_is_the_one_of_its_room_and_no_other_is_there():
    rooms = [import_module(f"entrostat.{room}") for room in ("control", "entropy", "objective", "tokens")]
    for name in entrostat.__all__:
        assert [getattr(entrostat, name)] == [getattr(room, name) for room in rooms if name in room.__all__]
        assert name in dir(entrostat)
    with pytest.raises(AttributeError, match="polarities"):
        _ = entrostat.polarities
