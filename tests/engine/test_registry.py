"""An engine is found by its name; what is not there, or cannot be used, is said in a line."""

from importlib.util import find_spec

import pytest

from entrostat.engine.local import LocalEngine
from entrostat.engine.train import build_engine
from entrostat.recipe import RecipeError, parse_recipe


def test_the_embedded_engine_is_the_default():
    assert isinstance(build_engine(parse_recipe({"name": "x"}), None, None), LocalEngine)


def test_an_unknown_engine_is_refused_with_the_names_of_those_that_are_installed():
    with pytest.raises(RecipeError, match=r"engine: 'slurm' is no engine; choose one of embedded, tabular, trl"):
        build_engine(parse_recipe({"name": "x", "engine": "slurm"}), None, None)


@pytest.mark.skipif(find_spec("trl") is not None, reason="TRL is installed")
def test_an_engine_whose_package_is_missing_says_how_to_get_it():
    with pytest.raises(
        RecipeError, match=r"engine: 'trl' of entrostat cannot be imported.*pip install 'entrostat\[trl\]'"
    ):
        build_engine(parse_recipe({"name": "x", "engine": "trl"}), None, None)


class Own:
    """An engine of somebody else."""

    def __init__(self, recipe, tasks, grader, listener=None):
        self.recipe = recipe

    def run(self, start, plan, decide, record):
        raise NotImplementedError


def test_an_engine_of_ones_own_is_named_by_its_place(monkeypatch):
    monkeypatch.setattr("entrostat.engine.Own", Own, raising=False)
    built = build_engine(parse_recipe({"name": "x", "engine": "entrostat.engine:Own"}), None, None)
    assert isinstance(built, Own)
    assert built.recipe.name == "x"
