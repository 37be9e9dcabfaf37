from html.parser import HTMLParser
from pathlib import Path

import pytest

from entrostat.report import PANELS, build_report
from entrostat.runs import RunError

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}{% raw %}&amp;]]>\x00\ud800"


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def report(*runs, out: Path) -> Page:
    return Page(build_report([run.path for run in runs], out / "report.html"))


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


def test_a_page_needs_no_network_and_runs_no_script(make, tmp_path: Path):
    page = report(make(), make("other", strategy="id"), out=tmp_path)
    assert page.count("script") == page.count("link") == page.count("img") == page.count("iframe") == 0
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith("#")
    assert ("meta", "default-src 'none'; style-src 'unsafe-inline'") in [
        (name, attributes.get("content")) for name, attributes in page.elements
    ]


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
    assert page.count("script") == page.count("img") == 0
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
