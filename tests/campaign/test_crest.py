"""crest: compares where it is due or warned, bounds both errors of its tests, and learns a limit of the rate."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from entrostat.campaign import CampaignTrace, Checkpoint, Crest, Evaluate, GoOn, Progress, Stop, Trajectory
from entrostat.campaign.crest import compare

SPLIT, BUDGET = 48, 20
CALM = {"log_ratio_min_punished": -0.5, "ratio_outside": 0.001, "kl_old": 0.001}
WILD = {"log_ratio_min_punished": -8.0, "ratio_outside": 0.1, "kl_old": 0.2}


@dataclass
class Scene:
    """A campaign played to the end: pass@1 by step, and the steps from which the signals are wild."""

    crest: Crest
    curve: list[float]
    wild: set[int] = field(default_factory=set)
    history: tuple = ()
    evals: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    held: int = 0
    noise: bool = False

    def play(self):
        for step in range(BUDGET + 1):
            if step:
                self.steps.append(
                    {"step": step, "batch": step, "lr": 1e-5 * step, **(WILD if step in self.wild else CALM)}
                )
            while isinstance(order := self.crest.decide(self._progress(step), self.history), Evaluate):
                assert order.step in self._progress(step).kept
                self.evals.append(
                    {"step": order.step, "tasks": [order.first, order.last], "results": self._results(order)}
                )
            if isinstance(order, Stop):
                assert order.keep in self._progress(step).kept
                return step, order.keep
            self.held = order.keep
        return BUDGET, None

    def _progress(self, step):
        return Progress(step, BUDGET, self.steps, self.evals, tuple({0, self.held, step}), SPLIT)

    def _results(self, order):
        correct = 10 * self.curve[order.step]
        tasks = range(order.first, order.last)
        return [[f"task-{i}", 10, round(correct) + self.noise * ((i + order.step) % 3 - 1)] for i in tasks]

    @property
    def spent(self):
        return sum(len(line["results"]) for line in self.evals) / SPLIT


RISE = [0.2 + 0.03 * s for s in range(21)]
FALL = [0.2 + 0.05 * s for s in range(11)] + [0.3, 0.1] + [0.0] * 8
WARNED = Crest(signals=True)


def test_a_rise_is_run_to_its_end_and_handed_over():
    scene = Scene(Crest(), RISE)
    assert scene.play() == (BUDGET, BUDGET)
    assert {line["step"] for line in scene.evals} == {0, 5, 10, 15, 20}


def test_a_rise_without_a_warning_costs_two_evaluations_at_most():
    scene = Scene(WARNED, RISE)
    assert scene.play() == (BUDGET, BUDGET)
    assert {line["step"] for line in scene.evals} == {0, 20}
    assert scene.spent <= 2


def test_a_fall_ends_the_campaign_with_its_champion_at_the_next_comparison():
    assert Scene(Crest(), FALL).play() == (15, 10)
    scene = Scene(WARNED, FALL, wild=set(range(9, 21)))
    assert scene.play() == (14, 9)
    assert scene.spent < 3


def test_a_fall_without_a_warning_is_found_at_the_end():
    assert Scene(WARNED, FALL).play() == (BUDGET, 0)


def test_equal_results_of_few_tasks_prove_nothing_and_the_next_block_is_asked_for():
    scene = Scene(Crest(block=8), [0.5] * 21)
    assert scene.play() == (BUDGET, BUDGET)
    at_five = [line["tasks"] for line in scene.evals if line["step"] == 5]
    assert len(at_five) > 1
    assert not compare([0.25] * 8, [0.25] * 8, 0.99).low > -0.1
    assert compare([0.25] * 60, [0.25] * 60, 0.99).low > -0.1


def test_a_doubtful_loss_keeps_the_champion_and_two_in_a_row_end_the_campaign():
    unsure = Crest(loss=0.01, alpha=1e-9)
    assert Scene(unsure, [0.3] * 10 + [0.2] * 11, noise=True).play() == (15, 0)
    once = Scene(unsure, [*[0.3] * 10, 0.2, *[0.3] * 10], noise=True)
    assert once.play() == (BUDGET, 0)


def test_blocks_come_in_an_order_of_the_campaigns_own():
    orders = [tuple(Crest(block=4)._blocks(SPLIT, campaign)) for campaign in range(20)]
    assert len(set(orders)) > 15
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert {order[0] for order in orders} > {(0, 4)}


@pytest.mark.parametrize(("change", "tasks"), [(0.0, 24), (-0.15, 24), (0.0, 64)])
def test_both_errors_are_rarer_than_alpha(change, tasks):
    """Tasks of pass rates in [.2, .8], 4 samples each; a change of 0 must not stop, one beyond `loss` not be accepted.

    With 400 draws, alpha .05 allows 34 of each at 3 standard errors.
    """
    random = np.random.default_rng(tasks)
    stopped = accepted = 0
    for _ in range(400):
        rate = random.uniform(0.2, 0.8, tasks)
        before, after = (random.binomial(4, p.clip(0, 1)) / 4 for p in (rate, rate + change))
        for end in (tasks // 2, tasks):
            found = compare(before[:end].tolist(), after[:end].tolist(), 1 - 0.05 / 2)
            if found.worse or found.low > -0.1:
                stopped, accepted = stopped + found.worse, accepted + (not found.worse)
                break
    assert stopped < 34 if change == 0 else accepted < 34


def test_the_same_view_gives_the_same_order():
    scene = Scene(Crest(), FALL)
    scene.play()
    view = scene._progress(scene.steps[-1]["step"])
    assert Crest().decide(view, ()) == Crest().decide(view, ())


def campaign(scene):
    stopped, kept = scene.play()
    select = Trajectory.from_evals(scene.evals)
    report = Trajectory(tuple(range(stopped + 1)), tuple(scene.curve[: stopped + 1]))
    points = [Checkpoint(Path("x"), s) for s in (0, kept, stopped)]
    return CampaignTrace(select, report, *points, confirmed=kept, steps=scene.steps, evals=scene.evals)


def test_a_confirmed_fall_lowers_the_learning_rate_of_what_follows_and_sound_campaigns_raise_it_again():
    crest = Crest(margin=0.8, recovery=1.1)
    fallen, sound = campaign(Scene(crest, FALL)), campaign(Scene(crest, RISE))
    after = crest.plan([fallen]).rate
    assert after == pytest.approx(0.8 * 13 / 15)  # half-way between 10 and 15; the rate of step s is 1e-5 s
    assert crest.plan([fallen, sound]).rate == pytest.approx(1.1 * after)
    assert crest.plan([fallen] + [sound] * 30).rate == 1.0
    assert "the learning rate at 0.69 of" in crest.plan([fallen]).cause
    assert crest.plan([]).cause is None
    lesson = crest.lesson(fallen, [fallen])
    assert (lesson["kind"], lesson["cause"], lesson["confirmed"]) == ("onset", "crest: a fall, 0 steps warned", 10)
    assert lesson["next_rate"] == crest.rate([fallen, fallen])
    assert crest.lesson(sound, [])["cause"] == "crest: no fall, 0 steps warned"


def test_the_start_of_a_later_campaign_is_not_evaluated_again():
    before = campaign(Scene(WARNED, RISE))
    scene = Scene(WARNED, [RISE[-1]] + [0.9] * 20, history=(before,))
    assert scene.play() == (BUDGET, BUDGET)
    measured = sum(len(line["results"]) for line in before.evals if line["step"] == 20)
    again = sum(len(line["results"]) for line in scene.evals if line["step"] == 0)
    assert measured + again <= SPLIT


def test_what_two_campaigns_know_of_weights_handed_over_unchanged_is_not_measured_again():
    first = campaign(Scene(WARNED, FALL))
    second = campaign(Scene(WARNED, FALL, history=(first,)))
    assert first.peak.step == second.peak.step == 0
    third = Scene(Crest(signals=True, loss=0.01, alpha=1e-9), FALL, history=(first, second))
    third.play()
    known = {
        task for trace in (first, second) for line in trace.evals if line["step"] == 0 for task, *_ in line["results"]
    }
    again = [task for line in third.evals if line["step"] == 0 for task, *_ in line["results"]]
    assert known
    assert not known & set(again)


@pytest.mark.parametrize(
    "settings",
    [{"log_ratio": 1.0}, {"votes": 4}, {"block": 0}, {"recovery": 0.5}, {"alpha": 0.6}, {"loss": 0}, {"growth": 0}],
)
def test_a_setting_out_of_range_is_refused(settings):
    with pytest.raises(ValueError, match="give"):
        Crest(**settings)


LOUD = {
    "kl_old": (0.03, 1.01),
    "kl_sampler": (0.03, 1.01),
    "ratio_outside": (0.05, 1.01),
    "log_ratio_min_punished": (-3.0, 1.01),
}


def warned(crest, *steps, rates=None):
    """Whether crest wants a comparison after these steps; each is the signals that differ from calm ones."""
    rates = rates or [1.0] * len(steps)
    lines = [{"step": i + 1, "lr": rates[i], **CALM, **step} for i, step in enumerate(steps)]
    seen = Progress(len(lines), 99, lines, [], tuple(range(len(lines) + 1)), SPLIT)
    return isinstance(replace(crest, signals=True, spacing=4).decide(seen, ()), Evaluate)


@pytest.mark.parametrize("signal", LOUD)
def test_each_signal_warns_beyond_its_limit_and_not_at_it(signal):
    limit, factor = LOUD[signal]
    one = Crest(votes=1)
    assert warned(one, {}, {}, {}, {signal: limit * factor})
    assert not warned(one, {}, {}, {}, {signal: limit})
    assert not warned(one, {}, {}, {}, {signal: None})
    assert not warned(Crest(votes=2), {}, {}, {}, {signal: limit * factor})


def test_two_of_three_signals_are_a_warning_and_the_two_divergences_are_one():
    loud = {name: limit * factor for name, (limit, factor) in LOUD.items()}
    both = {name: loud[name] for name in ("kl_old", "kl_sampler")}
    assert not warned(Crest(), {}, {}, {}, both)
    assert warned(Crest(), {}, {}, {}, {**both, "ratio_outside": loud["ratio_outside"]})
    assert warned(Crest(votes=3), {}, {}, {}, loud)
    assert not warned(Crest(votes=3), {}, {}, {}, {**loud, "ratio_outside": 0.0})


def test_votes_of_the_last_two_steps_count_together():
    kl, outside = {"kl_old": 0.1}, {"ratio_outside": 0.5}
    assert warned(Crest(), {}, {}, kl, outside)
    assert not warned(Crest(), {}, kl, {}, outside)
    assert warned(Crest(window=3), {}, kl, {}, outside)
    assert warned(Crest(votes=1), {}, {}, kl, {})
    assert not warned(Crest(votes=1), {}, kl, {}, {})


def test_signals_that_grow_with_the_learning_rate_alone_are_no_warning():
    rates = [float(s) for s in range(1, 13)]
    clock = [{"kl_old": 0.01 * r**2, "ratio_outside": 0.01 * r**2, "log_ratio_min_punished": -r} for r in rates]
    assert not any(warned(Crest(), *clock[:end], rates=rates) for end in range(4, 13))
    more = [*clock[:9], *({name: 4 * value for name, value in each.items()} for each in clock[9:])]
    assert warned(Crest(), *more, rates=rates)
    assert warned(Crest(growth=0.5), *clock, rates=rates)


@pytest.mark.parametrize("spacing", [1, 4, 7])
def test_comparisons_are_at_least_the_spacing_apart_and_one_is_at_the_end(spacing):
    for crest in (Crest(spacing=spacing), Crest(signals=True, spacing=spacing, growth=1e-9)):
        scene = Scene(crest, RISE, wild=set(range(21)))
        assert scene.play() == (BUDGET, BUDGET)
        expected = [*range(spacing, BUDGET, spacing), BUDGET]
        assert sorted({line["step"] for line in scene.evals} - {0}) == expected


def test_the_bounds_are_those_of_students_distribution():
    """n = 2 tasks of +.5 and -.1 with +1 and -1: mean .1, variance .555, error .3725; t of 3 degrees at .975, 3.182."""
    found = compare([0.0, 0.6], [0.5, 0.5], 0.975)
    assert (found.mean, found.tasks) == (pytest.approx(0.2), 2)
    error = (((0.25 + 0.01 + 2) / 4 - 0.01) / 4) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.1 - 3.18245 * error, 0.1 + 3.18245 * error), abs=1e-4)


def test_the_first_of_two_doubtful_comparisons_does_not_end_the_campaign():
    unsure = Crest(loss=0.01, alpha=1e-9)
    assert Scene(unsure, [0.3] + [0.2] * 20, noise=True).play() == (10, 0)
    assert Scene(replace(unsure, looks=1), [0.3] + [0.2] * 20, noise=True).play() == (5, 0)
    assert Scene(replace(unsure, looks=3), [0.3] + [0.2] * 20, noise=True).play() == (15, 0)


def test_results_of_other_tasks_cannot_be_compared():
    with pytest.raises(ValueError, match="zip"):
        compare([0.0, 1.0], [0.0], 0.9)


@pytest.mark.parametrize(
    "settings",
    [
        *[{"log_ratio": 0.0}, {"alpha": 0.5}, {"alpha": 0.0}, {"loss": 1}, {"kl": 0}, {"outside": 0}, {"margin": 0}],
        *[{"recovery": 0.99}, {"votes": 0}, {"window": 0}, {"spacing": 0}, {"looks": 0}, {"steps": 0}],
    ],
)
def test_a_setting_at_the_end_of_its_range_is_refused(settings):
    with pytest.raises(ValueError, match="give"):
        Crest(**settings)


def test_settings_within_their_ranges_are_accepted():
    Crest(log_ratio=-1e-9, alpha=0.499, loss=0.999, kl=1e-9, outside=1e-9, margin=1e-9, growth=1e-9, recovery=1.0)
    Crest(votes=3, window=1, spacing=1, block=1, looks=1, steps=1)


def test_a_lesson_names_the_first_warning_and_how_many_there_were():
    scene = Scene(WARNED, RISE, wild=set(range(9, 21)))
    trace = campaign(scene)
    lesson = WARNED.lesson(trace, [])
    warned_at = [step for step in range(1, 21) if WARNED._warned(scene.steps, step)]
    assert warned_at[0] == 9
    assert lesson["first_warning"] == 9
    assert lesson["cause"] == f"crest: no fall, {len(warned_at)} steps warned"
    assert WARNED.lesson(campaign(Scene(WARNED, RISE)), [])["first_warning"] is None


def test_the_limit_of_the_rate_is_of_the_step_half_way_rounded_up():
    """From the champion at 10 to the stop at 15: step 13 of 15."""
    crest = Crest(margin=0.5)
    fallen = campaign(Scene(crest, FALL))
    assert (fallen.confirmed, fallen.steps_used) == (10, 15)
    assert crest.rate([fallen]) == pytest.approx(0.5 * 13 / 15)
    assert crest.rate([fallen, fallen]) == pytest.approx((0.5 * 13 / 15) ** 2)


def test_a_long_campaign_that_hands_over_its_end_is_no_fall():
    scene = Scene(Crest(), RISE)
    trace = campaign(scene)
    steps = [{"step": step, "batch": step, "lr": 1e-5, **CALM} for step in range(1, 1001)]
    points = [Checkpoint(Path("x"), step) for step in (0, int("1000"), int("1000"))]
    long = replace(
        trace, report=Trajectory((0, 1000), (0.2, 0.5)), start=points[0], peak=points[1], end=points[2],
        confirmed=int("1000"), steps=steps,
    )  # fmt: skip
    assert Crest(steps=1000).rate([long]) == 1.0
    assert Crest(steps=1000).lesson(long, [])["cause"].startswith("crest: no fall")


def test_a_comparison_ends_with_the_first_block_that_decides_it():
    """Step 5 is better by .15: not surely by the loss that is allowed, but surely not worse by it after 16 tasks."""
    scene = Scene(Crest(), RISE)
    scene.play()
    assert [len(line["results"]) for line in scene.evals if line["step"] == 5] == [16]


def test_a_campaign_of_one_step_is_compared_at_its_end_and_one_of_none_is_not():
    line = {"step": 1, "lr": 1.0, **CALM}
    assert isinstance(Crest().decide(Progress(1, 1, [line], [], (0, 1), SPLIT), ()), Evaluate)
    assert Crest().decide(Progress(0, 0, [], [], (0,), SPLIT), ()) == GoOn(0)
    assert Crest().decide(Progress(1, 2, [line], [], (0, 1), SPLIT), ()) == GoOn(0)
