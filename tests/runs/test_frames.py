"""Lines of a run as a table: one row per line, nested values in columns of their own."""

import sys
from types import ModuleType

import pytest

from entrostat.runs import Run
from entrostat.runs.html import FrameError, frame

LINES = [{"step": 1, "regions": {"E1": {"flow": 0.5}}, "results": [1, 2]}, {"step": 2, "entropy": 0.1}]


@pytest.fixture
def tables(monkeypatch):
    """Stand-ins for both libraries, whose DataFrame shows what it was given."""
    for name in ("pandas", "polars"):
        module = ModuleType(name)
        module.DataFrame = lambda rows, **options: (rows, options)
        monkeypatch.setitem(sys.modules, name, module)


def test_a_nested_value_has_its_own_column_and_lists_have_none(tables):
    rows, options = frame(LINES)
    assert rows == [{"step": 1, "regions.E1.flow": 0.5}, {"step": 2, "entropy": 0.1}]
    assert options == {}


def test_polars_reads_every_row_for_the_types(tables):
    assert frame(LINES, "polars") == (frame(LINES)[0], {"infer_schema_length": None})


def test_a_run_gives_its_steps_and_evaluations(tables, tmp_path):
    run = Run.create(tmp_path / "run", {"name": "a"}, 0, {}, {})
    run.log_step({"step": 1, "entropy": 0.2})
    assert run.steps_frame()[0][0]["entropy"] == 0.2
    assert run.evals_frame("report") == ([], {})


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(FrameError, match="pip install polars"):
        frame(LINES, "polars")
    with pytest.raises(ValueError, match="choose pandas or polars"):
        frame(LINES, "excel")


def test_pandas_itself():
    pandas = pytest.importorskip("pandas")
    table = frame(LINES)
    assert list(table.columns) == ["step", "regions.E1.flow", "entropy"]
    assert pandas.isna(table.loc[1, "regions.E1.flow"])
