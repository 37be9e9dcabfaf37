"""The benchmark of `diagnose`: logs from sound to failed without a gap, how tools are judged, and its README."""

import csv
import gzip
import importlib
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from entrostat.diagnosis import DETECTORS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "diagnose"


def module(name: str):
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


tools, real, synthetic, left_out = module("tools"), module("real"), module("synthetic"), module("left_out")
Report = tools.Report


def columns(rows) -> dict[str, np.ndarray]:
    names = {name for _, values in rows for name in values}
    return {name: np.array([values.get(name, 0.0) for _, values in rows]) for name in names}


def distance(one, other) -> float:
    """How far two logs are apart: the share of NaN that differs, and the mean difference of what is finite in both."""
    mine, yours = columns(one), columns(other)
    assert mine.keys() == yours.keys()
    apart = 0.0
    for name in mine:
        broken = np.isnan(mine[name]) != np.isnan(yours[name])
        finite = np.isfinite(mine[name]) & np.isfinite(yours[name])
        scale = np.abs(yours[name][finite]).mean() + 1e-12
        apart += broken.mean() + np.abs(mine[name] - yours[name])[finite].mean() / scale
    return apart


@pytest.mark.parametrize("kind", [kind for kind in synthetic.FAILURES if kind != "plateau"])
def test_severity_goes_from_the_sound_run_to_the_failure_without_a_jump(kind: str):
    number = next(n for n in range(20) if synthetic.make(None, 0.0, 3, n).about["heldout"])
    sound = synthetic.make(None, 0.0, 3, number).rows
    *apart, slight = (
        distance(synthetic.make(kind, x, 3, number).rows, sound) for x in (0, 0.2, 0.4, 0.6, 0.8, 1, 0.001)
    )
    assert apart[0] == pytest.approx(0, abs=1e-9)
    assert all(np.diff(apart) > 0)
    assert slight < 0.05 * apart[-1]


@pytest.mark.parametrize("kind", [kind for kind, failure in synthetic.FAILURES.items() if not failure.from_start])
def test_nothing_happens_before_the_onset(kind: str):
    worst, least = (synthetic.make(kind, severity, 5, 2) for severity in (1.0, 0.0))
    before = [step for step, _ in worst.rows if step < worst.truth.onset]
    assert before
    assert distance(worst.rows[: len(before)], least.rows[: len(before)]) == pytest.approx(0, abs=1e-9)


def test_a_severity_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"severity is 1\.5"):
        synthetic.make("mismatch", 1.5, 0, 0)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.kind)
def test_every_detector_has_thresholds_that_the_strictness_moves(detector):
    names = {field.name for field in fields(detector)}
    moved = tools.STRICTNESS[detector.kind]
    assert moved.keys() <= names
    assert tools.scaled(detector, 1.0) == detector
    stricter = tools.scaled(detector, 2.0)
    assert all(getattr(stricter, name) != getattr(detector, name) for name in moved)
    assert moved or detector.kind == "not-finite"  # a number is finite or not


def test_a_tool_that_is_asked_for_one_kind_reports_what_the_whole_does():
    log = synthetic.make("entropy collapse", 1.0, 2, 4)
    whole = [report for report in tools.entrostat()(log.rows, log.end) if report.kinds == ("entropy-collapse",)]
    assert whole
    assert tools.entrostat(kinds=["entropy-collapse"])(log.rows, log.end) == whole


def test_a_report_that_is_no_longer_made_is_withdrawn_and_comes_again_as_another():
    looks = [
        (1, {}),
        (2, {"a": "warning"}),
        (3, {"a": "critical", "b": "note"}),
        (4, {"b": "note"}),
        (5, {"a": "warning", "b": "note"}),
    ]
    assert tools.followed(looks, {"a": ("truncation", "repetition")}) == [
        Report(("truncation", "repetition"), "critical", 2, 4),
        Report(("b",), "note", 3),
        Report(("truncation", "repetition"), "warning", 5),
    ]


TRUTH = real.truth(
    {"label": "collapsed", "kind": "rise-then-fall|entropy-collapse", "also": "gradient-fade", "onset": "30"}
)
SOUND = real.truth({"label": "healthy", "kind": "", "also": "entropy-collapse", "onset": ""})
STEPS = [*range(0, 100, 5)]


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        (
            [Report(("divergence",), "critical", 45)],
            {"found": "main", "critical": 1, "delay_steps": 15, "delay_rows": 3},
        ),
        (
            [Report(("rise-then-fall",), "warning", 20)],
            {"found": "main", "critical": 0, "delay_steps": -10, "delay_rows": -2},
        ),
        ([Report(("entropy-collapse",), "warning", 40)], {"found": "other", "delay_steps": 10}),
        ([Report(("rise-then-fall",), "note", 40)], {"found": "missed", "delay_steps": None}),
        (
            [Report(("rise-then-fall",), "critical", 40, over=60)],
            {"found": "missed", "withdrawn": "rise-then-fall!@40"},
        ),
        ([Report(("gradient-fade",), "critical", 40)], {"found": "missed", "false": ""}),
        ([Report(("truncation", "rise-then-fall"), "warning", 40)], {"found": "main", "false": ""}),
        ([Report(("truncation",), "critical", 40), Report(("kl-runaway",), "warning", 50)], {"false": "critical"}),
    ],
)
def test_a_failing_log_is_judged_by_what_stands_at_its_end(reports, expected):
    verdict = real.judge(TRUTH, reports, STEPS)
    assert {name: verdict[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("reports", "false"),
    [
        ([], ""),
        ([Report(("entropy-collapse",), "critical", 40)], ""),  # true of the log, and the run is fine
        ([Report(("plateau",), "warning", 40)], ""),
        ([Report(("truncation",), "warning", 40)], "warning"),
        ([Report(("truncation",), "warning", 40, over=50)], ""),
    ],
)
def test_a_healthy_log_is_alarmed_by_what_stands_and_is_not_true(reports, false):
    verdict = real.judge(SOUND, reports, STEPS)
    assert (verdict["found"], verdict["false"]) == ("", false)


def test_the_rules_find_what_they_say():
    rows = [(step, {"entropy": 1.0 if step < 50 else 0.01, "reward": 0.5}) for step in range(100)]
    (found,) = tools.rules(kinds=["entropy-collapse", "rise-then-fall", "not-finite"])(rows, None)
    assert found.kinds == ("entropy-collapse",)
    assert found.step == 52  # the median of five turns at the third


def test_the_readme_and_the_figure_say_what_the_data_say(tmp_path: Path):
    names = [path.name for path in FOLDER.iterdir() if path.is_file()]
    copy = tmp_path / "benchmarks" / "diagnose"
    copy.mkdir(parents=True)
    for name in names:
        shutil.copy(FOLDER / name, copy)
    others = [Path("studies/tables.py"), Path("docs/diagnose.md")]
    for other in others:
        (tmp_path / other).parent.mkdir()
        shutil.copy(ROOT / other, tmp_path / other)
    subprocess.run([sys.executable, str(copy / "run.py"), "read"], check=True)
    files = [*others, *(Path("benchmarks/diagnose") / name for name in names)]
    assert [file for file in files if (tmp_path / file).read_bytes() != (ROOT / file).read_bytes()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/shown.md"])
def test_the_pages_claim_what_the_data_say(page: str):
    with gzip.open(FOLDER / "real.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if (row["tool"], row["setting"]) == ("entrostat", "strictness 1")]
    counts = {}
    for collection in ("public", "own"):
        own = [row for row in rows if row["collection"] == collection]
        failing = [row["found"] != "missed" for row in own if row["label"] == "collapsed"]
        alarmed = [row["false"] != "" for row in own if row["label"] == "healthy"]
        counts[collection] = f"{sum(failing)} of {len(failing)}", f"{sum(alarmed)} of {len(alarmed)}"
    (public, quiet), (own, calm) = counts["public"], counts["own"]
    text = " ".join((ROOT / page).read_text().split())
    assert f"{public} failing public logs found, {quiet} healthy ones alarmed; of our own {own} and {calm}" in text


def test_a_rule_is_set_by_the_other_sources_alone(monkeypatch: pytest.MonkeyPatch):
    """Two sources of which each needs another strictness: each is judged by the other's."""
    names = ("file", "source", "label", "kind", "also", "onset")

    def log(name: str, source: str, failing: bool):
        label = ("collapsed", "gradient-fade") if failing else ("healthy", "")
        row = dict(zip(names, (name, source, *label, "", ""), strict=True))
        return real.Labelled("public", row, real.Log(name, "made", [], {}, None), "")

    logs = [log("a1", "a", True), log("a2", "a", False), log("b1", "b", True), log("b2", "b", False)]
    least = {"a1": 0.6, "a2": 0.5, "b1": 2.0, "b2": 1.4}  # up to which strictness the rule finds something
    verdicts = {
        (each.name, kind, m): kind == "gradient-fade" and m <= least[each.name]
        for each in logs
        for kind in left_out.KINDS
        for m in left_out.GRID
    }
    monkeypatch.setattr(left_out, "_verdicts", lambda logs: verdicts)
    rows = [row for row in left_out.left_out_rows(logs) if row["rule"] == "gradient-fade"]
    assert {row["log"]: row["strictness"] for row in rows} == {"a1": 2.0, "a2": 2.0, "b1": 0.6, "b2": 0.6}
    assert {row["log"]: row["found"] for row in rows} == {"a1": 0, "a2": 0, "b1": 1, "b2": 1}
