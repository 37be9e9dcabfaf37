"""Side by side: what differs in recipes, how far apart two runs end, and one scale for both."""

from itertools import pairwise
from pathlib import Path

import pytest

from entrostat.report import PANELS, draw_panel, read_runs
from entrostat.report.html import differing_settings, handed_over_difference
from entrostat.report.panel import on_one_scale
from entrostat.report.style import LABEL_GAP
from entrostat.runs import Run


def test_only_what_differs_is_listed(make):
    runs = read_runs([make("a", steps=3).path, make("b", steps=3, strategy="id", seed=7).path])
    assert [(each.key, each.values) for each in differing_settings(runs)] == [
        ("strategy", ("constant", "id")),
        ("seed", ("0", "7")),
    ]
    assert differing_settings(runs[:1] * 2) == []


def test_a_method_against_another_is_one_line_and_the_same_method_is_compared_by_its_settings(tmp_path: Path):
    strategies = (None, {"name": "id", "split": 0.5}, {"name": "id", "split": 0.4})
    paths = [tmp_path / str(number) for number in range(3)]
    for path, strategy in zip(paths, strategies, strict=True):
        Run.create(path, {"name": path.name, "control": {"strategy": strategy}}, 0, {}, {})
    nothing, half, less = read_runs(paths)
    assert [(each.key, each.values) for each in differing_settings([nothing, half])] == [
        ("control.strategy", ("null", "id"))
    ]
    assert [(each.key, each.values) for each in differing_settings([half, less])] == [
        ("control.strategy.split", ("0.5", "0.4"))
    ]


def test_the_difference_is_of_the_checkpoints_handed_over_task_by_task(make):
    first, second = read_runs([make("a").path, make("b", collapse=False, strategy="id").path])
    found = handed_over_difference(first, second)
    assert found.n == 30
    assert found.mean == pytest.approx(second.report.end - first.report.end)
    assert found.low < found.mean < found.high
    assert handed_over_difference(second, first).mean == pytest.approx(-found.mean)
    assert handed_over_difference(first, first).mean == 0.0


def test_a_run_that_rolled_back_is_compared_by_its_peak(make):
    first, second = read_runs([make("a", stop=26).path, make("b").path])
    peak = first.report.at(first.decisions[-1]["to_step"])
    assert handed_over_difference(first, second).mean == pytest.approx(second.report.end - peak)


def test_runs_without_a_common_task_are_not_compared(make):
    first, second = read_runs([make("a", steps=2, splits=()).path, make("b", steps=2).path])
    assert handed_over_difference(first, second) is None


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_both_figures_of_a_pair_have_the_same_limits_and_their_labels_stay_in_place(make, panel):
    runs = read_runs([make("a", strategy="id").path, make("b", strategy="id", steps=20, collapse=False).path])
    figures = [draw_panel(panel, run) for run in runs]
    on_one_scale(figures)
    for left, right in zip(*(figure.axes for figure in figures), strict=True):
        assert left.get_xlim() == right.get_xlim() == (0, 40)
        assert left.get_ylim() == right.get_ylim()
    for figure in figures:
        figure.canvas.draw()
        for axes in figure.axes:
            box = axes.get_window_extent()
            ends = [text for text in axes.texts if text.get_window_extent().x0 > box.x1]
            heights = sorted(72 / figure.dpi * text.get_window_extent().y0 for text in ends)
            assert all(after - before > 0.9 * LABEL_GAP for before, after in pairwise(heights))
