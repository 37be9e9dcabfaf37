"""The figures on the page of what is shown are those of the studies' tables, and README claims nothing beyond them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from entrostat.runs import mean_interval
from entrostat.runs.inference import FEW

ROOT = Path(__file__).parents[1]
SHOWN = (ROOT / "docs" / "shown.md").read_text()
CLIFF, STRATEGIES, CHAINS = "what-makes-the-cliff/results", "entropy-strategies/results", "rise-and-collapse/campaigns"
PREDICTION = "polarity-prediction/results"
TABLE, TABLE_PREDICTION = "tabular-policy/results", "tabular-policy/prediction"
STALE_NETWORK = "staleness/network"
EMBEDDED = "thermostat-embedded/results"
THERMOSTAT, ON_CURVE, LET_GO = "thermostat/results", "target-weights, up and down", "target-weights, hold, let go"
BRANCHES, CONTROL, REGIONS = "polarity-branches/results", "polarity-control/results", "regions/results"

# table, column, condition, and the condition that it is less than, if any; digits
CLAIMS = [
    (CLIFF, "peak", "as in the demo", None, 2),
    (CLIFF, "gap", "as in the demo", None, 2),
    (CLIFF, "gap", "one pass per batch", None, 2),
    (CLIFF, "gap", "rewards 0 and 1", None, 2),
    (CLIFF, "gap", "rewards 0 and 1", "as in the demo", 2),
    (CLIFF, "gap", "clip at .2", None, 2),
    (CLIFF, "gap", "clip at .2", "as in the demo", 2),
    (CLIFF, "gap", "GRPO, ID, 5e-4", None, 2),
    (CLIFF, "gap", "GRPO, 5e-4", None, 2),
    (CLIFF, "gap", "GRPO, ID", None, 2),
    (CLIFF, "gap", "GRPO, clip at .2", None, 2),
    (CLIFF, "gap", "GRPO, ID", "GRPO, clip at .2", 2),
    *((REGIONS, "entropy_last", f"clip {region}, surprisal", "standard", 3) for region in ("E1", "E2", "E3", "E4")),
    *((REGIONS, "entropy_last", f"clip {region}, probability", "standard", 3) for region in ("E1", "E2", "E3", "E4")),
    (STRATEGIES, "entropy_middle", "ID", "GRPO", 3),
    *((STRATEGIES, "entropy_end", name, "GRPO", 3) for name in ("ID", "DID", "OD")),
    *((STRATEGIES, "entropy_end", name, "GRPO", 3) for name in ("adaptive bonus, constant", "target, constant")),
    (STRATEGIES, "entropy_end", "entropy bonus", "GRPO", 3),
    (STRATEGIES, "entropy_end", "GRPO", None, 3),
    (STRATEGIES, "pass_32_middle", "ID", "GRPO", 3),
    *(
        (STRATEGIES, "pass_1", name, "GRPO", 3)
        for name in ("adaptive bonus, constant", "target, constant", "entropy bonus")
    ),
    *(
        (STRATEGIES, f"error, {curve}", f"target, {curve}", "GRPO", 3)
        for curve in ("constant", "falling line", "rise then fall")
    ),
    (STRATEGIES, "error, constant", "adaptive bonus, constant", None, 3),
    (STRATEGIES, "error, constant", "GRPO", None, 3),
    (BRANCHES, "entropy", "expanding only", "both", 3),
    (BRANCHES, "entropy", "contracting only", "both", 3),
    (BRANCHES, "pass_1", "contracting only", "both", 3),
    (BRANCHES, "pass_16", "contracting only", "both", 3),
    *(
        (PREDICTION, "correlation", f"{condition}: {predictor}", None, 2)
        for condition in ("on-policy", "four passes, 2e-4")
        for predictor in ("flow", "last change")
    ),
    (CONTROL, "pass_1", "polarity-aware, hold", "GRPO", 3),
    (CONTROL, "pass_1", "polarity-aware, rewarded", "GRPO", 3),
    (CONTROL, "pass_8", "polarity-aware, rewarded", "GRPO", 3),
    *((CHAINS, "handed_over", name, "naive", 3) for name in ("es-online", "grpo", "care-v2", "care-v1", "kl-fixed")),
    (CHAINS, "handed_over", "ewc-style", "naive", 3),
    (CHAINS, "handed_over", "crest", None, 3),
    (CHAINS, "handed_over", "es-online", None, 3),
    (CHAINS, "handed_over", "crest", "es-online", 3),
    *(
        (STALE_NETWORK, "pass_1", f"network, {name}", "network, 8 updates old", 3)
        for name in ("OPSM", "ratio clipped at .2")
    ),
    (STALE_NETWORK, "pass_1", "network, fresh", None, 2),
    ("staleness/table", "train_end", "TIS, token", "16 updates old", 2),
    *(("let-go/results", column, "let go from .5", "GRPO", 3) for column in ("pass_1", "pass_16", "distinct")),
    ("restart/results", "pass_1", "restart from traces", "no action", 3),
    ("restart/results", "pass_1", "four passes, restart from traces", "four passes, no action", 3),
    ("restart/results", "pass_1", "roll-back", "no action", 3),
    *((TABLE, "entropy_middle", f"{name}, 1", "GRPO, 1", 3) for name in ("ID", "DID", "OD")),
    *((TABLE, "entropy_end", f"{name}, 0", "GRPO, 0", 3) for name in ("ID", "DID", "OD", "clip-higher")),
    *((THERMOSTAT, "error_up and down", name, None, 3) for name in (ON_CURVE, "GRPO", "adaptive bonus, up and down")),
    *((THERMOSTAT, "pass_1", name, "GRPO", 3) for name in ("target-weights, constant", ON_CURVE, LET_GO)),
    *((THERMOSTAT, "distinct", name, "GRPO", 3) for name in (ON_CURVE, LET_GO)),
    *((EMBEDDED, "error_up and down", name, None, 3) for name in (ON_CURVE, "GRPO")),
    (EMBEDDED, "pass_1", ON_CURVE, "GRPO", 3),
    *((TABLE_PREDICTION, "flow_sampled", f"SGD, {states}", None, 2) for states in ("prefix", "phrase")),
]


def by_seed(table: str, column: str, condition: str) -> Mapping[str, float]:
    """A condition's value of each seed; of a chain's campaigns the last one's."""
    with (ROOT / "studies" / f"{table}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("campaign") in (None, "9")]
    return {row["seed"]: float(row[column]) for row in rows if name_of(row) == condition}


def name_of(row: Mapping[str, str]) -> str:
    """The condition, the method of a chain, or condition and predictor."""
    name = row.get("condition") or row["method"]
    return f"{name}: {row['predictor']}" if "predictor" in row else name


def short(value: float, digits: int) -> str:
    """A number as the pages write it: .62, -.49, without a zero before the point."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}").replace("-." + "0" * digits, "." + "0" * digits)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: "-".join(str(part) for part in claim[1:4]))
def test_a_figure_of_the_page_is_that_of_the_table(claim: tuple[str, str, str, str | None, int]):
    table, column, condition, baseline, digits = claim
    own = by_seed(table, column, condition)
    if table == STRATEGIES:
        own = {seed: value for seed, value in own.items() if int(seed) > 5}  # no setting was chosen on these
    less = by_seed(table, column, baseline) if baseline else dict.fromkeys(own, 0.0)
    values = np.array([own[seed] - less[seed] for seed in own])
    assert len(values) >= 5
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    bounds = (values.mean() - half, values.mean() + half)
    if len(values) >= FEW:
        found = mean_interval(values.tolist())
        assert found.low == pytest.approx(bounds[0], abs=half)
        bounds = (found.low, found.high)
    mean, low, high = (short(float(x), digits) for x in (values.mean(), *bounds))
    assert f"{mean} [{low}, {high}]" in SHOWN


INTERVAL = re.compile(r"[+-]?\d*\.\d+ \[[^\]]*\d\]")


def test_readme_has_no_interval_that_the_page_lacks():
    found = {text.lstrip("+") for text in INTERVAL.findall((ROOT / "README.md").read_text())}
    assert len(found) > 8
    assert found <= {text.lstrip("+") for text in INTERVAL.findall(SHOWN)}
