"""A fall of a score: what its certainty rests on, and how rarely noise alone is taken for one."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from entrostat.diagnosis import DETECTORS, Watchdog
from entrostat.diagnosis.falls import SPANS, completions_per_batch, fall_from_peak
from entrostat.diagnosis.history import Series
from entrostat.diagnosis.statistics import correlated, lasting

DETECTOR = next(each for each in DETECTORS if each.kind == "rise-then-fall")


def fall(values, error=None, design=4.0, chance=0.05):
    return fall_from_peak(Series(np.arange(len(values)), np.asarray(values)), 3, 0.2, chance, design, 8.0, error)


def alarmed(values, column="reward"):
    watchdog = Watchdog(len(values), [DETECTOR])
    for step, value in enumerate(values):
        watchdog.observe(step, {column: float(value)})
    return bool(watchdog.findings)


def coloured(rho, n, rng):
    values = rng.normal(size=n)
    for i in range(1, n):
        values[i] = rho * values[i - 1] + np.sqrt(1 - rho**2) * values[i]
    return values


@given(st.integers(2, 500), st.integers(3, 4), st.integers(0, 10**6))
def test_the_size_of_a_batch_is_read_off_its_shares_however_they_are_rounded(size, decimals, seed):
    counts = np.random.default_rng(seed).integers(0, size + 1, 40 if size <= 100 or decimals == 4 else 0)
    if not len(counts):
        return  # 3 decimals do not tell so large a batch
    found = completions_per_batch(np.round(counts / size, decimals))
    assert found is not None
    assert size % found == 0
    assert all((counts * found) % size == 0)


def plain_size(shares):
    """The least N of which all shares are multiples of 1 / N but for their rounding, one N at a time."""
    for size in range(2, 1025) if len(shares) >= 6 else ():
        counts = size * shares
        if (abs(counts - np.round(counts)) <= min(6e-4 * size, 0.06)).all():
            return size
    return None


def test_the_size_of_a_batch_is_the_least_of_which_all_shares_are_multiples():
    rng = np.random.default_rng(6)
    sizes = []
    for _ in range(150):
        n, size = int(rng.choice([5, 6, 7, 9, 39, 41, 60])), int(rng.choice([2, 3, 8, 64, 100, 101, 512, 1024, 1030]))
        off = rng.choice([0.0, 0.0599, 0.0601]) if size > 100 else size * rng.choice([0.0, 5.99e-4, 6.01e-4])
        shares = rng.integers(0, size + 1, n) / size
        shares[-1] = (round(shares[-1] * size) + off) / size
        sizes.append(completions_per_batch(shares))
        assert sizes[-1] == plain_size(shares)
    assert {None, 2, 3, 8, 1024} <= set(sizes)


@given(st.integers(0, 10**6))
def test_arbitrary_numbers_have_no_size_of_a_batch(seed):
    assert completions_per_batch(np.random.default_rng(seed).random(12)) is None


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_correlated_is_how_much_more_means_of_eight_stray_than_the_differences_say(rho):
    rng = np.random.default_rng(3)
    series = [coloured(rho, 400, rng) for _ in range(60)]
    by_differences = np.sqrt(np.mean([np.mean(np.diff(x) ** 2) / 2 for x in series]) / 8)
    strays = np.std([x[i : i + 8].mean() for x in series for i in range(0, 400, 40)])
    assert np.median([correlated(x) for x in series]) == pytest.approx(strays / by_differences, rel=0.15)
    trend = [correlated(x + np.linspace(0, 5, 400)) for x in series]
    assert np.median(trend) == pytest.approx(np.median([correlated(x) for x in series]), rel=0.05)


def test_the_same_fall_is_more_certain_of_larger_batches_and_after_less_noise():
    rng = np.random.default_rng(0)
    small, large = (np.concatenate([rng.binomial(n, 0.6, 12) / n, rng.binomial(n, 0.3, 3) / n]) for n in (8, 512))
    assert fall(large).errors > 2 * fall(small).errors
    assert fall(large, design=8.0).errors < fall(large).errors
    assert fall(large, chance=0.001).needed > fall(large).needed


@given(st.floats(0.01, 100.0), st.floats(-50.0, 50.0))
def test_a_reward_beyond_0_to_1_is_judged_on_any_scale_alike(scale, shift):
    rng = np.random.default_rng(1)
    values = np.concatenate([np.linspace(-2, 5, 30), np.full(10, 0.0)]) + 0.5 * rng.normal(size=40)
    here, there = fall(values), fall(values * scale + shift if (values * scale + shift).min() < 0 else values)
    assert there.errors == pytest.approx(here.errors, rel=1e-6)


def test_a_mirrored_share_is_on_the_same_scale():
    """arcsin sqrt(1 - x) = pi / 2 - arcsin sqrt(x): near 1 a fall of a share counts as near 0."""
    down = np.concatenate([np.full(10, 0.95), np.full(4, 0.70)]) + 0.01 * np.resize([1, -1], 14)
    up = (1 - down)[::-1]
    assert fall(down).drop == pytest.approx(fall(up).drop, rel=0.2)


@pytest.mark.parametrize(("rho", "most"), [(0.0, 1), (0.8, 8)])
def test_sound_rewards_are_seldom_alarmed_even_where_their_noise_lasts(rho, most):
    rng = np.random.default_rng(17)
    course = 0.3 + 0.3 / (1 + np.exp(-np.linspace(-4, 6, 120)))
    assert sum(alarmed(course + 0.06 * coloured(rho, 120, rng)) for _ in range(30)) <= most


def test_falls_of_a_few_batches_are_found_and_sound_runs_of_a_few_are_not_alarmed():
    rng = np.random.default_rng(5)

    def rewards(rates):
        return [rng.binomial(8, rng.beta(3 * max(r, 0.001), 3 * (1 - r), 16)).mean() / 8 for r in rates]

    rising, fallen = np.linspace(0.25, 0.6, 14), np.r_[np.linspace(0.25, 0.6, 10), 0.2, 0.05, 0.001, 0.001]
    assert sum(alarmed(rewards(fallen)) for _ in range(40)) >= 34
    assert sum(alarmed(rewards(rising)) for _ in range(40)) <= 1


def test_one_evaluation_tells_a_deep_fall_and_the_next_one_confirms_it():
    scores = [0.2, 0.3, 0.42, 0.5, 0.52, 0.51, 0.06, 0.02]
    assert not alarmed(scores[:-1], "heldout")
    assert alarmed(scores, "heldout")


# --- the formulas, restated plainly


def plain_fall(values, window, chance, design, prior, error, share=0.2):
    """`fall_from_peak` by its formulas, one span and one width at a time."""
    n, bounded = len(values), values.min() >= 0 and values.max() <= 1
    y = np.arcsin(np.sqrt(values)) if bounded else values
    batch = completions_per_batch(values) if bounded else None
    prior, sampling = (prior, 1 / (4 * batch)) if batch else (0.0, 0.0)
    lasts = plain_lasts(y, window, batch is not None) if error is None else 1.0
    same = next((k for k in range(1, min(n, 89)) if values[-1 - k] != values[-1]), min(n, 89))
    found = []
    for w in [window, *(w for w in SPANS if window < w <= n // 3)]:
        means = [y[i : i + w].mean() for i in range(n - w + 1)]
        end = int(np.argmax(means)) + w
        for k in (k for k in SPANS if k <= n - end and k >= (2 if error is None else 1)):
            gaps = np.concatenate([np.diff(y[:end])[-400:], np.diff(y[n - k :])])
            freedom = prior + len(gaps) * 2 / 3
            variance = (prior * design * sampling + (gaps**2 / 2).sum() * 2 / 3) / freedom
            sigma = max(np.sqrt(max(variance, sampling)) * lasts, error or 0.0)
            floor = sigma / np.sqrt(w) * (norm.ppf((n / w - 0.375) / (n / w + 0.25)) if n > w else 0.0)
            unsure = np.hypot(sigma / np.sqrt(w), 0.0 if 3 < k <= same else sigma / np.sqrt(k))
            drop, needed = max(means) - y[-k:].mean(), t.ppf(1 - chance / (2 * n), max(freedom, 2.0))
            if drop - floor >= 2 * unsure:
                peak = values[end - w : end].mean()
                scale = peak - (0.0 if bounded else values.min())
                rank = (drop - floor) / unsure - needed
                found.append((rank, (peak, end - 1, values[-k:].mean(), w, k, drop, floor, unsure, needed, scale)))
    best = max(found, default=None)
    return best[1] if best and best[1][0] - best[1][2] > share * best[1][9] else None


def plain_lasts(y, window, expected):
    top = int(np.argmax([y[i : i + window].mean() for i in range(len(y) - window + 1)])) + window
    lasts = lasting(y[:top]) if top >= 24 else lasting(y) if len(y) >= 80 else 1.0
    return lasts if expected else max(lasts, correlated(y[:top] if top >= 12 else y)) * (1 + top**-0.5)


def courses():
    """Noisy scores that rise and fall: shares of batches of N, evaluations, rewards beyond 0 ... 1, a frozen end."""
    rng = np.random.default_rng(9)
    for case in range(48):
        n, peak = int(rng.integers(9, 130)), rng.uniform(0.15, 0.95)
        height, end, size = rng.uniform(0.4, 0.95), rng.uniform(0.0, 0.3), int(rng.integers(8, 300))
        course = np.interp(np.linspace(0, 1, n), [0, peak, min(1, peak + 0.1), 1], [0.1, height, end, end])
        values = rng.binomial(size, course) / size if case % 3 else 5 * course - 1 + 0.4 * coloured(0.6, n, rng)
        if case % 4 == 1:
            values[-int(rng.integers(2, 7)) :] = values.min()
        yield values, (None, 0.0, 0.03)[case % 5 % 3]


def edges():
    """Rewards whose noise lasts, with as many values up to the peak, and in all, as decide what is told of that."""
    rng = np.random.default_rng(4)
    for rise in (10, 11, 12, 13, 14, 22, 23, 24, 25, 26):
        for n in (30, 79, 80, 81):
            for noise in (0.1, 0.4):
                course = np.concatenate([np.linspace(0, 4, rise), np.linspace(1.5, -3, n - rise)])
                yield course + noise * coloured(0.9, n, rng), None
                yield np.clip(course / 8 + 0.4 + noise / 8 * coloured(0.9, n, rng), 0, 1), None


def long():
    """More values than the last 400 up to the peak, by which the noise is estimated; the first are noisier."""
    rng = np.random.default_rng(8)
    for error in (None, 0.0):
        course = np.concatenate([np.linspace(0, 4, 450), np.linspace(2, 0, 60)]) + 0.3 * rng.normal(size=510)
        course[:50] += 3 * rng.normal(size=50)
        yield course, error


@pytest.mark.parametrize("window", [2, 3, 5])
@pytest.mark.parametrize("made", [courses, edges, long])
def test_a_fall_is_what_its_formulas_say(made, window):
    found = 0
    for values, error in made():
        design = 1.0 if error is not None else 4.0
        arguments = (window, 0.05, design, 8.0, error)
        expected = plain_fall(values, *arguments)
        got = fall_from_peak(Series(np.arange(len(values)), values), window, 0.2, *arguments[1:])
        assert (got is None) == (expected is None)
        if got is not None:
            found += 1
            assert astuple(got) == pytest.approx(expected, rel=1e-6, abs=1e-9)
            assert got.gap == pytest.approx(got.peak - got.now)
            assert got.noise == pytest.approx(got.gap * min(got.floor / got.drop, 1))
            assert got.errors == pytest.approx((got.drop - got.floor) / got.error)
    assert found > (1 if made is long else 20)
