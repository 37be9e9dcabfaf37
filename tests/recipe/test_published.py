"""The recipes of published methods, and the page that lists the methods."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from entrostat.cli.app import app
from entrostat.recipe import build_controller, build_objective, parse_recipe
from entrostat.recipe.methods import ADVANTAGES, OBJECTIVES, REWEIGHTINGS, STRATEGIES
from entrostat.recipe.published import PUBLISHED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_is_valid_and_uses_its_method(name):
    published = PUBLISHED[name]
    recipe = parse_recipe(published.settings)
    build_controller(recipe)
    build_objective(recipe)
    named = {
        recipe.update.objective["name"],
        recipe.update.advantage if isinstance(recipe.update.advantage, str) else recipe.update.advantage["name"],
        *(choice["name"] for choice in (recipe.control.strategy, recipe.control.reweighting) if choice),
        *(["kl-cov"] if recipe.update.kl_cov else []),
        *(["clip-higher"] if recipe.control.strategy and recipe.control.strategy.get("upper") == 0.28 else []),
    }
    assert published.method in named
    assert recipe.inert_control() is None or recipe.update.steps_per_batch == 1


def test_every_published_method_is_known():
    known = {*OBJECTIVES, *STRATEGIES, *REWEIGHTINGS, *ADVANTAGES, "kl-cov"}
    assert {each.method for each in PUBLISHED.values()} <= known


def test_the_command_writes_a_published_recipe_and_lists_them():
    runner = CliRunner()
    written = runner.invoke(app, ["init", "--published", "steer"])
    assert written.exit_code == 0, written.output
    assert parse_recipe(yaml.safe_load(written.stdout)) == parse_recipe(PUBLISHED["steer"].settings)
    assert "steer" in runner.invoke(app, ["methods"]).stdout.partition("init --published")[2]
    refused = runner.invoke(app, ["init", "--published", "nothing"])
    assert refused.exit_code != 0


def test_the_page_of_papers_is_that_of_the_registries():
    sys.path.insert(0, str(ROOT / "scripts"))
    page = runpy.run_path(str(ROOT / "scripts" / "papers.py"))["page"]()
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == page
    for each in PUBLISHED.values():
        assert f"`{each.method}`" in page
