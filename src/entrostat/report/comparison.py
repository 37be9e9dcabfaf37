"""Two or more runs side by side: how their recipes differ, and how far apart two of them end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrostat.report.reading import RunData, handed_over_step
from entrostat.runs import Estimate, paired_interval, pass_at_k


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the recipe whose value differs between runs, and its value in each."""

    key: str
    values: tuple[str, ...]


def differing_settings(runs: Sequence[RunData]) -> list[Setting]:
    """How the recipes, seeds and inputs of runs differ; different methods are compared by name only."""
    flat = [_flat({**run.run.recipe, "seed": run.run.seed, "inputs": _digests(run)}) for run in runs]
    shared = [key for key in flat[0] if key != "name" and all(key in recipe for recipe in flat)]
    settings = [Setting(key, tuple(recipe[key] for recipe in flat)) for key in shared]
    return [setting for setting in settings if len(set(setting.values)) > 1]


def handed_over_difference(first: RunData, second: RunData) -> Estimate | None:
    """pass@1 of what `second` hands over minus that of `first`, with an interval over the report tasks they share.

    None if the two share no task, or a run did not evaluate the checkpoint that it hands over.
    """
    counts = [_counts(run) for run in (first, second)]
    shared = [task for task in counts[0] if task in counts[1]]
    if not shared:
        return None
    before, after = ([pass_at_k(*own[task], 1) for task in shared] for own in counts)
    return paired_interval(after, before)


def _counts(run: RunData) -> dict[str, tuple[int, int]]:
    step = handed_over_step(run)
    lines = [line for line in run.evals if line["split"] == "report" and line["step"] == step]
    return {task: (n, c) for task, n, c in lines[-1]["results"]} if lines else {}


def _digests(run: RunData) -> dict[str, str]:
    return {name: digest[:12] for name, digest in run.run.hashes.items()}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and values as text; a method's key holds its name."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            own = {inner: each for inner, each in value.items() if inner != "name"}
            flat |= {f"{prefix}{key}": str(value["name"])} if "name" in value else {}
            flat |= _flat(own, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = "null" if value is None else str(value)
    return flat
