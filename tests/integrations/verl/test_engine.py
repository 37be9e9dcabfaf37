"""A chain's view of verl: its own driver, loop and validation in a process of its own, over stand-in workers."""

import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed: no campaign with it is checked")

import verl_chain_world as world

from entrostat.campaign import Campaign, Checkpoint, Crest, EarlyStop, Naive, run_campaign
from entrostat.campaign.chain import read_hand_over, run_chain
from entrostat.campaign.checkpoints import CheckpointStore
from entrostat.campaign.engine import Plan
from entrostat.integrations.verl.campaign import check, tasks_of_splits
from entrostat.integrations.verl.engine import VerlEngine, VerlError
from entrostat.runs import Run

HERE = Path(__file__).parent
WORLD = "verl_chain_world"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The processes of verl import what this one does."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, sys.path)]))


@pytest.fixture
def start(tmp_path):
    return Checkpoint(world.model_folder(tmp_path / "start"), 0)


def engine_over(folder, **options):
    options = {"modules": (WORLD,), "driver": (world.__file__,), **options}
    return VerlEngine(world.arguments(folder), **options)


def record(folder):
    return Run.create(folder, {"name": "verl"}, 0, {}, {})


def drivers(parent):
    """The verl processes that `parent` has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(state[1]) == parent and state[0] != "Z" and b"verl_chain_world" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class KillsVerl(EarlyStop):
    """Ends verl's process when it is first asked after step 4."""

    def decide(self, progress, history):
        if progress.step == 4:
            (driver,) = drivers(os.getpid())
            os.kill(driver, signal.SIGKILL)
        return super().decide(progress, history)


class KillsItself(EarlyStop):
    """Ends its own process when it is asked after step 4."""

    def decide(self, progress, history):
        if progress.step == 4:
            Path("drivers.json").write_text(json.dumps(drivers(os.getpid())))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decide(progress, history)


def test_a_campaign_resumes_to_the_same_trace_when_verl_or_its_parent_was_killed(tmp_path, start, monkeypatch):
    engine, rule = engine_over(tmp_path, save_every=2), {"patience": 2, "steps": 8}
    whole = run_campaign(engine, EarlyStop(**rule), start, record(tmp_path / "whole"))
    trace = whole.trace
    assert (trace.peak.step, trace.end.step, whole.stopped) == (3, 5, True)
    assert [world.number_of(point.path) for point in (trace.start, trace.peak, trace.end)] == [0, 3, 5]
    assert trace.report.steps == (0, 3, 5)
    (line,) = [line for line in record(tmp_path / "whole").evals("select") if line["step"] == 1]
    assert [name for name, _, _ in line["results"]] == [f"sums/{index}" for index in range(world.TASKS)]
    assert [passed for _, _, passed in line["results"]] == [2, 2, 2, 2, 3, 3]
    assert not any((tmp_path / "whole/verl" / name).exists() for name in ("checkpoints", "kept", "address.json"))

    run = record(tmp_path / "verl-killed")
    with pytest.raises(
        VerlError, match=r"(?s)exit status -9; its output is in .*verl-killed/verl/driver\.log.*\n.*step:4"
    ):
        run_campaign(engine, KillsVerl(**rule), start, run)
    tags = CheckpointStore(run.checkpoints_dir).tags()
    assert tags["resume"].step == 2
    assert json.loads((tags["resume"].path / "state.json").read_text()) == {
        "checkpoint": "verl/checkpoints/global_step_2"
    }
    assert (run.path / "verl/checkpoints/global_step_2").exists()
    again = run_campaign(engine, EarlyStop(**rule), start, run)
    assert run.trace() == record(tmp_path / "whole").trace()

    run = record(tmp_path / "parent-killed")
    process = multiprocessing.get_context("fork").Process(
        target=run_campaign, args=(engine, KillsItself(**rule), start, run)
    )
    monkeypatch.chdir(tmp_path)
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    (orphan,) = json.loads(Path("drivers.json").read_text())
    deadline = time.monotonic() + 20
    while Path(f"/proc/{orphan}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{orphan}").exists()
    last = run_campaign(engine, EarlyStop(**rule), start, run)
    assert run.trace() == record(tmp_path / "whole").trace()
    assert again.handed_over.path.name == last.handed_over.path.name == whole.handed_over.path.name


def chain(folder, controller, start, campaigns, **options):
    engine = engine_over(folder.parent, **options)
    opened = [lambda place, _: Campaign(engine, controller, record(place))] * campaigns
    outcomes = run_chain(opened, start, folder, kept=campaigns)
    return outcomes, [world.number_of(read_hand_over(folder, outcome.handed_over).path) for outcome in outcomes]


def test_the_example_runs_a_naive_chain_that_hands_over_each_end(tmp_path, start, monkeypatch):
    specification = importlib.util.spec_from_file_location("verl_chain", HERE.parents[2] / "examples/verl_chain.py")
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    monkeypatch.setattr(example, "VerlEngine", partial(VerlEngine, modules=(WORLD,), driver=(world.__file__,)))
    own = ["--model", str(start.path), "--out", str(tmp_path / "chain"), "--controller", "naive"]
    own += ["--campaigns", "2", "--steps", "2", "--every", "0"]
    first, second = example.main([*own, *world.arguments(tmp_path)])
    assert [world.number_of(read_hand_over(tmp_path / "chain", second.handed_over).path)] == [4]
    assert first.trace.select.steps == second.trace.select.steps == (2,)
    assert first.handed_over.path.name == second.trace.start.path.name != second.handed_over.path.name


def test_an_early_stop_chain_hands_over_its_peaks(tmp_path, start):
    outcomes, handed_over = chain(tmp_path / "stop", EarlyStop(patience=1, steps=6), start, 2)
    assert handed_over == [3, 3]
    assert [outcome.trace.steps_used for outcome in outcomes] == [4, 1]


def test_a_crest_chain_rolls_back_and_slows_down(tmp_path, start):
    rule = Crest(steps=8, spacing=2, block=3, alpha=0.4, loss=0.5)
    outcomes, handed_over = chain(tmp_path / "crest", rule, start, 2, every=None)
    first, second = (outcome.trace for outcome in outcomes)
    assert (first.confirmed, first.steps_used, handed_over[0]) == (4, 6, 4)
    (late,) = [line for line in first.evals if "at" in line]
    assert (late["step"], late["at"], late["tasks"]) == (0, 2, [0, 3])
    assert [passed for _, _, passed in late["results"]] == [1, 1, 1]  # those of the start, though the weights were 2
    assert second.steps[0]["lr"] == pytest.approx(rule.margin)
    assert (second.confirmed, handed_over) == (0, [4, 4])


def test_the_splits_that_no_decision_reads_are_measured_with_each_evaluation(tmp_path, start):
    engine = engine_over(tmp_path, every=2, report="every")
    run = record(tmp_path / "run")
    run_campaign(engine, Naive(steps=2), start, run)
    found = [(line["step"], line["split"]) for line in run.evals()]
    assert found == [(step, split) for step in (0, 2) for split in ("select", "report", "ood")]


def test_a_plan_of_no_steps_trains_nothing(tmp_path, start):
    class Rests(Naive):
        def plan(self, history):
            return Plan(0)

    trace = run_campaign(engine_over(tmp_path), Rests(steps=1), start, record(tmp_path / "run")).trace
    assert (trace.steps, trace.end.step, trace.select.steps, trace.report.steps) == ([], 0, (0,), (0,))


@pytest.mark.parametrize(
    ("mode", "key", "value", "message"),
    [
        ("sync", "actor_rollout_ref.model.lora_rank", 8, "set lora_rank to 0"),
        ("sync", "actor_rollout_ref.actor.checkpoint.async_save", "true", "async_save is true"),
        ("separate_async", "trainer.v1.trainer_mode", "separate_async", "trainer_mode is 'separate_async'"),
    ],
)
def test_what_a_campaign_cannot_do_with_is_refused_by_its_key(mode, key, value, message):
    from hydra import compose, initialize_config_module
    from verl.trainer.ppo.v1 import get_trainer_cls

    trainer = object.__new__(get_trainer_cls(mode))
    with initialize_config_module("verl.trainer.config", version_base=None):
        trainer.config = compose("ppo_trainer")
        check(trainer) if mode == "sync" else None
        trainer.config = compose("ppo_trainer", overrides=[f"{key}={value}"])
    with pytest.raises(ValueError, match=message):
        check(trainer)


def rows(*pairs):
    return [{"data_source": "sums", "extra_info": {"split": split, "index": index}} for split, index in pairs]


def test_a_validation_set_without_both_splits_or_with_a_task_twice_is_refused(tmp_path):
    found = tasks_of_splits(rows(("select", 4), ("report", 4), ("train", 1), ("select", 2)))
    assert found == {"select": [("sums/4", 0), ("sums/2", 3)], "report": [("sums/4", 1)], "ood": []}
    with pytest.raises(ValueError, match=r"no row with extra_info\.split 'report'"):
        tasks_of_splits(rows(("select", 1)))
    with pytest.raises(ValueError, match="sums/1 twice in select"):
        tasks_of_splits(rows(("select", 1), ("report", 1), ("select", 1)))
    with pytest.raises(ValueError, match=r"every is 0; give at least 1"):
        engine_over(tmp_path, every=0)


def test_verls_own_checkpoints_give_kept_weights_back_exactly(tmp_path):
    command = [sys.executable, str(HERE / "verl_kept_weights.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for shown in ("the start is back", "goes on as without the visit", "holds the weights, unrounded"):
        assert shown in done.stdout


def test_the_overrides_are_verls_own_keys(tmp_path):
    from hydra import compose, initialize_config_module

    odd = tmp_path / "it's a, folder=1"
    given = engine_over(tmp_path).overrides(odd / "start", Plan(5, rate=0.5), odd / "verl", resume=2)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose(
            "ppo_trainer", overrides=[f"{key}={value}" for key, value in given.items() if "hydra" not in key]
        )
    assert config.actor_rollout_ref.model.path == str(odd / "start")
    assert config.trainer.resume_from_path == str(odd / "verl/checkpoints/global_step_2")
    assert config.trainer.total_training_steps == 5
    assert config.trainer.entrostat_campaign == {"address": str(odd / "verl/address.json"), "rate": 0.5, "passing": 1.0}
    assert config.actor_rollout_ref.actor.checkpoint.save_contents == ["model", "optimizer", "extra", "hf_model"]
    modules = config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES
    assert modules == "verl_chain_world,entrostat.integrations.verl.campaign"
