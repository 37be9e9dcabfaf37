"""The run folder and the statistics of runs."""

from entrostat.runs.collapse import (
    Cliff,
    CollapseReport,
    carryover,
    cliff_of,
    collapse_report,
    end_to_peak,
    evaluation_error,
    find_cliff,
    hindsight_oracle,
    noise_floor,
    slope_of_ends,
    trace_oracle,
)
from entrostat.runs.files import RunError, atomic_path, atomic_write
from entrostat.runs.inference import Estimate, bootstrap_mean, holm, paired_bootstrap, sign_test
from entrostat.runs.passk import mean_over_tasks, pass_at_k, pass_hat_k
from entrostat.runs.record import Run
from entrostat.runs.trajectory import Trajectory

__all__ = [
    "Cliff",
    "CollapseReport",
    "Estimate",
    "Run",
    "RunError",
    "Trajectory",
    "atomic_path",
    "atomic_write",
    "bootstrap_mean",
    "carryover",
    "cliff_of",
    "collapse_report",
    "end_to_peak",
    "evaluation_error",
    "find_cliff",
    "hindsight_oracle",
    "holm",
    "mean_over_tasks",
    "noise_floor",
    "paired_bootstrap",
    "pass_at_k",
    "pass_hat_k",
    "sign_test",
    "slope_of_ends",
    "trace_oracle",
]
