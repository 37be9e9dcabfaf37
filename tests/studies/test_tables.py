"""Studies are read from the data that they commit: the same bytes again, nothing lost, and a README that agrees."""

import gzip
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]


def module(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "studies" / f"{name}.py")
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


tables = module("tables")
ROWS = [{"condition": "a", "seed": 0, "value": 1 / 3}, {"condition": "b", "seed": 1, "value": None}]
README = "# Study\n\n<!-- table: one -->\n<!-- end -->\n\nIt rose by .31 [.20, .42].\n"


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_rows_come_back_and_are_written_the_same(tmp_path: Path, name: str):
    file, other = tmp_path / name, tmp_path / f"other-{name}"
    tables.write_rows(file, ROWS)
    found = tables.read_rows(file)
    assert found == [{**ROWS[0], "value": 0.3333}, ROWS[1]]
    tables.write_rows(other, found)
    assert other.read_bytes() == file.read_bytes()


def test_a_file_that_says_the_same_is_left_alone_whatever_compressed_it(tmp_path: Path):
    file = tmp_path / "rows.csv.gz"
    tables.write_rows(file, ROWS)
    foreign = gzip.compress(gzip.decompress(file.read_bytes()), compresslevel=1, mtime=7)
    file.write_bytes(foreign)
    tables.write_rows(file, ROWS)
    assert file.read_bytes() == foreign


@pytest.mark.parametrize("rows", [[], [{"a": 1}, {"b": 2}], [{"a": 1}, {"a": 1, "b": 2}]])
def test_rows_that_make_no_table_leave_the_file_intact(tmp_path: Path, rows: list):
    file = tmp_path / "rows.csv"
    tables.write_rows(file, ROWS)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="rows"):
        tables.write_rows(file, rows)
    assert file.read_bytes() == before


def test_runs_no_longer_at_hand_stay_and_measured_ones_are_replaced(tmp_path: Path):
    file, keys = tmp_path / "rows.csv", ("condition", "seed")
    tables.write_rows(file, [{"condition": "b", "seed": 1, "value": 1}, {"condition": "a", "seed": 0, "value": 2}])
    tables.add_rows(file, [], keys, ["a", "b"])
    tables.add_rows(file, [{"condition": "b", "seed": 1, "value": 3}], keys, ["a", "b"])
    assert [(row["condition"], row["value"]) for row in tables.read_rows(file)] == [("a", 2), ("b", 3)]


def test_a_readme_holds_its_tables_between_their_markers(tmp_path: Path):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    for _ in range(2):
        tables.fill(readme, {"one": "| 0.314 [0.196, 0.424] |"})
        assert readme.read_text().count("| 0.314 [0.196, 0.424] |") == 1
    assert readme.read_text().endswith("It rose by .31 [.20, .42].\n")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"one": "| 0.318 [0.196, 0.424] |"}, r"\.31 \[\.20, \.42\]"),
        ({"one": "| 0.31 [0.20, 0.42] |", "two": ""}, "two"),
        ({}, "one"),
    ],
)
def test_a_readme_that_disagrees_is_refused_and_left_intact(tmp_path: Path, made: dict, message: str):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    with pytest.raises(ValueError, match=message):
        tables.fill(readme, made)
    assert readme.read_text() == README


def test_intervals_are_found_with_signs_turned_and_over_a_line_break():
    assert tables.unfounded("ends .24\n[.09, .40] below", "-0.245 [-0.399, -0.090]") == []
    assert tables.unfounded("ends .24 [.09, .40] above", "0.245 [0.090, 0.410]") == [".24 [.09, .40]"]


def test_a_figure_is_drawn_anew_only_for_other_data(tmp_path: Path):
    file, drawn = tmp_path / "figure.png", []

    def draw(data: list) -> Figure:
        drawn.append(data)
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot(data)
        return figure

    tables.draw(file, [1.0, 2.0], draw)
    before = file.read_bytes()
    tables.draw(file, [1.0, 2.0], draw)
    assert (len(drawn), file.read_bytes()) == (1, before)
    tables.draw(file, [1.0, 3.0], draw)
    assert len(drawn) == 2
    assert file.read_bytes() != before


def test_reading_changes_nothing_until_the_data_change(tmp_path: Path):
    place = tmp_path / "studies"
    place.mkdir()
    for name in ("common.py", "tables.py"):
        shutil.copy(ROOT / "studies" / name, place / name)
    study = shutil.copytree(ROOT / "studies" / "polarity-branches", place / "polarity-branches")

    def read() -> dict[str, bytes]:
        command = [sys.executable, str(study / "study.py"), "read"]
        subprocess.run(command, check=False, cwd=tmp_path, capture_output=True)
        return {file.name: file.read_bytes() for file in study.glob("*.*")}

    before = {file.name: file.read_bytes() for file in study.glob("*.*")}
    assert read() == before
    data = (study / "results.csv").read_text()
    (study / "results.csv").write_text(data.replace("both,0,0.1075", "both,0,0.3075"))
    after = read()
    assert {name for name in before if after[name] != before[name]} > {"results.csv", "contrasts.csv", "README.md"}


COLLECT = """
import pathlib, runpy, sys
for study in sys.argv[1:]:
    sys.path.insert(0, str(pathlib.Path(study).parent))
    collect = runpy.run_path(study).get("collect")
    if collect and not collect.__code__.co_argcount:
        collect()
        print(study)
"""


def test_where_no_run_is_at_hand_collecting_leaves_what_was_measured(tmp_path: Path):
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    # early-stop has no runs of its own: it replays the evaluations of staleness
    studies = [str(file) for file in sorted(tmp_path.glob("studies/*/study.py")) if file.parent.name != "early-stop"]
    collected = subprocess.check_output([sys.executable, "-c", COLLECT, *studies], cwd=tmp_path, text=True)
    assert len(collected.split()) > 10
    for file in (ROOT / "studies").glob("*/*.csv*"):
        assert (tmp_path / file.relative_to(ROOT)).read_bytes() == file.read_bytes(), file
