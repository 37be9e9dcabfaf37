"""Importing the package stays light."""

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import entrostat
from entrostat.control.part import bonus, strategy, weighting
from entrostat.objective.clipping import clip_rule
from entrostat.objective.corrections import correction
from entrostat.objective.surrogates import objective


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
    assert imported("from entrostat import diagnose, read_log") <= {"scipy"}


@pytest.mark.parametrize(
    "command",
    [
        "train absent.yaml",
        "chain absent.yaml",
        "report absent",
        "report .",
        "tokens absent",
        "diagnose absent.jsonl",
        "grade absent.jsonl --tasks listcraft",
        "grade here --tasks jsonl --data absent.jsonl",
        "score embedded absent.jsonl",
        "score ./absent here",
        "eval ./absent --tasks listcraft",
        "eval embedded --tasks jsonl --data absent.jsonl",
    ],
)
def test_a_file_that_is_missing_costs_no_library(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    runner = "from typer.testing import CliRunner as Runner; from entrostat.cli import app"
    code = f"{runner}; r = Runner().invoke(app, {command.split()!r})"
    check = "assert r.exit_code == 1 and r.stderr.startswith('error: ') and len(r.stderr.splitlines()) == 1, r.output"
    assert imported(f"{code}; {check}") <= {"typer", "rich", "pydantic"}  # pydantic is typer's
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_a_folder_without_a_log_is_refused_without_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = "from typer.testing import CliRunner as Runner; from entrostat.cli import app"
    assert not {"torch", "transformers"} & imported(f"{runner}; Runner().invoke(app, ['diagnose', '.'])")


def declared():
    """The names that the stub gives to type checkers."""
    tree = ast.parse(Path(entrostat.__file__).with_suffix(".pyi").read_text())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield from [alias.name] if alias.name != "*" else import_module(node.module).__all__
    yield "__version__"


def test_type_checkers_see_the_names_that_there_are():
    assert sorted(declared()) == entrostat.__all__


@pytest.mark.parametrize("package", ["control", "objective", "tasks", "tokens"])
def test_the_names_of_a_package_are_at_the_top(package):
    home = import_module(f"entrostat.{package}")
    assert {name: getattr(entrostat, name) for name in home.__all__} == {
        name: getattr(home, name) for name in home.__all__
    }


@pytest.mark.parametrize(
    "kind", [strategy, weighting, bonus, clip_rule, objective, correction], ids=lambda kind: kind.kind
)
def test_every_part_and_every_objective_of_ours_is_at_the_top(kind):
    made = [getattr(method, "func", method) for method in kind.values()]
    classes = [method for method in made if isinstance(method, type) and method.__module__.startswith("entrostat.")]
    assert classes
    assert [method.__name__ for method in classes if getattr(entrostat, method.__name__, None) is not method] == []


def test_no_name_is_a_module_and_each_is_listed():
    assert [name for name in entrostat.__all__ if isinstance(getattr(entrostat, name), ModuleType)] == []
    assert set(entrostat.__all__) <= set(dir(entrostat))
    assert "advantages" not in entrostat.__all__
    with pytest.raises(AttributeError, match="polarities"):
        _ = entrostat.polarities


def test_the_version_is_the_one_that_is_installed():
    assert entrostat.__version__ == version("entrostat")


def test_diagnose_is_the_function():
    from entrostat import diagnose

    assert diagnose is import_module("entrostat.diagnosis").diagnose
