"""Each detector: finds its failure, names its onset, and is silent without it."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat.diagnosis import DETECTORS, Finding, Watchdog, recognise_row
from entrostat.recipe import parse_recipe

PLAIN = (
    "kl_sampler",
    "mismatch",
    "staleness",
    "repetition",
    "step_time",
    "throughput",
    "entropy_target",
)  # under the names of the quantities


def quantities(row):
    return {**recognise_row(row).values, **{name: row[name] for name in PLAIN if name in row}}


def watched(rows, end=None):
    watchdog = Watchdog(end or rows[-1]["step"])
    for row in rows:
        watchdog.observe(row["step"], quantities(row))
    return watchdog


def found(rows, end=None) -> dict[str, Finding]:
    """What was reported at any time, by kind; notes aside."""
    return {finding.kind: finding for finding in watched(rows, end).findings if finding.severity != "note"}


def standing(rows, end=None) -> dict[str, Finding]:
    """What is true at the last row, by kind; notes aside."""
    return {finding.kind: finding for finding in watched(rows, end).standing() if finding.severity != "note"}


def ramp(t, start, width):
    return np.clip((t - start) / width, 0, 1)


FAILURES = {
    "entropy-collapse": {"entropy": lambda t, rng: 0.5 * np.exp(-5 * ramp(t, 0.4, 0.5) + rng.normal(0, 0.03, len(t)))},
    "entropy-explosion": {
        "entropy": lambda t, rng: 0.2 * np.exp(2 * ramp(t, 0.4, 0.2) + rng.normal(0, 0.03, len(t))),
        "reward": lambda t, rng: 0.6 - 0.1 * ramp(t, 0.4, 0.2) + rng.normal(0, 0.02, len(t)),
    },
    "rise-then-fall": {
        "reward": lambda t, rng: (0.2 + 0.5 * t) * (1 - 0.9 * ramp(t, 0.5, 0.1)) + rng.normal(0, 0.02, len(t))
    },
    "divergence": {
        "eval_reward": lambda t, rng: 0.4 - 0.2 * ramp(t, 0.4, 0.5) + rng.normal(0, 0.01, len(t)),
        "reward": lambda t, rng: 0.4 + 0.5 * ramp(t, 0.4, 0.5) + rng.normal(0, 0.02, len(t)),
    },
    "degenerate-groups": {"frac_reward_zero_std": lambda t, _: 0.3 + 0.65 * ramp(t, 0.4, 0.1)},
    "clip-saturation": {
        "clip_ratio/low_mean": lambda t, _: 0.01 + 0.5 * ramp(t, 0.4, 0.1),
        "reward": lambda t, rng: 0.5 + rng.normal(0, 0.02, len(t)),
    },
    "truncation": {
        "completions/clipped_ratio": lambda t, _: 0.02 + 0.6 * ramp(t, 0.4, 0.2),
        "reward": lambda t, rng: 0.5 + rng.normal(0, 0.02, len(t)),
    },
    "length-degeneration": {
        "completions/mean_length": lambda t, _: 200 * np.exp(1.5 * ramp(t, 0.4, 0.2)),
        "reward": lambda t, rng: 0.5 + rng.normal(0, 0.02, len(t)),
    },
    "kl-runaway": {
        "kl": lambda t, _: 0.02 * t + 0.01 * np.expm1(9 * ramp(t, 0.4, 0.5)),
        "reward": lambda t, rng: 0.5 + rng.normal(0, 0.02, len(t)),
    },
    "gradient-fade": {"grad_norm": lambda t, rng: 0.3 * np.exp(-6 * ramp(t, 0.4, 0.1) + rng.normal(0, 0.1, len(t)))},
    "not-finite": {"loss": lambda t, _: np.where(t > 0.5, np.nan, 0.0)},
    "gradient-explosion": {
        "grad_norm": lambda t, rng: 0.3 * np.exp(8 * ramp(t, 0.4, 0.1) + rng.normal(0, 0.1, len(t)))
    },
    "sampler-mismatch": {
        "kl_sampler": lambda t, rng: 0.002 * np.exp(5 * ramp(t, 0.4, 0.2) + rng.normal(0, 0.1, len(t)))
    },
    "staleness": {"staleness": lambda t, _: np.where(t > 0.4, 20.0, 1.0)},
    "repetition": {"repetition": lambda t, _: 0.01 + 0.6 * ramp(t, 0.4, 0.1)},
    "template-collapse": {
        "entropy": lambda t, rng: 0.5 * np.exp(-2.2 * ramp(t, 0.4, 0.1) + rng.normal(0, 0.03, len(t))),
        "completions/mean_length": lambda t, rng: 200 * np.exp(rng.normal(0, np.where(t > 0.45, 0.0005, 0.05))),
        "reward": lambda t, rng: 0.3 + rng.normal(0, 0.02, len(t)),
    },
    "slow-steps": {"step_time": lambda t, rng: 30 * (1 + 5 * ramp(t, 0.4, 0.05)) * np.exp(rng.normal(0, 0.1, len(t)))},
}
TEMPLATES = {  # RAGEN's columns and ours
    "collapse_first_turn_sample/mi_estimate": "collapse_first_turn_sample/conditional_entropy_est",
    "collapse_trajectory_sample/mi_estimate": "collapse_trajectory_sample/conditional_entropy_est",
    "entrostat/information/per_token": "entrostat/information/conditional_entropy",
    "information.per_token": "information.conditional_entropy",
}
FROM_THE_START = {
    "never-learned": {"reward": lambda t, rng: 0.1 + rng.normal(0, 0.02, len(t))},
    "degenerate-groups": {
        "reward": lambda t, _: np.zeros(len(t)),
        "reward_std": lambda t, _: np.zeros(len(t)),
        "frac_reward_zero_std": None,
    },
    "gradient-fade": {"grad_norm": lambda t, _: np.zeros(len(t))},
    "truncation": {
        "completions/clipped_ratio": lambda t, _: np.ones(len(t)),
        "reward": lambda t, _: np.zeros(len(t)),
    },
    "entropy-collapse": {"entropy": lambda t, rng: 0.002 + rng.normal(0, 0.0001, len(t))},
    "sampler-mismatch": {"mismatch": lambda t, rng: 0.3 + rng.normal(0, 0.01, len(t))},
}
NOTES = {"plateau"}


def test_every_kind_has_a_failure_here():
    assert {*FAILURES, *FROM_THE_START, *NOTES} == {detector.kind for detector in DETECTORS}


@pytest.mark.parametrize("kind", FROM_THE_START)
def test_what_is_wrong_from_the_first_step_on_is_found_and_dated_there(rows, kind):
    finding = standing(rows(**FROM_THE_START[kind]), end=150)[kind]
    assert finding.onset == 1
    assert finding.remedies


@pytest.mark.parametrize("kind", ["degenerate-groups", "gradient-fade", "truncation"])
def test_a_run_that_is_dead_from_the_start_is_known_within_ten_rows(rows, kind):
    made = rows(**FROM_THE_START[kind])
    assert found(made)[kind].severity == "critical"
    assert found(made[:10], end=len(made))[kind].step <= 10


def test_a_score_that_stands_still_with_entropy_left_is_a_note_and_no_finding(rows):
    made = rows(
        entropy=lambda t, rng: 0.5 * np.exp(rng.normal(0, 0.02, len(t))),
        reward=lambda t, rng: 0.2 + 0.4 * ramp(t, 0, 0.2) + rng.normal(0, 0.02, len(t)),
    )
    notes = [finding for finding in watched(made).standing() if finding.severity == "note"]
    assert [finding.kind for finding in notes] == ["plateau"]
    assert not found(made)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_is_found_after_its_onset_and_not_before(rows, kind):
    made = rows(**FAILURES[kind])
    finding = found(made)[kind]
    assert finding.step > 0.4 * len(made)
    assert 0.3 * len(made) <= finding.onset <= finding.step
    assert all(math.isfinite(value) for value in finding.evidence.values())
    assert finding.remedies


@pytest.mark.parametrize("kind", FAILURES)
def test_only_the_part_before_the_onset_is_healthy(rows, kind):
    made = rows(**FAILURES[kind])
    assert not found(made[: int(0.4 * len(made))], end=len(made))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.sampled_from([20, 60, 150, 300]))
def test_a_healthy_run_has_no_finding(seed, n):
    from tests.diagnosis.conftest import make_rows

    assert not found(make_rows(n, seed))


def test_an_entropy_that_levels_off_is_no_collapse(rows):
    made = rows(entropy=lambda t, rng: 0.5 * (0.2 + 0.8 * np.exp(-12 * t)) * np.exp(rng.normal(0, 0.02, len(t))))
    assert not found(made)


def test_the_arrival_interval_covers_the_arrival_of_an_exponential_course(rows):
    """n = 60 logs, interval of 95 %: at least 50 hold the step where the course without noise meets the floor."""
    covered = 0
    for seed in range(60):
        made = rows(
            n=200, seed=seed, entropy=lambda t, rng: 0.5 * np.exp(-4 * ramp(t, 0.2, 0.8) + rng.normal(0, 0.05, len(t)))
        )
        warning = watched(made).findings[0]
        assert warning.kind == "entropy-collapse"
        assert warning.severity == "note"
        assert warning.summary.startswith("Suspected: ")
        truth = 200 * (0.2 + 0.8 * math.log(20) / 4)
        covered += warning.evidence["arrival_soonest"] <= truth <= warning.evidence["arrival_latest"]
    assert covered >= 50


def test_a_collapse_that_comes_after_the_budget_is_none(rows):
    course = {"entropy": lambda t, rng: 0.5 * np.exp(-2.2 * t + rng.normal(0, 0.02, len(t)))}
    assert not found(rows(**course), end=120)
    assert "entropy-collapse" in found(rows(**course), end=400)


@pytest.mark.parametrize(("side", "name"), [("lower", "clip_ratio/low_mean"), ("upper", "clip_ratio/high_mean")])
def test_clipping_is_told_apart_by_side(rows, side, name):
    finding = found(rows(**{name: lambda t, _: np.full(len(t), 0.5)}))["clip-saturation"]
    assert side in finding.summary


@pytest.mark.parametrize(("rate", "words"), [(0.98, "too easy"), (0.02, "too hard")])
def test_groups_are_told_apart_by_the_mean_reward(rows, rate, words):
    made = rows(
        frac_reward_zero_std=lambda t, _: np.full(len(t), 0.95),
        reward=lambda t, rng: rate + rng.normal(0, 0.002, len(t)),
    )
    [finding] = [each for each in watched(made).findings if each.kind == "degenerate-groups"]
    assert finding.severity == ("note" if rate > 0.5 else "warning")
    assert words in finding.summary
    right, wrong = finding.evidence["all_right"], finding.evidence["all_wrong"]
    assert right + wrong == pytest.approx(0.95)
    assert max(rate - 0.05, 0) <= right <= min(rate, 0.95)


def test_longer_completions_with_more_reward_are_no_failure(rows):
    grown = {"completions/mean_length": lambda t, _: 200 * np.exp(1.5 * t)}
    assert not found(rows(**grown, reward=lambda t, rng: 0.2 + 0.5 * t + rng.normal(0, 0.02, len(t))))


@pytest.mark.parametrize("column", ["grad_norm", "entropy", "kl", "loss"])
def test_single_numbers_that_are_none_are_warnings_that_pass_and_three_in_a_row_are_critical(rows, column):
    single, many = rows(), rows()
    for place in (20, 50, 53, 80):
        single[place][column] = math.nan
    for row in many[50:]:
        row[column] = math.nan
    assert found(single)["not-finite"].severity == "warning"
    assert not standing(single)
    assert [finding.over for finding in watched(single).past] == [22, 52, 55, 82]
    dead = standing(many)["not-finite"]
    assert (dead.severity, dead.onset) == ("critical", 51)


# --- what a run is for: the same change beside a score that rises, and beside one that falls


def score(gain):
    return lambda t, rng: 0.5 + gain * ramp(t, 0.35, 0.6) + rng.normal(0, 0.02, len(t))


CHANGES = {
    "entropy-explosion": {
        "entropy": lambda t, rng: 0.1 * np.exp(1.4 * ramp(t, 0.4, 0.2) + rng.normal(0, 0.03, len(t)))
    },
    "length-degeneration": {
        "completions/mean_length": lambda t, rng: 400 * np.exp(-1.2 * ramp(t, 0.4, 0.2) + rng.normal(0, 0.03, len(t)))
    },
    "clip-saturation": {"clip_ratio/low_mean": lambda t, _: 0.3 + 0.2 * ramp(t, 0.4, 0.1)},
    "kl-runaway": {"kl": lambda t, _: 0.02 * t + 0.01 * np.expm1(6 * ramp(t, 0.4, 0.5))},
    "gradient-explosion": {
        "grad_norm": lambda t, rng: 0.3 * np.exp(3 * ramp(t, 0.4, 0.1) + rng.normal(0, 0.1, len(t)))
    },
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_with_which_the_score_rises_is_no_failure_and_one_with_which_it_falls_is(rows, kind):
    assert kind not in standing(rows(**CHANGES[kind], reward=score(0.4)))
    assert kind in standing(rows(**CHANGES[kind], reward=score(-0.4)))


@pytest.mark.parametrize("kind", CHANGES)
def test_the_held_out_score_decides_before_the_reward(rows, kind):
    rising = rows(**CHANGES[kind], reward=score(-0.4), eval_reward=score(0.4))
    assert kind not in standing(rising)


def test_completions_that_are_cut_more_and_more_are_less_grave_while_the_score_rises(rows):
    cut = {"completions/clipped_ratio": lambda t, _: 0.02 + 0.9 * ramp(t, 0.4, 0.2)}
    assert standing(rows(**cut, reward=score(0.4)))["truncation"].severity == "warning"
    assert standing(rows(**cut, reward=score(-0.4)))["truncation"].severity == "critical"


def test_clipping_that_has_grown_is_less_grave_while_the_score_rises(rows):
    clipped = {"clip_ratio/low_mean": lambda t, _: 0.02 + 0.5 * ramp(t, 0.4, 0.2)}
    assert standing(rows(**clipped, reward=score(0.4)))["clip-saturation"].severity == "warning"
    assert standing(rows(**clipped, reward=score(-0.4)))["clip-saturation"].severity == "critical"


def test_an_entropy_that_follows_the_one_that_was_asked_for_is_no_collapse(rows):
    def course(t, rng):
        return 0.5 * np.exp(-5 * ramp(t, 0.4, 0.5) + rng.normal(0, 0.03, len(t)))

    held = rows(entropy=course, entropy_target=lambda t, _: 0.5 * np.exp(-5 * ramp(t, 0.4, 0.5)))
    missed = rows(entropy=course, entropy_target=lambda t, _: np.full(len(t), 0.5))
    assert not found(held)
    assert standing(missed)["entropy-collapse"].severity == "critical"


def test_a_gradient_that_is_zero_in_most_steps_has_not_faded(rows):
    def inflated(t, rng):
        return np.where(rng.random(len(t)) < 0.6 * ramp(t, 0.3, 0.2), 0.0, 0.3)

    assert not found(rows(grad_norm=inflated))


def test_one_spike_of_the_gradient_is_no_explosion(rows):
    made = rows()
    made[60]["grad_norm"] *= 1000
    assert not found(made)


def test_a_score_that_comes_back_takes_its_finding_back_and_a_second_fall_is_found_anew(rows):
    def twice(t, rng):
        dip = (ramp(t, 0.3, 0.02) - ramp(t, 0.5, 0.02)) + ramp(t, 0.8, 0.02)
        return 0.8 - 0.7 * dip + rng.normal(0, 0.02, len(t))

    watchdog = watched(rows(reward=twice))
    [first] = [finding for finding in watchdog.past if finding.kind == "rise-then-fall"]
    [second] = [finding for finding in watchdog.standing() if finding.kind == "rise-then-fall"]
    assert 36 <= first.onset <= first.step <= first.over <= 75
    assert 95 <= second.onset <= second.first_step <= 105


def test_a_reward_that_falls_while_the_held_out_score_does_not_is_no_fall(rows):
    made = rows(
        reward=lambda t, rng: 0.8 - 0.5 * ramp(t, 0.5, 0.2) + rng.normal(0, 0.02, len(t)),
        eval_reward=lambda t, rng: 0.4 + 0.1 * t + rng.normal(0, 0.01, len(t)),
    )
    assert "rise-then-fall" not in found(made)


def test_a_reward_whose_noise_lasts_has_not_fallen():
    """Sound runs from the reward alone, lag-1 correlation .8: none ends with a fall, few have had one on the way."""
    alarmed = standing = 0
    for seed in range(30):
        rng = np.random.default_rng([17, seed])
        noise = np.zeros(200)
        for i in range(1, 200):
            noise[i] = 0.8 * noise[i - 1] + 0.6 * rng.normal()
        watchdog = Watchdog(200)
        for step, value in enumerate(np.linspace(0.3, 0.5, 200) + rng.uniform(0.02, 0.08) * noise, start=1):
            watchdog.observe(step, {"reward": float(value)})
        alarmed += any(finding.kind == "rise-then-fall" for finding in watchdog.findings)
        standing += any(finding.kind == "rise-then-fall" for finding in watchdog.standing())
    assert standing <= 1
    assert alarmed <= 10


def test_one_bad_batch_that_is_used_four_times_is_no_fall():
    watchdog = Watchdog(40)
    for step in range(40):
        batch = [0.27, 0.3, 0.31, 0.33, 0.36, 0.48, 0.5, 0.16, 0.72, 0.6][step // 4]
        watchdog.observe(step + 1, {"reward": batch})
    assert not watchdog.findings


def test_a_forecast_does_not_outlive_its_step(rows):
    """An exponential fall that levels off at a seventh of its start: whatever was forecast is over."""
    made = rows(
        n=300,
        entropy=lambda t, rng: 0.5 * np.maximum(np.exp(-8 * ramp(t, 0.1, 0.5)), 0.14 + rng.normal(0, 0.004, len(t))),
    )
    watchdog = watched(made)
    assert [finding.kind for finding in watchdog.past] == ["entropy-collapse"]
    assert not standing(made)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(sorted(FAILURES)), seed=st.integers(0, 999), cut=st.integers(20, 120))
def test_nothing_is_found_before_it_began(kind, seed, cut):
    from tests.diagnosis.conftest import make_rows

    watchdog = watched(make_rows(seed=seed, **FAILURES[kind])[:cut], end=120)
    for finding in watchdog.standing():
        assert finding.onset <= finding.first_step <= finding.step
    for finding in watchdog.past:
        assert finding.onset <= finding.step <= finding.over
    for finding in watchdog.findings:
        assert finding.evidence.get("arrival", math.inf) > finding.step


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.1, 100.0),
    kind=st.sampled_from(["entropy-collapse", "entropy-explosion", "gradient-fade", "length-degeneration"]),
)
def test_what_is_relative_does_not_depend_on_the_unit(scale, kind):
    from tests.diagnosis.conftest import make_rows

    made = make_rows(**FAILURES[kind])
    column = next(name for name in FAILURES[kind] if name != "reward")
    rescaled = [{**row, column: row[column] * scale} for row in made]
    assert found(made)[kind].step == found(rescaled)[kind].step


def every_remedy():
    from entrostat.diagnosis import remedies
    from entrostat.runs.finding import Remedy

    groups = [value for value in vars(remedies).values() if isinstance(value, tuple)]
    groups += remedies.CLIPPING.values()
    return [group for group in groups if all(isinstance(remedy, Remedy) for remedy in group)]


def test_every_remedy_is_a_recipe_that_is_accepted():
    from entrostat.diagnosis.hosts import HOSTS
    from entrostat.diagnosis.remedies import with_half_the_rate

    known = [remedy for group in every_remedy() for remedy in with_half_the_rate(group, 1e-4)]
    assert len(known) > 20
    for remedy in known:
        assert remedy.reason
        assert remedy.source
        assert set(remedy.settings) <= set(HOSTS)
        parse_recipe({"name": "remedied", **remedy.settings.get("recipe", {})})


def test_what_has_been_measured_comes_before_what_has_not():
    from entrostat.diagnosis import remedies as known

    lists = [known.COLLAPSE, known.COLLAPSE_BY_PUNISHMENT, known.EXPLOSION, known.RISE_THEN_FALL, known.KL, known.STALE]
    for group in [*lists, known.GRADIENT_EXPLOSION, known.MISMATCH, known.REPETITION, *known.CLIPPING.values()]:
        measured = [bool(remedy.evidence) for remedy in group]
        assert measured == sorted(measured, reverse=True)
        assert measured[0]


def test_the_studies_that_are_cited_are_there():
    root = Path(__file__).parents[2]
    cited = {
        name for group in every_remedy() for remedy in group for name in re.findall(r"studies/[\w-]+", remedy.source)
    }
    assert cited
    assert all((root / name / "README.md").exists() for name in cited)


@pytest.mark.parametrize(("logged", "half"), [(2e-3, 1e-3), (None, None)])
def test_a_halved_learning_rate_is_half_of_the_runs_own(rows, logged, half):
    rate = {"learning_rate": lambda t, _: np.minimum(logged, 4 * logged * t)} if logged else {}
    finding = found(rows(**FAILURES["not-finite"], **rate))["not-finite"]
    first = finding.remedies[0].settings
    assert first["trl"].get("learning_rate") == half
    assert first["verl"].get("actor_rollout_ref.actor.optim.lr") == half
    assert first["recipe"]["update"].get("learning_rate") == half
    assert first["slime"].get("--lr") == half
    assert first["trl"]["max_grad_norm"] == 1.0


# --- template collapse: the information falls and the entropy stays


def informed(names, information, conditional, seed=0, rows=60, **more):
    """Rows of a run that logs information and conditional entropy every fifth step, and the entropy at each."""
    rng, t = np.random.default_rng(seed), np.linspace(0, 1, rows)
    columns = {names[0]: information(t, rng), names[1]: conditional(t, rng), "entropy": conditional(t, rng)}
    columns |= {name: values(t, rng) for name, values in more.items()}
    return [
        {"step": i, **{name: float(x[i]) for name, x in columns.items() if i % 5 == 0 or name not in names}}
        for i in range(rows)
    ]


def told(t, rng):
    return 0.3 * np.exp(-2.5 * ramp(t, 0.4, 0.2) + rng.normal(0, 0.05, len(t)))


def steady_entropy(t, rng):
    return 1.2 + rng.normal(0, 0.02, len(t))


@pytest.mark.parametrize("names", TEMPLATES.items(), ids=list(TEMPLATES))
@pytest.mark.parametrize("seed", range(5))
def test_a_template_collapse_is_found_under_ragens_names_and_ours(names, seed):
    rows = informed(names, told, steady_entropy, seed)
    finding = found(rows)["template-collapse"]
    assert set(found(rows)) == {"template-collapse"}
    assert 20 <= finding.onset <= finding.step <= 50
    assert finding.evidence["entropy_left"] == pytest.approx(1, abs=0.1)
    assert finding.columns == ("information", "conditional_entropy")


HEALTHY_INFORMATION = {
    "steady": (lambda t, rng: 0.3 + rng.normal(0, 0.03, len(t)), steady_entropy, {}),
    "noisy": (lambda t, rng: 0.1 + rng.normal(0, 0.08, len(t)), steady_entropy, {}),
    "near-nothing": (lambda t, rng: rng.normal(0, 0.01, len(t)), steady_entropy, {}),
    "rising": (lambda t, rng: 0.1 + 0.4 * t + rng.normal(0, 0.02, len(t)), steady_entropy, {}),
    "halved": (lambda t, rng: 0.3 - 0.15 * ramp(t, 0.3, 0.5) + rng.normal(0, 0.01, len(t)), steady_entropy, {}),
    "with-the-entropy": (told, lambda t, rng: 1.2 * np.exp(-1.2 * ramp(t, 0.4, 0.2)) + rng.normal(0, 0.01, len(t)), {}),
    "longer": (told, steady_entropy, {"completions/mean_length": lambda t, _: 100 * np.exp(2.5 * ramp(t, 0.4, 0.2))}),
    "while-it-learns": (told, steady_entropy, {"reward": lambda t, rng: 0.2 + 0.6 * t + rng.normal(0, 0.02, len(t))}),
}


@pytest.mark.parametrize("name", HEALTHY_INFORMATION)
@pytest.mark.parametrize("seed", range(20))
def test_information_that_a_sound_run_may_have_is_no_template_collapse(name, seed):
    information, conditional, more = HEALTHY_INFORMATION[name]
    for names in TEMPLATES.items():
        kinds = {finding.kind for finding in watched(informed(names, information, conditional, seed, **more)).findings}
        assert "template-collapse" not in kinds


def test_information_that_comes_back_ends_the_finding():
    def back(t, rng):
        return 0.3 * np.exp(-2.5 * ramp(t, 0.2, 0.1) + 2.5 * ramp(t, 0.6, 0.1) + rng.normal(0, 0.03, len(t)))

    rows = informed(next(iter(TEMPLATES.items())), back, steady_entropy, rows=150)
    assert "template-collapse" in found(rows)
    assert "template-collapse" not in standing(rows)
