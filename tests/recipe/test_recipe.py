"""Recipes: every shipped one loads, and a faulty one is refused by field, value and remedy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from entrostat.control import DecreaseIncreaseDecrease, IncreaseThenDecrease
from entrostat.engine.study import estimate, parameter_count
from entrostat.objective import ClipRule
from entrostat.recipe import RecipeError, build_controller, build_objective, load_recipe, load_study, parse_recipe
from entrostat.recipe.loading import StudyRecipe, read_mapping
from entrostat.recipe.methods import BONUSES, OBJECTIVES, REWEIGHTINGS, STRATEGIES
from entrostat.recipe.task_sets import TaskSplits, task_splits
from entrostat.tasks import TaskError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "src/entrostat/assets/demo").glob("*.yaml")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_recipe_loads(path):
    load = load_study if path.parent.name == "chains" else load_recipe
    assert load(path).name


@pytest.mark.parametrize(("model", "length"), [("Qwen2.5-Math-7B", 4096), ("Qwen2.5-7B", 8192)])
def test_the_recipes_of_flexible_entropy_control_have_the_published_settings(model, length):
    path = ROOT / f"recipes/flexible-entropy/{model.lower()}.yaml"
    recipe = load_recipe(path)
    rollout, update = recipe.rollout, recipe.update
    assert recipe.policy.path == f"Qwen/{model}"
    assert (rollout.prompts, rollout.samples, rollout.temperature, rollout.max_new_tokens) == (512, 8, 1.0, length)
    assert (update.learning_rate, update.kl, update.advantage, recipe.campaign.steps) == (1e-6, None, "grpo", 400)
    assert recipe.evaluation.temperature == 0.7
    assert recipe.inert_control() is None
    for name, strategy in (("id", IncreaseThenDecrease()), ("did", DecreaseIncreaseDecrease())):
        assert build_controller(load_recipe(path, [f"control.strategy={name}"])).strategy == strategy
    assert build_controller(recipe).strategy == IncreaseThenDecrease()


def test_an_estimate_reads_the_size_off_the_model_s_name_or_its_weights():
    study = load_study(ROOT / "recipes/chains/qwen2.5-3b.yaml")
    found = estimate(study, "naive")
    assert (found["steps"], found["memory"]) == (200, "44.70 GiB")
    assert found["training completions"] == 200 * 160
    assert found["evaluation completions"] == 10 * 4 * (21 * 30 + 3 * 30)
    assert parameter_count("embedded") > 500_000
    assert parameter_count("someone/unnamed") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "x", "updat": {}}, "recipe: updat: unknown key"),
        ({"name": "x", "update": {"epocs": 2}}, "recipe: update.epocs: unknown key"),
        (
            {"name": "x", "update": {"epochs": "two"}},
            "recipe: update.epochs: got 'two'; input should be a valid integer",
        ),
        ({"name": "x", "update": {"epochs": 0}}, "recipe: update.epochs: got 0; input should be greater than or equal"),
        (
            {"name": "x", "update": {"learning_rate": -1}},
            "recipe: update.learning_rate: got -1; input should be greater",
        ),
        ({"name": "x", "rollout": {"temperature": 0}}, "recipe: rollout.temperature: got 0; input should be greater"),
        (
            {"name": "x", "campaign": {"controller": "never"}},
            "recipe: campaign.controller.name: 'never' is no campaign rule; ",
        ),
        ({"name": "x", "campaign": {"controller": {"name": "naive", "steps": 3}}}, "steps: unknown setting"),
        ({"name": "x", "campaign": {"controller": {"name": "es-budget", "mode": "online"}}}, "mode: unknown setting"),
        ({"name": "x", "campaign": {"controller": {"name": "care", "low": 0.9}}}, "low is 0.9, above high 0.7"),
        ({}, "recipe: name: missing; add it"),
        ({"name": "x", "evaluation": {"samples": 2}}, "evaluation.pass_at: got 4 with samples 2"),
        ({"name": "x", "rollout": {"prompts": 99}}, "rollout.prompts: got 99, more than tasks.train 48"),
        ({"name": "x", "update": {"objective": {}}}, "recipe: update.objective.name: missing in {}; give the method's"),
        ({"name": "x", "rollout": {"resample": None}}, "rollout.resample: got null, and engine 'embedded' cannot draw"),
        ({"name": "x", "rollout": {"samples": 1}}, "rollout.samples: got 1, but update.advantage 'grpo' compares"),
        (
            {"name": "x", "evaluation": {"pass_at": []}},
            "recipe: evaluation.pass_at: got []; tuple should have at least 1",
        ),
        (
            {"name": "x", "update": {"learning_rate": float("inf")}},
            "recipe: update.learning_rate: got inf; input should",
        ),
        ({"name": ["x" * 99] * 10**6}, "recipe: name: got ["),
        ({"name": "x", "campaign": {"steps": True}}, "recipe: campaign.steps: got True; input should be a number"),
        ({"name": "x", "threads": True}, "recipe: threads: got True; input should be a number, not yes or no"),
        (
            {"name": "x", "control": {"strategy": {"name": "id", "split": False}}},
            "recipe: control.strategy.split: got False; input should be a number",
        ),
        ({"name": "x", "update": {"minibatches": 3}}, "update.minibatches: got 3, which does not divide"),
        (
            {"name": "x", "control": {"strategy": {"name": "up"}}},
            "recipe: control.strategy.name: 'up' is no strategy; choose one of abc",
        ),
        (
            {"name": "x", "update": {"advantage": "w-reinforce"}},
            "update.failure_reward: got 0, but update.advantage w-rein",
        ),
        ({"name": "../x"}, "recipe: name: got '../x'"),
    ],
)
def test_a_faulty_recipe_is_refused_in_one_line(content, message):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ({"slope": 0.0, "intercept": -0.1}, "recipe: control.strategy."),
        ({"slope": 2.0, "intercept": 0.2}, "recipe: control.strategy."),
    ],
)
def test_thresholds_without_a_band_are_refused_when_the_recipe_is_read(threshold, message):
    strategy = {"name": "linear", "upper": threshold, "lower": threshold}
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"name": "x", "control": {"strategy": strategy}})
    assert message in str(caught.value)


def test_overrides_win_over_the_file_and_are_checked_like_it(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("name: x\nupdate: {epochs: 3}\n")
    assert load_recipe(file).update.epochs == 3
    assert load_recipe(file, ["update.epochs=5", "seed=7"]).update.epochs == 5
    assert load_recipe(file, ["control.strategy.name=id"]).control.strategy["name"] == "id"
    with pytest.raises(RecipeError, match=r"update\.epochs: got 'x'"):
        load_recipe(file, ["update.epochs=x"])
    with pytest.raises(RecipeError, match=r"write it as section\.key=value"):
        load_recipe(file, ["update.epochs"])
    with pytest.raises(RecipeError, match=r"override 'seed=\[1': not readable as YAML"):
        load_recipe(file, ["seed=[1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "not a mapping"),
        ("", "not a mapping"),
        ("a: [", "not readable as YAML"),
        ("a: " + "[" * 5000, "not readable as YAML"),
        ("a: " + "9" * 5000, "not readable as YAML"),
        ("a: 2020-99-99", "not readable as YAML"),
        ("name: x\nseed: 1\nseed: 2\n", r"seed: given in line 2 and again in line 3; keep only one"),
        ("name: x\nupdate:\n  epochs: 1\n  epochs: 1\n", r"epochs: given in line 3 and again in line 4"),
        ("name: x\ncontrol: {ema: 0, ema: 0.5}\n", "ema: given in line 2 and again in line 2"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(tmp_path / "other.yaml")
    for not_a_file in (tmp_path, file / "inside", tmp_path / ("a" * 300)):
        with pytest.raises(RecipeError, match="cannot be read"):
            load_recipe(not_a_file)


def test_what_a_merge_key_brings_may_be_overridden(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("name: x\nupdate: &a {epochs: 3}\n")
    assert load_recipe(file).update.epochs == 3
    shared = "name: x\nmethods: {a: &a {seed: 1, threads: 1}, b: {<<: *a, seed: 2}}\n"
    file.write_text(shared)
    assert read_mapping(file)["methods"]["b"] == {"seed": 2, "threads": 1}


def test_a_clip_rule_that_can_never_act_is_said():
    once = {"name": "x", "update": {"epochs": 1, "minibatches": 1}}
    assert "inert" in str(parse_recipe(once).inert_control())
    assert parse_recipe({**once, "update": {"epochs": 2}}).inert_control() is None
    assert parse_recipe({**once, "update": {"epochs": 1, "objective": "reinforce"}}).inert_control() is None
    with_term = {"epochs": 1, "objective": "reinforce", "kl_cov": {"share": 0.1}}
    assert "KL-Cov" in str(parse_recipe({**once, "update": with_term}).inert_control())


REQUIRED = {
    "target-entropy": {"curve": {"points": [[0, 0.3]]}},
    "piecewise": {"stages": [{"until": 0.5, "phase": "increase"}, {"until": 1}]},
    "entropic": {"target": 0.3},
    "entropic-weights": {"target": 0.3},
    "repo-r": {"target": 0.3},
    "adapo": {"target": 0.3},
    "aepo": {"low": 0.1, "high": 0.5},
    "target-weights": {"curve": {"points": [[0, 0.3], [1, 0.1]]}},
    "gepo": {"group_size": 8},
    "fixed": {"expanding": 1.2},
    "free-region": {"region": "E4"},
    "skip-region": {"region": "E1"},
    "adaptive": {"target": 0.3},
}
BESIDE = {
    **{name: {"update": {"aggregate": "sequence-mean"}} for name in ("gspo", "gmpo", "sapo")},
    "luspo": {"update": {"aggregate": "sequence-sum"}},
    "opefo": {"update": {"epochs": 1}},
    "clip-undetached": {"control": {"strategy": "id"}},
}
PLACES = {
    "control.strategy": STRATEGIES,
    "control.reweighting": REWEIGHTINGS,
    "control.bonus": BONUSES,
    "update.objective": OBJECTIVES,
}


def choice(place, name):
    section, key = place.split(".")
    required = {"value": 0.01} if (place, name) == ("control.bonus", "constant") else REQUIRED.get(name, {})
    beside = BESIDE.get(name, {})
    return {"name": "x", **beside, section: {**beside.get(section, {}), key: {"name": name, **required}}}


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, table in PLACES.items() for name in table])
def test_a_method_resolves_to_settings_that_read_back_the_same(place, name):
    section, key = place.split(".")
    recipe = parse_recipe(choice(place, name))
    resolved = recipe.model_dump(mode="json")
    assert resolved[section][key]["name"] == name
    assert parse_recipe(resolved) == recipe
    build_controller(recipe)
    build_objective(recipe)


def test_without_a_strategy_the_objective_keeps_its_published_band():
    for name in ("clip", "gspo", "gmpo", "cispo"):
        recipe = parse_recipe(choice("update.objective", name))
        assert build_controller(recipe).rule() == build_objective(recipe).rule
    assert build_objective(parse_recipe(choice("update.objective", "gspo"))).rule != ClipRule.constant()


def test_a_misspelt_setting_is_found_at_any_depth():
    for settings in ({"splitt": 0.4}, {"upper": {"slope": -0.1, "intercept": 0.5, "bent": 1}}):
        with pytest.raises(RecipeError, match=r"control\.strategy\.(splitt|upper\.bent): unknown setting; 'id' takes"):
            parse_recipe({"name": "x", "control": {"strategy": {"name": "id", **settings}}})


def test_a_family_without_splits_is_split_by_content_and_too_few_tasks_are_said(tmp_path):
    file = tmp_path / "tasks.jsonl"
    record = {"prompt": "", "entry_point": "f", "tests": [{"args": [1], "expected": 1}]}
    file.write_text("".join(json.dumps({**record, "id": f"t{i}", "prompt": f"task {i}"}) + "\n" for i in range(60)))
    wanted = {"family": "jsonl", "data": str(file), "train": 16, "select": 8, "report": 8}
    splits = task_splits(parse_recipe({"name": "x", "tasks": wanted}).tasks)
    assert {name: len(tasks) for name, tasks in splits.items()} == {"train": 16, "select": 8, "report": 8}
    ids = [task.id for tasks in splits.values() for task in tasks]
    assert len(set(ids)) == 32
    with pytest.raises(TaskError, match=r"tasks\.train: got 48, but this split of jsonl has \d+ of its 60 tasks"):
        task_splits(parse_recipe({"name": "x", "tasks": {**wanted, "train": 48}}).tasks)


def drawn(**content: object) -> int:
    return parse_recipe({"name": "x", **content}).tasks.seed


def test_tasks_are_drawn_by_the_seed_unless_theirs_is_set():
    assert drawn() == 0
    assert drawn(seed=3) == drawn(seed=3, tasks={"train": 24}) == drawn(seed=3, tasks={"seed": None}) == 3
    assert drawn(seed=3, tasks={"seed": 1}) == 1
    again = parse_recipe({"name": "x", "seed": 3})
    assert parse_recipe(again.model_dump(mode="json"), ["seed=5"]).tasks.seed == 3  # what is recorded stays
    splits = [TaskSplits.of(parse_recipe({"name": "x", "seed": seed}).tasks).hashes() for seed in (0, 1)]
    assert all(splits[0][name] != splits[1][name] for name in splits[0])


def test_campaigns_of_a_chain_share_the_tasks_that_its_seed_draws():
    content = {"name": "x", "methods": {"naive": {}, "fixed": {"tasks.seed": 7}}}
    study = StudyRecipe.model_validate(content)
    assert [study.recipe("naive", 2, campaign).tasks.seed for campaign in (0, 1)] == [2, 2]
    assert study.recipe("fixed", 2, 0).tasks.seed == 7


OF_ONE_DRAW = [
    "early-warning",
    "entropy-strategies",
    "polarity-branches",
    "polarity-control",
    "polarity-prediction",
    "regions",
    "what-makes-the-cliff",
]
ANEW = [("polarity-prediction", "on-policy, SGD")]  # a newer condition of a study of one draw


def test_the_studies_of_one_draw_of_tasks_share_them_over_seeds_and_newer_ones_draw_anew():
    script = (
        "import pathlib, runpy, sys\n"
        "for path in sorted(pathlib.Path('studies').glob('*/study.py')):\n"
        "    sys.path.insert(0, str(path.parent))\n"
        "    study = runpy.run_path(str(path)).get('STUDY')\n"
        "    for name in study.conditions if study else ():\n"
        "        shared = study.recipe(name, 8).tasks == study.recipe(name, 9).tasks\n"
        f"        one_draw = path.parent.name in {OF_ONE_DRAW} and (path.parent.name, name) not in {ANEW}\n"
        "        assert shared == one_draw, (path, name)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    chains = load_study(ROOT / "recipes/chains/embedded.yaml")
    assert chains.recipe("naive", 0, 0).tasks == chains.recipe("naive", 4, 9).tasks
