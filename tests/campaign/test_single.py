from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from entrostat.campaign import (
    Campaign,
    CampaignTrace,
    CareV2,
    Checkpoint,
    EarlyStop,
    Naive,
    Order,
    Plan,
    Progress,
    Stop,
    Trajectory,
    run_campaign,
)
from entrostat.campaign.single import run_open_campaign
from entrostat.runs import Run, RunError

SAMPLES = 1000


@dataclass
class ScriptedEngine:
    """Evaluates two curves that are written down beforehand; dies once after the evaluation of step `dies_at`."""

    select: Sequence[float]
    report: Sequence[float]
    dies_at: int | None = None

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        done = record.evals("report")
        step = done[-1]["step"] if done else -1
        record.rewind(step)
        while True:
            if step >= 0:
                trajectory = Trajectory.from_evals(record.evals("select"))
                seen = Progress(step, plan.budget, [], record.evals("select"), (step,), 1)
                if isinstance(decide(seen), Stop) or step == plan.budget:
                    break
            step += 1
            for split, curve in (("select", self.select), ("report", self.report)):
                results = [["task", SAMPLES, round(SAMPLES * curve[step])]]
                record.log_eval({"step": step, "split": split, "results": results})
            if step == self.dies_at:
                self.dies_at = None
                raise KeyboardInterrupt
        report = Trajectory.from_evals(record.evals("report"))
        folder = record.path / "checkpoints"
        return CampaignTrace(
            trajectory,
            report,
            Checkpoint(folder / "start", 0),
            Checkpoint(folder / "peak", trajectory.peak_step),
            Checkpoint(folder / "end", step),
        )


def new_record(path: Path) -> Run:
    return Run.create(path, {}, 0, {}, {})


START = Checkpoint(Path("start"), 0)


RISE_AND_FALL = [0.15, 0.3, 0.5, 0.4, 0.2, 0.1, 0.0, 0.0]


def test_early_stop_rolls_back_to_the_peak_and_both_decisions_are_recorded_with_their_cause(tmp_path: Path):
    record = new_record(tmp_path)
    outcome = run_campaign(ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), EarlyStop(steps=7), START, record)
    assert (outcome.handed_over.step, outcome.trace.steps_used, outcome.stopped) == (2, 5, True)
    stop, roll_back = record.decisions()
    assert (stop["step"], stop["kind"]) == (5, "stop")
    assert (roll_back["step"], roll_back["kind"], roll_back["to_step"]) == (5, "roll-back", 2)
    for decision in (stop, roll_back):
        assert "0.500 at step 2" in decision["cause"]
        assert "EarlyStop: pass@1 on select" in decision["cause"]


def test_a_run_that_is_being_written_is_not_trained_a_second_time(tmp_path: Path):
    record = new_record(tmp_path)
    with record.sole_writer(), pytest.raises(RunError, match="another process"):
        run_campaign(ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), Naive(steps=7), START, record)
    assert record.evals() == []


def test_a_naive_campaign_decides_nothing(tmp_path: Path):
    record = new_record(tmp_path)
    outcome = run_campaign(ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), Naive(steps=7), START, record)
    assert outcome.handed_over == outcome.trace.end
    assert (outcome.trace.steps_used, outcome.stopped) == (7, False)
    assert record.decisions() == []


def test_a_campaign_that_ends_at_its_peak_rolls_nothing_back(tmp_path: Path):
    record = new_record(tmp_path)
    curve = [0.1, 0.2, 0.3]
    outcome = run_campaign(ScriptedEngine(curve, curve), EarlyStop(steps=2), START, record)
    assert outcome.handed_over.step == outcome.trace.steps_used == 2
    assert record.decisions() == []


@pytest.mark.parametrize("report", [RISE_AND_FALL[::-1], [1.0] * 8, [0.0, 1.0] * 4])
def test_the_report_split_moves_no_decision(tmp_path: Path, report: list[float]):
    records = [new_record(tmp_path / name) for name in ("a", "b")]
    outcomes = [
        run_campaign(ScriptedEngine(RISE_AND_FALL, curve), EarlyStop(steps=7), START, record)
        for curve, record in zip((RISE_AND_FALL, report), records, strict=True)
    ]
    assert outcomes[0].handed_over.step == outcomes[1].handed_over.step
    assert outcomes[0].trace.steps_used == outcomes[1].trace.steps_used
    assert records[0].decisions() == records[1].decisions()


def test_a_rule_is_shown_the_select_split_alone(tmp_path: Path):
    seen = []

    class Watcher(Naive):
        def should_stop(self, trajectory: Trajectory) -> bool:
            seen.append(trajectory.end)
            return False

    run_campaign(ScriptedEngine(RISE_AND_FALL, [0.9] * 8), Watcher(steps=7), START, new_record(tmp_path))
    assert seen == RISE_AND_FALL


def test_the_budget_of_the_next_campaign_follows_from_the_last(tmp_path: Path):
    rule = EarlyStop(mode="budget", steps=7)
    first = run_campaign(ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), rule, START, new_record(tmp_path / "1"))
    second = run_campaign(
        ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), rule, first.handed_over, new_record(tmp_path / "2"), [first.trace]
    )
    assert (first.trace.steps_used, first.handed_over.step) == (7, 2)
    assert second.trace.steps_used == 5


@pytest.mark.parametrize("dies_at", range(6))
def test_a_campaign_killed_at_any_step_goes_on_to_the_same_outcome(tmp_path: Path, dies_at: int):
    rule = EarlyStop(steps=7)
    whole = new_record(tmp_path / "whole")
    run_campaign(ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), rule, START, whole)
    record = new_record(tmp_path / "killed")
    engine = ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL, dies_at=dies_at)
    with pytest.raises(KeyboardInterrupt):
        run_campaign(engine, rule, START, record)
    run_campaign(engine, rule, START, Run.open(record.path))
    run_campaign(engine, rule, START, Run.open(record.path))
    assert record.trace() == whole.trace()
    assert record.decisions() == whole.decisions()


def rolled_back(tmp_path: Path, second: list[float], steps: int = 7):
    """A campaign that stops at step 5, rolls back to its peak, step 2, and goes on from there for 2 steps."""
    record, rest = new_record(tmp_path / "first"), new_record(tmp_path / "second")
    asked = []

    def again(outcome, left):
        asked.append((outcome.handed_over.step, outcome.trace.end.step, left))
        return Campaign(ScriptedEngine(second, second), EarlyStop(steps=steps), rest)

    campaign = Campaign(ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), EarlyStop(steps=steps), record, again)
    return run_open_campaign(campaign, START), record, rest, asked


def test_a_campaign_that_goes_on_after_its_roll_back_is_one_campaign(tmp_path: Path):
    outcome, record, rest, asked = rolled_back(tmp_path, [0.5, 0.6, 0.7])
    assert asked == [(2, 5, 2)]
    assert outcome.trace.select.steps == (0, 1, 2, 3, 4, 5, 6, 7)
    assert outcome.trace.select.pass_at_1[-2:] == (0.6, 0.7)
    assert (outcome.handed_over.step, outcome.trace.peak.step, outcome.trace.end.step) == (7, 7, 7)
    assert outcome.handed_over.path == outcome.parts[1].handed_over.path
    assert (outcome.parts[0].stopped, outcome.stopped) == (True, False)
    stop, back, switch = record.decisions()
    assert [line["kind"] for line in (stop, back, switch)] == ["stop", "roll-back", "switch"]
    assert switch["step"] == 5
    assert switch["cause"] == "2 steps are left; they continue from step 2 in after-roll-back"
    assert rest.decisions() == []


def test_a_second_part_that_is_worse_hands_over_the_first_part_s_peak(tmp_path: Path):
    outcome, _, rest, _ = rolled_back(tmp_path, [0.5, 0.4, 0.3])
    assert (outcome.handed_over.step, outcome.trace.peak.step, outcome.trace.end.step) == (2, 2, 7)
    assert [line["kind"] for line in rest.decisions()] == ["roll-back"]


def test_without_a_second_part_a_stopped_campaign_is_over(tmp_path: Path):
    record = new_record(tmp_path)
    engine = ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL)
    outcome = run_open_campaign(Campaign(engine, EarlyStop(steps=7), record, lambda *_: None), START)
    assert outcome.parts == ()
    assert outcome.stopped


def test_a_campaign_that_was_not_stopped_is_not_continued(tmp_path: Path):
    def again(*_):
        raise AssertionError("asked")

    engine = ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL)
    assert not run_open_campaign(Campaign(engine, Naive(steps=7), new_record(tmp_path), again), START).stopped


def test_a_shorter_plan_and_a_lesson_are_recorded(tmp_path: Path):
    class Learned(CareV2):
        def lesson(self, trace, history):
            return {"kind": "onset", "cause": f"of {len(history)}"}

    first = run_campaign(
        ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), Naive(steps=7), START, new_record(tmp_path / "1")
    )
    record = new_record(tmp_path / "2")
    run_campaign(ScriptedEngine(RISE_AND_FALL, RISE_AND_FALL), Learned(pilot=3, steps=7), START, record, [first.trace])
    plan, lesson = record.decisions()
    assert {**plan, "cause": ""} == {"step": 0, "kind": "plan", "cause": "", "budget": 3, "rate": 1.0}
    assert "3 of 7 steps" in plan["cause"]
    assert lesson == {"step": 3, "kind": "onset", "cause": "of 1"}


@pytest.mark.parametrize("steps", [6, 7, 12])
def test_the_second_part_takes_all_the_steps_that_are_left(tmp_path: Path, steps: int):
    left = steps - 5
    outcome, record, _, asked = rolled_back(tmp_path, [0.1 * step for step in range(left + 1)], steps)
    assert asked == [(2, 5, left)]
    assert outcome.trace.end.step == steps
    assert outcome.parts[1].trace.end.step == left
    assert record.decisions()[-1]["cause"].startswith(f"{left} steps are left;")


def test_the_second_part_starts_at_its_step_0_from_what_the_first_handed_over(tmp_path: Path):
    started = []

    class Started(ScriptedEngine):
        def run(self, start, plan, decide, record):
            started.append((start, plan.budget, plan.rate))
            return super().run(start, plan, decide, record)

    def again(outcome, left):
        return Campaign(Started(RISE_AND_FALL, RISE_AND_FALL), EarlyStop(steps=7), new_record(tmp_path / "second"))

    first = Campaign(Started(RISE_AND_FALL, RISE_AND_FALL), EarlyStop(steps=7), new_record(tmp_path / "first"), again)
    outcome = run_open_campaign(first, START)
    assert started == [(START, 7, 1.0), (Checkpoint(outcome.parts[0].handed_over.path, 0), 2, 1.0)]
