"""What the detectors of length, truncation and repetition compare, at their thresholds and in their formulas."""

import math

import numpy as np
import pytest
from tests.diagnosis.made import DETECTOR, EVERY, jump, level, look, recorded, wobble


@pytest.mark.parametrize("by", [0.0, 0.05, 0.2])
@pytest.mark.parametrize(("always", "limit"), [(0.9, 0.25), (0.7, 0.99)])
def test_the_share_of_cut_completions_less_its_error_has_to_be_above_the_limit(by, always, limit):
    """Six values that stray by s have a roughness of s sqrt(2), and their mean an error of s / sqrt(3)."""
    threshold = min(always, limit) + by / math.sqrt(3)
    for x, found in ((threshold - 1e-6, False), (threshold + 1e-6, True)):
        course = [*level(10, 0 if always > limit else x), *wobble(6, x, by)]
        settings = {"limit": 0.25, "always": always}
        assert (look("truncation", {"truncated": course}, **settings) is not None) == found


def test_cut_completions_that_were_always_many_are_dated_where_they_pass_seven_tenths():
    rise = np.linspace(0.65, 0.75, 101)
    finding = look("truncation", {"truncated": [*level(50, 0.65), *rise, *level(20, 0.75)]})
    assert finding.onset / EVERY - 1 == pytest.approx(50 + int(np.argmax(rise > 0.7)), abs=1)


def test_the_start_of_truncation_is_the_median_of_its_first_six_rows():
    late = level(6, 0.36)
    assert look("truncation", {"truncated": [0, 0, 0, 0, 0.6, 0.6, *late]}) is not None
    assert look("truncation", {"truncated": [0, 0, 0.6, 0.6, 0.6, 0.6, *late]}) is None
    assert look("truncation", {"truncated": [0.2, 0.2, 0.2, 0.6, 0.6, 0.6, *late]}) is None


def test_truncation_shows_the_length_where_there_is_one():
    assert look("truncation", {"truncated": level(6, 0.9)}).columns == ("truncated",)
    assert look("truncation", {"truncated": level(6, 0.9), "length": level(6, 9)}).columns == ("truncated", "length")


@pytest.mark.parametrize(
    ("start", "late", "score", "stands"),
    [(0.5, 0.66, 0.9, True), (0.5, 0.64, 0.5, True), (0.5, 0.64, 0.9, False), (0.5, 0.54, 0.5, False)],
)
def test_truncation_stands_while_there_is_more_of_it_or_the_score_has_not_risen(start, late, score, stands):
    columns = {"truncated": jump(start, 0.8), "reward": level(20, 0.5)}
    finding = look("truncation", columns)
    later = {
        "truncated": [*columns["truncated"], *level(10, late)],
        "reward": [*level(20, 0.5), *level(10, score)],
    }
    assert DETECTOR["truncation"].persists(recorded(later), finding) == stands


@pytest.mark.parametrize(("length", "found"), [(300.2, False), (300.4, True)])
def test_a_length_that_grew_after_the_score_had_risen_is_a_failure_beyond_the_power_1_2(length, found):
    """2.5 to the power of 1.2 is 3.0029. The score is level since the length grew, and above its first values."""
    columns = {"length": jump(100, length, 30), "reward": jump(0.2, 0.8, 15, 25)}
    assert (look("length-degeneration", columns) is not None) == found


@pytest.mark.parametrize("length", [jump(0, 300), jump(300, 0), jump(-1, 300)])
def test_lengths_of_0_are_no_change(length):
    assert look("length-degeneration", {"length": length, "reward": level(20, 0.5)}) is None


@pytest.mark.parametrize(("before", "after"), [(100, 300), (300, 100)])
def test_a_length_that_grows_or_shrinks_begins_at_a_quarter_of_it(before, after):
    course = np.geomspace(before, after, 101)
    columns = {"length": [*level(50, before), *course, *level(20, after)], "reward": level(171, 0.5)}
    finding = look("length-degeneration", columns)
    assert finding.onset / EVERY - 1 == pytest.approx(76, abs=1)
    assert finding.evidence == pytest.approx({"start": before, "now": after, "score_before": 0.5, "score_now": 0.5})


@pytest.mark.parametrize(("repeated", "found"), [(0.30, False), (0.31, True)])
def test_repetition_is_compared_with_the_median_of_the_first_six_rows(repeated, found):
    late = level(6, repeated)
    assert (look("repetition", {"repetition": [0.1, 0.1, 0.3, 0.3, 0.3, 0.1, *late]}) is not None) == found
    assert look("repetition", {"repetition": [0.1, 0.1, 0.3, 0.3, 0.3, 0.3, *late]}) is None
