"""Every condition of every study is still a recipe, so that a study can be run again."""

import importlib.util
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "studies"
SCRIPTS = [script for script in sorted(STUDIES.glob("*/study.py")) if "STUDY = " in script.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_every_condition_is_a_recipe(script: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(STUDIES.parent)
    monkeypatch.setattr(sys, "path", [str(script.parent), str(STUDIES), *sys.path])
    spec = importlib.util.spec_from_file_location("study_of_" + script.parent.name.replace("-", "_"), script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    faults = []
    for condition in module.STUDY.conditions:
        try:
            module.STUDY.recipe(condition, 1)
        except ValueError as error:
            faults.append(f"{condition}: {error}")
    assert not faults
