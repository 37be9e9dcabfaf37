"""A campaign in two parts reads as one: steps count on, and the weights that were gone back to keep their step."""

from pathlib import Path

import pytest

from entrostat.campaign import CampaignTrace, Checkpoint, Trajectory
from entrostat.campaign.single import Lines, Seam

FIRST = (0.2, 0.6, 0.4, 0.1)  # peak at step 1, rolled back at step 3


def part(select, peak, name, confirmed=None):
    curve = Trajectory(tuple(range(len(select))), tuple(select))
    points = [Checkpoint(Path(f"{name}-{step}"), step) for step in (0, peak, len(select) - 1)]
    steps = [{"step": step} for step in curve.steps[1:]]
    evals = [{"step": step, "split": "select", "results": [["t", 10, round(10 * y)]]} for step, y in enumerate(select)]
    return CampaignTrace(curve, curve, *points, confirmed=confirmed, steps=steps, evals=evals)


@pytest.mark.parametrize(
    ("second", "peak", "chosen"),
    [
        ((0.6, 0.5, 0.7), 2, "second-2"),
        ((0.6, 0.6, 0.6), 0, "first-1"),
        ((0.6, 0.5, 0.4), 0, "first-1"),
    ],
)
def test_the_peak_is_the_better_part_s_and_the_end_is_the_second_s(second, peak, chosen):
    whole = Seam(start=1, at=3).trace(part(FIRST, 1, "first"), part(second, peak, "second"))
    assert whole.select == Trajectory((0, 1, 2, 3, 4, 5), (*FIRST, *second[1:]))
    assert (whole.peak.path.name, whole.confirmed) == (chosen, None)
    assert (whole.start.path.name, whole.end) == ("first-0", Checkpoint(Path("second-2"), 5))
    assert [line["step"] for line in whole.steps] == [1, 2, 3, 4, 5]
    assert Trajectory.from_evals(whole.evals) == whole.select


@pytest.mark.parametrize(("confirmed", "at"), [(0, 1), (1, 4)])
def test_what_the_second_part_s_controller_chose_is_the_peak(confirmed, at):
    whole = Seam(1, 3).trace(part(FIRST, 1, "first"), part((0.6, 0.5, 0.4), confirmed, "second", confirmed))
    assert (whole.confirmed, whole.peak.step) == (at, at)


def test_lines_keep_the_moment_at_which_they_were_made():
    second = Lines(
        [{"step": 1}],
        [
            {"step": 0, "split": "report", "results": []},
            {"step": 0, "tasks": [0, 2], "results": []},
            {"step": 0, "at": 2, "tasks": [2, 4], "results": []},
            {"step": 1, "at": 2, "results": []},
        ],
        [{"step": 2, "kind": "roll-back", "to_step": 1}, {"step": 2, "kind": "roll-back", "to_step": 0}],
    )
    whole = Seam(start=1, at=3).lines(Lines([], [], []), second)
    assert [(line["step"], line["at"]) for line in whole.evals] == [(1, 3), (1, 5), (4, 5)]
    assert [(line["step"], line["to_step"]) for line in whole.decisions] == [(5, 4), (5, 1)]
