"""A run watched live and its log read afterwards get the same findings."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.diagnosis.conftest import make_rows
from tests.diagnosis.test_detectors import FAILURES

from entrostat.diagnosis import DETECTORS, Acting, Finding, History, Watchdog, diagnose, read_log, recognise_row
from entrostat.diagnosis.detectors import Detector
from entrostat.diagnosis.follow import Follower


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(sorted(FAILURES)), seed=st.integers(0, 99), cut=st.integers(1, 120))
def test_live_and_offline_agree_at_every_step(tmp_path_factory, kind, seed, cut):
    rows = make_rows(seed=seed, **FAILURES[kind])[:cut]
    live = Watchdog(120)
    for row in rows:
        live.observe(row["step"], recognise_row(row).values)
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    file.write_text(as_jsonl(rows))
    assert diagnose(read_log(file), end=120).watchdog.findings == live.findings


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(sorted(FAILURES)), cuts=st.lists(st.integers(0, 20_000), max_size=6))
def test_a_followed_file_gives_the_same_findings_however_it_grows(tmp_path_factory, kind, cuts):
    whole = as_jsonl(make_rows(**FAILURES[kind])).encode()
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    follower, heard = Follower(file, end=120), []
    for cut in [*sorted(cuts), len(whole)]:
        file.write_bytes(whole[:cut])
        heard += follower.look()
    expected = diagnose(read_log(file), end=120).watchdog.findings
    assert follower.watchdog.findings == expected
    assert [(f.kind, f.severity) for f in heard] == [(f.kind, f.severity) for f in expected]


def test_a_log_begun_anew_is_diagnosed_from_its_first_row(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text(as_jsonl(make_rows(**FAILURES["entropy-collapse"])))
    follower = Follower(file)
    assert follower.look()
    file.write_text(as_jsonl(make_rows(n=30, seed=5)))
    assert not follower.look()
    assert follower.watchdog.history.step == 30


def test_rows_of_one_step_may_come_apart(rows):
    whole, apart = Watchdog(120), Watchdog(120)
    for row in rows(**FAILURES["divergence"]):
        values = recognise_row(row).values
        whole.observe(row["step"], values)
        heldout = values.pop("heldout")
        apart.observe(row["step"], values)
        apart.observe(row["step"], {"heldout": heldout})
    assert [(f.kind, f.step) for f in whole.findings] == [(f.kind, f.step) for f in apart.findings]


def test_a_finding_is_reported_once_and_again_when_it_becomes_critical(rows):
    watchdog = Watchdog(120)
    for row in rows(**FAILURES["entropy-collapse"]):
        watchdog.observe(row["step"], recognise_row(row).values)
    assert [f.severity for f in watchdog.findings if f.kind == "entropy-collapse"] == ["note", "warning", "critical"]


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(allow_nan=True, allow_infinity=True)), max_size=300))
def test_a_history_keeps_steps_growing_and_values_finite(rows):
    history = History()
    for step, value in rows:
        history.append(step, {"entropy": value})
    steps, values = history.series("entropy")
    assert (np.diff(steps) > 0).all()
    assert np.isfinite(values).all()


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324, 0.0, -1.0])
def test_extreme_values_break_no_detector(rows, value):
    for column in ("entropy", "reward", "kl", "grad_norm", "completions/mean_length", "frac_reward_zero_std"):
        made = rows(n=60, **{column: lambda t, _, value=value: np.where(t > 0.5, value, 0.3)})
        watchdog = Watchdog(60)
        with np.errstate(over="ignore", invalid="ignore"):
            for row in made:
                watchdog.observe(row["step"], recognise_row(row).values)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_arbitrary_numbers_break_no_detector(data):
    number = st.floats(allow_nan=True, allow_infinity=True)
    names = [
        "entropy",
        "reward",
        "kl",
        "grad_norm",
        "length",
        "truncated",
        "equal_groups",
        "clip_low",
        "heldout",
        "loss",
    ]
    rows = data.draw(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(names, number)), max_size=40))
    watchdog = Watchdog()
    with np.errstate(all="ignore"):
        for step, row in enumerate(rows):
            watchdog.observe(step, row)


# --- what the watchdog makes of what a detector finds, look by look

SEVERITY = {"n": "note", "w": "warning", "c": "critical"}


class Scripted(Detector):
    """Finds what its script says: a letter per step, "." for nothing, " " for a row without its quantity."""

    columns = ("x",)

    def __init__(self, script, onsets=None, kind="scripted", persists=False, **counts):
        super().__init__(**counts)
        for name, value in {"script": script, "onsets": onsets or {}, "kind": kind, "lasts": persists}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "looks", [])

    def find(self, history, end):
        self.looks.append((history.step, end))
        letter = self.script[history.step - 1]
        if letter == ".":
            return None
        onset = self.onsets.get(history.step, 1)
        return Finding(
            self.kind, SEVERITY[letter], step=history.step, onset=onset, summary="", evidence={}, columns=("x",)
        )

    def persists(self, history, finding):
        return self.lasts


def play(script, end=99, **options):
    detector = Scripted(script, **options)
    watchdog = Watchdog(end, [detector])
    reported = []
    for step, letter in enumerate(script, start=1):
        reported += [
            (step, each.severity) for each in watchdog.observe(step, {"y": 0.0} if letter == " " else {"x": step})
        ]
    assert [(each.step, each.severity) for each in watchdog.findings] == reported
    return watchdog, reported, [each.over for each in watchdog.past]


@pytest.mark.parametrize(
    ("script", "reported", "over", "now"),
    [
        ("..www", [(5, "warning")], [], "warning"),
        ("..ww.ww.", [], [], None),
        ("ww w", [(4, "warning")], [], "warning"),
        ("wwwccc", [(3, "warning"), (6, "critical")], [], "critical"),
        ("nwc", [(3, "note")], [], "note"),
        ("wcwc", [(3, "warning")], [], "warning"),
        ("cccw", [(3, "critical")], [], "critical"),
        ("cccwww", [(3, "critical")], [], "warning"),
        ("cccwwwccc", [(3, "critical")], [], "critical"),
        ("www..", [(3, "warning")], [], "warning"),
        ("www...", [(3, "warning")], [6], None),
        ("www..w..w..", [(3, "warning")], [], "warning"),
        ("www...ww", [(3, "warning")], [6], None),
        ("www...www..", [(3, "warning"), (9, "warning")], [6], "warning"),
        ("www...ccc...", [(3, "warning"), (9, "critical")], [6, 12], None),
    ],
)
def test_a_finding_begins_after_three_looks_that_agree_and_ends_after_three_without(script, reported, over, now):
    watchdog, found, ended = play(script)
    assert found == reported
    assert ended == over
    assert [each.severity for each in watchdog.standing()] == ([now] if now else [])


@pytest.mark.parametrize(("confirm", "release"), [(1, 1), (1, 4), (2, 1), (4, 2)])
def test_a_detector_sets_how_many_looks_it_takes(confirm, release):
    script = "." + confirm * "w" + release * "." + confirm * "w" + (release - 1) * "."
    watchdog, reported, over = play(script, confirm=confirm, release=release)
    assert [step for step, _ in reported] == [1 + confirm, 1 + 2 * confirm + release]
    assert over == [1 + confirm + release]
    assert len(watchdog.standing()) == 1


def test_a_finding_that_its_detector_says_persists_is_not_over():
    watchdog, _, over = play("www......", persists=True)
    assert over == []
    assert watchdog.standing()[0].step == 3


def test_a_later_onset_after_a_pause_is_a_second_failure_and_an_earlier_one_is_not():
    watchdog, reported, over = play("www.www", onsets={5: 5, 6: 5, 7: 5})
    assert (reported, over) == ([(3, "warning"), (7, "warning")], [5])
    assert watchdog.standing()[0].onset == 5
    watchdog, reported, over = play("www.www", onsets={5: 2, 6: 2, 7: 2})
    assert (reported, over) == ([(3, "warning")], [])
    watchdog, reported, over = play("wwwwwww", onsets={5: 5, 6: 5, 7: 5})
    assert (reported, over) == ([(3, "warning")], [])
    assert (watchdog.standing()[0].onset, watchdog.standing()[0].first_step) == (3, 3)


@pytest.mark.parametrize(
    ("script", "reported", "first", "over"),
    [
        ("wwwwww", [(3, "note"), (5, "warning")], 5, []),
        ("wwww...", [(3, "note")], None, [("note", 3)]),
        (".wwwwccc", [(4, "note"), (6, "warning"), (8, "critical")], 6, []),
        ("ww.wwwwwww", [(6, "note"), (8, "warning")], 8, []),
    ],
)
def test_a_suspicion_is_a_note_until_its_detector_believes_it(script, reported, first, over):
    class Doubtful(Scripted):
        def believed(self, finding, since, looks):
            assert looks == finding.step - since + 1
            return looks >= 5

    watchdog = Watchdog(99, [Doubtful(script)])
    found = [
        each
        for step, letter in enumerate(script, start=1)
        for each in watchdog.observe(step, {"x": step} if letter else {})
    ]
    assert [(each.step, each.severity) for each in found] == reported
    assert [each.summary.startswith("Suspected: ") for each in found] == [each.severity == "note" for each in found]
    assert [each.first_step for each in watchdog.standing()] == ([first] if first else [])
    assert [(each.severity, each.first_step) for each in watchdog.past] == over


def test_the_worst_stands_first_and_then_the_oldest():
    made = [
        Scripted("www", onsets={3: 2}, kind="b"),
        Scripted("ccc", onsets={3: 3}, kind="c"),
        Scripted("www", kind="a"),
    ]
    watchdog = Watchdog(9, made)
    for step in (1, 2, 3):
        watchdog.observe(step, {"x": step})
    assert [each.kind for each in watchdog.standing()] == ["c", "a", "b"]


@pytest.mark.parametrize(("end", "expected"), [(None, [2, 4, 6]), (9, [9, 9, 9]), (2, [2, 2, 3])])
def test_the_end_that_detectors_are_told_is_never_before_the_step(end, expected):
    detector = Scripted("...")
    watchdog = Watchdog(end, [detector])
    for step in (1, 2, 3):
        watchdog.observe(step, {"x": step})
    assert [told for _, told in detector.looks] == expected


def test_a_long_log_is_looked_at_more_often_while_something_shows_and_at_once_where_a_number_is_none():
    n = 4000
    broken = {999, 1001, 3333, 3998}
    script = "".join("w" if 2000 <= step < 2100 else "." for step in range(1, n + 1))
    detector = Scripted(script)
    watchdog = Watchdog(n, [detector])
    for step in range(1, n + 1):
        for part in ("x", "y"):  # two rows of one step
            watchdog.observe(step, {part: math.nan if part == "x" and step in broken else step + 0.5})
    looks = [step for step, _ in detector.looks]
    assert broken <= set(looks)
    assert looks[:500] == list(range(1, 501))
    assert all(later - step <= max(1, later / 80) for step, later in pairwise(looks))
    shown = [step for step in looks if 2000 <= step < 2100]
    assert max(np.diff(shown[:3])) <= 2100 / 250
    assert len(looks) < 500 + 80 * math.log(n / 500) + 2 * 80


# --- which findings are acted on


@pytest.mark.parametrize("action", ["note", "stop", "keep-peak", "roll-back"])
@pytest.mark.parametrize("least", ["warning", "critical"])
@pytest.mark.parametrize("kinds", [None, [], ["kl-runaway"], ["entropy-collapse", "kl-runaway"]])
def test_a_finding_is_acted_on_if_it_is_grave_enough_and_of_a_kind_that_was_asked_for(action, least, kinds):
    acting = Acting(action, least, kinds)
    for severity in ("note", "warning", "critical"):
        for kind in ("kl-runaway", "truncation"):
            finding = Finding(kind, severity, step=3, onset=1, summary="", evidence={}, columns=())
            grave = severity == "critical" or severity == least
            assert acting.on(finding) == (action != "note" and grave and (not kinds or kind in kinds))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action": "rollback"}, "action is 'rollback'; choose one of note, stop"),
        ({"severity": "note"}, "severity is 'note'; choose one of warning, critical"),
        ({"kinds": "truncation"}, "kinds is 'truncation'; give a list"),
        ({"kinds": {"truncation"}}, "kinds is {'truncation'}; give a list"),
        ({"kinds": ["truncation", "trunc"]}, "kinds: got 'trunc'; choose from"),
    ],
)
def test_an_action_that_means_nothing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Acting(**settings)


def test_a_run_is_watched_to_its_end_by_every_detector():
    watchdog = Acting("stop").watchdog(70)
    assert watchdog.end == 70
    assert [case.detector for case in watchdog._cases] == list(DETECTORS)


def test_a_failure_is_over_once_it_is_not_shown_unless_its_detector_says_more():
    finding = Finding("staleness", "note", step=3, onset=1, summary="", evidence={"now": 9.0}, columns=("staleness",))
    for detector in DETECTORS:
        if detector.kind in ("staleness", "clip-saturation", "never-learned", "repetition"):
            assert detector.persists(History(), finding) is False
            assert detector.believed(finding, 1, 1) is True


def test_a_long_log_is_looked_at_closely_until_what_no_longer_shows_is_over():
    n = 4000
    detector = Scripted("".join("w" if 600 <= step < 3000 else "." for step in range(1, n + 1)))
    watchdog = Watchdog(n, [detector])
    for step in range(1, n + 1):
        watchdog.observe(step, {"x": step})
    quiet = [step for step, _ in detector.looks if step >= 3000]
    assert max(np.diff(quiet[:3])) <= 3000 / 250 + 1  # three looks without it: it is over
    assert [each.over for each in watchdog.past] == [quiet[2]]
    assert min(np.diff(quiet[3:6])) >= 3000 / 80 - 1
    shown = [step for step, _ in detector.looks if 1000 <= step < 3000]
    assert min(np.diff(shown)) >= 1000 / 80 - 1  # what has been reported is not looked at closely
