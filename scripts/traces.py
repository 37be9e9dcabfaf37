"""Compare the traces of two versions: python scripts/traces.py OLD NEW

OLD and NEW hold run folders of the same names, written by the same recipes and seeds with two versions of the package
(one of them from its source: PYTHONPATH=CHECKOUT/src). Of each run that both have, the lines of steps and evaluations
are compared field by field, renamed fields under their current name and without timings, and the weights of its
start, peak and end. A field that differs is shown with its first step and its largest relative difference.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from entrostat.campaign.checkpoints import read_tags
from entrostat.runs.schema import under_new_names

TIMES = {"seconds", "step_time"}


def lines(file: Path) -> dict[tuple, dict[str, Any]]:
    """A file's lines by step, split and tasks."""
    found = {}
    for text in file.read_text().splitlines() if file.exists() else ():
        line = dict(flat(under_new_names(json.loads(text))))
        found[line["step"], line.get("split"), str(line.get("tasks"))] = line
    return found


def flat(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A line's fields, those within a field as `field.inner`."""
    for name, value in line.items():
        if name in TIMES:
            continue
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def apart(one: Any, other: Any) -> float:
    """The relative difference of two numbers; infinite for other things that differ."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return abs(one - other) / max(abs(one), abs(other)) if numbers else float("inf")


def compared(old: dict[tuple, dict[str, Any]], new: dict[tuple, dict[str, Any]]) -> Iterator[str]:
    """What is the same, and each field that differs, in words."""
    both = [key for key in old if key in new]
    names = list(dict.fromkeys(name for key in both for name in (*old[key], *new[key])))
    differing: dict[str, list[tuple[Any, float]]] = {}
    same = 0
    for key in both:
        shared = [name for name in names if name in old[key] and name in new[key]]
        other = [name for name in shared if old[key][name] != new[key][name]]
        same += not other
        for name in other:
            differing.setdefault(name, []).append((key[0], apart(old[key][name], new[key][name])))
    yield f"{same} of {len(both)} lines the same" + "".join(
        f", {len(side) - len(both)} only in {which}"
        for side, which in ((old, "OLD"), (new, "NEW"))
        if len(side) > len(both)
    )
    for name, found in differing.items():
        largest = max(by for _, by in found)
        yield f"  {name}: {len(found)} differ, the first at step {found[0][0]}, by {largest:.1e} at most"
    for which, one, two in (("OLD", old, new), ("NEW", new, old)):
        alone = [
            name
            for name in names
            if all(name not in two[key] for key in both) and any(name in one[key] for key in both)
        ]
        if alone:
            yield f"  only in {which}: {', '.join(alone)}"


def weights(old: Path, new: Path) -> Iterator[str]:
    """Whether the weights are equal that two runs tagged alike."""
    one, other = read_tags(old / "checkpoints"), read_tags(new / "checkpoints")
    for tag in [tag for tag in ("start", "peak", "end") if tag in one and tag in other]:
        files = [file.name for file in one[tag].path.glob("*.safetensors")]
        if files and one[tag].step == other[tag].step:
            pairs = [(load_file(one[tag].path / name), load_file(other[tag].path / name)) for name in files]
            equal = all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)
            yield f"  weights of the {tag}, step {one[tag].step}: {'the same' if equal else 'not the same'}"
        elif one[tag].step != other[tag].step:
            yield f"  the {tag} is step {one[tag].step} in OLD and {other[tag].step} in NEW"


def main(old: Path, new: Path) -> None:
    """Compare every run that OLD and NEW both have."""
    runs = sorted(file.parent.relative_to(old) for file in old.rglob("run.json"))
    for run in runs:
        if not (new / run / "run.json").exists():
            print(f"{run}: only in OLD")
            continue
        for name in ("steps.jsonl", "evals.jsonl"):
            first, *more = compared(lines(old / run / name), lines(new / run / name))
            print(f"{run} {name}: {first}", *more, sep="\n")
        for said in weights(old / run, new / run):
            print(said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
