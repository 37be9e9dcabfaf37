import csv
import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.report import (
    PANELS,
    PLOTS,
    NotMeasuredError,
    draw_panel,
    overview_figure,
    plot,
    read_run,
    read_runs,
    save_figure,
)
from entrostat.report.panel import as_csv, drawn_data
from entrostat.report.style import PALETTE, _spread, new_figure, short, svg


def panel(title: str):
    return next(panel for panel in PANELS if panel.title == title)


def curves(axes) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines if line.get_visible()]


def words(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_every_panel_is_drawn_from_a_whole_run(make):
    run = read_run(make(strategy="id").path, "run")
    for each in PANELS:
        assert draw_panel(each, run).axes


def test_pass_at_1_shows_both_splits_and_marks_start_peak_and_end(make):
    run = read_run(make().path, "run")
    figure = draw_panel(panel("pass@1"), run)
    drawn = curves(figure.axes[0])
    assert (list(run.select.steps), list(run.select.pass_at_1)) in drawn
    assert (list(run.report.steps), list(run.report.pass_at_1)) in drawn
    for step in (0, run.select.peak_step, 40):
        assert ([step], [run.report.at(step)]) in drawn
    assert f"peak {run.collapse.peak:.0%}" in words(figure)


def test_the_noise_floor_is_a_band_below_the_peak(make):
    run = read_run(make().path, "run")
    (band,) = draw_panel(panel("pass@1"), run).axes[0].collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(run.collapse.peak)
    assert corners[:, 1].min() == pytest.approx(run.collapse.peak - run.collapse.noise_floor)
    assert corners[:, 0].min() == run.collapse.peak_step


def test_a_stop_and_a_roll_back_are_marked_where_they_happened(make):
    run = read_run(make(stop=26).path, "run")
    figure = draw_panel(panel("pass@1"), run)
    assert ([26, 26], [0, 1]) in curves(figure.axes[0])
    assert f"back to {run.decisions[-1]['to_step']}" in words(figure)


def test_phases_are_the_background_of_entropy(make):
    run = read_run(make(strategy="id").path, "run")
    axes = draw_panel(panel("Entropy"), run).axes[0]
    stretches = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert stretches == [(0, 20), (20, 40)]
    assert [text.get_text() for text in axes.texts][:2] == ["increase", "decrease"]


def test_a_single_phase_needs_no_background(make):
    assert not draw_panel(panel("Entropy"), read_run(make().path, "run")).axes[0].patches


def test_the_entropy_that_control_steers_to_is_drawn_beside_the_entropy(make):
    run, aims = make(steps=0), [0.6, 0.2, 0.4, 0.6]
    run.log_step({"step": 1, "entropy": 0.25})
    for step, aim in enumerate(aims, 2):
        run.log_step({"step": step, "entropy": 0.25, "entropy_target": aim})
    assert curves(draw_panel(panel("Entropy"), read_run(run.path, "run")).axes[0])[1] == ([2, 3, 4, 5], aims)


def test_no_curve_is_drawn_where_control_steers_to_none(make):
    assert len(curves(draw_panel(panel("Entropy"), read_run(make().path, "run")).axes[0])) == 1


def test_verdict_shares_fill_the_whole(make):
    figure = draw_panel(panel("Verdicts"), read_run(make().path, "run"))
    tops = [max(path.vertices[:, 1].max() for path in area.get_paths()) for area in figure.axes[0].collections]
    assert max(tops) == pytest.approx(1.0)


def test_an_unknown_verdict_is_drawn_and_named(make):
    run = make(steps=0)
    for step in (1, 2):
        run.log_step({"step": step, "verdicts": {"passed": 1, "eaten by the dog": 3}})
    assert "eaten by the dog" in words(draw_panel(panel("Verdicts"), read_run(run.path, "run")))


def test_bounds_are_drawn_on_the_ratio_for_both_ends_of_probability(make):
    run = read_run(make(strategy="id").path, "run")
    drawn = [values for _, values in curves(draw_panel(panel("Bounds in force"), run).axes[0])]
    first = run.steps[0]["bounds"]
    assert sorted(values[0] for values in drawn if len(values) > 2) == pytest.approx(
        [
            1 - first["lower_intercept"],
            1 - first["lower_intercept"] - first["lower_slope"],
            1 + first["upper_intercept"] + first["upper_slope"],
            1 + first["upper_intercept"],
        ]
    )


def test_net_flow_is_the_sum_of_both_directions(make):
    run = read_run(make().path, "run")
    (net,) = [values for _, values in curves(draw_panel(panel("Entropy flow"), run).axes[0]) if len(values) > 2]
    assert net == pytest.approx([line["flow_up"] + line["flow_down"] for line in run.steps])


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 0, "splits": ()}, {"steps": 1, "splits": ("select",)}])
def test_what_was_not_measured_is_said_and_not_drawn(make, options: dict):
    run = read_run(make(**options).path, "run")
    for each in PANELS:
        with pytest.raises(NotMeasuredError, match=r"\.$"):
            draw_panel(each, run)


@pytest.mark.parametrize(
    "field", ["entropy", "flow_up", "regions", "verdicts", "length", "truncated", "phase", "bounds"]
)
def test_a_host_that_lacks_a_field_gets_every_other_figure(make, field: str):
    full, bare = make("full", strategy="id"), make("bare", steps=0)
    for line in full.steps():
        bare.log_step({name: value for name, value in line.items() if name != field})
    for line in full.evals():
        if line["step"]:
            bare.log_eval(line)
    drawn = 0
    for each in PANELS:
        try:
            draw_panel(each, read_run(bare.path, "run"))
            drawn += 1
        except NotMeasuredError:
            continue
    assert drawn >= len(PANELS) - 2


def test_runs_are_compared_in_one_picture_and_named_at_their_ends(make):
    paths = [make("reinforce").path, make("early-stop", stop=26).path, make("id", strategy="id").path]
    figure = overview_figure(read_runs(paths))
    assert len({line.get_color() for line in figure.axes[0].lines}) == 3
    for axes in figure.axes:
        assert sorted(text.get_text() for text in axes.texts) == ["early-stop", "id", "reinforce"]


def test_comparing_runs_that_measured_nothing_is_refused(make):
    with pytest.raises(NotMeasuredError):
        overview_figure(read_runs([make(steps=0, splits=()).path]))


def test_colours_in_a_page_are_variables_that_follow_light_and_dark(make):
    drawing = svg(draw_panel(panel("Verdicts"), read_run(make().path, "run")), "a")
    assert not [light for light, _ in PALETTE.values() if light in drawing]
    assert "var(--green)" in drawing


def test_identifiers_of_two_figures_in_a_page_do_not_clash(make):
    run = read_run(make(strategy="id").path, "run")
    drawings = [svg(draw_panel(each, run), str(number)) for number, each in enumerate(PANELS)]
    references = [set(re.findall(r'(?:url\(#|href="#)([^")]+)', drawing)) for drawing in drawings]
    assert any(references)
    for index, found in enumerate(references):
        for other in references[:index]:
            assert not found & other


def test_the_palette_is_told_apart_and_light_enough_in_the_dark():
    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for side in (0, 1):
        assert len({pair[side] for pair in PALETTE.values()}) == len(PALETTE)
        ground = luminance(PALETTE["surface"][side])
        for name, pair in PALETTE.items():
            if name not in ("surface", "grid"):
                light, dark = sorted((ground, luminance(pair[side])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 3.0, name


@given(st.lists(st.floats(0, 100), max_size=9).map(sorted), st.floats(1, 15))
def test_labels_are_moved_apart_in_order_and_stay_inside_where_they_fit(places: list[float], gap: float):
    moved = _spread(places, gap, 100.0)
    assert len(moved) == len(places)
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(moved))
    if gap * (len(places) - 1) <= 100.0:
        assert all(-1e-9 <= place <= 100.0 + 1e-9 for place in moved)
    if all(after - before >= gap for before, after in pairwise(places)):
        assert moved == pytest.approx(places)


def test_a_dollar_sign_in_a_name_is_no_formula(make, tmp_path: Path):
    paths = [make("a$_b^{$", steps=3).path, make("<b>&amp;", steps=3).path]
    figure = overview_figure(read_runs(paths))
    assert save_figure(figure, tmp_path / "o.png").stat().st_size > 10_000
    assert "a$_b^{$" in svg(figure, "x")
    assert "&lt;b&gt;&amp;amp;" in svg(figure, "x")


def test_drawing_leaves_the_callers_settings_alone(make):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    svg(draw_panel(panel("Entropy"), read_run(make().path, "run")), "a")
    new_figure()
    assert dict(mpl.rcParams) == before


@given(st.text(max_size=60))
def test_a_label_is_short_and_drawable(text: str):
    label = short(text)
    assert len(label) <= 28
    assert label.isprintable()
    if text.isprintable() and len(text) <= 28:
        assert label == text


@pytest.mark.parametrize("title", [each.title for each in PANELS])
def test_the_data_of_a_panel_are_what_is_drawn_under_names(make, title):
    run = read_run(make(strategy="id").path, "run")
    figure = draw_panel(panel(title), run)
    curves = drawn_data(figure)
    assert curves
    head, *rows = csv.reader(io.StringIO(as_csv(curves)))
    assert head == ["step", *curves]
    read = {
        name: {int(row[0]): float(row[place]) for row in rows if row[place]} for place, name in enumerate(head[1:], 1)
    }
    assert read == curves
    drawn = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) > 2 and line.get_visible()]
    for line in drawn:
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == pytest.approx(
            curves[line.get_label()], rel=1e-3
        )
    if title == "Verdicts":
        assert sum(values[20] for values in curves.values()) == pytest.approx(1, abs=1e-3)


def test_a_figure_is_had_by_its_name(make):
    path = make(strategy="id").path
    for name in PLOTS:
        assert plot(name.upper(), path).axes
    with pytest.raises(ValueError, match="choose one of pass@1, Entropy"):
        plot("Entrpy", path)
