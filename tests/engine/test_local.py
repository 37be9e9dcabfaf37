"""The embedded engine: a killed run goes on to the same trace, and the report split decides nothing."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from processes import CONTEXT, killed

from entrostat.engine.local import Trainer, most_spread
from entrostat.engine.train import train
from entrostat.engine.update import Learner, TrainingError
from entrostat.recipe import parse_recipe
from entrostat.runs import Run, RunError
from entrostat.tokens import token_stats

RECIPE = {
    "name": "small",
    "threads": 1,
    "tasks": {"train": 6, "select": 4, "report": 4},
    "rollout": {"prompts": 4, "samples": 2},
    "update": {"epochs": 2, "minibatches": 2, "learning_rate": 1e-3, "advantage": "reinforce", "baseline": "ema"},
    "control": {"strategy": {"name": "od"}, "measure_change": True},
    "evaluation": {"samples": 2, "pass_at": [1, 2], "every": 3},
    "campaign": {"steps": 12, "checkpoint_every": 1},
}


def recipe(**changes):
    return parse_recipe({**RECIPE, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    train(recipe(), out)
    return out


def test_same_seed_same_trace_and_another_seed_another(finished, tmp_path):
    train(recipe(), tmp_path / "again")
    train(recipe(seed=1), tmp_path / "other")
    trace = Run.open(finished).trace()
    assert Run.open(tmp_path / "again").trace() == trace
    assert Run.open(tmp_path / "other").trace() != trace


def test_a_run_killed_at_random_moments_resumes_to_the_same_trace_and_weights(finished, tmp_path):
    out, file = tmp_path / "killed", tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(RECIPE))
    for lines in (2, 7, 12):
        assert killed(partial(train, recipe(), out), lambda lines=lines: _lines(out) >= lines)
    command = [sys.executable, "-m", "entrostat", "train", str(file), "--out", str(out), "--json"]
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert Run.open(out).trace() == Run.open(finished).trace()
    assert _tags(out) == _tags(finished)


def _lines(out):
    """Lines written so far, of steps and evaluations together."""
    files = [out / "steps.jsonl", out / "evals.jsonl"]
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def _tags(out):
    """The digests of the weights that are kept."""
    return json.loads((out / "checkpoints" / "tags.json").read_text())


def test_a_finished_run_started_again_changes_nothing(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    train(recipe(), finished)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_every_step_line_has_the_fields_of_the_run_folder(finished):
    run = Run.open(finished)
    assert [line["step"] for line in run.steps()] == list(range(1, 13))
    assert [line["batch"] for line in run.steps()] == [0] * 4 + [1] * 4 + [2] * 4
    for line in run.steps():
        assert set(line) >= {
            *("loss", "grad_norm", "lr", "reward", "entropy", "flow_up", "flow_down", "regions", "bounds", "phase"),
            *("clip_fraction_low", "clip_fraction_high", "ratio_outside", "log_ratio_min_punished", "length"),
            *("truncated", "verdicts", "tokens", "seconds", "predicted_change", "measured_change", "flow_by_rule"),
            *("groups", "share_up", "share_down", "flow_rms", "flow_lowest", "flow_highest", "kl_old"),
        }
        assert sum(line["verdicts"].values()) == 8
        assert abs(sum(line["groups"].values()) - 1) < 1e-9
        assert abs(sum(region["share"] for region in line["regions"].values()) - 1) < 1e-6
    first_of_batch = [line["ratio_outside"] for line in run.steps() if line["epoch"] == 0 and line["minibatch"] == 0]
    assert first_of_batch == [0, 0, 0]
    assert {line["split"] for line in run.evals()} == {"select", "report"}
    assert [line["step"] for line in run.evals("select")] == [0, 3, 6, 9, 12]


@pytest.mark.parametrize(("good", "where"), [(12, "entropy is nan: "), (13, "features .* and change nan")])
def test_a_run_whose_entropy_turns_nan_stops_by_its_step_and_goes_on_from_its_last_good_state(
    good, where, finished, tmp_path, monkeypatch
):
    """Each step scores its tokens twice: before the update, and after it for the measured change."""
    calls = iter(range(100))

    def breaking(*args, **kwargs):
        stats = token_stats(*args, **kwargs)
        return stats if next(calls) < good else replace(stats, entropy=torch.full_like(stats.entropy, float("nan")))

    with monkeypatch.context() as patch:
        patch.setattr("entrostat.engine.update.token_stats", breaking)
        with pytest.raises(TrainingError, match=rf"step 7: {where}.*the last checkpoint is intact"):
            train(recipe(), tmp_path / "run")
    assert [line["step"] for line in Run.open(tmp_path / "run").steps()] == list(range(1, 7))
    train(recipe(), tmp_path / "run")
    assert Run.open(tmp_path / "run").trace() == Run.open(finished).trace()


def test_a_folder_of_another_recipe_is_refused_and_left_as_it_is(finished):
    before = (finished / "run.json").read_bytes()
    with pytest.raises(RunError, match=r"rollout\.samples is 2 there and 3 here"):
        train(recipe(rollout={"prompts": 4, "samples": 3}), finished)
    assert (finished / "run.json").read_bytes() == before


def test_the_report_split_changes_no_decision_and_no_weight(tmp_path):
    settings = {
        "campaign": {"steps": 8, "checkpoint_every": 1, "controller": {"name": "es-online", "patience": 2}},
        "evaluation": {"samples": 2, "pass_at": [1, 2]},
    }
    outcomes = []
    for report in (4, 5):
        out = tmp_path / str(report)
        outcomes.append(train(recipe(tasks={"train": 6, "select": 4, "report": report}, **settings), out))
    one, other = outcomes
    assert one.trace.select == other.trace.select
    assert one.handed_over.path.name == other.handed_over.path.name
    assert one.trace.report != other.trace.report


@given(
    groups=st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, None]), min_size=4, max_size=4), min_size=1, max_size=8),
    share=st.floats(0.05, 0.99),
)
def test_the_most_spread_groups_are_the_fewest_with_the_share(groups, share):
    graded = [torch.tensor([reward for reward in group if reward is not None]) for group in groups]
    spreads = [float(rewards.std()) if len(rewards) > 1 else 0.0 for rewards in graded]
    kept = most_spread(groups, share)
    assert kept == sorted(set(kept))
    if not any(spreads):
        assert kept == list(range(len(groups)))
        return
    left = set(range(len(groups))) - set(kept)
    assert all(spreads[one] <= spreads[other] + 1e-6 for one in left for other in kept)
    assert sum(spreads[group] for group in kept) >= share * sum(spreads) - 1e-5
    without_the_least = sum(sorted(spreads[group] for group in kept)[1:])
    assert without_the_least < share * sum(spreads) + 1e-5


def test_a_filtered_batch_teaches_by_its_most_spread_groups_in_every_minibatch(tmp_path, monkeypatch):
    taught, kept = [], []
    step, choose = Learner.step, Trainer._kept

    def counted(self, number, experience):
        taught.append(len(experience.advantages))
        return step(self, number, experience)

    def chosen(self, groups):
        found = choose(self, groups)
        kept.append((found.tolist(), most_spread(groups, 0.5, least=2)))
        return found

    monkeypatch.setattr(Learner, "step", counted)
    monkeypatch.setattr(Trainer, "_kept", chosen)
    rollout = {"prompts": 4, "samples": 3, "variance_top_p": 0.5}
    train(recipe(rollout=rollout, campaign={"steps": 8}), tmp_path / "run")
    assert all(found == wanted for found, wanted in kept)
    assert any(len(found) < 4 for found, _ in kept)
    for batch, (found, _) in enumerate(kept):  # two epochs of two minibatches
        own = taught[4 * batch : 4 * batch + 4]
        assert sum(own) == 2 * 3 * len(found)
        assert all(rows and rows % 3 == 0 for rows in own)


SHAPED = {
    "rollout": {"prompts": 4, "samples": 2, "resample": 3, "overlong_buffer": 8, "overlong_penalty": 0.5},
    "update": {
        **RECIPE["update"],
        "kl": {"coefficient": 0.1, "estimate": "k3", "place": "reward", "reference": "base"},
        "advantage": "dr-grpo",
        "baseline": "none",
    },
    "campaign": {"steps": 8, "checkpoint_every": 1},
}


def _train_to_draw(number, out):
    """Train SHAPED in this process, which kills itself before so many draws of prompts."""
    draw, left = Trainer._draw, iter(range(number))

    def killing(self, *given):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(self, *given)

    Trainer._draw = killing
    train(recipe(**SHAPED), out)


def test_dynamic_sampling_fills_a_batch_with_mixed_groups_and_resumes_to_the_same_trace_wherever_it_is_killed(tmp_path):
    plain = {**SHAPED, "rollout": {"prompts": 4, "samples": 2}, "update": {**SHAPED["update"], "kl": None}}
    for name, changes in (("shaped", SHAPED), ("plain", plain)):
        train(recipe(**changes), tmp_path / name)
    again = tmp_path / "again"
    for number in (1, 2, 4):  # within the first batch, which takes three draws, and in the second
        process = CONTEXT.Process(target=_train_to_draw, args=(number, again))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    for lines in (3, 6):
        assert killed(partial(train, recipe(**SHAPED), again), lambda lines=lines: _lines(again) >= lines)
    train(recipe(**SHAPED), again)
    shaped, usual = (Run.open(tmp_path / name) for name in ("shaped", "plain"))
    assert shaped.trace() == Run.open(again).trace()
    assert _tags(again) == _tags(tmp_path / "shaped")
    drawn = [line["tokens"]["rollout"] for line in shaped.steps() if line["tokens"]["rollout"]]
    assert sum(drawn) > sum(line["tokens"]["rollout"] for line in usual.steps())
    assert all(line["kl_reference"] >= 0 for line in shaped.steps())
    assert all(line["tokens"]["update"] > 0 for line in shaped.steps())
