"""rlwatch 0.5.1, rlprobe 0.1.0 and rldoctor 0.2.0 over the same rows, each by its own live interface.

    pip install rlwatch==0.5.1 rlprobe==0.1.0 rldoctor==0.2.0 diptest

What a rival reports is credited with every failure of ours that it may mean, and its remarks of the lowest degree
("info") are notes. Every rival is asked as often as can be afforded, not at its default of every 25 rows: rlwatch after
every row, rlprobe and rldoctor `LOOKS` times, evenly over the log, and at its end.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tools import Report, Rows, Tool, followed, with_clip

LOOKS = 8
GUARD = 60  # rows before which rldoctor's LiveMonitor says nothing
SEVERITY = {"warn": "warning", "info": "note"}

RLWATCH = {
    "entropy_collapse": ("entropy-collapse",),
    "kl_explosion": ("kl-runaway",),
    "loss_nan": ("not-finite",),
    "gradient_norm_spike": ("gradient-explosion",),
    "reward_mean_drift": ("rise-then-fall",),
    "reward_hacking": ("divergence", "degenerate-groups"),
}


def rlwatch(**settings: dict[str, Any]) -> Tool:
    """settings: section of its configuration -> field -> value."""

    def run(rows: Rows, end: int | None) -> list[Report]:  # noqa: ARG001
        from rlwatch.config import load_config
        from rlwatch.detectors import DetectorSuite

        suite = DetectorSuite(load_config(None, **settings))
        first: dict[str, Report] = {}
        for step, row in rows:
            alerts = suite.check_step(
                step,
                entropy=row.get("entropy"),
                kl_divergence=row.get("kl"),
                reward_mean=row.get("reward"),
                reward_std=row.get("reward_std"),
                loss=row.get("loss"),
                grad_norm=row.get("grad_norm"),
            )
            for alert in alerts:
                known = first.setdefault(
                    alert.detector, Report(RLWATCH.get(alert.detector, (alert.detector,)), "", step)
                )
                worst = "critical" if "critical" in (alert.severity, known.severity) else "warning"
                first[alert.detector] = known._replace(severity=worst)
        return [*first.values()]  # it withdraws nothing

    return run


RLPROBE = {
    "KL_BLOWUP": ("kl-runaway",),
    "ENTROPY_COLLAPSE": ("entropy-collapse",),
    "CLIP_SATURATION": ("clip-saturation",),
    "DEGENERATE_GROUPS": ("degenerate-groups",),
    "ADV_COLLAPSE": ("degenerate-groups",),
    "REWARD_STD_DEATH": ("degenerate-groups",),
    "GRAD_PATHOLOGY": ("not-finite", "gradient-explosion", "gradient-fade"),
    "TRUNCATION_STARVE": ("truncation", "length-degeneration"),
    "REWARD_HACK_LENGTH": ("length-degeneration",),
    "REPETITION_SPIRAL": ("repetition",),
    "THROUGHPUT_ROT": ("slow-steps",),
}
RLPROBE_FIELDS = {
    "reward": "reward_mean",
    "reward_std": "reward_std",
    "reward_min": "reward_min",
    "reward_max": "reward_max",
    "equal_groups": "zero_variance_group_frac",
    "kl": "kl_mean",
    "entropy": "entropy_mean",
    "clip": "clip_fraction",
    "loss": "loss",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "length": "completion_len_mean",
    "truncated": "truncation_rate",
    "repetition": "repetition_rate",
    "step_time": "step_time_s",
}


def rlprobe(**settings: dict[str, Any]) -> Tool:
    """settings: section -> key -> value, as in its doctor.toml."""

    def run(rows: Rows, end: int | None) -> list[Report]:  # noqa: ARG001
        from rlprobe.doctor.engine import diagnose_view
        from rlprobe.doctor.runview import RunView
        from rlprobe.schemas import RunManifest, StepRecord

        manifest = RunManifest(run_id="x", created_at="2026-01-01T00:00:00", algorithm="grpo")
        records = []
        for step, row in rows:
            values = {RLPROBE_FIELDS[name]: value for name, value in with_clip(row).items() if name in RLPROBE_FIELDS}
            finite = {name: value for name, value in values.items() if np.isfinite(value)}
            records.append(StepRecord(step=step, nan_count=len(values) - len(finite), **finite))

        def looks() -> Iterator[tuple[int, dict[str, str]]]:
            for count in places(len(records)):
                found = diagnose_view(RunView(manifest, records[:count]), config=settings)
                yield records[count - 1].step, {x.signature_id: SEVERITY.get(x.severity, x.severity) for x in found}

        return followed(looks(), RLPROBE)

    return run


RLDOCTOR = {
    "entropy_collapse": ("entropy-collapse",),
    "advantage_collapse": ("degenerate-groups",),
    "clip_saturation": ("clip-saturation",),
    "kl_drift": ("kl-runaway",),
    "length_pathology": ("truncation", "length-degeneration"),
    "gradient_pathology": ("gradient-fade", "gradient-explosion", "not-finite"),
    "reward_hacking": ("divergence", "rise-then-fall"),
    "plateau": ("plateau", "never-learned", "rise-then-fall"),
}
RLDOCTOR_FIELDS = {
    "reward": "reward",
    "reward_std": "reward_std",
    "reward_min": "reward_min",
    "reward_max": "reward_max",
    "heldout": "eval_score",
    "equal_groups": "frac_reward_zero_std",
    "kl": "kl",
    "entropy": "entropy",
    "clip": "clip_ratio/region_mean",
    "clip_low": "clip_ratio/low_mean",
    "clip_high": "clip_ratio/high_mean",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "length": "completions/mean_length",
    "truncated": "completions/clipped_ratio",
    "step_time": "step_time",
    "throughput": "throughput",
}


def rldoctor() -> Tool:
    """Its LiveMonitor's rule, asked at `LOOKS` places from row 60 on (its own guard), and its report on the whole log,
    which has no such guard."""

    def run(rows: Rows, end: int | None) -> list[Report]:
        from rl_doctor.detectors.base import Severity
        from rl_doctor.diagnosis import diagnose
        from rl_doctor.ingest.base import run_from_records

        degrees = {Severity.INFO: "note", Severity.WARNING: "warning", Severity.CRITICAL: "critical"}
        records = [
            {"step": step, **{RLDOCTOR_FIELDS[k]: v for k, v in with_clip(row).items() if k in RLDOCTOR_FIELDS}}
            for step, row in rows
        ]

        def looks() -> Iterator[tuple[int, dict[str, str]]]:
            for count in places(len(records)):
                if count >= GUARD or count == len(records):
                    log = run_from_records(records[:count], config={"max_steps": end} if end else None)
                    yield records[count - 1]["step"], {x.detector: degrees[x.severity] for x in diagnose(log).problems}

        return followed(looks(), RLDOCTOR)

    return run


def places(count: int) -> list[int]:
    """After how many rows a rival looks: `LOOKS` times, the last at the end."""
    return sorted({max(round(count * share), 1) for share in np.linspace(1 / LOOKS, 1, LOOKS)})


def tools() -> Iterator[tuple[str, str, Tool]]:
    """(package with its version, name of the setting, tool) of every rival that is installed."""
    for package, (module, maker, settings) in RIVALS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{package} is not installed; its figures stay as they are")
            continue
        for name, arguments in settings.items():
            yield f"{package} {importlib.metadata.version(package)}", name, maker(**arguments)


def quiet() -> None:
    """Leave out what the rivals print."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")


def _entropy(threshold: float, steps: int) -> dict[str, dict[str, Any]]:
    return {
        "entropy_collapse": {"threshold": threshold, "consecutive_steps": steps},
        "kl_explosion": {"baseline_mode": "frozen"},
    }


# package -> (module, maker, {name of a setting: its arguments}); the first are the defaults
RIVALS: dict[str, tuple[str, Callable[..., Tool], dict[str, dict[str, Any]]]] = {
    "rlwatch": (
        "rlwatch",
        rlwatch,
        {
            "defaults": {},
            "entropy .3": _entropy(0.3, 50),
            "entropy .1": _entropy(0.1, 10),
            "entropy .05": _entropy(0.05, 10),
            "entropy .1, KL and gradient at 6 sigma": _entropy(0.1, 10)
            | {
                "kl_explosion": {"baseline_mode": "frozen", "sigma_multiplier": 6.0},
                "gradient_norm_spike": {"sigma_multiplier": 6.0},
            },
            "entropy .1, no KL, no gradient": _entropy(0.1, 10)
            | {"kl_explosion": {"enabled": False}, "gradient_norm_spike": {"enabled": False}},
        },
    ),
    "rlprobe": (
        "rlprobe",
        rlprobe,
        {
            "defaults": {},
            "entropy .1": {"entropy_collapse": {"healthy_early": 0.1, "collapse_below": 0.1}},
            "entropy .05, groups .8": {
                "entropy_collapse": {"healthy_early": 0.1, "collapse_below": 0.05},
                "degenerate_groups": {"threshold": 0.8},
                "reward_std_death": {"death_below": 0.02},
            },
        },
    ),
    "rldoctor": ("rl_doctor", rldoctor, {"defaults": {}}),
}
