"""What the detectors of divergence and staleness compare, at their thresholds and in their formulas."""

import numpy as np
import pytest
from tests.diagnosis.made import DETECTOR, EVERY, jump, level, look, recorded


def runaway(rows=21, base=0.01, now=0.6):
    return np.concatenate([level(rows - 5, base), level(5, now)])


@pytest.mark.parametrize("rows", [40, 41])
@pytest.mark.parametrize(("width", "found"), [(2, True), (3, False)])
def test_half_way_is_the_median_of_five_values_around_the_middle(rows, width, found):
    for first in range(rows // 2 - 2, rows // 2 + 4 - width):  # anywhere within the five
        course = runaway(rows)
        course[first : first + width] = 0.5
        assert (look("kl-runaway", {"kl": course}) is not None) == found
    for first in (rows // 2 - 3, rows // 2 + 1):  # one of three is outside
        course = runaway(rows)
        course[first : first + 3] = 0.5
        assert look("kl-runaway", {"kl": course}) is not None
    finding = look("kl-runaway", {"kl": runaway(rows)})
    assert finding.evidence == {"now": 0.6, "half_way": 0.01, "half_way_step": EVERY * (rows // 2 + 1)}


def test_a_divergence_estimated_below_0_counts_as_0():
    finding = look("kl-runaway", {"kl": runaway(base=-0.5)})
    assert finding.evidence["half_way"] == 0.0
    assert finding.levels == {"half-way": 0.0}
    assert finding.onset == 17 * EVERY


@pytest.mark.parametrize(("base", "begins"), [(0.0, 0.2), (0.05, 0.2), (0.15, 0.3)])
def test_a_runaway_begins_at_a_fifth_of_it_or_at_twice_its_half_way(base, begins):
    rise = np.linspace(base, 1.0, 101)
    finding = look("kl-runaway", {"kl": [*level(150, base), *rise, *level(20, 1.0)]})
    expected = 150 + int(np.argmax(rise > begins))
    assert finding.onset / EVERY - 1 == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("late", "score", "stands"), [(0.31, 0.5, True), (0.3, 0.5, False), (0.31, 0.9, False)])
def test_a_runaway_stands_above_half_of_it_unless_the_score_has_risen(late, score, stands):
    finding = look("kl-runaway", {"kl": runaway(), "reward": level(21, 0.5)})
    later = {"kl": [*runaway(), *level(10, late)], "reward": [*level(21, 0.5), *level(10, score)]}
    assert DETECTOR["kl-runaway"].persists(recorded(later), finding) == stands


def test_sampler_and_trainer_part_by_either_quantity():
    sound, apart = level(10, 0.01), level(10, 0.2)
    assert look("sampler-mismatch", {"kl_sampler": sound, "mismatch": apart}).columns == ("mismatch",)
    assert look("sampler-mismatch", {"kl_sampler": apart, "mismatch": sound}).columns == ("kl_sampler",)
    assert look("sampler-mismatch", {"kl_sampler": apart, "mismatch": apart}).columns == ("kl_sampler",)
    assert look("sampler-mismatch", {"kl_sampler": sound, "mismatch": sound}) is None


def test_a_mismatch_below_0_is_one_and_stands_until_half_of_it_is_gone():
    finding = look("sampler-mismatch", {"mismatch": jump(-0.1, -0.4)})
    assert (finding.evidence, finding.onset) == ({"start": 0.1, "now": 0.4}, EVERY)
    for late, stands in ((-0.21, True), (0.21, True), (-0.2, False), (0.19, False)):
        later = recorded({"mismatch": [*jump(-0.1, -0.4), *level(5, late)]})
        assert DETECTOR["sampler-mismatch"].persists(later, finding) == stands


def test_a_mismatch_that_has_not_grown_fivefold_begins_at_the_limit():
    rise = np.linspace(0.05, 0.15, 101)
    finding = look("sampler-mismatch", {"kl_sampler": [*level(50, 0.05), *rise, *level(20, 0.15)]})
    assert finding.onset / EVERY - 1 == pytest.approx(50 + int(np.argmax(rise > 0.09)), abs=1)


@pytest.mark.parametrize(("late", "found"), [(0.0499, False), (0.0501, True)])
def test_growth_is_measured_from_the_first_five_values(late, found):
    course = np.concatenate([level(3, 0.01), level(2, 0.04), level(20, 0.04), level(5, late)])
    assert (look("sampler-mismatch", {"kl_sampler": course}) is not None) == found
    course[2] = 0.04
    assert look("sampler-mismatch", {"kl_sampler": course}) is None
