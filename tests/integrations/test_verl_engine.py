"""A chain's view of verl: its own driver, loop and validation in a process of its own, over stand-in workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed: no campaign with it is checked")

import verl_chain_world as world

from entrostat.campaign import Checkpoint, Crest, EarlyStop, Naive, run_campaign
from entrostat.campaign.chain import Campaign, read_hand_over, run_chain
from entrostat.campaign.engine import Plan
from entrostat.integrations.verl_engine import VerlEngine, VerlError
from entrostat.runs import Run

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The processes of verl import what this one does."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, sys.path)]))


@pytest.fixture
def start(tmp_path):
    return Checkpoint(world.model_folder(tmp_path / "start"), 0)


def engine_over(folder, settings=(), **options):
    options = {"modules": ("verl_chain_world",), "driver": (world.__file__,), **options}
    return VerlEngine(world.arguments(folder, **dict(settings)), **options)


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
            print(*drivers(os.getpid()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decide(progress, history)


def test_a_campaign_goes_on_to_the_same_trace_when_verl_or_its_parent_was_killed(tmp_path, start):
    engine, rule = engine_over(tmp_path, save_every=2), {"patience": 2, "steps": 8}
    whole = run_campaign(engine, EarlyStop(**rule), start, record(tmp_path / "whole"))
    trace = whole.trace
    assert (trace.peak.step, trace.end.step, whole.stopped) == (3, 5, True)
    assert [world.number_of(point.path) for point in (trace.start, trace.peak, trace.end)] == [0, 3, 5]
    assert trace.report.steps == (0, 3, 5)
    (line,) = [line for line in record(tmp_path / "whole").evals("select") if line["step"] == 1]
    assert [name for name, _, _ in line["results"]] == [f"sums/{index}" for index in range(world.TASKS)]
    assert [passed for _, _, passed in line["results"]] == [2, 2, 2, 2, 3, 3]
    assert not any((tmp_path / "whole/verl" / name).exists() for name in ("checkpoints", "kept", "door.json"))

    run = record(tmp_path / "verl-killed")
    with pytest.raises(
        VerlError, match=r"(?s)exit status -9; its output is in .*verl-killed/verl/driver\.log.*\n.*step:4"
    ):
        run_campaign(engine, KillsVerl(**rule), start, run)
    assert json.loads((run.path / "verl/resume.json").read_text()) == {"step": 2}
    assert (run.path / "verl/checkpoints/global_step_2").exists()
    again = run_campaign(engine, EarlyStop(**rule), start, run)
    assert run.trace() == record(tmp_path / "whole").trace()

    code = f"""
from pathlib import Path
from test_verl_engine import *
folder = Path({str(tmp_path)!r})
rule = KillsItself(patience=2, steps=8)
run_campaign(engine_over(folder, save_every=2), rule, Checkpoint(folder / "start", 0), record(folder / "parent-killed"))
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    (orphan,) = done.stdout.split()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{orphan}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{orphan}").exists()
    run = record(tmp_path / "parent-killed")
    last = run_campaign(engine, EarlyStop(**rule), start, run)
    assert run.trace() == record(tmp_path / "whole").trace()
    assert again.handed_over.path.name == last.handed_over.path.name == whole.handed_over.path.name


def chain(folder, controller, start, campaigns, **options):
    campaign = Campaign(engine_over(folder.parent, **options), lambda place, _: record(place))
    outcomes = run_chain([lambda: campaign] * campaigns, controller, start, folder, kept=campaigns)
    return outcomes, [world.number_of(read_hand_over(folder, outcome.handed_over).path) for outcome in outcomes]


def test_a_naive_chain_hands_over_each_end(tmp_path, start):
    outcomes, handed_over = chain(tmp_path / "naive", Naive(steps=2), start, 2, every=None)
    assert handed_over == [2, 4]
    assert [outcome.trace.select.steps for outcome in outcomes] == [(2,), (2,)]


def test_an_early_stop_chain_hands_over_its_peaks(tmp_path, start):
    outcomes, handed_over = chain(tmp_path / "stop", EarlyStop(patience=1, steps=6), start, 2)
    assert handed_over == [3, 3]
    assert [outcome.trace.steps_used for outcome in outcomes] == [4, 1]


def test_a_crest_chain_rolls_back_and_slows_down(tmp_path, start):
    rule = Crest(steps=8, spacing=2, window=1, block=3)
    outcomes, handed_over = chain(tmp_path / "crest", rule, start, 2, every=None)
    first, second = (outcome.trace for outcome in outcomes)
    assert (first.confirmed, first.steps_used, handed_over[0]) == (4, 6, 4)
    late = [(line["step"], line["at"], line["tasks"]) for line in first.evals if "at" in line]
    assert late == [(0, 4, [0, 3])]
    assert second.steps[0]["lr"] == pytest.approx(rule.rate([first]))
    assert handed_over[1] == pytest.approx(
        world.number_of(second.peak.path) if second.peak.path.exists() else handed_over[1]
    )


def test_what_a_campaign_cannot_do_with_is_refused_in_verls_process(tmp_path, start):
    engine = engine_over(tmp_path, {"actor_rollout_ref.actor.checkpoint.async_save": "true"})
    with pytest.raises(VerlError, match="async_save is true; .* set it to false"):
        run_campaign(engine, Naive(steps=1), start, record(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"VerlEngine\.every is 0"):
        engine_over(tmp_path, every=0)


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
    assert config.trainer.entrostat_campaign == {"door": str(odd / "verl/door.json"), "rate": 0.5, "passing": 1.0}
    assert config.actor_rollout_ref.actor.checkpoint.save_contents == ["model", "optimizer", "extra", "hf_model"]
    modules = config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES
    assert modules == "verl_chain_world,entrostat.integrations.verl_campaign"
