"""The report of a study: drawn from its tables alone, honest about few seeds and unfinished chains."""

import csv
import json
import re

import pytest

from entrostat.campaign.database import TABLES, write_results
from entrostat.report.study import FIGURES, as_latex, build_study_report, headline
from entrostat.report.study_reading import read_study
from entrostat.runs import Run, RunError

CURVES = {"naive": [0.2, 0.5, 0.6, 0.1], "es-online": [0.2, 0.5, 0.6, 0.5], "<b>hostile</b>": [0.2, 0.2, 0.2, 0.2]}


def write_campaign(place, curve, hand_over, shift):
    recipe = {"tasks": {"select": 10}}
    run = Run.create(place, recipe, 0, {"policy": "x"}, {})
    for step, p in enumerate(curve):
        if step:
            run.log_step({"step": step, "lr": 1e-3, "seconds": {"update": 1.0}})
        for split in ("select", "report"):
            solved = round(100 * min(1, p + shift * (split == "report")))
            results = [[f"t{i}", 10, solved // 10] for i in range(10)]
            run.log_eval({"step": step, "split": split, "results": results, "seconds": 0.5})
            sample = {"task": "t0", "prompt": "p", "completion": "<script>alert(1)</script>", "outcome": "wrong"}
            run.log_samples(step, split, [sample])
    peak = max(range(len(curve)), key=lambda s: (curve[s], -s))
    steps = {"start": 0, "peak": peak, "end": len(curve) - 1, "handed_over": hand_over(peak, len(curve) - 1)}
    checkpoints = {name: {"digest": "ab" * 32, "step": step} for name, step in steps.items()}
    (place / "outcome.json").write_text(json.dumps({"checkpoints": checkpoints, "confirmed": None, "stopped": False}))


@pytest.fixture
def folder(tmp_path):
    jobs = []
    methods = dict(zip(("naive", "es-online", "third"), CURVES.values(), strict=True))
    for method, curve in methods.items():
        for seed in range(3):
            chain = tmp_path / method / f"seed-{seed}"
            done = 1 if (method, seed) == ("third", 2) else 2
            for number in range(done):
                keep = (lambda peak, end: peak) if method == "es-online" else (lambda peak, end: end)
                write_campaign(chain / f"campaign-{number:02d}", curve, keep, 0.1 * seed)
            jobs.append((method, seed))
    recipe = {"name": "<b>study</b>", "seeds": [0, 1, 2], "campaigns": 2, "methods": {method: {} for method in methods}}
    (tmp_path / "study.json").write_text(json.dumps(recipe))
    write_results(tmp_path, jobs)
    return tmp_path


def test_the_headline_is_the_end_of_the_chain_with_each_seed_and_its_distance_from_the_oracle(folder):
    naive, stopped, third = headline(folder)
    assert naive.end.values == pytest.approx((0.1, 0.2, 0.3))
    assert stopped.end.values == pytest.approx((0.6, 0.7, 0.8))
    assert (naive.gap, stopped.gap) == pytest.approx((0.5, 0.1))
    assert naive.collapsed == 1.0
    assert naive.trace_oracle == pytest.approx(0.7)
    assert stopped.of_oracle == pytest.approx(1.0)
    assert naive.of_oracle == pytest.approx((1 / 6 + 2 / 7 + 3 / 8) / 3)
    assert (naive.steps, naive.evaluations) == (6, 8)
    assert stopped.difference.mean == pytest.approx(0.5)
    assert stopped.p_value == pytest.approx(0.5)  # 3 of 3 wins: .25, and Holm's correction for two methods
    assert third.end.n == 2
    assert "n = 3" in naive.end.note
    assert "Student" in naive.end.note
    assert naive.difference is None


def test_the_page_is_one_file_without_scripts_and_escapes_what_models_and_people_wrote(folder):
    page = build_study_report(folder).read_text()
    assert "<script>" not in page
    assert "&lt;b&gt;study" in page
    assert "&lt;script&gt;" in page
    assert "third, seed 2: 1 of 2 campaigns" in page
    assert "n = 3: Student&#39;s t interval" in page
    assert len(re.findall("<svg", page)) == len(FIGURES)


def test_figures_and_tables_stand_beside_the_page_for_a_paper(folder):
    build_study_report(folder)
    names = {path.name for path in (folder / "report").iterdir()}
    assert {f"{figure.name}.{ending}" for figure in FIGURES for ending in ("png", "pdf")} <= names
    with (folder / "report" / "headline.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["naive", "es-online", "third"]
    assert r"\begin{tabular}{lrrrrrrrrrrrrrr}" in (folder / "report" / "headline.tex").read_text()


def test_panels_share_limits_that_show_every_curve(folder):
    figure = next(figure for figure in FIGURES if figure.name == "ends").draw(read_study(folder))
    for axes in figure.axes[:3]:
        highest = max(value for line in axes.lines for value in line.get_ydata())
        assert axes.get_ylim()[0] == 0
        assert highest <= axes.get_ylim()[1]


def test_latex_escapes_its_special_characters():
    assert r"a\_b & 5\% \\" in as_latex([{"x": "a_b", "y": "5%"}])


def test_every_figure_tells_that_there_is_nothing_to_draw_yet(folder):
    for method in ("naive", "es-online", "third"):
        for seed in range(3):
            for place in (folder / method / f"seed-{seed}").glob("campaign-*/outcome.json"):
                place.unlink()
    write_results(folder, [(method, seed) for method in ("naive", "es-online", "third") for seed in range(3)])
    study = read_study(folder)
    assert [figure.draw(study) for figure in FIGURES] == [None] * len(FIGURES)
    assert headline(folder) == []
    assert "No chain is over yet" in build_study_report(folder).read_text()


def test_a_folder_that_is_no_study_is_refused_by_name(tmp_path):
    with pytest.raises(RunError, match="not a study folder"):
        headline(tmp_path)


def test_the_tables_are_those_that_the_docstring_lists():
    assert list(TABLES) == ["chains", "campaigns", "evaluations", "decisions", "care_memory"]
