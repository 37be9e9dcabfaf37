"""Each threshold in docs/diagnose.md is where a finding begins: none below it, one above it, dated at the change."""

import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from scipy.stats import binom
from tests.diagnosis.made import DETECTOR, EVERY, LIVELY, jump, level, look, recorded, wobble

from entrostat.diagnosis import Detector
from entrostat.diagnosis.falls import SPANS
from entrostat.diagnosis.history import History
from entrostat.diagnosis.remedies import ALL_RIGHT, ALL_WRONG, COLLAPSE, COLLAPSE_BY_PUNISHMENT
from entrostat.diagnosis.statistics import noise

FOUND_ABOVE = {  # a quantity's threshold: the finding, and columns in which that quantity is x
    "clip-low": (0.2, "clip-saturation", lambda x: {"clip_low": level(8, x), "clip_high": level(8, 0)}),
    "clip-high": (0.2, "clip-saturation", lambda x: {"clip_high": level(8, x)}),
    "clip-either": (0.2, "clip-saturation", lambda x: {"clip": level(8, x)}),
    "truncated": (0.25, "truncation", lambda x: {"truncated": jump(0, x)}),
    "truncated-more": (0.35, "truncation", lambda x: {"truncated": jump(0.2, x)}),
    "truncated-always": (0.7, "truncation", lambda x: {"truncated": level(6, x)}),
    "longer": (250, "length-degeneration", lambda x: {"length": jump(100, x), "reward": level(20, 0.5)}),
    "shorter": (250, "length-degeneration", lambda x: {"length": jump(x, 100), "reward": level(20, 0.5)}),
    "repeated": (0.2, "repetition", lambda x: {"repetition": jump(0, x)}),
    "repeated-more": (0.4, "repetition", lambda x: {"repetition": jump(0.3, x)}),
    "template-entropy": (
        5,
        "template-collapse",
        lambda x: {"length": [*LIVELY, *level(12, 100)], "entropy": jump(1, 1 / x, 12, 12)},
    ),
    "template-length": (
        10,
        "template-collapse",
        lambda x: {"length": [*LIVELY, *wobble(12, 100, 10 / x)], "entropy": jump(1, 0.1, 12, 12)},
    ),
    "template-information": (
        2.5,
        "template-collapse",
        lambda x: {"information": jump(1, 1 / x), "conditional_entropy": level(20, 1)},
    ),
    "template-information-nats": (2.5, "template-collapse", lambda x: {"information_nats": jump(2, 2 / x)}),
    "template-information-and-length": (
        5,
        "template-collapse",
        lambda x: {"information": jump(1, 1 / x), "length": jump(100, 200)},
    ),
    "template-entropy-left": (
        0.5,
        "template-collapse",
        lambda x: {"information": jump(1, 0.1), "conditional_entropy": jump(1, x)},
    ),
    "template-entropy-left-otherwise": (
        0.5,
        "template-collapse",
        lambda x: {"information": jump(1, 0.1), "entropy": jump(1, x)},
    ),
    "kl": (0.15, "kl-runaway", lambda x: {"kl": jump(0, x, 11, 5)}),
    "kl-growth": (0.5, "kl-runaway", lambda x: {"kl": jump(0.1, x, 11, 5)}),
    "sampler": (0.09, "sampler-mismatch", lambda x: {"kl_sampler": level(10, x)}),
    "sampler-difference": (0.09, "sampler-mismatch", lambda x: {"mismatch": level(10, -x)}),
    "sampler-growth": (0.05, "sampler-mismatch", lambda x: {"kl_sampler": jump(0.01, x)}),
    "sampler-least": (0.02, "sampler-mismatch", lambda x: {"kl_sampler": jump(0.001, x)}),
    "stale": (4, "staleness", lambda x: {"staleness": level(8, x)}),
    "slower": (30, "slow-steps", lambda x: {"step_time": jump(10, x, 12, 6)}),
    "fewer-per-second": (3, "slow-steps", lambda x: {"throughput": jump(6, 6 / x, 12, 6)}),
    "slower-and-longer": (60, "slow-steps", lambda x: {"step_time": jump(10, x, 12, 6), "length": jump(1, 2, 12, 6)}),
    "slower-and-shorter": (30, "slow-steps", lambda x: {"step_time": jump(10, x, 12, 6), "length": jump(2, 1, 12, 6)}),
    "gradient-grown": (20, "gradient-explosion", lambda x: {"grad_norm": jump(2, x, 10, 5)}),
    "groups": (0.85, "degenerate-groups", lambda x: {"equal_groups": level(10, x)}),
    "groups-by-kind": (
        0.85,
        "degenerate-groups",
        lambda x: {"all_right": level(10, 0.5), "all_wrong": level(10, x - 0.5)},
    ),
    "entropy-over-lowest": (2.5, "entropy-explosion", lambda x: {"entropy": jump(1, x)}),
    "entropy-over-start": (1.5, "entropy-explosion", lambda x: {"entropy": [*level(5, 1), *jump(0.4, x)]}),
    "no-entropy": (200, "entropy-collapse", lambda x: {"entropy": level(8, 1 / x)}),
    "gradient-fallen": (20, "gradient-fade", lambda x: {"grad_norm": jump(1, 1 / x)}),
    "score-fallen": (0.2, "rise-then-fall", lambda x: {"heldout": jump(0.8, 0.8 * (1 - x), 40, 20)}),
    "reward-fallen": (0.2, "rise-then-fall", lambda x: {"reward": jump(0.8, 0.8 * (1 - x), 40, 20)}),
    "signed-score-fallen": (
        0.2,
        "rise-then-fall",
        lambda x: {"heldout": [*np.linspace(-9, 1, 200), *jump(1, 1 - 10 * x, 100, 20)]},
    ),
}
AT_THE_THRESHOLD = {"gradient-fallen"}  # those found with equality; the others are not
ROUNDED = {
    *("template-length", "fewer-per-second", "groups-by-kind", "truncated-more", "truncated-always"),
    *("score-fallen", "reward-fallen", "signed-score-fallen"),
}


@pytest.mark.parametrize("name", FOUND_ABOVE)
def test_a_finding_begins_at_its_threshold(name):
    threshold, kind, columns = FOUND_ABOVE[name]
    assert look(kind, columns(threshold * (1 - 1e-6))) is None
    assert look(kind, columns(threshold * (1 + 1e-6))).kind == kind
    if name not in ROUNDED:
        assert (look(kind, columns(threshold)) is not None) == (name in AT_THE_THRESHOLD)


WORSE_ABOVE = {
    "clip-low": (0.4, ("warning", "critical")),
    "truncated": (0.5, ("warning", "critical")),
    "longer": (625, ("warning", "critical")),
    "shorter": (625, ("warning", "critical")),
    "repeated": (0.5, ("warning", "critical")),
    "kl": (1.0, ("warning", "critical")),
    "sampler": (0.45, ("warning", "critical")),
    "stale": (16, ("note", "warning")),
    "gradient-grown": (200, ("warning", "critical")),
    "groups": (0.95, ("warning", "critical")),
    "entropy-over-lowest": (5, ("warning", "critical")),
    "gradient-fallen": (100, ("warning", "critical")),
    "score-fallen": (0.5, ("warning", "critical")),
}


@pytest.mark.parametrize("name", WORSE_ABOVE)
def test_a_finding_becomes_worse_at_its_second_threshold(name):
    threshold, severities = WORSE_ABOVE[name]
    _, kind, columns = FOUND_ABOVE[name]
    assert look(kind, columns(threshold * (1 - 1e-6))).severity == severities[0]
    assert look(kind, columns(threshold * (1 + 1e-6))).severity == severities[1]
    if name not in ROUNDED | {"longer", "shorter", "sampler"}:
        assert look(kind, columns(threshold)).severity == severities[name in AT_THE_THRESHOLD]


LEAST_ROWS = {  # rows that a finding needs, and columns of n rows in which nothing else is missing
    "clip-saturation": (8, lambda n: {"clip_low": level(n, 0.9)}),
    "truncation": (6, lambda n: {"truncated": level(n, 0.9)}),
    "truncation, of more": (12, lambda n: {"truncated": jump(0, 0.6, 6, n - 6)}),
    "length-degeneration": (13, lambda n: {"length": jump(100, 300, 8, n - 8), "reward": level(n, 0.5)}),
    "repetition": (12, lambda n: {"repetition": jump(0, 0.6, 6, n - 6)}),
    "template-collapse": (
        24,
        lambda n: {"length": [*LIVELY, *level(n - 12, 100)], "entropy": jump(1, 0.1, 12, n - 12)},
    ),
    "template-collapse, by information": (8, lambda n: {"information": jump(1, 0.1, n - 3, 3)}),
    "kl-runaway": (16, lambda n: {"kl": jump(0, 0.6, n - 5, 5)}),
    "sampler-mismatch": (10, lambda n: {"kl_sampler": level(n, 0.6)}),
    "staleness": (8, lambda n: {"staleness": level(n, 20)}),
    "slow-steps": (18, lambda n: {"step_time": jump(1, 9, n - 6, 6)}),
    "gradient-explosion": (15, lambda n: {"grad_norm": jump(1, 20, n - 5, 5)}),
    "gradient-fade": (20, lambda n: {"grad_norm": jump(1, 0.001, 10, n - 10)}),
    "gradient-fade, from the start": (8, lambda n: {"grad_norm": level(n, 0)}),
    "degenerate-groups": (4, lambda n: {"equal_groups": level(n, 0.9)}),
    "degenerate-groups, by spread": (9, lambda n: {"reward_std": level(n, 0)}),
    "degenerate-groups, by spread and reward": (6, lambda n: {"reward_std": level(n, 0), "reward": level(n, 0)}),
    "entropy-explosion": (10, lambda n: {"entropy": jump(1, 4, n - 4, 4)}),
    "entropy-collapse": (8, lambda n: {"entropy": jump(1, 0.01, 5, n - 5)}),
    "never-learned": (80, lambda n: {"reward": wobble(n, 0.1, 0.01)}),
    "never-learned, the same": (15, lambda n: {"reward": level(n, 0.3)}),
}


@pytest.mark.parametrize("name", LEAST_ROWS)
def test_a_finding_needs_its_rows(name):
    rows, columns = LEAST_ROWS[name]
    kind = name.split(",")[0]
    assert look(kind, columns(rows - 1)) is None
    assert look(kind, columns(rows)).kind == kind


DATED = {  # columns that change after `n` rows, wherever the limit of the finding is
    "clip-saturation": lambda n: {"clip_low": jump(0.1, 0.5, n)},
    "truncation": lambda n: {"truncated": jump(0, 0.6, n)},
    "length-degeneration": lambda n: {"length": jump(100, 300, n), "reward": level(n + 10, 0.5)},
    "repetition": lambda n: {"repetition": jump(0, 0.6, n)},
    "kl-runaway": lambda n: {"kl": jump(0.01, 0.6, n)},
    "sampler-mismatch": lambda n: {"kl_sampler": jump(0.01, 0.6, n)},
    "staleness": lambda n: {"staleness": jump(1, 20, n)},
    "slow-steps": lambda n: {"step_time": jump(1, 9, n)},
    "gradient-explosion": lambda n: {"grad_norm": jump(1, 20, n)},
    "gradient-fade": lambda n: {"grad_norm": jump(1, 0.001, n)},
    "degenerate-groups": lambda n: {"equal_groups": jump(0.3, 0.9, n)},
    "entropy-explosion": lambda n: {"entropy": jump(1, 4, n)},
    "entropy-collapse": lambda n: {"entropy": jump(1, 0.01, n)},
    "rise-then-fall": lambda n: {"heldout": jump(0.8, 0.0, n)},
}


@pytest.mark.parametrize("kind", DATED)
@pytest.mark.parametrize("n", [15, 40])
def test_a_jump_is_dated_to_its_first_row(kind, n):
    assert look(kind, DATED[kind](n)).onset == EVERY * (n + 1)


SLOW = {  # columns that grow by a hundredth of the change per row, and where that change begins: a fraction of it
    "truncation": (0.3, lambda part: {"truncated": 0.6 * part}),
    "repetition": (0.3, lambda part: {"repetition": 0.6 * part}),
    "sampler-mismatch": (0.3, lambda part: {"kl_sampler": 0.01 + 0.6 * part}),
    "slow-steps": (0.3, lambda part: {"step_time": 1 + 9 * part}),
    "entropy-explosion": (0.2, lambda part: {"entropy": 1 + 9 * part}),
    "entropy-collapse": (0.2, lambda part: {"entropy": 1 - 0.99 * part}),
    "gradient-fade": (0.5, lambda part: {"grad_norm": 1 - 0.999 * part}),
    "kl-runaway": (0.2, lambda part: {"kl": 3 * part}),
    "length-degeneration": (0.25, lambda part: {"length": 100 * 9.0**part, "reward": level(len(part), 0.5)}),
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_slow_change_is_dated_where_a_fraction_of_it_is_done(kind):
    fraction, columns = SLOW[kind]
    part = np.concatenate([level(150, 0), np.arange(101) / 100, level(20, 1)])
    expected = EVERY * (int(np.argmax(part > fraction + 1e-9)) + 1)
    assert abs(look(kind, columns(part)).onset - expected) <= EVERY


NOISY = {  # columns of 60 rows that stray by `s` to either side, whose last ten are higher by x
    "kl-runaway": ("kl", {}, lambda x, s: wobble(60, 0, s) + jump(0, x, 50)),
    "sampler-mismatch": ("kl_sampler", {"limit": 1e9}, lambda x, s: 0.001 + s + wobble(60, 0, s) + jump(0, x, 50)),
    "entropy-explosion": ("entropy", {}, lambda x, s: 0.1 + s + wobble(60, 0, s) + jump(0, x, 50)),
}


@pytest.mark.parametrize("kind", NOISY)
def test_a_change_of_seven_noises_is_found_and_one_of_five_is_not(kind):
    column, fields, values = NOISY[kind]
    for s in (0.02, 0.3, 5.0):
        sigma = noise(values(12 * s, s))
        assert look(kind, {column: values(5 * sigma, s)}, **fields) is None
        assert look(kind, {column: values(7 * sigma, s)}, **fields).kind == kind


LASTING = {  # columns with a finding, the column that then stays at x for some rows, and the x above which it stands
    "entropy-collapse": ({"entropy": jump(1, 0.01)}, "entropy", 3, 0.1, False),
    "kl-runaway": ({"kl": jump(0, 0.6, 15, 5)}, "kl", 5, 0.3, True),
    "sampler-mismatch": ({"kl_sampler": jump(0.01, 0.6)}, "kl_sampler", 5, 0.3, True),
    "slow-steps": ({"step_time": jump(1, 9, 12, 6)}, "step_time", 6, 3, True),
    "slow-steps, by throughput": ({"throughput": jump(9, 1, 12, 6)}, "throughput", 6, 3, False),
    "gradient-explosion": ({"grad_norm": jump(1, 100, 10, 5)}, "grad_norm", 5, 10, True),
    "truncation": ({"truncated": jump(0, 0.8)}, "truncated", 6, 0.56, True),
    "truncation, slight": ({"truncated": jump(0, 0.3)}, "truncated", 6, 0.25, True),
    "truncation, back at its start": ({"truncated": jump(0.5, 0.7)}, "truncated", 6, 0.49, True),
    "degenerate-groups": ({"equal_groups": level(10, 0.9)}, "equal_groups", 10, 2 / 3, True),
    "rise-then-fall": ({"heldout": jump(0.8, 0.2, 40, 20)}, "heldout", 5, 0.5, False),
}


@pytest.mark.parametrize("name", LASTING)
def test_a_finding_stands_as_long_as_its_detector_says(name):
    columns, column, rows, threshold, above = LASTING[name]
    kind = name.split(",")[0]
    finding = look(kind, columns)
    for factor in (0.99, 1.01):
        later = {**columns, column: [*columns[column], *level(rows, threshold * factor)]}
        assert DETECTOR[kind].persists(recorded(later), finding) == ((factor > 1) == above)


# --- detectors that compare two scores, or a score with itself


def diverging(fall, rise, before=24):
    """A held-out score of .8 that falls and a reward that rises over the last 16 of 40 rows; rewards were 0 and 1."""
    down, up = np.linspace(0, fall, 16), np.linspace(0, rise, 16)
    return {"heldout": [*level(before, 0.8), *(0.8 - down)], "reward": [0, 1, *level(before - 2, 0.2), *(0.2 + up)]}


@pytest.mark.parametrize(
    ("fall", "rise", "severity"),
    [
        *[(0.0639, 0.5, None), (0.0641, 0.5, "warning"), (0.239, 0.5, "warning"), (0.241, 0.5, "critical")],
        *[(0.1, 0.199, None), (0.1, 0.201, "warning"), (-0.1, 0.5, None), (0.1, -0.1, None)],
    ],
)
def test_divergence_needs_a_fall_of_8_percent_and_a_rise_of_a_fifth_of_the_range(fall, rise, severity):
    found = look("divergence", diverging(fall, rise), recent=(0.4,))
    assert (found and found.severity) == severity
    if found:
        assert found.onset == 25 * EVERY
        assert found.evidence["heldout_fall"] == pytest.approx(fall)
        assert found.evidence["reward_rise"] == pytest.approx(rise)


def test_divergence_looks_at_the_last_40_percent_and_then_at_65():
    assert look("divergence", diverging(0.1, 0.5)).onset == 25 * EVERY
    slow = {"heldout": 0.8 - np.linspace(0, 0.12, 40), "reward": np.linspace(0, 1, 40)}
    assert look("divergence", slow, recent=(0.4,)) is None
    assert look("divergence", slow).onset == 15 * EVERY


def test_divergence_needs_nine_evaluations_and_seven_rewards():
    line = np.linspace(0, 1, 9)
    assert look("divergence", {"heldout": 0.8 - 0.5 * line, "reward": line}).kind == "divergence"
    assert look("divergence", {"heldout": 0.8 - 0.5 * line[1:], "reward": line}) is None
    assert look("divergence", {"heldout": 0.8 - 0.5 * line, "reward": line[3:]}) is None


def test_a_held_out_score_that_may_follow_has_not_parted():
    """A fall along the line, of evaluations so noisy that it may be a rise."""
    noisy = diverging(0.1, 0.5)
    noisy["heldout"] = np.asarray(noisy["heldout"]) + wobble(40, 0, 0.3)
    assert look("divergence", noisy, recent=(0.4,)) is None
    assert look("divergence", noisy, recent=(0.4,), follow=9.0).kind == "divergence"


def learning(gain, middle=None, at=0.1, rows=90):
    third = rows // 3
    return {
        "reward": [
            *level(third, at),
            *level(third, at + (gain if middle is None else middle)),
            *level(third, at + gain),
        ]
    }


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        *[(learning(0.049), True), (learning(0.051), False), (learning(0.01, middle=0.06), False)],
        *[(learning(0.01, at=0.48), True), (learning(0.01, at=0.495), False)],
        ({**learning(0.01), "heldout": jump(0.2, 0.215, 45, 45)}, False),
        ({**learning(0.01), "heldout": jump(0.2, 0.205, 45, 45)}, True),
        ({**learning(0.01), "heldout": jump(0.2, 0.215, 2, 3)}, True),
        ({**learning(0.06, at=-1), "reward_min": level(90, -1), "reward_max": level(90, 1)}, True),
        ({**learning(0.11, at=-1), "reward_min": level(90, -1), "reward_max": level(90, 1)}, False),
        (learning(0.06, at=-1), False),
    ],
)
def test_learning_is_a_rise_of_5_percent_of_the_range_anywhere(columns, found):
    assert (look("never-learned", columns) is not None) == found


def test_nothing_is_said_of_learning_before_half_of_the_run():
    columns = learning(0.01)
    assert look("never-learned", columns, end=2 * 90 * EVERY).onset == EVERY
    assert look("never-learned", columns, end=2 * 90 * EVERY + 1) is None


def standing(low=0.2, high=0.6, late=0.6, left=0.8, rows=96):
    """A reward that rises over a quarter of the rows, and stands; the entropy that is left at the end."""
    quarter = rows // 4
    reward = [*np.linspace(low, high, quarter), *level(rows - 2 * quarter, high), *level(quarter, late)]
    return {"reward": reward, "entropy": [*level(rows - 5, 1), *level(5, left)]}


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        *[(standing(), True), (standing(left=0.5), False), (standing(left=0.501), True)],
        *[(standing(late=0.62), True), (standing(late=0.64), False), (standing(late=0.56), False)],
        *[(standing(low=0.55), False), (standing(high=0.89, late=0.89), True), (standing(high=0.91, late=0.91), False)],
        *[(standing(rows=47), False), (standing(rows=48), True)],
        ({**standing(), "heldout": np.linspace(0, 0.9, 96)}, False),
        ({**standing(), "heldout": np.linspace(0, 0.9, 47)}, True),
    ],
)
def test_a_plateau_is_a_rise_then_no_change_with_half_of_the_entropy(columns, found):
    finding = look("plateau", columns)
    assert (finding is not None) == found
    if found:
        assert finding.onset == EVERY * (len(columns["reward"]) // 2 + 1)


# --- what a finding says


@pytest.mark.parametrize(("worst", "flows"), [("E4", (-1, 5, 0, -2)), ("E1", (-2, 5, 0, -1)), ("E2", (0, -3, 1, 0))])
def test_a_collapse_blames_the_region_that_contracts_most(worst, flows):
    history = {f"flow_E{i}": [*level(10, -99 * (i == 3)), *level(10, flow)] for i, flow in enumerate(flows, start=1)}
    finding = look("entropy-collapse", {"entropy": jump(1, 0.01), **history})
    total = -sum(min(flow, 0) for flow in flows)
    for i, flow in enumerate(flows, start=1):
        assert finding.evidence[f"share_of_contraction_E{i}"] == pytest.approx(max(-flow, 0) / total)
    assert finding.summary.endswith(
        f" {worst} carries {max(map(abs, filter(lambda f: f < 0, flows))) / total:.0%} of the contraction."
    )
    assert finding.remedies == (COLLAPSE_BY_PUNISHMENT if worst == "E4" else COLLAPSE)


@pytest.mark.parametrize(
    ("kind", "columns", "words"),
    [
        ("sampler-mismatch", {"kl_sampler": level(10, 0.6)}, "a divergence of 0.6"),
        ("sampler-mismatch", {"mismatch": level(10, 0.6)}, "a mean difference of log-probabilities of 0.6"),
        (
            "entropy-explosion",
            {"entropy": [*level(5, 1), *jump(0.4, 3)]},
            "Entropy has risen to 3 nats per token, 7.5 times",
        ),
        ("entropy-explosion", {"entropy": [*level(5, 1), *jump(0, 3)]}, "3 nats per token, from none"),
        ("entropy-collapse", {"entropy": level(8, 0)}, "exactly 0 at every step"),
        ("entropy-collapse", {"entropy": level(8, 0.001)}, "below 0.005 nats"),
        ("entropy-collapse", {"entropy": jump(2, 0.02)}, "0.02 nats per token, 1% of its start"),
        (
            "length-degeneration",
            {"length": jump(100, 300), "reward": level(20, 0.5)},
            "from 100 to 300 tokens and the score did not rise with them: they grow longer",
        ),
        ("length-degeneration", {"length": jump(300, 100), "reward": level(20, 0.5)}, "grow shorter"),
        ("truncation", {"truncated": jump(0.1, 0.6)}, "60% of the completions are cut at the limit (10% at the start)"),
        ("repetition", {"repetition": jump(0.1, 0.6)}, "60% of the completions repeat themselves (10% at the start)"),
        ("slow-steps", {"step_time": jump(2, 9)}, "4.5 times slower: 9 seconds per step, 2 before"),
        ("slow-steps", {"throughput": jump(9, 2)}, "4.5 times slower: 2 per second, 9 before"),
        ("gradient-fade", {"grad_norm": jump(2, 0.02)}, "faded to 0.02, 1.0% of its first steps' 2"),
        ("gradient-fade", {"grad_norm": level(12, 0)}, "exactly 0 at each of the 12 steps"),
        ("gradient-explosion", {"grad_norm": jump(2, 60)}, "grown to 60, 30 times the usual 2."),
        ("kl-runaway", {"kl": jump(0.01, 0.6, 15, 5)}, "0.6 nats per token, 0.01 at step 110"),
        ("staleness", {"staleness": level(8, 5)}, "5 updates after they were sampled"),
        ("clip-saturation", {"clip": level(8, 0.5)}, "50% of the tokens are clipped at one side or the other"),
        (
            "rise-then-fall",
            {"heldout": jump(0.8, 0.2, 40, 20)},
            "The held-out score has fallen from 0.8 (step",
        ),
        (
            "rise-then-fall",
            {"reward": jump(0.8, 0.2, 40, 20)},
            "The training reward has fallen from 0.8 (step",
        ),
        ("degenerate-groups", {"equal_groups": level(10, 0.9)}, "90% of the groups teach nothing"),
        ("degenerate-groups", {"reward_std": level(10, 0)}, "100% of the last steps teach nothing"),
    ],
)
def test_a_finding_says_what_was_measured(kind, columns, words):
    assert words in look(kind, columns).summary


@pytest.mark.parametrize("kind", DETECTOR)
def test_every_threshold_is_a_field(kind):
    names = [name for name in type(DETECTOR[kind]).__annotations__ if name not in ("kind", "columns")]
    for name in names:
        assert getattr(replace(DETECTOR[kind], **{name: 99}), name) == 99


def test_a_collapse_and_a_fall_are_confirmed_twice_a_broken_number_once_and_the_rest_three_times():
    twice = {"entropy-collapse", "rise-then-fall", "degenerate-groups"}
    for kind, detector in DETECTOR.items():
        assert detector.confirm == {"not-finite": 1}.get(kind, 2 if kind in twice else 3)
        assert detector.release == {"not-finite": 1}.get(kind, 3)


def risen_and_fallen(fall, noise, back=1.0, wobbling=2, column="length"):
    """A reward that rises and falls by `fall` in 60 rows; a column that rises with it and loses the part `back`."""
    reward = wobble(60, 0, noise) + np.interp(range(60), [0, 39, 40, 59], [0.2, 0.6, 0.6, 0.6 - fall])
    other = wobble(60, 0, wobbling) + np.interp(range(60), [0, 39, 40, 59], [100, 200, 200, 200 - 100 * back])
    return {"reward": reward, column: other}


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        *[(risen_and_fallen(0.2, 0.05), True), (risen_and_fallen(0.2, 0.05, column="truncated"), True)],
        *[(risen_and_fallen(0.2, 0.05, back=0.4), True), (risen_and_fallen(0.2, 0.05, back=0.2), False)],
        (risen_and_fallen(0.2, 0.05, column="entropy"), False),  # that of another quantity tells nothing
        *[(risen_and_fallen(0.3, 0.1), True), (risen_and_fallen(0.3, 0.12), False)],  # at least two errors of its own
        *[(risen_and_fallen(0.2, 0.05, wobbling=25), True), (risen_and_fallen(0.2, 0.05, wobbling=40), False)],
        ({"heldout": risen_and_fallen(0.2, 0.05)["reward"], "length": risen_and_fallen(0.2, 0.05)["length"]}, False),
    ],
)
def test_a_fall_that_is_uncertain_by_itself_is_found_if_the_length_goes_back_with_it(columns, found):
    assert (look("rise-then-fall", columns) is not None) == found


# --- what the score did with a change: it rose, stayed or fell in the same row


def score(change, n=10, late=10):
    return {"reward": jump(0.5, 0.5 + {"rose": 0.4, "stayed": 0, "fell": -0.4}[change], n, late)}


@pytest.mark.parametrize(
    ("kind", "columns", "rose", "stayed", "fell"),
    [
        ("entropy-explosion", {"entropy": jump(1, 4)}, None, None, "warning"),
        ("entropy-explosion", {"entropy": jump(1, 6)}, None, "warning", "critical"),
        ("clip-saturation", {"clip_low": jump(0.3, 0.9)}, None, "critical", "critical"),
        ("clip-saturation", {"clip_low": jump(0, 0.9)}, "warning", "critical", "critical"),
        ("truncation", {"truncated": jump(0, 0.4)}, "warning", "warning", "warning"),
        ("truncation", {"truncated": jump(0, 0.9)}, "warning", "critical", "critical"),
        ("truncation", {"truncated": level(20, 0.9)}, None, "critical", "critical"),
        ("length-degeneration", {"length": jump(100, 300)}, None, "warning", "warning"),
        (
            "template-collapse",
            {"length": [*LIVELY, *level(12, 99)], "entropy": jump(1, 0.1, 12, 12)},
            None,
            *["warning"] * 2,
        ),
        ("template-collapse", {"information": jump(1, 0.1, 12, 12)}, None, "warning", "critical"),
        ("kl-runaway", {"kl": jump(0.01, 0.6, 15, 5)}, None, "warning", "critical"),
        ("sampler-mismatch", {"kl_sampler": jump(0.01, 0.2)}, "warning", "warning", "critical"),
        ("staleness", {"staleness": jump(1, 8)}, "note", "note", "warning"),
        ("gradient-explosion", {"grad_norm": jump(1, 50)}, None, "warning", "critical"),
        ("gradient-explosion", {"grad_norm": jump(1, 150)}, "critical", "critical", "critical"),
        ("gradient-fade", {"grad_norm": jump(1, 0.02), "equal_groups": level(20, 0.94)}, *["warning"] * 3),
        ("gradient-fade", {"grad_norm": jump(1, 0.02), "equal_groups": level(20, 0.96)}, None, *["warning"] * 2),
        ("gradient-fade", {"grad_norm": jump(1, 0.02), "reward_std": level(20, 0)}, None, *["warning"] * 2),
        ("gradient-fade", {"grad_norm": jump(1, 0.02), "reward_std": level(20, 0.1)}, *["warning"] * 3),
    ],
)
def test_a_finding_depends_on_what_the_score_did_meanwhile(kind, columns, rose, stayed, fell):
    changed = {"kl-runaway": 15, "template-collapse": 12}.get(kind, 10)
    rows = len(next(iter(columns.values())))
    for change, expected in {"rose": rose, "stayed": stayed, "fell": fell}.items():
        found = look(kind, {**columns, **score(change, changed, rows - changed)})
        assert (found and found.severity) == expected, change


def test_a_length_that_changes_after_the_score_has_risen_is_no_failure_unless_it_fell():
    grown = {"length": jump(100, 300, 30)}
    assert look("length-degeneration", {**grown, "reward": jump(0.2, 0.8, 15, 25)}) is None
    assert look("length-degeneration", {**grown, "reward": [*level(15, 0.2), *jump(0.8, 0.6, 15)]}) is not None
    assert look("length-degeneration", grown) is None


# --- the forecast of a collapse


def falling(rate, rows):
    return {"entropy": 2 * np.exp(-rate * np.arange(rows))}


@pytest.mark.parametrize("rate", [0.03, 0.05, 0.1])
def test_an_exponential_fall_is_forecast_to_the_step_once_half_is_gone_and_it_has_lasted_half_as_long(rate):
    arrival = EVERY * (3 + math.log(20) / rate)  # the start is the third value, the median of five
    rows = next(n for n in range(8, 400) if look("entropy-collapse", falling(rate, n), end=9999))
    half_gone, onset = 3 + math.log(2) / rate, 3 + math.log(1 / 0.8) / rate
    believed = (arrival / EVERY + 2 * onset) / 3  # now + 2 (now - onset) = arrival
    assert rows == pytest.approx(max(half_gone + 1, believed, 8), abs=1.5)
    finding = look("entropy-collapse", falling(rate, rows), end=9999)
    assert finding.severity == "warning"
    for name in ("arrival", "arrival_soonest", "arrival_latest"):
        assert finding.evidence[name] == pytest.approx(arrival)
    assert finding.evidence["slope"] == pytest.approx(-rate / EVERY)
    assert finding.onset / EVERY == pytest.approx(onset, abs=1)
    assert look("entropy-collapse", falling(rate, rows), end=math.ceil(arrival)) is not None
    assert look("entropy-collapse", falling(rate, rows), end=math.floor(arrival)) is None
    assert (
        f"by {1 - math.exp(-rate / EVERY):.1%} per step and reaches 5% of its start at step {arrival:.0f}"
        in finding.summary
    )
    assert not DETECTOR["entropy-collapse"].persists(recorded(falling(rate, rows)), finding)


def test_a_fall_that_is_levelling_off_is_not_forecast():
    """All values are below half of the start; only the newer half of the window shows that the fall has ended."""
    entropy = [*level(8, 1), *np.exp(-0.2 * np.arange(1, 6)), *level(3, math.exp(-1.0))]
    assert look("entropy-collapse", {"entropy": entropy}, end=9999) is None
    steady = [*level(8, 1), *np.exp(-0.2 * np.arange(1, 9))]
    assert look("entropy-collapse", {"entropy": steady}, end=9999) is not None


def test_of_a_long_log_the_last_15_percent_are_fitted():
    """Of 200 rows the last 30 fall twice as fast as those before: the forecast is that of the last 30."""
    fall = np.cumsum([*level(100, 0), *level(70, 0.01), *level(30, 0.02)])
    finding = look("entropy-collapse", {"entropy": np.exp(-fall)}, end=9999)
    assert finding.evidence["slope"] == pytest.approx(-0.02 / EVERY)


@pytest.mark.parametrize(
    ("target", "found"), [(1 / 1.24, False), (1 / 0.76, False), (1 / 1.26, True), (1 / 0.74, True), (0, True)]
)
def test_an_entropy_within_a_quarter_of_the_one_asked_for_is_no_collapse(target, found):
    entropy = jump(1, 0.01)
    assert bool(look("entropy-collapse", {"entropy": entropy, "entropy_target": entropy * target})) == found
    assert look("entropy-collapse", {"entropy": entropy, "entropy_target": entropy[-7:] * target}) is not None


@pytest.mark.parametrize(("right", "remedies"), [(0.6, ALL_RIGHT), (0.4, ALL_WRONG)])
def test_the_remedies_for_equal_groups_are_those_of_the_commoner_kind(right, remedies):
    finding = look("degenerate-groups", {"all_right": level(10, right), "all_wrong": level(10, 0.96 - right)})
    assert finding.remedies == remedies


@pytest.mark.parametrize(
    ("score", "named"), [("reward", "The reward has stood"), ("heldout", "The held-out score has")]
)
def test_a_plateau_names_the_score_that_stands(score, named):
    columns = standing()
    columns[score] = columns.pop("reward")
    finding = look("plateau", columns)
    assert finding.summary.startswith(named)
    assert finding.columns == (score, "entropy")


def test_the_two_kinds_of_equal_groups_are_those_of_the_last_ten_rows():
    finding = look("degenerate-groups", {"all_right": jump(0, 0.7, 25), "all_wrong": jump(0.5, 0.2, 25)})
    assert finding.evidence == {"all_right": pytest.approx(0.7), "all_wrong": pytest.approx(0.2)}
    assert (finding.severity, finding.onset) == ("note", 26 * EVERY)


def test_a_collapse_whose_log_lacks_a_region_blames_those_it_has():
    assert (
        look("entropy-collapse", {"entropy": jump(1, 0.01), "flow_E4": level(20, -1)}).remedies
        == COLLAPSE_BY_PUNISHMENT
    )
    assert look("entropy-collapse", {"entropy": jump(1, 0.01), "flow_E1": level(20, -1)}).remedies == COLLAPSE
    assert look("entropy-collapse", {"entropy": jump(1, 0.01)}).remedies == COLLAPSE


@pytest.mark.parametrize("kind", DETECTOR)
def test_a_detector_is_made_by_names_and_cannot_be_changed(kind):
    with pytest.raises(TypeError):
        type(DETECTOR[kind])(5)
    for field in fields(DETECTOR[kind]):
        with pytest.raises(FrozenInstanceError):
            setattr(DETECTOR[kind], field.name, None)


@pytest.mark.parametrize(("late", "found"), [(2, False), (3, True)])
def test_a_length_has_changed_once_most_of_the_last_five_rows_have(late, found):
    columns = {"length": jump(100, 300, 20 - late, late), "reward": level(20, 0.5)}
    assert (look("length-degeneration", columns) is not None) == found


def test_a_reward_that_may_not_have_risen_has_not_parted_from_the_held_out_score():
    noisy = diverging(0.3, 0.5)
    assert look("divergence", noisy, recent=(0.4,)).kind == "divergence"
    noisy["reward"] = np.asarray(noisy["reward"]) + wobble(40, 0, -0.5)
    assert look("divergence", noisy, recent=(0.4,)) is None
    assert look("divergence", noisy, recent=(0.4,), confidence=0.1).kind == "divergence"


def test_a_slow_fall_is_dated_where_three_tenths_of_it_are_done():
    part = np.concatenate([level(150, 0), np.arange(101) / 100, level(100, 1)])
    for scale in (0.4, 0.8):
        assert look("rise-then-fall", {"heldout": 0.1 + scale * (1 - part)}).onset == pytest.approx(
            181 * EVERY, abs=5 * EVERY
        )


# --- what is compared at the threshold itself, and over which rows


@pytest.mark.parametrize(
    ("kind", "fields", "columns", "severity"),
    [
        ("rise-then-fall", {"share": 0.25}, {"heldout": jump(1, 0.75, 40, 20)}, None),
        ("rise-then-fall", {"share": 0.1875}, {"heldout": jump(1, 0.75, 40, 20)}, "warning"),
        ("rise-then-fall", {}, {"heldout": jump(1, 0.5, 40, 20)}, "warning"),
        ("never-learned", {"share": 0.25}, learning(0.25, at=0), None),
        ("plateau", {"share": 0.25}, standing(high=0.75, late=0.5625), None),
    ],
)
def test_at_a_threshold_that_is_met_exactly_nothing_is_found(kind, fields, columns, severity):
    finding = look(kind, columns, **fields)
    assert (finding and finding.severity) == severity


MOST_OF_THE_LAST = {  # columns whose last rows are x, and of how many rows more than half have to be
    "entropy-explosion": (3, lambda k: {"entropy": jump(1, 9, 30 - k, k)}),
    "entropy-collapse": (3, lambda k: {"entropy": jump(1, 0.01, 30 - k, k)}),
    "kl-runaway": (5, lambda k: {"kl": jump(0.01, 0.6, 30 - k, k)}),
    "sampler-mismatch": (5, lambda k: {"kl_sampler": jump(0.01, 0.6, 30 - k, k)}),
    "gradient-explosion": (5, lambda k: {"grad_norm": jump(1, 50, 30 - k, k)}),
    "slow-steps": (6, lambda k: {"step_time": jump(1, 9, 30 - k, k)}),
    "staleness": (8, lambda k: {"staleness": jump(1, 9, 30 - k, k)}),
    "clip-saturation": (8, lambda k: {"clip_low": jump(0, 0.9, 30 - k, k)}),
    "repetition": (6, lambda k: {"repetition": jump(0, 0.9, 30 - k, k)}),
}


@pytest.mark.parametrize("kind", MOST_OF_THE_LAST)
def test_a_change_is_found_once_half_of_the_last_rows_show_it(kind):
    rows, columns = MOST_OF_THE_LAST[kind]
    first = next(k for k in range(1, 12) if look(kind, columns(k)))
    assert first == (rows + 1) // 2 or (rows % 2 == 0 and first == rows // 2 + 1)


@pytest.mark.parametrize("name", ["equal_groups", "reward_std"])
@pytest.mark.parametrize("agree_now", [False, True])
def test_whether_groups_agree_is_read_off_the_last_ten_rows(name, agree_now):
    agreeing, differing = (1.0, 0.5) if name == "equal_groups" else (0.0, 0.5)
    groups = jump(*((differing, agreeing) if agree_now else (agreeing, differing)), 30, 10)
    columns = {"grad_norm": jump(1, 0.02, 20, 20), "reward": jump(0.2, 0.9, 20, 20), name: groups}
    assert (look("gradient-fade", columns) is None) == agree_now


@pytest.mark.parametrize("usual", [0.1, 0.3, 0.6, 0.8])
@pytest.mark.parametrize("rows", [12, 16, 40])
def test_steps_without_spread_are_compared_with_how_often_there_were_such_before(usual, rows):
    """By the binomial distribution over the last 5, 10 or 20 steps, whichever shows it first."""
    alike = np.zeros(rows) + (np.arange(rows) % 10 < 10 * usual)
    for late in range(5, 21):
        course = np.concatenate([alike, np.ones(late)])
        severity = None
        for window in (5, 10, 20):
            before, share = course[:-window], course[-window:].mean()
            if len(before) >= 5 and share > 0.85:
                chance = binom.sf(round(share * window) - 1, window, (before.sum() + 1) / (len(before) + 2))
                if chance < 0.01:
                    severity = "critical" if chance < 0.001 else "warning"
                    break
        if severity is None and len(course) >= 24 and course.mean() > 0.85:
            severity, share = "warning", course.mean()
        finding = look("degenerate-groups", {"reward_std": np.where(course, 0.0, 0.4), "reward": 0.1 * (1 - course)})
        assert (finding and finding.severity) == severity
        if finding:
            assert f"{share:.0%} of the last steps" in finding.summary


@pytest.mark.parametrize(("every", "rows"), [(1, 10), (2, 5), (3, 4), (50, 4)])
def test_equal_groups_are_looked_at_for_ten_steps_and_for_four_rows_at_least(every, rows):
    history = History()
    for row in range(1, rows + 1):
        assert DETECTOR["degenerate-groups"].find(history, 999) is None
        history.append(every * row, {"equal_groups": 0.99, "reward": 0.1})
    assert DETECTOR["degenerate-groups"].find(history, 999).severity == "critical"


@pytest.mark.parametrize(("every", "reward", "found"), [(10, 0.0, True), (6, 0.0, False), (10, 0.9, False)])
def test_few_steps_with_a_spread_from_the_start_on_are_a_finding_where_most_are_wrong(every, reward, found):
    spread = np.where(np.arange(30) % every == 0, 0.2, 0.0)
    columns = {"reward_std": spread, "reward": reward + 0.1 * spread}
    assert (look("degenerate-groups", columns) is not None) == found
    assert look("degenerate-groups", {name: column[:20] for name, column in columns.items()}) is None


@pytest.mark.parametrize(("spread", "rows", "found"), [(1.0, 400, True), (0.1, 400, False), (1.0, 70, False)])
def test_rewards_of_any_scale_are_flat_by_their_spread_within_a_batch(spread, rows, found):
    reward = np.random.default_rng(3).normal(-0.3, 0.3, rows)
    columns = {"reward": reward, "reward_std": level(rows, spread)}
    assert (look("never-learned", columns) is not None) == found


@pytest.mark.parametrize(("now", "gain", "found"), [(0.09, 0, True), (0.09, 0.3, False), (0.11, 0, False)])
def test_a_tenth_of_the_entropy_is_enough_where_the_score_is_no_better(now, gain, found):
    columns = {"entropy": jump(1, now, 10, 30), "reward": jump(0.4, 0.4 + gain, 10, 30)}
    assert (look("entropy-collapse", columns) is not None) == found


@pytest.mark.parametrize(("now", "half_way", "found"), [(1.1, 0.3, True), (1.1, 0.4, False), (0.9, 0.25, False)])
def test_a_divergence_above_1_needs_three_times_what_it_was_half_way(now, half_way, found):
    assert (look("kl-runaway", {"kl": jump(half_way, now, 15, 5)}) is not None) == found


@pytest.mark.parametrize(
    ("rewards", "bounds", "equal", "right"),
    [
        (0.0, {}, 0.9, 0.0),
        (1.0, {}, 0.9, 0.9),
        (0.5, {}, 0.9, 0.45),
        (0.2, {}, 0.9, 0.15),
        (-1.0, {"reward_min": -1.0, "reward_max": 1.0}, 0.9, 0.0),
        (0.0, {"reward_min": -1.0, "reward_max": 1.0}, 0.9, 0.45),
        (2.0, {"reward_min": 0.0, "reward_max": 4.0}, 0.9, 0.45),
        (-3.0, {}, 0.9, 0.0),
        (1.0, {"reward_max": 2.0}, 1.0, 0.5),
    ],
)
def test_groups_that_are_all_right_are_told_from_the_mean_reward_by_the_middle_of_their_bounds(
    rewards, bounds, equal, right
):
    columns = {"equal_groups": level(12, equal), "reward": level(12, rewards)}
    columns |= {name: level(12, value) for name, value in bounds.items()}
    evidence = look("degenerate-groups", columns).evidence
    assert evidence["all_right"] == pytest.approx(right)
    assert evidence["all_wrong"] == pytest.approx(equal - right)


@pytest.mark.parametrize(
    ("broken", "since", "words"),
    [
        (["loss"], 1, "loss is NaN, infinite or beyond 1e100."),
        (["loss"], 2, "loss is NaN, infinite or beyond 1e100, since step 190."),
        (["loss", "grad_norm"], 1, "loss and grad norm are NaN, infinite or beyond 1e100."),
        (["loss", "grad_norm", "reward"], 3, "loss, grad norm and reward are NaN, infinite or beyond 1e100, since"),
        (["loss", "grad_norm", "entropy", "kl"], 1, "loss, grad norm, entropy and kl are NaN"),
    ],
)
def test_all_that_is_broken_is_named_with_the_step_since_when(broken, since, words):
    finding = look("not-finite", {name: jump(1, math.nan, 20 - since, since) for name in broken})
    assert finding.summary.startswith(words)
    assert finding.onset == EVERY * (21 - since)
    assert finding.severity == ("critical" if since >= 3 else "warning")
    assert finding.evidence == {f"{name}_broken_steps": since for name in broken}


def test_the_phase_score_is_the_largest_drop_of_the_means_as_a_share_of_the_fall():
    """Of means over w values a jump takes w steps, so that the largest drop is 1 / w of it, on any scale."""
    for high, low in ((40, -10), (4, -1), (400, 100)):
        finding = look("rise-then-fall", {"heldout": jump(high, low, 20)})
        share = finding.evidence["phase_score"]
        assert any(share == pytest.approx(1 / w) for w in SPANS if w >= 3)
        assert finding.summary.endswith(f"The largest single drop is {share:.0%} of the fall.")


def test_a_detector_that_cannot_find_is_not_made():
    with pytest.raises(TypeError, match="abstract"):
        Detector()
