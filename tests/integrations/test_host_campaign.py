"""A host's campaign without a host: what is kept, what is written down, and what a damaged folder is answered."""

from __future__ import annotations

import json

import pytest
from hostile_names import HOSTILE, filled, precious_folder, tree

from entrostat.campaign import Checkpoint
from entrostat.campaign.engine import Evaluate, GoOn, Plan, Stop
from entrostat.integrations.host_campaign import HostCampaign, finished, finished_trace, step_line
from entrostat.runs import Run, RunError


class Counter:
    """A host whose weights are the number of its steps, and whose pass@1 is a list's entry of that number."""

    split = 4

    def __init__(self, passed):
        self.passed = passed
        self.weights = 0

    def save(self, to: Checkpoint) -> None:
        to.path.mkdir()
        (to.path / "weights").write_text(str(self.weights))

    def measure(self, split, part, weights):
        at = self.weights if weights is None else int((weights.path / "weights").read_text())
        rows = [[f"task-{i}", 4, self.passed[at]] for i in range(self.split)]
        return {
            "results": rows[part],
            "samples": [{"task": "task-0", "prompt": "p", "completion": split, "outcome": "passed"}],
        }


def go_on(progress):
    return GoOn(progress.step)


def record(tmp_path):
    return Run.create(tmp_path / "run", {"name": "counter"}, 0, {}, {})


def train(host, run, decide=go_on, until=4, resume=None, listener=None):
    campaign = HostCampaign(host, run, Plan(budget=4, rate=1.0), decide, 1, listener)
    if resume is None:
        campaign.begin()
    else:
        host.weights = resume
        campaign.resume(resume, loaded=True)
    while not campaign.over and campaign.at < until:
        host.weights += 1
        campaign.step(campaign.at + 1, {"loss": host.weights / 10})
    if campaign.over:
        campaign.close()
    return campaign


def weights_of(checkpoint):
    return int((checkpoint.path / "weights").read_text())


def test_start_peak_and_end_are_kept_by_their_content(tmp_path):
    run, heard = record(tmp_path), []
    train(Counter([0, 2, 4, 1, 1]), run, listener=heard.append)
    trace = finished_trace(run)
    assert [weights_of(kept) for kept in (trace.start, trace.peak, trace.end)] == [0, 2, 4]
    assert {path.name for path in run.checkpoints_dir.iterdir() if path.is_dir()} == {
        kept.path.name for kept in (trace.start, trace.peak, trace.end)
    }
    assert [line["step"] for line in run.evals("report")] == [0, 2, 4]
    assert heard == [line for line in heard if line in run.steps() + run.evals("select") + run.evals("report")]
    assert len(heard) == 4 + 5 + 3


def test_a_campaign_that_was_killed_ends_as_one_that_was_not(tmp_path):
    whole, torn = record(tmp_path / "a"), record(tmp_path / "b")
    passed = [0, 2, 4, 1, 1]
    train(Counter(passed), whole)
    train(Counter(passed), torn, until=3)
    train(Counter(passed), torn, resume=2)
    assert torn.steps() == whole.steps()
    assert torn.evals() == whole.evals()
    for ours, theirs in zip(*((t.start, t.peak, t.end) for t in map(finished_trace, (torn, whole))), strict=True):
        assert (ours.step, ours.path.name) == (theirs.step, theirs.path.name)


def test_an_earlier_step_can_be_evaluated_and_kept(tmp_path):
    def decide(progress):
        if progress.step < 3:
            return GoOn(2 if progress.step >= 2 else progress.step)
        asked = [line for line in progress.evals if line["step"] == 2 and "at" in line]
        return Stop(2) if asked else Evaluate(2, 1, 3)

    run = record(tmp_path)
    train(Counter([0, 4, 3, 1, 1]), run, decide)
    (line,) = [line for line in run.evals("select") if "at" in line]
    assert (line["step"], line["at"], line["tasks"]) == (2, 3, [1, 3])
    assert line["results"] == [["task-1", 4, 3], ["task-2", 4, 3]]
    assert (weights_of(finished_trace(run).peak), finished_trace(run).confirmed) == (2, 2)


def test_pruning_leaves_what_a_controller_or_the_peak_needs(tmp_path):
    campaign = train(Counter([0, 4, 3, 1, 1]), record(tmp_path), until=3)
    assert campaign.kept() == [0, 1, 2, 3]
    campaign.prune()
    assert campaign.kept() == [0, 1, 3]


@pytest.mark.parametrize(
    ("content", "told"),
    [("{", "damaged"), ("[1]", "no JSON object"), ('{"peak": 2, "end": 4, "confirmed": null}', "'digests'")],
)
def test_a_damaged_end_is_named_with_its_remedy(tmp_path, content, told):
    run = record(tmp_path)
    train(Counter([0, 2, 4, 1, 1]), run)
    (run.checkpoints_dir / "finished.json").write_text(content)
    assert finished(run)
    with pytest.raises(RunError, match=rf"finished\.json: .*{told}.*delete the folder of the campaign"):
        finished_trace(run)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_end_that_names_a_path_is_refused_and_nothing_is_touched(tmp_path, name):
    run, precious = record(tmp_path), precious_folder(tmp_path)
    train(Counter([0, 2, 4, 1, 1]), run)
    file = run.checkpoints_dir / "finished.json"
    content = json.loads(file.read_text())
    before = tree(tmp_path)
    for step in content["digests"]:
        file.write_text(json.dumps({**content, "digests": {**content["digests"], step: filled(name, precious)}}))
        with pytest.raises(RunError, match=rf"finished\.json: digests\.{step}: got"):
            finished_trace(run)
    for field in ("peak", "end") if name != 0 else ():
        file.write_text(json.dumps({**content, field: filled(name, precious)}))
        with pytest.raises(RunError, match=rf"finished\.json: {field}: got"):
            finished_trace(run)
    file.write_text(json.dumps(content))
    assert tree(tmp_path) == before


def test_folders_of_the_user_s_own_stay_and_never_pass_for_weights(tmp_path):
    run = record(tmp_path)
    own = [run.checkpoints_dir / name for name in ("step-notes", "step-3", "best", "step-000001.bak")]
    for folder in own:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    train(Counter([0, 2, 4, 1, 1]), run)
    finished_trace(run)
    assert [(folder / "notes.txt").read_text() for folder in own] == ["mine"] * 4
    other = record(tmp_path / "other")
    (other.checkpoints_dir / "step-000002").mkdir()
    with pytest.raises(RunError, match="step-000002: was not made by this campaign"):
        train(Counter([0, 2, 4, 1, 1]), other)
    assert (other.checkpoints_dir / "step-000002").exists()


def test_a_step_line_holds_finite_numbers_under_the_folder_s_names():
    logged = {"learning_rate": 0.5, "actor/entrostat/regions/E1": 0.25, "loss": float("nan"), "note": "text", "step": 9}
    assert step_line(3, logged) == {"step": 3, "lr": 0.5, "regions": {"E1": 0.25}}


def test_the_three_divergences_of_a_step_line_are_not_mixed_up():
    trl = step_line(1, {"kl": 0.5, "entrostat/kl_old": 0.25})
    assert (trl["kl_reference"], trl["kl_old"]) == (0.5, 0.25)
    verl = {"actor/kl_loss": 0.5, "actor/ppo_kl": 0.125, "rollout_corr/kl": 0.75}
    line = step_line(1, verl)
    assert [line[f"kl_{of}"] for of in ("reference", "old", "sampler")] == [0.5, 0.125, 0.75]
    assert step_line(1, {**verl, "actor/entrostat/kl_old": 0.25})["kl_old"] == 0.25  # ours is the lower variance one
    assert "kl" not in trl.keys() | line.keys()
