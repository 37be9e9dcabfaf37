"""crest: evaluates only where it was warned, stops at a confirmed fall, and learns the border of the learning rate."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from entrostat.campaign import CampaignTrace, Checkpoint, Crest, Evaluate, GoOn, Progress, Stop, Trajectory

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


def test_a_calm_rise_is_run_to_its_end_for_less_than_two_evaluations():
    scene = Scene(Crest(), RISE)
    assert scene.play() == (BUDGET, BUDGET)
    assert scene.spent < 2


def test_an_announced_fall_ends_the_campaign_with_its_champion():
    scene = Scene(Crest(), FALL, wild=set(range(9, 21)))
    stopped, kept = scene.play()
    assert (stopped, kept) == (13, 9)
    assert scene.spent < 3


def test_a_step_that_does_not_look_worse_is_accepted_on_the_first_block():
    scene = Scene(Crest(block=16), [0.5] * 21, wild={6})
    assert scene.play() == (BUDGET, BUDGET)
    assert [(line["step"], line["tasks"]) for line in scene.evals] == [(0, [0, 16]), (6, [0, 16]), (20, [0, 16])]


def test_a_false_alarm_costs_a_look_and_ends_nothing():
    scene = Scene(Crest(), RISE, wild={6})
    assert scene.play() == (BUDGET, BUDGET)
    assert {line["step"] for line in scene.evals} == {0, 6, 20}


def test_a_doubtful_fall_is_looked_at_once_more_and_never_loses_the_champion():
    unsure = Crest(z=1000.0)
    passing = Scene(unsure, [*RISE[:9], 0.3, 0.3, 0.3, 0.3, *RISE[13:]], wild={8, 12}, noise=True)
    assert passing.play() == (BUDGET, BUDGET)
    lasting = Scene(unsure, [*RISE[:9], *[0.3] * 12], wild=set(range(8, 21)), noise=True)
    assert lasting.play() == (16, 8)


def test_a_fall_without_a_warning_is_found_at_the_end():
    scene = Scene(Crest(), FALL)
    assert scene.play() == (BUDGET, 0)


def test_one_signal_alone_is_no_warning_with_two_votes():
    scene = Scene(Crest(votes=2), RISE)
    scene.play()
    loud = [{**line, "ratio_outside": 0.5} for line in scene.steps]
    seen = Progress(8, BUDGET, loud[:8], [], tuple(range(9)), SPLIT)
    assert isinstance(Crest(votes=2).decide(seen, ()), GoOn)
    assert isinstance(Crest(votes=1).decide(seen, ()), Evaluate)


def test_the_same_view_gives_the_same_order():
    scene = Scene(Crest(), FALL, wild=set(range(12, 21)))
    scene.play()
    view = scene._progress(scene.steps[-1]["step"])
    assert Crest().decide(view, ()) == Crest().decide(view, ())


def campaign(scene):
    stopped, kept = scene.play()
    select = Trajectory.from_evals(scene.evals)
    report = Trajectory(tuple(range(stopped + 1)), tuple(scene.curve[: stopped + 1]))
    points = [Checkpoint(Path("x"), s) for s in (0, kept, stopped)]
    return CampaignTrace(select, report, *points, confirmed=kept, steps=scene.steps, evals=scene.evals)


def test_a_confirmed_fall_lowers_the_learning_rate_of_what_follows_and_calm_campaigns_raise_it_again():
    crest = Crest(margin=0.8, recovery=1.1)
    fallen = campaign(Scene(crest, FALL, wild=set(range(9, 21))))
    calm = campaign(Scene(crest, RISE))
    after = crest.plan([fallen]).rate
    assert after == pytest.approx(0.8 * (fallen.confirmed + fallen.steps_used) / 2 / fallen.steps_used, rel=0.1)
    assert crest.plan([fallen, calm]).rate == pytest.approx(1.1 * after)
    assert crest.plan([fallen] + [calm] * 30).rate == 1.0
    assert crest.lesson(fallen, [])["first_warning"] == 9
    assert crest.lesson(fallen, [])["next_rate"] == after


def test_the_start_of_a_later_campaign_is_not_evaluated_again():
    crest = Crest()
    before = campaign(Scene(crest, RISE))
    scene = Scene(crest, [RISE[-1]] + [0.9] * 20, history=(before,))
    assert scene.play() == (BUDGET, BUDGET)
    assert {line["step"] for line in scene.evals} == {BUDGET}


def test_what_the_campaign_before_measured_of_its_hand_over_in_part_is_completed_and_not_measured_twice():
    crest = Crest(block=16, z=1000.0)
    scene = Scene(crest, [0.5] * 21)
    known = {"step": 20, "tasks": [0, 16], "results": scene._results(Evaluate(20, 0, 16))}
    before = replace(campaign(Scene(crest, RISE)), evals=[known])
    scene = Scene(crest, [*[0.5] * 20, 0.4], history=(before,), noise=True)
    assert scene.play()[0] == BUDGET
    assert [line["tasks"] for line in scene.evals if line["step"] == 0] == [[16, 32], [32, 48]]


def test_what_is_known_of_weights_that_two_campaigns_handed_over_unchanged_is_not_measured_again():
    crest = Crest(block=16, z=1000.0)
    first = campaign(Scene(crest, RISE))
    second = campaign(Scene(crest, [RISE[-1], *[0.5] * 20], history=(first,), noise=True))
    assert second.peak.step == 0
    third = Scene(crest, [RISE[-1], *[0.5] * 20], history=(first, second), noise=True)
    third.play()
    known = {line["tasks"][0] for trace in (first, second) for line in trace.evals if line["step"] in (0, 20)}
    assert known == {0, 16, 32}
    assert {line["step"] for line in third.evals} == {BUDGET}


@pytest.mark.parametrize("settings", [{"log_ratio": 1.0}, {"votes": 4}, {"block": 0}, {"recovery": 0.5}, {"z": 0}])
def test_a_setting_out_of_range_is_refused(settings):
    with pytest.raises(ValueError, match="give"):
        Crest(**settings)


LOUD = {"kl_old": (0.03, 1.01), "ratio_outside": (0.05, 1.01), "log_ratio_min_punished": (-3.0, 1.01)}


def warned(crest, *steps):
    """Whether crest wants a comparison after these steps; each is the signals that differ from calm ones."""
    lines = [{"step": i, "lr": 1.0, **CALM, **step} for i, step in enumerate(steps, start=1)]
    seen = Progress(len(lines), 99, lines, [], tuple(range(len(lines) + 1)), SPLIT)
    return isinstance(crest.decide(seen, ()), Evaluate)


@pytest.mark.parametrize("signal", LOUD)
def test_each_signal_warns_beyond_its_limit_and_not_at_it(signal):
    limit, factor = LOUD[signal]
    one = Crest(votes=1)
    assert warned(one, {}, {}, {}, {signal: limit * factor})
    assert not warned(one, {}, {}, {}, {signal: limit})
    assert not warned(one, {}, {}, {}, {signal: None})
    assert not warned(Crest(votes=2), {}, {}, {}, {signal: limit * factor})


@pytest.mark.parametrize("calm", LOUD)
def test_two_of_three_signals_are_a_warning_and_three_votes_need_all(calm):
    loud = {name: limit * factor for name, (limit, factor) in LOUD.items()}
    two = {**loud, calm: CALM[calm]}
    assert warned(Crest(), {}, {}, {}, two)
    assert not warned(Crest(votes=3), {}, {}, {}, two)
    assert warned(Crest(votes=3), {}, {}, {}, loud)


def test_votes_of_the_last_two_steps_count_together():
    kl, outside = {"kl_old": 0.1}, {"ratio_outside": 0.5}
    assert warned(Crest(), {}, {}, kl, outside)
    assert not warned(Crest(), {}, kl, {}, outside)
    assert warned(Crest(window=3), {}, kl, {}, outside)
    assert warned(Crest(votes=1), {}, {}, kl, {})
    assert not warned(Crest(votes=1), {}, kl, {}, {})


@pytest.mark.parametrize("spacing", [1, 4, 7])
def test_comparisons_are_at_least_the_spacing_apart_and_one_is_at_the_end(spacing):
    scene = Scene(Crest(spacing=spacing), RISE, wild=set(range(21)))
    assert scene.play() == (BUDGET, BUDGET)
    expected = [*range(spacing, BUDGET, spacing), BUDGET]
    assert sorted({line["step"] for line in scene.evals} - {0}) == expected


@pytest.mark.parametrize(("z", "stops"), [(2.9, True), (3.1, False)])
def test_a_fall_is_sure_beyond_z_standard_errors_of_the_paired_differences(z, stops):
    """48 tasks whose differences are -.1 plus noise of known spread: mean -.1, error s / sqrt(48) = .1 / 3."""
    before = [[f"task-{i}", 1000, 500] for i in range(SPLIT)]
    spread = 0.1 / 3 * (SPLIT - 1) ** 0.5  # of deviations +s, -s the sample variance is s^2 n / (n - 1)
    after = [[f"task-{i}", 1000, 500 - 100 + 1000 * spread * (-1) ** i] for i in range(SPLIT)]
    evals = [{"step": step, "tasks": [0, SPLIT], "results": each} for step, each in ((0, before), (4, after))]
    steps = [{"step": i, "lr": 1.0, **WILD} for i in (1, 2, 3, 4)]
    order = Crest(z=z, block=SPLIT).decide(Progress(4, BUDGET, steps, evals, (0, 4), SPLIT), ())
    assert isinstance(order, Stop) == stops
    if stops:
        assert order == Stop(0, "crest: step 4 is -0.100 +- 0.033 against step 0 on 48 tasks")
    else:
        assert order == GoOn(0)


def test_the_rate_after_a_fall_is_the_margin_of_the_rate_half_way():
    crest = Crest(margin=0.5, recovery=1.2)
    fallen = campaign(Scene(crest, FALL, wild=set(range(9, 21))))
    assert (fallen.confirmed, fallen.steps_used) == (9, 13)
    assert crest.rate([fallen]) == pytest.approx(0.5 * 11 / 13)  # the rate of step s is 1e-5 s
    assert crest.rate([fallen, fallen]) == pytest.approx((0.5 * 11 / 13) ** 2)
    assert "the learning rate at 0.42 of" in crest.plan([fallen]).cause
    assert crest.plan([]).cause is None
    lesson = crest.lesson(fallen, [fallen])
    assert lesson["cause"] == "crest: a fall, 5 steps warned"
    assert (lesson["kind"], lesson["confirmed"]) == ("onset", 9)
    assert lesson["next_rate"] == crest.rate([fallen, fallen])
    calm = crest.lesson(campaign(Scene(crest, RISE)), [])
    assert (calm["cause"], calm["first_warning"]) == ("crest: no fall, 0 steps warned", None)
