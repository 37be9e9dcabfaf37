"""Recipes explain themselves: every key, every method, and the recipes that `init` writes."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from entrostat.cli.app import app
from entrostat.recipe import Recipe, RecipeError, load_recipe, load_study, parse_recipe, reference
from entrostat.recipe.loading import StudyRecipe, key_paths
from entrostat.recipe.reference import PURPOSES
from entrostat.recipe.reference import keys as listed_keys


def entrostat(*words):
    return CliRunner().invoke(app, list(words))


def leaves(content, prefix=""):
    for name, value in content.items():
        path = f"{prefix}{name}"
        yield path
        if isinstance(value, dict) and "name" not in value:
            yield from leaves(value, f"{path}.")


def test_the_keys_are_those_of_a_recipe():
    known = {key.path for key in reference.keys(Recipe)}
    sections = {path.rpartition(".")[0] for path in known}
    dumped = parse_recipe({"name": "a", "update": {"kl": {}, "kl_cov": None}, "watch": {}}).model_dump(mode="json")
    assert {path for path in leaves(dumped) if path not in sections and path != "watch.switch"} <= known


@pytest.mark.parametrize("kind", [Recipe, StudyRecipe])
def test_every_key_says_what_it_takes_and_means(kind):
    for key in reference.keys(kind):
        assert len(key.meaning) > 8, key
        assert key.takes, key
        assert key.default == "required" or key.default.startswith("default"), key


def test_a_default_is_the_one_in_force():
    dumped = parse_recipe({"name": "a"}).model_dump(mode="json")
    for key in reference.keys(Recipe):
        value, reached = dumped, True
        for part in key.path.split("."):
            reached = isinstance(value, dict) and part in value
            value = value[part] if reached else None
        if reached and key.default.startswith("default ") and not isinstance(value, dict):
            assert yaml.safe_load(key.default.removeprefix("default ")) == value, key


def test_every_method_has_a_summary():
    for key, name, source in reference.find_methods():
        assert len(reference.summary(source)) > 15, (key, name)


@pytest.mark.parametrize("name", PURPOSES)
def test_what_init_writes_is_a_recipe_in_which_each_key_is_explained(tmp_path, name):
    file = tmp_path / "made.yaml"
    done = entrostat("init", name, "--out", str(file))
    assert done.exit_code == 0, done.output
    assert f"entrostat {PURPOSES[name].command} {file}" in done.output
    (load_study if PURPOSES[name].command == "chain" else load_recipe)(file)
    assert yaml.safe_load(file.read_text()) == PURPOSES[name].settings
    assert max(map(len, file.read_text().splitlines())) <= 120
    told = " ".join(line.strip().removeprefix("# ") for line in file.read_text().splitlines())
    given = set(leaves(PURPOSES[name].settings))
    for key in reference.keys(PURPOSES[name].kind):
        if key.path in given and key.takes != "a section, or null":
            assert f"[{key.takes}; {key.default}]" in told, key


def test_init_leaves_a_file_as_it_is(tmp_path):
    file = tmp_path / "made.yaml"
    file.write_text("mine")
    done = entrostat("init", "grpo", "--out", str(file))
    assert done.exit_code == 1
    assert "exists already" in done.output
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"update": {"lerning_rate": 1}}, "did you mean update.learning_rate?"),
        ({"control": {"epochs": 1}}, "did you mean update.epochs?"),
        ({"seeds_": 1}, "did you mean seed"),
        ({"methods": {}}, "run the file with `entrostat chain`"),
        ({"zzz": 1}, "`entrostat recipe` lists all"),
    ],
)
def test_an_unknown_key_is_answered_with_what_was_meant(content, expected):
    with pytest.raises(RecipeError) as error:
        parse_recipe({"name": "a", **content})
    assert expected in str(error.value)


def test_a_recipe_given_to_chain_is_sent_to_train(tmp_path):
    (tmp_path / "run.yaml").write_text("name: a\nupdate: {epochs: 1}\n")
    with pytest.raises(RecipeError, match="run the file with `entrostat train`"):
        load_study(tmp_path / "run.yaml")


def test_recipe_explains_a_key_a_section_and_a_last_part():
    assert "a number > 0; default 0.0001" in entrostat("recipe", "update.learning_rate").output
    assert "update.kl.target" in entrostat("recipe", "update.kl").output
    assert "update.kl.fisher_samples" in entrostat("recipe", "fisher_samples").output
    wrong = entrostat("recipe", "learning-rate")
    assert wrong.exit_code == 1
    assert "did you mean update.learning_rate?" in wrong.output


def test_methods_show_equation_and_source():
    shown = entrostat("methods", "id").output
    assert "control.strategy" in shown
    assert "lambda upper" in shown
    assert "arXiv 2602.09782" in shown
    assert "did you mean" in entrostat("methods", "idd").output
    listed = json.loads(entrostat("methods", "--json").output)
    assert {"key": "update.objective", "name": "gspo"}.items() <= next(e for e in listed if e["name"] == "gspo").items()


def test_the_schema_knows_every_key_and_every_method():
    schema = json.loads(entrostat("recipe", "--schema").output)
    update = schema["$defs"]["UpdateRecipe"]["properties"]
    assert update["learning_rate"]["exclusiveMinimum"] == 0
    names = schema["$defs"]["ControlRecipe"]["properties"]["strategy"]["anyOf"]
    assert "id" in names[0]["enum"]
    assert {"type": "null"} in names
    for section in schema["$defs"].values():
        assert section.get("additionalProperties") is False


def test_a_misspelled_key_may_mean_any_key_that_is_listed():
    assert list(key_paths(Recipe)) == [key.path for key in listed_keys()]
