"""The numbers that findings show, and how long failures stand, are those of the windows that their docstrings state.

Each window is filled with random values, so that one value more or fewer gives another median or mean.
"""

import numpy as np
import pytest
from tests.diagnosis.made import DETECTOR, look, recorded

from entrostat.diagnosis.statistics import noise
from entrostat.runs.finding import Finding

RNG = np.random.default_rng(20)
CASES = range(12)


def around(n, value, by=0.2):
    """`n` random values within a share `by` of `value`."""
    return value * (1 + by * RNG.uniform(-1, 1, n))


def median(values):
    return float(np.median(values))


def shown(kind, columns, **fields):
    finding = look(kind, columns, **fields)
    assert finding is not None
    return finding.evidence


@pytest.mark.parametrize("case", CASES)
def test_an_entropy_is_compared_with_its_first_five_values(case):
    entropy = [*around(9, 1), *around(9, 0.02)]
    start = median(entropy[:5])
    assert shown("entropy-collapse", {"entropy": entropy}) == pytest.approx(
        {"start": start, "now": median(entropy[-3:]), "floor": 0.05 * start}
    )
    entropy = [*around(9, 1, 0.02), *around(9, 5, 0.02)]
    low = min(median(entropy[i : i + 5]) for i in range(len(entropy) - 7))
    assert shown("entropy-explosion", {"entropy": entropy}) == pytest.approx(
        {"start": median(entropy[:5]), "low": low, "now": median(entropy[-3:])}
    )


@pytest.mark.parametrize("case", CASES)
def test_contraction_is_that_of_the_last_ten_steps(case):
    flows = {f"flow_E{i}": RNG.uniform(-1, 0.3, 18) for i in range(1, 5)}
    evidence = shown("entropy-collapse", {"entropy": [*around(9, 1), *around(9, 0.02)], **flows})
    down = {name[5:]: np.maximum(-flow[-10:], 0).sum() for name, flow in flows.items()}
    for region, part in down.items():
        assert evidence[f"share_of_contraction_{region}"] == pytest.approx(part / sum(down.values()))


@pytest.mark.parametrize("case", CASES)
def test_a_template_shows_the_variation_of_the_first_and_last_twelve_lengths(case):
    length = [*around(14, 100), *around(14, 100, 1e-3)]
    entropy = [*around(14, 1), *around(14, 0.05)]
    early, late = np.array(length[:12]), np.array(length[-12:])
    assert shown("template-collapse", {"length": length, "entropy": entropy}) == pytest.approx(
        {
            "variation_at_first": noise(early) / early.mean(),
            "variation_now": noise(late) / late.mean(),
            "entropy_left": median(entropy[-5:]) / median(entropy[:5]),
        }
    )


@pytest.mark.parametrize("case", CASES)
def test_what_is_left_of_the_entropy_is_measured_against_the_five_values_up_to_the_best_information(case):
    information = [*around(6, 0.5, 0.01), *around(5, 1, 0.01), *around(14, 0.05, 0.01)]
    entropy = around(25, 1)
    medians = [median(information[i : i + 3]) for i in range(len(information) - 5)]
    best = int(np.argmax(medians)) + 1
    evidence = shown("template-collapse", {"information_nats": information, "entropy": entropy})
    assert evidence["entropy_left"] == pytest.approx(median(entropy[-5:]) / median(entropy[best - 4 : best + 1]))


@pytest.mark.parametrize("case", CASES)
def test_a_divergence_is_compared_with_the_five_values_half_way(case):
    kl = [*around(20, 0.01), *around(11, 0.6)]
    half = kl[13:18]
    assert shown("kl-runaway", {"kl": kl}) == pytest.approx(
        {"now": median(kl[-5:]), "half_way": median(half), "half_way_step": 160.0}
    )
    name = ("kl_sampler", "mismatch")[case % 2]
    apart = [*around(9, 0.01), *around(9, 0.3)]
    assert shown("sampler-mismatch", {name: apart}) == pytest.approx(
        {"start": median(apart[:5]), "now": median(apart[-5:])}
    )


@pytest.mark.parametrize("case", CASES)
def test_lags_and_clip_fractions_are_medians_of_the_last_eight(case):
    lags = around(20, 9)
    assert shown("staleness", {"staleness": lags}) == pytest.approx({"now": median(lags[-8:])})
    low, high = around(20, 0.05), around(20, 0.4)
    assert shown("clip-saturation", {"clip_low": low, "clip_high": high}) == pytest.approx(
        {"clip_low": median(low[-8:]), "clip_high": median(high[-8:])}
    )


@pytest.mark.parametrize("case", CASES)
def test_completions_are_compared_with_the_first_of_the_run(case):
    cut = [*around(9, 0.1), *around(9, 0.6)]
    assert shown("truncation", {"truncated": cut}) == pytest.approx(
        {"start": median(cut[:6]), "now": np.mean(cut[-6:])}
    )
    repeated = [*around(9, 0.1), *around(9, 0.6)]
    assert shown("repetition", {"repetition": repeated}) == pytest.approx(
        {"start": median(repeated[:6]), "now": median(repeated[-6:])}
    )
    length, reward = [*around(12, 100), *around(12, 500)], around(24, 0.5)
    onset = look("length-degeneration", {"length": length, "reward": reward}).onset // 10 - 1
    assert shown("length-degeneration", {"length": length, "reward": reward}) == pytest.approx(
        {
            "start": median(length[:8]),
            "now": median(length[-5:]),
            "score_before": np.mean(reward[max(onset - 8, 0) : onset]),
            "score_now": np.mean(reward[onset:][-8:]),
        }
    )


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_compared_with_what_was_usual(case):
    norms = [*around(12, 1), *around(12, 0.02)]
    assert shown("gradient-fade", {"grad_norm": norms}) == pytest.approx(
        {"reference": median(norms[:10]), "now": sorted(norms[-10:])[-2]}
    )
    norms = [*around(25, 1), *around(7, 50)]
    before = norms[:-5]
    assert shown("gradient-explosion", {"grad_norm": norms}) == pytest.approx(
        {"usual": median(before[: len(before) // 2]), "now": median(norms[-5:])}
    )


@pytest.mark.parametrize("case", CASES)
def test_times_are_compared_with_all_before_the_last_six(case):
    times = [*around(15, 10), *around(8, 60)]
    assert shown("slow-steps", {"step_time": times}) == pytest.approx(
        {"before": median(times[:-6]), "now": median(times[-6:])}
    )
    rates = [*around(15, 60), *around(8, 10)]
    assert shown("slow-steps", {"throughput": rates}) == pytest.approx(
        {"before": 1 / median(1 / np.array(rates[:-6])), "now": 1 / median(1 / np.array(rates[-6:]))}
    )


@pytest.mark.parametrize("case", CASES)
def test_groups_are_those_of_the_last_rows(case):
    right, wrong = around(14, 0.1), around(14, 0.84, 0.02)
    evidence = shown("degenerate-groups", {"all_right": right, "all_wrong": wrong})
    assert evidence == pytest.approx({"all_right": right[-10:].mean(), "all_wrong": wrong[-10:].mean()})
    equal, reward = around(14, 0.93, 0.02), around(14, 0.3)
    share = equal[-4:].mean()  # of a row every ten steps four rows are enough
    middle = reward[-10:].mean() - (1 - share) / 2
    evidence = shown("degenerate-groups", {"equal_groups": equal, "reward": reward})
    assert evidence == pytest.approx({"all_right": middle, "all_wrong": share - middle})


STANDS = {  # detector, its column, what it was found with, and whether it stands, of the values logged by then
    "entropy-collapse": ("entropy", {"floor": 0.05}, lambda x: np.median(x[-3:]) <= 0.1),
    "kl-runaway": ("kl", {"now": 0.2}, lambda x: np.median(x[-5:]) > 0.1),
    "sampler-mismatch": ("mismatch", {"now": 0.2}, lambda x: np.median(x[-5:]) > 0.1),
    "slow-steps": ("step_time", {"before": 0.05, "now": 0.2}, lambda x: np.median(x[-6:]) > 0.1),
    "gradient-explosion": ("grad_norm", {"usual": 0.05, "now": 0.2}, lambda x: np.median(x[-5:]) > 0.1),
    "degenerate-groups": ("equal_groups", {}, lambda x: np.mean(x[-10:]) > 2 / 3),
    "truncation": ("truncated", {"start": 0.05, "now": 0.4}, lambda x: np.mean(x[-6:]) > 0.28),
    "rise-then-fall": ("heldout", {"peak": 0.2, "gap": 0.2}, None),
}


@pytest.mark.parametrize("kind", STANDS)
def test_a_failure_stands_by_the_values_of_its_window(kind):
    column, evidence, stands = STANDS[kind]
    centre = {"degenerate-groups": 2 / 3, "truncation": 0.28}.get(kind, 0.1)
    finding = Finding(kind, "critical", step=10, onset=10, summary="", evidence=evidence, columns=(column,))
    answers = []
    for _ in range(150):
        values = around(20, centre, 0.5)
        if stands is None:  # a mean that is certainly above half of what was lost: by two of its errors
            last = values[-5:]
            error = np.sqrt(np.mean(np.diff(last) ** 2) / 2 / len(last))
            expected = last.mean() - 2 * error < 0.1
        else:
            expected = stands(values)
        answers.append(bool(expected))
        assert DETECTOR[kind].persists(recorded({column: values}), finding) == expected
    assert 5 < sum(answers) < 145
