"""Chains as Ray tasks: one whose worker is killed goes on by itself, one that cannot says why, GPUs are reserved."""

import os
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="ray is not installed: no chain is a Ray task")

import ray

from entrostat.campaign.database import chain_folder
from entrostat.engine.study import StudyError, _resources, run_study
from entrostat.recipe import StudyRecipe
from entrostat.recipe.loading import parse_as
from entrostat.runs import Run

ENGINES = """
import os, signal
from entrostat.engine.local import LocalEngine

class Preempted(LocalEngine):
    def run(self, start, plan, decide, record):
        def decide_or_die(progress):
            if progress.step == 2 and not (record.path / "preempted").exists():
                (record.path / "preempted").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return decide(progress)
        return super().run(start, plan, decide_or_die, record)

class Dying(LocalEngine):
    def run(self, start, plan, decide, record):
        with (record.path / "tries").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def study(engine, device="cpu"):
    base = {
        "threads": 1,
        "engine": f"own_engines:{engine}",
        "policy": {"device": device},
        "tasks": {"train": 4, "select": 4, "report": 4},
        "rollout": {"prompts": 2, "samples": 2},
        "update": {"learning_rate": 2e-3},
        "evaluation": {"samples": 1, "pass_at": [1], "report": "peak"},
        "campaign": {"steps": 4, "checkpoint_every": 1},
        "grading": {"workers": 1},
    }
    content = {"name": "small", "seeds": [0], "campaigns": 1, "base": base, "methods": {"naive": {}}}
    return parse_as(StudyRecipe, content)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    (folder / "own_engines.py").write_text(ENGINES)
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": path}}
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


def place(out):
    return chain_folder(out, "naive", 0) / "campaign-00"


def test_a_preempted_chain_is_started_again_and_resumes(tmp_path):
    run_study(study("Preempted"), tmp_path, ray=True)
    assert (place(tmp_path) / "preempted").exists()
    assert [line["step"] for line in Run.open(place(tmp_path)).steps()] == [1, 2, 3, 4]


def test_a_chain_whose_worker_dies_each_time_says_why(tmp_path):
    with pytest.raises(
        StudyError, match=r"naive, seed 0: its task failed 4 times \(\w+: .*(died|crashed|killed).*run it"
    ):
        run_study(study("Dying"), tmp_path, ray=True)
    assert (place(tmp_path) / "tries").read_text() == "xxxx"


def test_a_policy_on_a_gpu_reserves_one():
    on_gpu, on_cpu = (_resources(study("Dying", device).recipe("naive", 0, 0)) for device in ("cuda", "cpu"))
    assert (on_gpu, on_cpu) == ({"num_cpus": 1, "num_gpus": 1}, {"num_cpus": 1, "num_gpus": 0})


def test_a_gpu_by_number_is_refused_for_ray_chooses_it(tmp_path):
    with pytest.raises(StudyError, match=r"policy.device: got 'cuda:1'.*set it to 'cuda'"):
        run_study(study("Dying", "cuda:1"), tmp_path, ray=True)
