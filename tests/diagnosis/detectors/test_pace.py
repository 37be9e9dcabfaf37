"""What the detectors of slow steps and of clipping compare, at their thresholds and in their formulas."""

import numpy as np
import pytest
from tests.diagnosis.made import EVERY, jump, level, look


def test_a_time_of_0_is_no_time_and_leaves_the_question_to_the_throughput():
    slow, fast = jump(10, 50, 12, 6), jump(9, 1, 12, 6)
    assert look("slow-steps", {"step_time": [0.0, *slow[1:]]}) is None
    assert look("slow-steps", {"throughput": [0.0, *fast[1:]]}) is None
    assert look("slow-steps", {"step_time": [0.0, *slow[1:]], "throughput": fast}).columns == ("throughput",)
    assert look("slow-steps", {"step_time": level(18, 9), "throughput": fast}).columns == ("throughput",)
    assert look("slow-steps", {"step_time": jump(10, 25, 12, 6), "throughput": fast}).columns == ("throughput",)
    assert look("slow-steps", {"step_time": slow, "throughput": fast}).columns == ("step_time",)
    assert look("slow-steps", {"step_time": slow[1:], "throughput": fast}).columns == ("throughput",)


@pytest.mark.parametrize(
    ("length", "found"),
    [
        (jump(1, 2, 12, 6), False),
        (jump(1, 2, 11, 6), True),  # too few to tell
        (jump(1, 1.6, 12, 6), True),
        (jump(1, 1.7, 12, 6), False),
        (jump(0, 2, 12, 6), True),
        (jump(1, 2, 15, 3), True),  # half of the last six have grown, by half
        (jump(1, 3, 15, 3), False),
    ],
)
def test_completions_that_grow_take_longer(length, found):
    assert (look("slow-steps", {"step_time": jump(10, 50, 12, 6), "length": length}) is not None) == found


@pytest.mark.parametrize(("name", "course"), [("step_time", jump(1, 5, 30)), ("throughput", jump(5, 1, 30))])
def test_slow_steps_begin_where_three_tenths_of_the_change_are_done(name, course):
    finding = look("slow-steps", {name: course})
    assert finding.onset == 31 * EVERY
    assert finding.evidence == {"before": course[0], "now": course[-1]}
    assert finding.levels == {"before": course[0]}
    rise = np.linspace(1, 5, 101)
    rise = np.concatenate([level(150, 1), rise, level(20, 5)])
    finding = look("slow-steps", {name: rise if name == "step_time" else 1 / rise})
    assert finding.onset / EVERY - 1 == pytest.approx(150 + 30, abs=2)


@pytest.mark.parametrize(("first", "rose"), [(0.099, "warning"), (0.101, None)])
def test_clipping_was_high_from_the_start_above_half_of_its_limit(first, rose):
    columns = {"clip_high": jump(first, 0.9), "reward": jump(0.5, 0.9)}
    finding = look("clip-saturation", columns)
    assert (finding and finding.severity) == rose


@pytest.mark.parametrize(("late", "rose"), [(4, "warning"), (3, None)])
def test_clipping_at_the_start_is_the_median_of_the_first_eight_rows(late, rose):
    early = np.concatenate([level(late, 0), level(8 - late, 0.19), level(12, 0)])
    columns = {"clip_high": [*early, *level(10, 0.9)], "reward": jump(0.5, 0.9, 20, 10)}
    finding = look("clip-saturation", columns)
    assert (finding and finding.severity) == rose


def test_the_side_that_clips_more_is_named_and_both_are_given():
    finding = look("clip-saturation", {"clip_low": level(8, 0.3), "clip_high": level(8, 0.4)})
    assert "40% of the tokens are clipped at the upper side" in finding.summary
    assert finding.evidence == {"clip_low": 0.3, "clip_high": 0.4}
    finding = look("clip-saturation", {"clip_low": level(8, 0.3), "clip_high": level(7, 0.4)})
    assert finding.evidence == {"clip_low": 0.3}
    assert look("clip-saturation", {"clip": level(8, 0.9), "clip_high": level(8, 0.1)}) is None
    assert look("clip-saturation", {"clip": level(8, 0.9), "clip_low": level(8, 0.1)}) is None
