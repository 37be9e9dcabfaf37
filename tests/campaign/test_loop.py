"""The campaign loop over a host of one number: what is kept, what is written down, and that a kill changes neither."""

from __future__ import annotations

import json

import pytest

from entrostat.campaign.checkpoints import CheckpointError, Keeper
from entrostat.campaign.engine import Evaluate, GoOn, Plan, Stop
from entrostat.campaign.loop import CampaignLoop, Schedule
from entrostat.runs import Run, RunError

PASSED = [0, 2, 4, 1, 1]
EACH_STEP = Schedule()


class KilledError(Exception):
    pass


class Counter:
    """A host whose weights are the number of its steps, and whose pass@1 is an entry of PASSED.

    Its call number `dies` raises. A resume point is due after every second step.
    """

    split = 4

    def __init__(self, resume=None, dies=None, measured=("report",)):
        self.weights = int((resume.path / "weights").read_text()) if resume else 0
        self.dies, self.calls, self.measured = dies, 0, measured

    def step(self):
        self._live()
        self.weights += 1
        return {"step": self.weights, "loss": self.weights / 10}

    def save(self, to):
        self._live()
        assert to.step == self.weights
        to.path.mkdir()
        (to.path / "weights").write_text(str(self.weights))

    def resumable(self, step):
        return step % 2 == 0

    def save_resume_point(self, to):
        self.save(to)
        (to.path / "state.json").write_text("{}")

    def evaluate(self, split, part, weights):
        self._live()
        at = self.weights if weights is None else int((weights.path / "weights").read_text())
        rows = [[f"task-{i}", 4, PASSED[at]] for i in range(self.split)]
        return {
            "results": rows[part],
            "samples": [{"task": "task-0", "prompt": "p", "completion": split, "outcome": "passed"}],
        }

    def _live(self):
        self.calls += 1
        if self.calls == self.dies:
            raise KilledError


def go_on(progress):
    return GoOn(progress.step)


def looks_back(progress):
    """Holds step 2; after step 3 evaluates a part of it once more, and chooses it."""
    if progress.step < 3:
        return GoOn(min(progress.step, 2))
    asked = [line for line in progress.evals if line["step"] == 2 and "at" in line]
    return Stop(2) if asked else Evaluate(2, 1, 3)


def holds_the_start(progress):
    """Chooses the start at the end, which it looks at once more."""
    if progress.step < 4:
        return GoOn(0)
    return Stop(0) if any("at" in line for line in progress.evals) else Evaluate(0, 0, 2)


RULES = [go_on, looks_back, holds_the_start]


def record(folder):
    return Run.create(folder / "run", {"name": "counter"}, 0, {}, {})


def loop_over(run, decide=go_on, schedule=EACH_STEP, listener=None):
    return CampaignLoop(run, Plan(budget=4), decide, schedule, listener)


def train(run, decide=go_on, schedule=EACH_STEP, listener=None, **host):
    """Train to the end, from the last resume point where there is one; the host."""
    loop = loop_over(run, decide, schedule, listener)
    trainer = Counter(loop.resume, **host)
    loop.run(trainer, loop.resume.step if loop.resume else None)
    return trainer


def trace_of(run):
    return loop_over(run).trace()


def weights_of(checkpoint):
    return int((checkpoint.path / "weights").read_text())


def kept(run):
    return {path.name for path in run.checkpoints_dir.iterdir()}


def test_start_peak_and_end_are_kept_by_their_content_and_nothing_else(tmp_path):
    run, told = record(tmp_path), []
    train(run, listener=told.append)
    trace = trace_of(run)
    assert [weights_of(point) for point in (trace.start, trace.peak, trace.end)] == [0, 2, 4]
    assert kept(run) == {"tags.json", *(point.path.name for point in (trace.start, trace.peak, trace.end))}
    assert [line["step"] for line in run.evals("report")] == [0, 2, 4]
    assert len(told) == 4 + 5 + 3
    assert all(line in run.steps() + run.evals() for line in told)
    assert {line["completion"] for line in run.samples(2)} == {"select", "report"}


@pytest.mark.parametrize(
    ("rule", "schedule"),
    [(go_on, EACH_STEP), (looks_back, Schedule(3, "every")), (holds_the_start, Schedule(None))],
)
def test_a_campaign_killed_at_any_moment_ends_as_one_that_was_not(tmp_path, rule, schedule):
    whole = record(tmp_path / "whole")
    calls = train(whole, rule, schedule, measured=("report", "ood")).calls
    for moment in range(1, calls + 1):
        torn = record(tmp_path / str(moment))
        with pytest.raises(KilledError):
            train(torn, rule, schedule, dies=moment, measured=("report", "ood"))
        train(torn, rule, schedule, measured=("report", "ood"))
        assert torn.trace() == whole.trace()
        assert kept(torn) == kept(whole)
        assert trace_of(torn).confirmed == trace_of(whole).confirmed


def by_hand(run, rule, marks, dies_after=None, resume=None):
    """What a trainer with a loop of its own does; its checkpoints are the steps in `marks`, told of to the loop
    unless the trainer dies right after it has written one.
    """
    loop, host = loop_over(run, rule), Counter()
    host.weights = resume or 0
    loop.begin(host) if resume is None else loop.go_on(host, resume)
    while not loop.over:
        loop.stepped(host.step())
        if loop.now == dies_after:
            return
        if loop.now in marks and not loop.over:
            loop.save_resume_point(lambda folder: folder.mkdir())
    loop.close()


@pytest.mark.parametrize("rule", RULES)
def test_a_trainer_with_a_loop_of_its_own_does_the_same_though_it_dies_before_its_checkpoint_is_told_of(tmp_path, rule):
    driven, whole = record(tmp_path / "driven"), record(tmp_path / "whole")
    train(driven, rule)
    by_hand(whole, rule, ())
    assert whole.trace() == driven.trace()
    assert kept(whole) == kept(driven)
    for step in (1, 2):
        torn = record(tmp_path / str(step))
        by_hand(torn, rule, (1, 2), dies_after=step)
        by_hand(torn, rule, (1, 2), resume=step)
        assert torn.trace() == whole.trace()
        assert kept(torn) == kept(whole)


def test_an_earlier_step_can_be_evaluated_and_chosen_and_the_end_is_kept_too(tmp_path):
    run = record(tmp_path)
    train(run, looks_back)
    (line,) = [line for line in run.evals("select") if "at" in line]
    assert (line["step"], line["at"], line["tasks"]) == (2, 3, [1, 3])
    assert line["results"] == [["task-1", 4, 4], ["task-2", 4, 4]]
    trace = trace_of(run)
    assert (weights_of(trace.peak), weights_of(trace.end), trace.confirmed) == (2, 3, 2)


def test_a_step_that_is_not_kept_cannot_be_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"step is 1, but kept are \[0, 2\]"):
        train(record(tmp_path), lambda progress: Stop(1) if progress.step == 3 else GoOn(0))


def test_the_splits_that_no_decision_reads_are_measured_when_the_schedule_says(tmp_path):
    for report, steps in (("peak", [0, 2, 4]), ("every", [0, 2, 4])):
        run = record(tmp_path / report)
        train(run, schedule=Schedule(2, report), measured=("report", "ood"))
        for split in ("report", "ood"):
            assert [line["step"] for line in run.evals(split)] == steps
        late = [line for line in run.evals("ood") if "at" in line]
        assert [line["step"] for line in late] == ([2] if report == "peak" else [])


@pytest.mark.parametrize(("field", "value"), [("every", 0), ("every", -1), ("report", "never")])
def test_a_schedule_that_means_nothing_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}"):
        Schedule(**{field: value})


def test_what_is_finished_asks_the_host_for_nothing(tmp_path):
    run = record(tmp_path)
    train(run)
    assert loop_over(run).finished
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    trace_of(run)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_missing_tag_is_named_with_its_remedy(tmp_path):
    run = record(tmp_path)
    train(run)
    file = run.checkpoints_dir / "tags.json"
    tags = json.loads(file.read_text())
    for tag in ("start", "peak"):
        file.write_text(json.dumps({name: entry for name, entry in tags.items() if name != tag}))
        with pytest.raises(CheckpointError, match=rf"tags\.json: '{tag}' is missing; restore the file"):
            trace_of(run)


@pytest.mark.parametrize("name", ["finished.json", "step-000000"])
def test_a_host_s_campaign_of_an_older_version_is_refused_and_stays(tmp_path, name):
    run = record(tmp_path)
    run.log_step({"step": 1})
    (run.checkpoints_dir / name).mkdir()
    with pytest.raises(RunError, match="older version, which this version cannot resume"):
        loop_over(run)
    assert [line["step"] for line in run.steps()] == [1]
    assert (run.checkpoints_dir / name).exists()


def test_an_embedded_campaign_of_an_older_version_is_read_as_it_was_left(tmp_path):
    """It tagged the end before it was over, and kept a last resume point with what the controller chose."""
    run = record(tmp_path)
    train(run, looks_back)
    store, trace = Keeper(loop_over(run).keeper.store).store, trace_of(run)
    tags = {name: point for name, point in store.tags().items() if name != "confirmed"}

    def state(folder):
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"finished": True, "confirmed": 2}))

    store.retag({**tags, "resume": store.save(state, 2)})
    assert not loop_over(run).finished
    store.retag({**tags, "resume": store.save(state, 3)})
    assert loop_over(run).finished
    assert trace_of(run) == trace


def test_folders_of_the_user_s_own_stay(tmp_path):
    run = record(tmp_path)
    own = [run.checkpoints_dir / name for name in ("step-notes", "best", ".writing-notes")]
    for folder in own:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    train(run)
    assert [(folder / "notes.txt").read_text() for folder in own] == ["mine"] * 3


@pytest.mark.parametrize("budget", [5, 5000])
def test_a_campaign_is_over_at_the_step_of_its_budget(tmp_path, budget):
    loop = CampaignLoop(record(tmp_path), Plan(budget), go_on, EACH_STEP)
    for step, over in ((budget - 1, False), (int(str(budget)), True)):
        loop.now = step
        assert loop.over == over


def test_resume_points_are_written_when_the_host_says_and_none_once_it_is_over(tmp_path):
    class Noted(Counter):
        def save_resume_point(self, to):
            points.append(to.step)
            super().save_resume_point(to)

    for rule, expected in ((go_on, [0, 2]), (lambda p: Stop(0) if p.step == 2 else GoOn(0), [0])):
        points, run = [], record(tmp_path / str(expected))
        loop_over(run, rule).run(Noted(), None)
        assert points == expected


def test_an_end_that_was_not_evaluated_is_evaluated_and_can_be_the_peak(tmp_path):
    for every, stop, steps in ((3, 2, [0, 2]), (3, 3, [0, 3]), (None, 2, [2]), (2, 2, [0, 2])):
        run = record(tmp_path / f"{every}-{stop}")
        train(run, lambda p, stop=stop: Stop() if p.step == stop else GoOn(), Schedule(every))
        assert [line["step"] for line in run.evals("select")] == steps
        trace = trace_of(run)
        assert trace.peak.step == (stop if PASSED[stop] > PASSED[0] else 0)
        assert trace.confirmed is None


def test_the_current_step_can_be_chosen_whatever_its_number(tmp_path):
    """A step beyond 256, whose number is not the same object wherever it comes from."""
    loop = CampaignLoop(record(tmp_path), Plan(600), lambda p: GoOn(int(str(p.step))), Schedule(None, "peak"))
    host = Counter()
    loop.begin(host)
    host.weights = 299
    loop.stepped(host.step())
    assert 300 in loop.keeper.steps


def extendable(run, budget):
    return CampaignLoop(run, Plan(budget), go_on, EACH_STEP, extendable=True)


def test_a_campaign_that_used_all_its_steps_can_be_reopened_at_its_last_resume_point(tmp_path):
    run = record(tmp_path)
    extendable(run, 3).run(Counter(), None)
    keeper = Keeper(CampaignLoop(run, Plan(4), go_on, EACH_STEP).keeper.store)
    assert keeper.finished
    assert keeper.resume is None
    keeper.reopen()
    assert (keeper.finished, keeper.resume.step) == (False, 2)
    again = Keeper(keeper.store)
    assert (again.finished, again.resume.step) == (False, 2)
    again.reopen()  # there is nothing to reopen now
    assert again.resume.step == 2
    train(run)
    whole = record(tmp_path / "whole")
    train(whole)
    assert run.trace() == whole.trace()
    assert trace_of(run).peak.path.name == trace_of(whole).peak.path.name


def test_a_campaign_that_was_stopped_or_is_not_extendable_stays_closed(tmp_path):
    stopped, closed = record(tmp_path / "a"), record(tmp_path / "b")
    CampaignLoop(stopped, Plan(4), looks_back, EACH_STEP, extendable=True).run(Counter(), None)
    train(closed)
    for run in (stopped, closed):
        keeper = Keeper(loop_over(run).keeper.store)
        keeper.reopen()
        assert keeper.finished
        assert keeper.resume is None
