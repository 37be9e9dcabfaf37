"""What the detector of templates compares, at its thresholds and in its formulas."""

import math

import numpy as np
import pytest
from tests.diagnosis.made import EVERY, LIVELY, jump, level, look, wobble

from entrostat.diagnosis.statistics import noise


def alike(early=LIVELY, late=None, entropy=None):
    late = level(12, 100) if late is None else late
    return {"length": [*early, *late], "entropy": jump(1, 0.1, 12, 12) if entropy is None else entropy}


@pytest.mark.parametrize(
    ("first", "found"), [((1, 1, 1, 1, 1), True), ((0.4, 0.4, 1, 1, 1), True), ((0.4, 0.4, 0.4, 1, 1), False)]
)
def test_the_first_five_entropies_are_the_start_of_a_template(first, found):
    assert (look("template-collapse", alike(entropy=[*first, *level(14, 1), *level(5, 0.1)])) is not None) == found


@pytest.mark.parametrize(("late", "found"), [(2, False), (3, True)])
def test_the_last_five_entropies_are_what_is_left_of_it(late, found):
    assert (look("template-collapse", alike(entropy=jump(1, 0.1, 24 - late, late))) is not None) == found


@pytest.mark.parametrize("unit", [1.0, 0.0125])
@pytest.mark.parametrize(("by", "found"), [(0.99, False), (1.01, True)])
def test_lengths_that_hardly_varied_at_first_have_lost_no_variation(unit, by, found):
    """A series that strays by s to either side has noise of 2 s 1.4826 / sqrt(2); the least is a hundredth."""
    by *= 100 * 0.01 / (2 * 1.4826 / math.sqrt(2))
    columns = alike(unit * wobble(12, 100, by), unit * level(12, 100))
    assert (look("template-collapse", columns) is not None) == found


@pytest.mark.parametrize("unit", [1.0, 0.0125])
@pytest.mark.parametrize(("by", "found"), [(1.01, False), (0.99, True)])
def test_lengths_have_to_vary_by_a_tenth_of_what_they_did(unit, by, found):
    assert (look("template-collapse", alike(unit * LIVELY, unit * wobble(12, 100, by))) is not None) == found


def test_empty_completions_are_alike():
    assert look("template-collapse", alike(late=level(12, 0))) is not None
    assert look("template-collapse", alike(early=level(12, 0))) is None


def test_a_template_is_dated_to_the_rows_in_which_nothing_varies():
    finding = look("template-collapse", alike(late=level(20, 100), entropy=jump(1, 0.1, 12, 20)))
    assert finding.onset == (32 - 12 + 1) * EVERY
    usual = 20 * 1.4826 / math.sqrt(2) / 100
    assert finding.evidence == pytest.approx(
        {"variation_at_first": usual, "variation_now": 0.0, "entropy_left": 0.1}, rel=1e-3
    )
    assert f"(it varied by {usual:.0%} between steps at first" in finding.summary


@pytest.mark.parametrize(("rises", "found"), [(20, True), (55, False)])
def test_a_template_is_excused_by_a_score_that_rose_after_half_of_the_entropy_was_gone(rises, found):
    """An entropy that starts at 4 and is halved at row 50 of 100; the score rises before that, or after it."""
    entropy = np.interp(range(100), [0, 9, 91, 99], [4, 4, 0.1, 0.1])
    columns = {
        "length": [*LIVELY, *level(88, 100)],
        "entropy": entropy,
        "reward": jump(0.2, 0.9, rises, 100 - rises),
    }
    assert (look("template-collapse", columns) is not None) == found


@pytest.mark.parametrize(("lengths", "entropies", "found"), [(24, 24, True), (23, 24, False), (24, 23, False)])
def test_a_template_needs_24_lengths_and_entropies(lengths, entropies, found):
    columns = alike(early=LIVELY[24 - lengths :], entropy=jump(1, 0.1, entropies - 12, 12))
    assert (look("template-collapse", columns) is not None) == found


def test_information_has_gone_if_the_formulas_say_so():
    """Now is the median of the last three, the best the greatest median of three before them."""
    rng = np.random.default_rng(12)
    answers = []
    for case in range(300):
        n = int(rng.integers(7, 60))
        name = ("information", "information_nats")[case % 2]
        course = np.interp(np.linspace(0, 1, n), [0, 0.4, 0.7, 1], [0.5, 1, *rng.uniform(-0.1, 1, 1), 0.3])
        course = course + rng.choice([0.0, 0.02, 0.1]) * rng.normal(size=n)
        if n < 8:
            assert look("template-collapse", {name: course}) is None
            continue
        before = [np.median(course[i : i + 3]) for i in range(n - 5)]
        best, now = max(before), np.median(course[-3:])
        finding = look("template-collapse", {name: course})
        left = max(now, 0)
        assert (finding is not None) == (left < 0.4 * best and best - left > 6 * noise(course))
        answers.append(finding is not None)
        if finding:
            step = EVERY * (before.index(best) + 2)
            assert finding.evidence == pytest.approx({"best": best, "best_step": step, "now": now})
            assert (finding.severity, finding.columns) == ("warning", (name,))
    assert 30 < sum(answers) < 270


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"length": jump(100, 240, 20)}, True),  # .15 per token of 2.4 times as many are .36 of what it was
        ({"length": jump(100, 270, 20)}, False),
        ({"length": jump(100, 50, 20)}, True),  # shorter ones have no more of it
        ({"length": jump(100, 270, 20)[11:]}, True),  # not logged when it was best
        ({"entropy": jump(1, 0.51, 20)}, True),
        ({"entropy": jump(1, 0.5, 20)}, False),
        ({"entropy": jump(1, 0.1, 20), "conditional_entropy": level(30, 1)}, True),
        ({"entropy": level(30, 1), "conditional_entropy": jump(1, 0.1, 20)}, False),
        ({"reward": jump(0.2, 0.9, 20)}, False),
    ],
)
def test_information_per_token_is_compared_at_equal_length_and_with_what_is_left_of_the_entropy(columns, found):
    information = np.concatenate([level(9, 0.5), level(3, 1), level(8, 0.9), level(10, 0.15)])
    finding = look("template-collapse", {"information": information, **columns})
    assert (finding is not None) == found
    if "length" in columns:
        assert look("template-collapse", {"information_nats": information, **columns}) is not None
    if finding and "entropy" in columns:
        within = "conditional_entropy" if "conditional_entropy" in columns else "entropy"
        assert finding.columns == ("information", within)
        assert finding.evidence["entropy_left"] == pytest.approx(columns[within][-1])


def test_gone_information_is_critical_where_the_score_has_fallen():
    information = jump(1, 0.1, 20)
    for reward, severity in ((0.5, "warning"), (0.1, "critical")):
        columns = {"information": information, "reward": jump(0.5, reward, 20)}
        assert look("template-collapse", columns).severity == severity
