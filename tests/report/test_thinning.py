"""Thinned curves: bounded in length, and nothing that a reader would see is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.report import PANELS, draw_panel, read_run
from entrostat.report.panel import extremes, summed
from entrostat.report.style import svg

curves = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), min_size=1, max_size=3).map(
    lambda many: [curve[: min(map(len, many))] for curve in many]
)


@given(curves, st.integers(1, 20))
def test_every_stretch_keeps_its_highest_and_lowest_point_and_the_ends_stay(many: list[list[float]], stretches: int):
    length = len(many[0])
    kept = extremes(*many, stretches=stretches)
    assert kept[0] == 0
    assert kept[-1] == length - 1
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= max(2 * stretches, 2 + 2 * stretches * len(many))
    for curve in many:
        for stretch in np.array_split(np.arange(length), stretches) if length > 2 * stretches else ():
            shown = [curve[index] for index in kept if stretch[0] <= index <= stretch[-1]]
            whole = [curve[index] for index in stretch]
            assert (min(shown), max(shown)) == (min(whole), max(whole))


@given(st.integers(1, 500), st.integers(1, 30))
def test_summed_columns_lose_no_count(length: int, stretches: int):
    counts = np.random.default_rng(length).integers(0, 9, (3, length)).astype(float)
    ends, sums = summed(counts, stretches)
    assert sums.sum(axis=1) == pytest.approx(counts.sum(axis=1))
    assert ends[-1] == length - 1
    assert len(ends) == sums.shape[1] <= max(2 * stretches, stretches)


def test_a_spike_in_a_long_run_is_still_drawn_and_the_figure_stays_small(make):
    run = make(steps=0)
    for step in range(1, 3001):
        run.log_step({"step": step, "grad_norm": 500.0 if step == 1234 else 1.0 + step % 7, "lr": 0.1})
    panel = next(panel for panel in PANELS if panel.title == "What may announce a cliff")
    figure = draw_panel(panel, read_run(run.path, "run"))
    (line,) = [line for axes in figure.axes for line in axes.lines]
    assert [1234, 500.0] in line.get_xydata().tolist()
    assert len(svg(figure, "a")) < 60_000
