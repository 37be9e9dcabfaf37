"""The quantities that detectors look at, and the names that trainers log them under.

Names of TRL 1.16 (`GRPOTrainer`), verl 0.9 (`metric_utils`, `core_algos`), our run folders, and common others. A prefix
`train/`, as Weights & Biases and TensorBoard show Trainer's metrics, is ignored. Where a log has several names of one
quantity, the first below wins.

Left out on purpose: verl's `actor/pg_clipfrac_lower` (the dual clip's share, not the lower side), `actor/ppo_kl` (to
the policy that sampled, not to the reference), and everything of an evaluation but its score.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

LARGEST_STEP = 2**53  # beyond it a float no longer tells two steps apart


@dataclass(frozen=True, slots=True)
class Quantity:
    """meaning: what it is, with its unit. names: what logs call it, best first; `/.../` is a regular expression."""

    meaning: str
    names: tuple[str, ...]


QUANTITIES: Mapping[str, Quantity] = {
    "entropy": Quantity(
        "mean entropy of the policy, nats a token",
        ("entropy", "actor/entropy", "actor/entropy_loss", "policy/entropy", "policy/entropy_avg", "entropy_mean"),
    ),
    "reward": Quantity(
        "mean training reward",
        ("reward", "critic/score/mean", "critic/rewards/mean", "reward_mean", "reward/mean", "objective/scores"),
    ),
    "reward_std": Quantity("standard deviation of the training reward", ("reward_std",)),
    "reward_min": Quantity("least training reward of a batch", ("critic/score/min", "reward_min")),
    "reward_max": Quantity("greatest training reward of a batch", ("critic/score/max", "reward_max")),
    "heldout": Quantity(
        "score on held-out tasks",
        (
            "select",
            "eval_reward",
            "eval/reward",
            r"/val-core\/.+\/acc\/mean@\d+/",
            r"/val-core\/.+\/mean@\d+/",
            r"/val\/test_score(\/.+)?/",
            "pass@1",
            "pass_at_1",
            "pass_at.1",
            "eval/pass@1",
            "eval_pass@1",
            "eval/accuracy",
            "eval_accuracy",
            "eval/score",
            "heldout",
        ),
    ),
    "heldout_error": Quantity("standard error of the held-out score", ("select_error", "heldout_error")),
    "equal_groups": Quantity(
        "share of the groups whose completions all earned the same",
        ("frac_reward_zero_std", "zero_variance_group_frac", "zero_var_group_frac"),
    ),
    "all_right": Quantity("share of the groups that are all right", ("groups.all_right", "all_right")),
    "all_wrong": Quantity("share of the groups that are all wrong", ("groups.all_wrong", "all_wrong")),
    "clip_low": Quantity("share of tokens clipped at the lower side", ("clip_ratio/low_mean", "clip_fraction_low")),
    "clip_high": Quantity("share of tokens clipped at the upper side", ("clip_ratio/high_mean", "clip_fraction_high")),
    "clip": Quantity(
        "share of tokens clipped at either side",
        ("clip_ratio/region_mean", "actor/pg_clipfrac", "clip_ratio", "clip_fraction", "policy/clipfrac_avg"),
    ),
    "length": Quantity(
        "mean completion, tokens",
        ("completions/mean_length", "response_length/mean", "completion_length", "response_length", "length"),
    ),
    "truncated": Quantity(
        "share of the completions cut at the limit",
        ("completions/clipped_ratio", "response_length/clip_ratio", "truncated"),
    ),
    "kl": Quantity(
        "divergence from the reference policy, nats a token",
        ("kl_reference", "kl", "actor/kl_loss", "actor/reward_kl_penalty", "objective/kl", "kl_divergence", "kl_mean"),
    ),
    "grad_norm": Quantity("norm of the gradient before clipping", ("grad_norm", "actor/grad_norm")),
    "learning_rate": Quantity("learning rate", ("learning_rate", "actor/lr", "lr")),
    "loss": Quantity("loss", ("loss", "actor/pg_loss", "policy_loss")),
    **{
        f"flow_{region}": Quantity(f"entropy flow of region {region}", (f"regions.{region}.flow",))
        for region in ("E1", "E2", "E3", "E4")
    },
}

STEP_NAMES = ("step", "global_step", "train/global_step", "trainer/global_step", "training/global_step", "_step")

_NUMPY = re.compile(r"np\.\w+\((.*)\)")
_ABSENT = frozenset({"", "-", "none", "null", "n/a"})

_EXACT: dict[str, tuple[str, int]] = {}
_PATTERNS: list[tuple[re.Pattern[str], str, int]] = []
for _quantity, _entry in QUANTITIES.items():
    for _rank, _name in enumerate(_entry.names):
        if _name.startswith("/"):
            _PATTERNS.append((re.compile(_name[1:-1]), _quantity, _rank))
        else:
            _EXACT[_name] = (_quantity, _rank)


@lru_cache(maxsize=4096)
def recognise(name: str) -> tuple[str, int] | None:
    """The quantity that a log calls `name`, and the rank of that name among its names; None for another column."""
    plain = name.strip()
    plain = plain[6:] if plain.startswith("train/") else plain
    if plain in _EXACT:
        return _EXACT[plain]
    return next(((quantity, rank) for pattern, quantity, rank in _PATTERNS if pattern.fullmatch(plain)), None)


def number(value: Any) -> float | None:
    """`value` as a number, NaN and infinities included; None where nothing was logged.

    Text such as "0.5", "nan" or "np.float64(0.5)" is read as the number it names. ValueError: it names none.
    """
    if value is None or type(value) is float:
        return value
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _ABSENT:
            return None
        wrapped = _NUMPY.fullmatch(text)
        return float(wrapped[1] if wrapped else text)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{value!r} is no number")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def step_of(row: Mapping[str, Any]) -> int | None:
    """The step of a row: a whole number from 0; None where the row has none."""
    for name in STEP_NAMES:
        if name in row:
            try:
                value = number(row[name])
            except ValueError:
                continue
            if value is not None and 0 <= value <= LARGEST_STEP and value == int(value):
                return int(value)
    return None


@dataclass(frozen=True, slots=True)
class Recognised:
    """values: quantity -> value, not always finite. names: quantity -> the columns read. text: columns whose value is
    no number though a number belongs there."""

    values: dict[str, float]
    names: dict[str, tuple[str, ...]]
    text: tuple[str, ...]


def recognise_row(row: Mapping[str, Any]) -> Recognised:
    """The quantities in one row of a log. Columns of the same rank, such as two validation sets, are averaged."""
    found: dict[str, tuple[int, list[tuple[str, float]]]] = {}
    text = []
    for name, value in row.items():
        known = recognise(name)
        if known is None:
            continue
        quantity, rank = known
        try:
            read = number(value)
        except ValueError:
            text.append(name)
            continue
        if read is None:
            continue
        best, columns = found.get(quantity, (rank, []))
        if rank < best:
            found[quantity] = (rank, [(name, read)])
        elif rank == best:
            found[quantity] = (rank, [*columns, (name, read)])
    return Recognised(
        values={quantity: _mean([value for _, value in columns]) for quantity, (_, columns) in found.items()},
        names={quantity: tuple(name for name, _ in columns) for quantity, (_, columns) in found.items()},
        text=tuple(text),
    )


def _mean(values: list[float]) -> float:
    return values[0] if len(values) == 1 else sum(value / len(values) for value in values)
