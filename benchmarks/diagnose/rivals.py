"""rlwatch 0.5, rlprobe 0.1 and rldoctor 0.2 over the same rows, each by its own live interface.

A rival is a function of a log: kind of failure, in our names -> step of its first alarm. What it reports that is none
of our kinds (a plateau, a gradient spike) comes under its own name and counts as an alarm on healthy runs only. Its
findings of the lowest degree ("info") are not counted. Every rival is asked as often as can be afforded, not at its
default of every 25 rows: after every row of a short log, 60 times over a long one (rldoctor 25 times).

    pip install rlwatch==0.5.1 rlprobe==0.1.0 rldoctor==0.2.0 diptest
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
Alarms = dict[str, int]
LOOKS = 60
LOOKS_OF_RLDOCTOR = 25  # its rank tests take seconds on long logs

TRL_NAMES = {
    "actor/entropy": "entropy",
    "critic/score/mean": "reward",
    "response_length/mean": "completions/mean_length",
    "response_length/clip_ratio": "completions/clipped_ratio",
    "actor/kl_loss": "kl",
    "actor/grad_norm": "grad_norm",
    "actor/pg_clipfrac": "clip_ratio/region_mean",
    "actor/pg_loss": "loss",
    "val-core/task/acc/mean@4": "eval_reward",
}


def in_trl_names(rows: Rows) -> Rows:
    return [{TRL_NAMES.get(name, name): value for name, value in row.items()} for row in rows]


def looks(count: int, least: int, wanted: int = LOOKS) -> Iterator[int]:
    """Numbers of rows after which a rival looks at the log."""
    stride = max(1, count // wanted)
    yield from range(max(least, stride), count, stride)
    yield count


def first_alarms(found: Iterator[tuple[str, int]]) -> Alarms:
    alarms: Alarms = {}
    for kind, step in found:
        alarms.setdefault(kind, step)
    return alarms


RLWATCH = {"entropy_collapse": "entropy-collapse", "kl_explosion": "kl-runaway", "loss_nan": "not-finite"}


def rlwatch(rows: Rows, entropy_threshold: float = 1.0, consecutive: int = 50, baseline: str = "rolling") -> Alarms:
    """Its detectors are incremental, so it sees every row."""
    from rlwatch.config import RLWatchConfig
    from rlwatch.detectors import DetectorSuite

    config = RLWatchConfig()
    config.entropy_collapse.threshold, config.entropy_collapse.consecutive_steps = entropy_threshold, consecutive
    config.kl_explosion.baseline_mode = baseline
    suite = DetectorSuite(config)

    def found() -> Iterator[tuple[str, int]]:
        for row in in_trl_names(rows):
            alerts = suite.check_step(
                row["step"],
                entropy=row.get("entropy"),
                kl_divergence=row.get("kl"),
                reward_mean=row.get("reward"),
                reward_std=row.get("reward_std"),
                loss=row.get("loss"),
                grad_norm=row.get("grad_norm"),
            )
            yield from ((RLWATCH.get(alert.detector, alert.detector), row["step"]) for alert in alerts)

    return first_alarms(found())


RLPROBE = {
    "KL_BLOWUP": ("kl-runaway",),
    "ENTROPY_COLLAPSE": ("entropy-collapse",),
    "CLIP_SATURATION": ("clip-saturation",),
    "DEGENERATE_GROUPS": ("degenerate-groups",),
    "ADV_COLLAPSE": ("degenerate-groups",),
    "REWARD_STD_DEATH": ("degenerate-groups",),
    "GRAD_PATHOLOGY": ("not-finite", "gradient-fade"),
    "TRUNCATION_STARVE": ("truncation",),
    "REWARD_HACK_LENGTH": ("length-degeneration",),
}
RLPROBE_FIELDS = {
    "reward": "reward_mean",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "zero_variance_group_frac",
    "kl": "kl_mean",
    "entropy": "entropy_mean",
    "clip_ratio/region_mean": "clip_fraction",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "completions/mean_length": "completion_len_mean",
    "completions/clipped_ratio": "truncation_rate",
}


def rlprobe(rows: Rows, **thresholds: dict[str, float]) -> Alarms:
    """Its detectors read the whole recording; thresholds: section -> key -> value, as in its doctor.toml."""
    from rlprobe.doctor.engine import diagnose_view
    from rlprobe.doctor.runview import RunView
    from rlprobe.schemas import RunManifest, StepRecord

    manifest = RunManifest(run_id="x", created_at="2026-01-01T00:00:00", algorithm="grpo")
    records = []
    for row in in_trl_names(rows):
        values = {RLPROBE_FIELDS[name]: value for name, value in row.items() if name in RLPROBE_FIELDS}
        broken = sum(not np.isfinite(value) for value in values.values())
        finite = {name: value for name, value in values.items() if np.isfinite(value)}
        records.append(StepRecord(step=row["step"], nan_count=broken, **finite))

    def found() -> Iterator[tuple[str, int]]:
        for count in looks(len(records), 30):
            for finding in diagnose_view(RunView(manifest, records[:count]), config=thresholds):
                if finding.severity != "info":
                    for kind in RLPROBE.get(finding.signature_id, (finding.signature_id,)):
                        yield kind, records[count - 1].step

    return first_alarms(found())


RLDOCTOR = {
    "entropy_collapse": ("entropy-collapse",),
    "advantage_collapse": ("degenerate-groups",),
    "clip_saturation": ("clip-saturation",),
    "kl_drift": ("kl-runaway",),
    "length_pathology": ("truncation", "length-degeneration"),
    "gradient_pathology": ("gradient-fade", "not-finite"),
    "reward_hacking": ("divergence", "rise-then-fall"),
}


def rldoctor(rows: Rows, min_steps: int = 60, critical_only: bool = False) -> Alarms:
    """Its LiveMonitor, asked more often than every 25 rows; min_steps is its own guard."""
    from rl_doctor.detectors.base import Severity
    from rl_doctor.diagnosis import diagnose
    from rl_doctor.ingest.base import run_from_records

    least = Severity.CRITICAL if critical_only else Severity.WARNING
    records = in_trl_names(rows)

    def found() -> Iterator[tuple[str, int]]:
        for count in looks(len(records), min(min_steps, len(records)), LOOKS_OF_RLDOCTOR):
            run = run_from_records(records[:count], name="x", source="live")
            for finding in diagnose(run).problems:
                if finding.severity >= least:
                    for kind in RLDOCTOR.get(finding.detector, (finding.detector,)):
                        yield kind, records[count - 1]["step"]

    return first_alarms(found())


def quiet() -> None:
    """Leave out what the rivals print."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")


# name -> (function, the settings tried on the tuning half; the first are its defaults)
RIVALS: dict[str, tuple[Callable[..., Alarms], list[dict[str, Any]]]] = {
    "rlwatch": (
        rlwatch,
        [
            {},
            *(
                {"entropy_threshold": threshold, "consecutive": consecutive, "baseline": "frozen"}
                for threshold in (0.3, 0.1, 0.05)
                for consecutive in (50, 10)
            ),
        ],
    ),
    "rlprobe": (
        rlprobe,
        [
            {},
            {"entropy_collapse": {"healthy_early": 0.1, "collapse_below": 0.1}},
            {
                "entropy_collapse": {"healthy_early": 0.1, "collapse_below": 0.05},
                "degenerate_groups": {"threshold": 0.8},
                "reward_std_death": {"death_below": 0.02},
            },
        ],
    ),
    "rldoctor": (rldoctor, [{}, {"min_steps": 20}, {"critical_only": True}, {"min_steps": 20, "critical_only": True}]),
}
KINDS_OF = {
    "rlwatch": set(RLWATCH.values()),
    "rlprobe": {kind for kinds in RLPROBE.values() for kind in kinds},
    "rldoctor": {kind for kinds in RLDOCTOR.values() for kind in kinds},
}
