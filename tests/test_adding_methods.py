"""What it takes to add a method of each kind: one new file of the package, or a name in another package."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from entrostat import registry
from entrostat.diagnosis.detectors import detectors_named
from entrostat.engine.registry import build_engine
from entrostat.recipe import methods
from entrostat.recipe.task_sets import load_task_set

SOURCE = Path(registry.__file__).parent
HEAD = "from dataclasses import dataclass\n\nimport torch\n\n"
# kind: folder of the package, import of the decorator, the method
NEW = {
    "clip rule": (
        "objective",
        "from entrostat.objective.clipping import ClipBand, clip_rule",
        """@clip_rule("new-clip-rule")
@dataclass(frozen=True)
class New(ClipBand):
    width: float = 0.05

    def bounds(self, old_logp):
        return (1 - self.width) * torch.ones_like(old_logp), (1 + self.width) * torch.ones_like(old_logp)""",
    ),
    "schedule": (
        "control",
        "from entrostat.control.part import strategy\nfrom entrostat.control.strategies import Schedule\n"
        "from entrostat.objective import ClipRule",
        """@strategy("new-schedule")
@dataclass
class New(Schedule):
    width: float = 0.05

    def at(self, done):
        return ClipRule.constant(self.width, self.width * (1 + done))""",
    ),
    "weighting": (
        "control",
        "from entrostat.control.part import Part, weighting",
        """@weighting("new-weighting")
@dataclass
class New(Part):
    factor: float = 0.5

    def weights(self, batch):
        return torch.where(batch.advantages < 0, self.factor, 1.0)""",
    ),
    "bonus": (
        "control",
        "from entrostat.control.part import Part, bonus",
        """@bonus("new-bonus")
@dataclass
class New(Part):
    value: float = 0.5

    def bonus(self):
        return self.value""",
    ),
    "objective": (
        "objective",
        "from entrostat.objective.surrogates import Objective, Surrogate, objective",
        """@objective("new-objective")
@dataclass(frozen=True)
class New(Objective):
    factor: float = 0.5

    def __call__(self, tokens):
        never = torch.zeros_like(tokens.mask)
        return Surrogate(self.factor * tokens.ratio, self.factor * tokens.ratio, never, never)""",
    ),
    "advantage": (
        "objective",
        "from entrostat.objective.advantages import advantage",
        """@advantage("new-advantage")
class New:
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, rewards):
        return self.scale * (rewards - rewards.nanmean(-1, keepdim=True)).nan_to_num()""",
    ),
    "correction": (
        "objective",
        "from entrostat.objective.corrections import Correction, correction",
        """@correction("new-correction")
@dataclass(frozen=True)
class New(Correction):
    power: float = 0.5

    def __call__(self, tokens):
        return (self.power * tokens.log_weight).exp()""",
    ),
    "detector": (
        "diagnosis/detectors",
        "from typing import ClassVar\n\nfrom entrostat.diagnosis.detectors.detector import Detector, detector",
        """@detector("new-detector")
@dataclass(frozen=True, kw_only=True)
class New(Detector):
    columns: ClassVar = ("entropy",)

    def find(self, history, end):
        return None""",
    ),
    "task source": (
        "tasks",
        "from entrostat.tasks.listcraft import tasks\nfrom entrostat.tasks.sources import task_source",
        """@task_source("new-task-source")
def New():
    return list(tasks("train", 12, 0))""",
    ),
    "campaign rule": (
        "campaign",
        "from entrostat.campaign.stopping import Naive, campaign_rule",
        """@campaign_rule("new-campaign-rule")
class New(Naive):
    pass""",
    ),
    "engine": (
        "engine",
        "from entrostat.engine.registry import engine",
        """@engine("new-engine")
class New:
    def __init__(self, recipe, tasks, grader, listener=None):
        self.name = recipe.name

    def run(self, start, plan, decide, record):
        raise NotImplementedError""",
    ),
}


def built(kind: str, name: str, **settings):
    """The method of a name, as whatever uses a name gets it."""
    choice = {"name": name, **settings}
    tables = {
        "clip rule": methods.STRATEGIES,
        "schedule": methods.STRATEGIES,
        "weighting": methods.REWEIGHTINGS,
        "bonus": methods.BONUSES,
        "objective": methods.OBJECTIVES,
        "correction": methods.CORRECTIONS,
    }
    if kind in tables:
        return methods.build(tables[kind], choice)
    if kind == "advantage":
        return methods.build_advantage(choice)
    if kind == "campaign rule":
        return methods.build(methods.CONTROLLERS, choice, steps=3)
    if kind == "detector":
        return detectors_named([name])[-1]
    if kind == "task source":
        return load_task_set(name)
    return build_engine(SimpleNamespace(engine=name, name="x"), None, None)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Another package, whose methods have no decorator."""
    for kind, (_, imports, code) in NEW.items():
        plain = "\n".join(line for line in code.splitlines() if not line.startswith(f"@{imports.split()[-1]}"))
        plain = "\n".join(line for line in plain.splitlines() if '("new-' not in line)
        kind_name = '    kind = "new-detector"\n' if kind == "detector" else ""
        plain = plain.replace("(Detector):\n", "(Detector):\n" + kind_name)
        (tmp_path / f"far_{kind.replace(' ', '_')}.py").write_text(f"{HEAD}{imports}\n\n\n{plain}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("far_")]:
        sys.modules.pop(name)


def same(kind: str, found) -> bool:
    """Whether that is the new method of a kind."""
    if kind == "task source":
        return len(found) == 12
    return type(getattr(found, "band", found)).__name__ == "New"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("kind", NEW)
def test_a_method_of_another_package_is_used_by_its_reference(kind):
    assert same(kind, built(kind, f"far_{kind.replace(' ', '_')}:New"))


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("kind", NEW)
def test_a_method_of_another_package_is_used_by_its_entry_point(kind, monkeypatch):
    group = "entrostat.engines" if kind == "engine" else registry.GROUP
    point = EntryPoint("far", f"far_{kind.replace(' ', '_')}:New", group)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    assert same(kind, built(kind, "far"))


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "kind", ["clip rule", "schedule", "weighting", "bonus", "objective", "advantage", "correction"]
)
def test_the_settings_of_such_a_method_are_those_of_its_class(kind):
    name = f"far_{kind.replace(' ', '_')}:New"
    setting = {"clip rule": "width", "schedule": "width", "weighting": "factor", "bonus": "value"}.get(kind)
    setting = setting or {"objective": "factor", "advantage": "scale", "correction": "power"}[kind]
    found = built(kind, name, **{setting: 0.25})
    assert getattr(getattr(found, "band", found), setting) == 0.25
    with pytest.raises(ValueError, match=f"nothing: unknown setting; .*takes {setting}"):
        built(kind, name, nothing=1)


CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
import entrostat
assert entrostat.__file__.startswith(sys.argv[1]), entrostat.__file__
from entrostat.engine.registry import build_engine
from entrostat.engine.train import train
from entrostat.recipe import parse_recipe
base = {
    "threads": 1,
    "rollout": {"prompts": 2, "samples": 2, "max_new_tokens": 6},
    "tasks": {"family": "new-task-source", "train": 2, "select": 2, "report": 2},
    "update": {"epochs": 2, "old_logp": "recomputed", "objective": "new-objective",
               "advantage": {"name": "new-advantage", "scale": 2.0}},
    "control": {"strategy": "new-schedule", "reweighting": "new-weighting", "bonus": "new-bonus",
                "correction": "new-correction"},
    "evaluation": {"every": None, "report": "peak", "samples": 1, "pass_at": [1]},
    "campaign": {"steps": 2, "controller": "new-campaign-rule"},
    "watch": {"action": "stop", "kinds": ["new-detector"]},
    "grading": {"workers": 1},
}
train(parse_recipe({"name": "x", **base}), sys.argv[2])
other = parse_recipe({"name": "y", "engine": "new-engine", "control": {"strategy": "new-clip-rule"}})
print(json.dumps([build_engine(other, None, None).name, other.control.strategy]))
"""


def test_one_new_file_for_each_kind_and_no_edit_elsewhere_train_a_run(tmp_path):
    copy = tmp_path / "entrostat"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    (copy / "assets").symlink_to(SOURCE / "assets")
    for kind, (folder, imports, code) in NEW.items():
        (copy / folder / f"new_{kind.replace(' ', '_')}.py").write_text(f"{HEAD}{imports}\n\n\n{code}\n")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["y", {"name": "new-clip-rule", "width": 0.05}]
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert recorded["control"]["correction"] == {"name": "new-correction", "power": 0.5}
    assert len((tmp_path / "run" / "steps.jsonl").read_text().splitlines()) == 2
