"""Write docs/papers.md: every published method with its equation, recipe, source, what it was compared with, and why
it departs.

    python scripts/papers.py            print the page
    python scripts/papers.py --write    write it

All of it is read from the registries' docstrings, the published recipes and benchmarks/methods/parity.csv.
"""

import argparse
import csv
import inspect
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from entrostat.objective.regularisers import kl_cov_penalty
from entrostat.recipe.methods import ADVANTAGES, BONUSES, CORRECTIONS, OBJECTIVES, REWEIGHTINGS, STRATEGIES
from entrostat.recipe.published import PUBLISHED

ROOT = Path(__file__).parent.parent
PAGE, PARITY = ROOT / "docs" / "papers.md", ROOT / "benchmarks" / "methods" / "parity.csv"
COST = ROOT / "benchmarks" / "control" / "methods.csv"
TABLES = {
    "update.objective": OBJECTIVES,
    "control.strategy": STRATEGIES,
    "control.reweighting": REWEIGHTINGS,
    "control.bonus": BONUSES,
    "control.correction": CORRECTIONS,
    "update.advantage": ADVANTAGES,
}
HEAD = """# Published methods

What a recipe calls by an author's name, where the rule comes from, and how ours was held against theirs. Every row is
read from the method's docstring (`entrostat methods NAME` has all of it), and the differences from
`scripts/method_parity.py`, which runs the code of the authors, or of a public trainer, on the same float32 tokens: the
largest difference of the loss and of the gradient, whose entries are about 1 and .1. "Its equation, in float64": the
largest difference from plain loops over the tokens, written from the paper, on 20 random batches of ragged completions
whose masks have holes (`scripts/parity/equations.py`). "Formula": neither, and the tests in `tests/objective` and
`tests/control` hold the method against its equation. No public code was found (searched again on 1 December 2026) of
ADAPO, RIPO, NSR, GEPO, OPEFO, ESTR and MAI's controller; that of QAE and ABC-GRPO was not to be had. Cost: the extra
CPU time beside plain GRPO as a share of an optimizer step of the embedded engine, the median of 60 rounds, below 0
where a method does less than the clip ([how, and the intervals](../benchmarks/control/README.md)). `entrostat init
--published NAME` writes the recipe with the authors' settings; the list under the table says what is ours in it.
`scripts/papers.py --write` makes this page.

| method | rule | recipe | source | compared with | loss, gradient | cost | departs |
|---|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    lines = [row for key, table in TABLES.items() for row in _rows(key, table)]
    chosen = [
        f"* `{name}`: {each.about} Ours: {each.chosen}." if each.chosen else f"* `{name}`: {each.about}"
        for name, each in sorted(PUBLISHED.items())
    ]
    return HEAD + "\n".join(lines) + "\n\n## Recipes\n\n" + "\n".join(chosen) + "\n"


def _rows(key: str, table: object) -> Iterator[str]:
    listed = [(name, table[name]) for name in table]  # type: ignore[index,attr-defined]
    if key == "update.objective":
        listed.append(("kl-cov", kl_cov_penalty))
    for name, method in listed:
        source = method.func if isinstance(method, partial) else method
        text = " ".join(inspect.cleandoc(source.__doc__ or "").split())
        found = re.search(r"Sources?: (.*?)(?= Departs:| Raises? | ValueError|$)", text)
        if not found or (not re.search("arXiv|report", found[1]) and key != "control.correction"):
            continue
        departs = re.search(r"Departs: (.*?)(?= Raises? ValueError|$)", text)
        recipes = ", ".join(f"`{recipe}`" for recipe, each in PUBLISHED.items() if each.method == name)
        compared, difference = _parity(name)
        rule = text[: found.start()].strip().partition(". ")[0].rstrip(".:")
        named = (f"`{name}`<br>{key}", rule, recipes, found[1].rstrip(". "))
        cells = (*named, compared or "formula", difference, _cost(key, name))
        yield "| " + " | ".join(_cell(each) for each in (*cells, departs[1].rstrip(". ") if departs else "")) + " |"


def _parity(name: str) -> tuple[str, str]:
    """What a method was compared with, and the largest differences of the loss and of the gradient."""
    with PARITY.open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["method"] == name]
    places = dict.fromkeys(f"{row['repository']}:{row['file']}".lstrip(":") for row in rows)
    largest = [f"{max(float(row[part]) for row in rows):.0e}" for part in ("loss", "gradient")] if rows else []
    return ", ".join(places), ", ".join(largest)


def _cost(key: str, name: str) -> str:
    """The extra cost of a method per step, where it was measured."""
    kind = key.rpartition(".")[2]
    with COST.open(encoding="utf-8") as stream:
        shares = {(row["kind"], row["method"]): row["share_of_step"] for row in csv.DictReader(stream)}
    return shares.get((kind, name), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("&lt;br>", "<br>")


def main() -> None:
    """Print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/papers.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
