"""What the detector of slow steps compares, at its thresholds and in its formulas."""

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
