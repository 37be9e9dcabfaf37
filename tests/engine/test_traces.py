"""The bank of passing completions, and the restart from it: bounded, uniform, supervised, the same after any kill."""

import math
from collections import Counter
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file

from entrostat.campaign.checkpoints import CheckpointError
from entrostat.campaign.single import AFTER_ROLL_BACK
from entrostat.diagnosis import Acting, Detector, Finding, Watchdog
from entrostat.diagnosis.reading.folder import read
from entrostat.diagnosis.watchdog import RESTART
from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, derived_seed, sample
from entrostat.engine.table import TABLE_FILE
from entrostat.engine.traces import TRACES_FILE, Imitation, Restart, TraceBank, rollout_of
from entrostat.engine.train import train
from entrostat.integrations.peak import PeakWatchdog
from entrostat.recipe import RecipeError, parse_recipe
from entrostat.recipe.sections import RestartRecipe
from entrostat.runs import Run
from entrostat.tasks import listcraft
from entrostat.tokens import token_stats

SMALL = {
    "name": "restarted",
    "threads": 1,
    "tasks": {"train": 4, "select": 2, "report": 2},
    "rollout": {"prompts": 2, "samples": 4, "max_new_tokens": 8},
    "update": {"epochs": 2, "warmup_steps": 0},
    "evaluation": {"samples": 1, "pass_at": [1], "report": "peak"},
    "campaign": {"steps": 10, "checkpoint_every": 1},
    "grading": {"workers": 1},
}


class AtStep(Detector):
    """Finds a critical truncation from step 4 of a run of at least 7 steps on, so not after the restart."""

    kind = "truncation"
    columns = ("entropy",)

    def find(self, history, end):
        if history.step < 4 or end < 7:
            return None
        return Finding(self.kind, "critical", history.step, 2, "made to order", {"end": float(end)}, ("entropy",))


@pytest.fixture
def found_at_step_4(monkeypatch):
    monkeypatch.setattr(Acting, "watchdog", lambda self, end=None: Watchdog(end, (AtStep(confirm=1),)))


def recipe(engine="tabular", restart=None, **changed):
    own = {"engine": engine, "watch": {"action": RESTART, "restart": {"steps": 3, "rows": 6, **(restart or {})}}}
    return parse_recipe({**SMALL, **own, **changed})


def test_a_bank_keeps_at_most_so_many_different_completions_per_task_each_with_equal_probability():
    kept = Counter()
    for seed in range(400):
        bank = TraceBank(3, seed)
        for completion in range(12):
            bank.add("a", [1], [completion])
        bank.add("a", *bank.kept["a"][1])
        bank.add("b", [2], [0])
        assert (len(bank.kept["a"]), len(bank.kept["b"]), bank.came) == (3, 1, {"a": 12, "b": 1})
        kept.update(completion[0] for _, completion in bank.kept["a"])
    share = 3 / 12
    spread = math.sqrt(share * (1 - share) * 400)
    assert all(abs(kept[completion] - share * 400) < 4.5 * spread for completion in range(12))


def test_a_bank_takes_only_what_passed_without_padding_and_gives_it_back():
    rollout = rollout_of([([5, 6, 7], [1, 2]), ([5], [3]), ([9, 9], [4, 4, 4])])
    bank = TraceBank(8, 0)
    bank.add_passing(["a", "a", "b"], rollout, [True, False, True])
    assert bank.kept == {"a": [([5, 6, 7], [1, 2])], "b": [([9, 9], [4, 4, 4])]}
    drawn = bank.draw(200, 1)
    lengths = Counter(drawn.lengths.tolist())
    assert set(lengths) == {2, 3}
    assert abs(lengths[2] - 100) < 40
    assert torch.equal(drawn.completions, bank.draw(200, 1).completions)
    assert not torch.equal(drawn.completions, bank.draw(200, 2).completions)


def test_a_saved_bank_continues_like_one_that_was_never_saved(tmp_path):
    whole, first, later = (TraceBank(2, 7) for _ in range(3))
    for completion in range(40):
        whole.add("a", [1], [completion])
        (first if completion < 15 else later).add("a", [1], [completion])
        if completion == 14:
            first.save(tmp_path)
            later.load(tmp_path)
    assert (later.kept, later.came) == (whole.kept, whole.came)


@pytest.mark.parametrize("content", [None, "", "[]", '{"came": {}}', '{"came": {}, "kept": {"a": [[1]]}}', "\x00"])
def test_a_damaged_bank_is_refused_by_its_file(tmp_path, content):
    if content is not None:
        (tmp_path / TRACES_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=TRACES_FILE):
        TraceBank(2, 0).load(tmp_path)


def test_nothing_can_be_drawn_from_an_empty_bank():
    with pytest.raises(ValueError, match="no completion has passed"):
        TraceBank(2, 0).draw(1, 0)
    assert Restart(RestartRecipe(), TraceBank(2, 0)).steps == 0


def test_a_supervised_step_has_the_gradient_of_the_mean_negative_log_likelihood():
    """The cross-entropy of the drawn completions, written down here, however it is cut into micro-batches."""
    policy = load_policy()
    rollout = sample(policy, [task.prompt for task in listcraft.tasks("train", 3)], Sampling(2, 12), seed=0)
    bank = TraceBank(4, 0)
    bank.add_passing(list("aabbcc"), rollout, [True] * 6)
    for rows in (512, 5):
        update = {"microbatch_rows": rows, "max_grad_norm": None, "learning_rate": 1e-6, "objective": "gspo"}
        own = parse_recipe({"name": "x", "seed": 3, "update": {**update, "aggregate": "sequence-mean"}})
        one = Imitation(load_policy(), own, Restart(RestartRecipe(rows=8), bank), 1.0)
        line = one.step(1)
        drawn = bank.draw(8, derived_seed(3, "traces", 1), policy.pad_id)
        logits = policy.logits(*drawn.tensors(policy.device))
        loss = -token_stats(logits, drawn.completions).logp[drawn.mask].mean()
        policy.model.zero_grad()
        loss.backward()
        assert line["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
        expected = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
        found = torch.cat([p.grad.flatten() for p in one.learner.policy.model.parameters()])
        assert (found - expected).norm() <= 1e-3 * expected.norm()
        assert line["traces"] == 8


@pytest.mark.usefixtures("found_at_step_4")
@pytest.mark.parametrize(("policy", "to_step"), [("start", 0), ("peak", None)])
def test_a_restart_imitates_what_passed_and_then_learns_by_reward_again(tmp_path, policy, to_step):
    outcome = train(recipe(restart={"policy": policy}), tmp_path / "run")
    first, second = Run.open(tmp_path / "run"), Run.open(tmp_path / "run" / AFTER_ROLL_BACK)
    kinds = {line["kind"]: line for line in first.decisions()}
    assert {"finding", "stop", RESTART, "switch"} <= set(kinds)
    assert "3 supervised steps of 6 completions" in kinds[RESTART]["cause"]
    assert [line.get("traces") for line in second.steps()] == [6, 6, 6, None, None, None]
    assert [line.get("batch") for line in second.steps()][3:] == [0, 0, 1]
    assert len(first.steps()) == 4
    assert outcome.trace.steps_used == 10
    start = outcome.trace.start if policy == "start" else outcome.parts[0].trace.peak
    tables = [load_file(one.path / TABLE_FILE)["table"] for one in (outcome.parts[1].trace.start, start)]
    assert torch.equal(*tables)
    if to_step is not None:
        assert kinds["roll-back"]["to_step"] == to_step


@pytest.mark.usefixtures("found_at_step_4")
def test_imitation_makes_passing_completions_likelier(tmp_path):
    own = recipe(restart={"steps": 5}, update={"epochs": 2, "warmup_steps": 0, "learning_rate": 0.1})
    train(own, tmp_path / "run")
    lines = Run.open(tmp_path / "run" / AFTER_ROLL_BACK).steps()[:5]
    losses = [line["loss"] for line in lines]
    assert losses[-1] < losses[0]
    assert lines[-1]["exact"]["success"] > lines[0]["exact"]["success"]


class Killed(Exception):
    pass


def killed_at(when):
    count = iter(range(10_000))

    def listener(line):
        if next(count) == when:
            raise Killed

    return listener


@pytest.mark.usefixtures("found_at_step_4")
def test_a_run_killed_at_any_line_restarts_to_the_same_trace(tmp_path):
    own = recipe(rollout={**SMALL["rollout"], "staleness": 2}, campaign={"steps": 9, "checkpoint_every": 2})
    lines = []
    train(own, tmp_path / "whole", lines.append)

    def read(folder):
        runs = [Run.open(folder), Run.open(folder / AFTER_ROLL_BACK)]
        return [(run.trace(), run.decisions()) for run in runs]

    for when in range(0, len(lines), 3):
        folder = tmp_path / f"killed-{when}"
        with pytest.raises(Killed):
            train(own, folder, killed_at(when))
        train(own, folder)
        assert read(folder) == read(tmp_path / "whole"), when


@pytest.mark.usefixtures("found_at_step_4")
def test_a_run_killed_again_and_again_gets_there_all_the_same(tmp_path):
    own = recipe()
    train(own, tmp_path / "whole")
    kills = 0
    while not (tmp_path / "killed" / AFTER_ROLL_BACK / "end").exists():
        kills += 1
        with suppress(Killed):
            train(own, tmp_path / "killed", killed_at(8))
    assert kills > 2
    for part in ("", AFTER_ROLL_BACK):
        assert Run.open(tmp_path / "killed" / part).trace() == Run.open(tmp_path / "whole" / part).trace()


class AnyEntropy(AtStep):
    """Finds a critical truncation from step 4 on, after the restart too."""

    def find(self, history, end):
        return super().find(history, 7 if end < 7 else end)


def test_supervised_steps_are_not_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(Acting, "watchdog", lambda self, end=None: Watchdog(end, (AnyEntropy(confirm=1),)))
    train(recipe(restart={"steps": 5}, campaign={"steps": 10, "checkpoint_every": 1}), tmp_path / "run")
    rest = Run.open(tmp_path / "run" / AFTER_ROLL_BACK)
    findings = [line["step"] for line in rest.decisions() if line["kind"] == "finding"]
    assert [line.get("traces") for line in rest.steps()] == [6] * 5 + [None]
    assert findings == [6]
    assert min(row["step"] for row in read(rest.path).rows if "entropy" in row) == 6


@pytest.mark.usefixtures("found_at_step_4")
def test_the_embedded_policy_restarts_too(tmp_path):
    own = recipe("embedded", campaign={"steps": 7, "checkpoint_every": 1})
    train(own, tmp_path / "whole")
    with pytest.raises(Killed):
        train(own, tmp_path / "run", killed_at(12))
    train(own, tmp_path / "run")
    for part in ("", AFTER_ROLL_BACK):
        assert Run.open(tmp_path / "run" / part).trace() == Run.open(tmp_path / "whole" / part).trace()
    assert [line.get("traces") for line in Run.open(tmp_path / "run" / AFTER_ROLL_BACK).steps()] == [6, 6, 6]


@pytest.mark.usefixtures("found_at_step_4")
def test_a_run_in_which_nothing_passed_restarts_without_imitation(tmp_path):
    own = recipe(table={"start": -40.0, "spread": 0.0})
    train(own, tmp_path / "run")
    causes = {line["kind"]: line["cause"] for line in Run.open(tmp_path / "run").decisions()}
    assert "no completion has passed" in causes[RESTART]
    assert all("traces" not in line for line in Run.open(tmp_path / "run" / AFTER_ROLL_BACK).steps())


@pytest.mark.parametrize("engine", ["trl", "verl"])
def test_other_engines_refuse_it_by_name(engine):
    with pytest.raises(RecipeError, match=rf"watch\.action: got 'restart-from-traces'.*{engine}"):
        recipe(engine)


def test_the_watchdogs_of_hosts_refuse_it_by_name():
    with pytest.raises(ValueError, match="restart-from-traces"):
        PeakWatchdog(Acting(RESTART), None)


def test_settings_of_a_restart_without_one_are_refused():
    with pytest.raises(RecipeError, match="restart: given with action roll-back"):
        parse_recipe({**SMALL, "watch": {"action": "roll-back", "restart": {"steps": 3}}})
