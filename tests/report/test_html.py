import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from entrostat.report import PANELS, build_report, html, read_run
from entrostat.runs import RunError

from .conftest import a_finding

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}{% raw %}&amp;]]>\x00\ud800"


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    def all_of(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        """The attributes of the elements of a tag, and of a class if one is named."""
        return [own for name, own in self.elements if name == tag and kind in (own.get("class") or "")]


def report(*runs, out: Path, findings=None) -> Page:
    return Page(build_report([run.path for run in runs], out / "report.html", findings))


def test_a_page_shows_every_run_with_its_figures_and_samples(make, tmp_path: Path):
    runs = [make("reinforce"), make("early-stop", stop=26), make("id", strategy="id")]
    page = report(*runs, out=tmp_path)
    drawings = sum(name == "figure" for name, _ in page.elements)
    assert drawings == 2 + 3 * len(PANELS) - 4
    for run in runs:
        assert page.text.count(run.path.name) >= 3
    assert "keep the large ones" in page.text
    assert "x x x x" in page.text


def test_no_two_figures_of_a_page_share_an_identifier(make, tmp_path: Path):
    page = report(make("a", steps=3), make("b", steps=3), out=tmp_path)
    figures, referenced = -1, {}
    for name, attributes in page.elements:
        figures += name == "figure"
        for value in (attributes.get("clip-path"), attributes.get("xlink:href")):
            if value and "#" in value:
                referenced.setdefault(value, set()).add(figures)
    assert referenced
    assert all(len(where) == 1 for where in referenced.values())


def test_each_panel_is_a_figure_or_a_note(make, tmp_path: Path):
    page = report(make(strategy="id"), out=tmp_path)
    assert page.count("figure") == page.count("svg") == len(PANELS)
    page = report(make("empty", steps=0, splits=()), out=tmp_path)
    assert page.count("figure") == 0
    notes = [attributes for name, attributes in page.elements if attributes.get("class") == "note"]
    assert len(notes) == len(PANELS) + 1


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0, "splits": ()},
        {"steps": 0},
        {"steps": 0, "splits": ("select",)},
        {"steps": 1},
        {"steps": 5, "splits": ("select",)},
        {"steps": 5, "splits": ("report",)},
        {"steps": 5, "splits": ()},
    ],
)
def test_a_run_that_measured_little_still_has_its_page(make, tmp_path: Path, options: dict):
    page = report(make("little", **options), make("whole"), out=tmp_path)
    assert "little" in page.text


def test_a_page_needs_no_network_and_admits_one_script_by_its_hash(make, tmp_path: Path):
    page = report(make(tokens=True), make("other", strategy="id"), out=tmp_path)
    assert page.count("link") == page.count("img") == page.count("iframe") == 0
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith("#")
    kinds = [attributes.get("type") for name, attributes in page.elements if name == "script"]
    assert kinds == ["application/json", None]
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    policy = next(attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy
    assert "require-trusted-types-for 'script'" in policy


def test_hostile_text_stays_text_wherever_it_comes_from(make, tmp_path: Path):
    run = make("run<script>alert(3)<", steps=3)
    run.log_step({"step": 4, "entropy": 0.1, "phase": HOSTILE, "verdicts": {HOSTILE: 2}, "length": 3.0, "flow_up": 0.1})
    run.log_samples(
        3,
        "report",
        [{"task": f"task-{i}", "prompt": HOSTILE, "completion": HOSTILE, "outcome": HOSTILE} for i in range(4)],
    )
    run.log_samples(
        0,
        "report",
        [{"task": f"task-{i}", "prompt": HOSTILE, "completion": HOSTILE, "outcome": "wrong"} for i in range(4)],
    )
    run.note_decision({"step": 3, "kind": HOSTILE, "cause": HOSTILE})
    page = report(run, make("other", steps=3), out=tmp_path)
    assert page.count("script") == 2
    assert page.count("img") == 0
    assert HOSTILE in [sample["text"] for sample in json.loads(page.scripts[0])["runs"][0]["samples"]]
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}{% raw %}&amp;]]>" in page.text


def test_verdicts_are_coloured_by_whether_they_passed(make, tmp_path: Path):
    run = make(steps=2)
    for step in (0, 2):
        run.log_samples(step, "report", [{"task": "t", "prompt": "", "completion": "", "outcome": "passed"}])
    run.log_samples(1, "report", [])
    page = report(run, out=tmp_path)
    classes = [attributes.get("class") for name, attributes in page.elements if name == "b"]
    assert classes.count("passed") == 2
    assert "failed" not in classes


def test_the_same_folders_give_the_same_page(make, tmp_path: Path):
    run = make()
    pages = [build_report([run.path], tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_decisions_are_told_with_their_cause(make, tmp_path: Path):
    page = report(make(stop=26), out=tmp_path)
    assert "EarlyStop: no new peak for 3 steps" in page.text
    assert "step 26, roll-back to step" in page.text


def test_no_runs_or_folders_that_are_none_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="runs is empty"):
        build_report([], tmp_path / "r.html")
    with pytest.raises(RunError, match="not a run folder"):
        build_report([tmp_path], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_two_runs_stand_side_by_side_panel_by_panel(make, tmp_path: Path):
    page = report(make("a"), make("b", strategy="id", collapse=False), out=tmp_path)
    titles = [attributes for name, attributes in page.elements if attributes.get("class") == "pair"]
    assert len(titles) == len(PANELS)
    assert page.count("figure") == 2 + 2 * len(PANELS) - 2
    assert "strategyconstantid" in "".join(page.text.split())


def test_a_page_about_long_runs_stays_small_and_keeps_their_start_peak_and_end(make, tmp_path: Path):
    run = make(steps=60)
    path = run.path
    for log in ("steps.jsonl", "evals.jsonl"):
        lines = [json.loads(line) for line in (path / log).read_text().splitlines()]
        many = [{**line, "step": line["step"] + 60 * turn} for turn in range(50) for line in lines if line["step"]]
        (path / log).write_text("".join(json.dumps(line) + "\n" for line in many))
    long = {"text": ["<x>"] * 5000, **{name: [-0.123456] * 5000 for name in ("logp", "entropy", "sensitivity")}}
    sample = {"task": "t", "prompt": "<p>" * 9000, "outcome": "wrong", "completion": "<x>" * 5000}
    for step in range(60, 3001, 60):
        lines = [{"step": step, "split": "train", **sample, "advantage": 1.0, "tokens": long}] * 4
        (path / "samples" / f"{step:06d}-train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = build_report([path], tmp_path / "r.html")
    assert 1_000_000 < page.stat().st_size < 3_000_000
    told = json.loads(Page(page).scripts[0])["runs"][0]
    steps = {sample["step"] for sample in told["samples"]}
    peak = read_run(path, "run").collapse.peak_step
    assert {0, 3000, peak} <= steps
    assert len(told["samples"]) < told["of"]


def test_of_many_runs_the_first_are_drawn_and_the_others_named(make, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(html, "SECTIONS_BYTES", 250_000)
    run = make("seed-0", steps=20)
    for seed in range(1, 4):
        shutil.copytree(run.path, tmp_path / f"seed-{seed}")
    page = Page(build_report([tmp_path / f"seed-{seed}" for seed in range(4)], tmp_path / "r.html"))
    anchors = [attributes["id"] for name, attributes in page.elements if attributes.get("id", "").startswith("run-")]
    assert 1 <= len(anchors) < 4
    drawn = sum(len(image) for image in re.findall(r"<svg.*?</svg>", (tmp_path / "r.html").read_text(), re.DOTALL))
    assert drawn < 250_000 + 100_000
    assert f"alone: {', '.join(f'seed-{seed}' for seed in range(len(anchors), 4))}." in page.text


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_finding_is_linked_to_the_figure_that_shows_it(make, tmp_path: Path, count: int):
    runs = [make(f"run-{i}") for i in range(count)]
    page = report(*runs, out=tmp_path, findings=[[a_finding("Entropy"), a_finding("Length")]] * count)
    links = [own["href"].removeprefix("#") for own in page.all_of("a") if "data-steps" in own]
    figures = [own.get("id") for own in page.all_of("figure")]
    assert len(set(links)) == 2 * count
    assert set(links) <= set(figures)
    assert len(page.all_of("article", "finding critical")) == 2 * count
    assert "0.01235" in page.text


def test_a_finding_that_no_figure_shows_has_no_link(make, tmp_path: Path):
    page = report(
        make(steps=0, splits=()),
        out=tmp_path,
        findings=[[a_finding("Entropy"), a_finding(None), a_finding("Verdicts")]],
    )
    assert len(page.all_of("article", "finding")) == 3
    assert not [own for own in page.all_of("a") if "data-steps" in own]


def test_a_healthy_run_gets_one_quiet_line_and_one_not_looked_at_none(make, tmp_path: Path):
    run = make()
    for findings, said in (([[]], True), (None, False)):
        page = report(run, out=tmp_path, findings=findings)
        assert not page.all_of("article", "finding")
        assert ("Nothing that the detectors know is wrong" in page.text) is said


def test_a_page_of_many_runs_folds_its_findings(make, tmp_path: Path):
    runs = [make(f"run-{i}", steps=3) for i in range(5)]
    page = report(*runs, out=tmp_path, findings=[[a_finding()], [], [a_finding()], [], []])
    assert "Findings in 2 of these 5 runs" in page.text
    assert "wrong with run-1, run-3, run-4" in page.text


def test_what_a_watched_run_noted_is_not_told_twice(make, tmp_path: Path):
    run = make(steps=5)
    for kind in ("finding", "stop"):
        run.note_decision({"step": 4, "kind": kind, "cause": f"the {kind} it was"})
    assert "the finding it was" in report(run, out=tmp_path).text
    page = report(run, out=tmp_path, findings=[[a_finding()]])
    assert "the finding it was" not in page.text
    assert "the stop it was" in page.text


def test_notices_are_escaped_and_must_be_as_many_as_runs(make, tmp_path: Path):
    run = make(steps=3)
    before = report(run, out=tmp_path).count("script")
    page = report(run, out=tmp_path, findings=[[a_finding(text=HOSTILE)]])
    assert page.count("script") == before
    assert page.count("img") == 0
    with pytest.raises(ValueError, match="runs are 1"):
        report(run, out=tmp_path, findings=[[], []])
