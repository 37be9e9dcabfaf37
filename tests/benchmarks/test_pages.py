"""Tables of the benchmarks are made of their data, and a table with figures that no data make is found."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# not by sys.path: with benchmarks/ on it, benchmarks/trl would pass for the package trl in every later test
SPEC = spec_from_file_location("pages", ROOT / "benchmarks" / "pages.py")
pages = module_from_spec(SPEC)
SPEC.loader.exec_module(pages)

PAGES = [*ROOT.glob("benchmarks/*/README.md"), *ROOT.glob("studies/*/README.md")]


def texts() -> dict[Path, bytes]:
    return {page: page.read_bytes() for page in PAGES}


def test_the_pages_say_what_the_data_say():
    before = texts()
    pages.write_pages()
    assert texts() == before


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_no_table_has_figures_of_its_own(page: Path):
    assert pages.unmade(page, pages.mutation_rows() if page.parent.name == "mutation" else "") == []


@pytest.mark.parametrize("row", ["| a | 0.5 |", "| a | .5 [.4, .6] |", "| 12 % | a |", "| -1.2 to 3 |"])
def test_a_row_of_figures_is_found_unless_data_make_it_or_it_is_given(tmp_path: Path, row: str):
    page = tmp_path / "README.md"
    page.write_text(f"# Page\n\n| a | b |\n|---|---|\n{row}\n")
    assert pages.unmade(page) == [row]
    assert pages.unmade(page, f"| other |\n{row}\n") == []
    for begin in ("<!-- given -->", "<!-- table: one -->"):
        page.write_text(f"{begin}\n\n{row}\n\n<!-- end -->\n")
        assert pages.unmade(page) == []


def test_figures_in_names_and_code_are_none():
    page = ROOT / "CHANGELOG.md"
    assert not pages.FIGURE.search("| qwen2.5 | v0.1 |")
    assert pages.unmade(page) == []


@pytest.mark.parametrize(("ours", "theirs"), [([1.0, 2.0, 3.0], [1.1, 2.1, 3.2]), ([5.0, 5.1], [1.0, 1.2])])
def test_welchs_interval_holds_the_difference_and_turns_with_it(ours: list[float], theirs: list[float]):
    mean, low, high = (float(x.strip("[],")) for x in pages.welch(ours, theirs).split())
    back, other_low, other_high = (float(x.strip("[],")) for x in pages.welch(theirs, ours).split())
    assert low < mean < high
    assert (back, other_low, other_high) == (-mean, -high, -low)
