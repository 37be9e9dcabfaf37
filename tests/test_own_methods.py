"""Methods from outside the package, by `module:Name`, in a run, in a chain and under TRL."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from entrostat.engine.study import run_one
from entrostat.engine.train import train
from entrostat.recipe import RecipeError, build_controller, build_objective, parse_recipe
from entrostat.recipe.loading import StudyRecipe, parse_as

PACKAGE = '''
from dataclasses import dataclass

import torch

from entrostat.campaign import Naive
from entrostat.control import Measured, Part, TokenBatch
from entrostat.diagnosis.detectors import Detector
from entrostat.runs.finding import Finding
from entrostat.objective import ClipBand, Objective, Surrogate, Tokens


@dataclass(frozen=True)
class Narrow(ClipBand):
    """The band 1 - width <= r <= 1 + width."""

    width: float = 0.05

    def bounds(self, old_logp):
        one = torch.ones_like(old_logp)
        return (1 - self.width) * one, (1 + self.width) * one


class Doubled(Part):
    """Weighs punished tokens `factor` times, from the second step on."""

    def __init__(self, factor: float = 2.0) -> None:
        self.factor, self.steps = factor, 0

    def observe(self, step: Measured) -> None:
        self.steps += 1

    def weights(self, batch: TokenBatch) -> torch.Tensor:
        return torch.where(batch.advantages < 0, self.factor if self.steps else 1.0, 1.0)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Half(Objective):
    """f = r / 2, never clipped."""

    banded = False

    def __call__(self, tokens: Tokens) -> Surrogate:
        never = torch.zeros_like(tokens.mask)
        return Surrogate(tokens.ratio / 2, tokens.ratio / 2, never, never)


class Whole(Naive):
    """A campaign rule that runs to the end, and notes that it did."""

    def lesson(self, trace, history):
        return {"kind": "lesson", "cause": f"{len(history)} campaigns before"}


@dataclass(frozen=True, kw_only=True)
class AnyEntropy(Detector):
    """Finds a failure wherever an entropy is logged."""

    kind = "any-entropy"
    columns = ("entropy",)
    confirm: int = 1

    def find(self, history, end):
        return Finding(self.kind, "critical", history.step, history.step, "there is an entropy", {}, ("entropy",))


def centred(rewards, scale: float = 1.0):
    return scale * (rewards - rewards.nanmean(-1, keepdim=True)).nan_to_num()
'''
BASE = {
    "threads": 1,
    "rollout": {"prompts": 2, "samples": 2, "max_new_tokens": 6},
    "tasks": {"train": 2, "select": 2, "report": 2},
    "update": {"epochs": 2, "learning_rate": 1e-3, "warmup_steps": 0},
    "evaluation": {"every": None, "report": "peak", "samples": 1, "pass_at": [1]},
    "campaign": {"steps": 2},
    "grading": {"workers": 1},
}
WATCH = {"action": "stop", "detectors": ["our_methods:AnyEntropy"], "kinds": ["any-entropy"]}
OWN = {
    "strategy": {"name": "our_methods:Narrow", "width": 0.01},
    "parts": [{"name": "our_methods:Doubled", "factor": 3.0}],
}


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    (tmp_path / "our_methods.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("our_methods", None)


def steps(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_a_recipe_names_a_clip_rule_a_part_an_objective_and_an_advantage_from_outside():
    recipe = parse_recipe({"name": "x", **BASE, "control": OWN})
    controller = build_controller(recipe)
    assert (controller.rule().width, controller.parts[1].factor) == (0.01, 3.0)
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    update = {
        **BASE["update"],
        "objective": "our_methods:Half",
        "advantage": {"name": "our_methods:centred", "scale": 2.0},
    }
    other = parse_recipe({"name": "x", **BASE, "update": update})
    assert type(build_objective(other)).__name__ == "Half"
    with pytest.raises(RecipeError, match=r"control\.strategy: got 'id', but update.objective 'our_methods:Half' uses"):
        parse_recipe({"name": "x", **BASE, "update": update, "control": {"strategy": "id"}})
    with pytest.raises(RecipeError, match=r"factr: unknown setting; 'our_methods:Doubled' takes factor"):
        parse_recipe({"name": "x", **BASE, "control": {"parts": [{"name": "our_methods:Doubled", "factr": 3.0}]}})
    with pytest.raises(RecipeError, match="has no `clip`"):
        parse_recipe({"name": "x", **BASE, "control": {"strategy": "our_methods:Doubled"}})


def test_they_train_a_run_and_are_in_its_record(tmp_path):
    update = {**BASE["update"], "objective": "our_methods:Half", "advantage": "our_methods:centred"}
    train(parse_recipe({"name": "x", **BASE, "update": update, "control": {"parts": OWN["parts"]}}), tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert recorded["control"]["parts"] == OWN["parts"]
    assert recorded["update"]["objective"] == {"name": "our_methods:Half"}
    assert [line["bounds"] for line in steps(tmp_path / "run")] == [None, None]


def decisions(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]


def test_they_train_a_chain(tmp_path):
    base = {**BASE, "evaluation": {**BASE["evaluation"], "every": 1}}
    campaign = {"steps": 2, "controller": "our_methods:Whole"}
    methods = {"ours": {"control": OWN, "campaign": campaign}, "watched": {"control": OWN, "watch": WATCH}}
    study = parse_as(StudyRecipe, {"name": "s", "base": base, "methods": methods, "seeds": [0], "campaigns": 2})
    outcomes = run_one(study, "ours", 0, tmp_path / "study")
    assert [outcome.trace.steps_used for outcome in outcomes] == [2, 2]
    lessons = [
        line["cause"] for file in (tmp_path / "study").rglob("decisions.jsonl") for line in decisions(file.parent)
    ]
    assert sorted(lessons) == ["0 campaigns before", "1 campaigns before"]
    watched = run_one(study, "watched", 0, tmp_path / "watched")
    assert [(outcome.trace.steps_used, outcome.stopped) for outcome in watched] == [(1, True), (1, True)]


def test_a_detector_from_outside_ends_a_run_and_an_unknown_one_is_refused(tmp_path):
    evaluation = {**BASE["evaluation"], "every": 1}
    train(parse_recipe({"name": "x", **BASE, "evaluation": evaluation, "watch": WATCH}), tmp_path / "run")
    assert len(steps(tmp_path / "run")) == 1
    assert any("there is an entropy" in line["cause"] for line in decisions(tmp_path / "run"))
    with pytest.raises(RecipeError, match=r"watch.*our_methods:AnEntropy"):
        parse_recipe({"name": "x", **BASE, "watch": {"detectors": ["our_methods:AnEntropy"]}})
    with pytest.raises(RecipeError, match=r"kinds: got 'any-entropy'"):
        parse_recipe({"name": "x", **BASE, "watch": {"kinds": ["any-entropy"]}})


@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed")
def test_they_steer_trl(tmp_path):
    campaign = {"steps": 2, "controller": "our_methods:Whole"}
    recipe = parse_recipe({"name": "x", "engine": "trl", **BASE, "control": OWN, "campaign": campaign})
    train(recipe, tmp_path / "run")
    assert len(steps(tmp_path / "run")) == 2
    assert [line["cause"] for line in decisions(tmp_path / "run")] == ["0 campaigns before"]
    evaluation = {**BASE["evaluation"], "every": 1}
    watched = parse_recipe({"name": "x", "engine": "trl", **BASE, "evaluation": evaluation, "watch": WATCH})
    train(watched, tmp_path / "watched")
    assert len(steps(tmp_path / "watched")) == 1
