"""Run folders made to order: curves shaped like a campaign that rises and collapses, or does not."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from entrostat.runs import Run
from entrostat.runs.finding import Finding, Remedy

PROGRAM = "def solve(xs):\n    # {comment}\n    return [x * 2 for x in xs if x > {k}]\n"
OUTCOMES = ("passed", "wrong", "runtime error", "syntax error", "no code", "timeout")


def make_run(
    path: Path,
    steps: int = 40,
    collapse: bool = True,
    strategy: str = "constant",
    stop: int | None = None,
    seed: int = 0,
    splits: tuple[str, ...] = ("select", "report"),
    tokens: bool = False,
) -> Run:
    run = Run.create(path, {"strategy": strategy, "steps": steps}, seed, {"tasks": "0f" * 32}, {"torch": "2.13.0"})
    noise = np.random.default_rng(seed)
    for step in range(steps + 1):
        p, entropy = _state(step, steps, collapse)
        if step:
            run.log_step(_step_line(step, steps, p, entropy, strategy, collapse, noise))
        for split in splits:
            c = noise.binomial(16, np.clip(p + np.linspace(-0.15, 0.15, 30), 0, 1) if p > 0.01 else np.zeros(30))
            results = [[f"task-{i}", 16, int(count)] for i, count in enumerate(c)]
            run.log_eval({"step": step, "split": split, "results": results, "pass_at": {"1": float(c.mean() / 16)}})
        if "report" in splits:
            run.log_samples(step, "report", _samples(p, noise))
        if tokens:
            run.log_samples(step, "train", [_with_tokens(sample, noise) for sample in _samples(p, noise)])
        if step == stop:
            best = max(range(step + 1), key=lambda s: _mean(run, s, splits[0]))
            cause = "EarlyStop: no new peak for 3 steps"
            run.note_decision({"step": step, "kind": "stop", "cause": cause})
            run.note_decision({"step": step, "kind": "roll-back", "to_step": best, "cause": cause})
            break
    return run


COLUMNS = {"Entropy": "entropy", "Length": "length", "Verdicts": "reward", None: "loss"}  # of figures


def a_finding(panel: str | None = "Entropy", severity: str = "critical", text: str = "Entropy is gone.") -> Finding:
    remedy = Remedy(f"{text} act", "it helps", "arXiv", settings={"recipe": {"update": {"epochs": 1}}})
    found = {"onset": 20, "first_step": 25, "step": 30, "summary": text, "evidence": {"now": 0.0123456}}
    return Finding("entropy-collapse", severity, columns=(COLUMNS[panel],), remedies=(remedy,), **found)


def _mean(run: Run, step: int, split: str) -> float:
    return next(line["pass_at"]["1"] for line in run.evals(split) if line["step"] == step)


def _state(step: int, steps: int, collapse: bool) -> tuple[float, float]:
    t = step / max(1, steps)
    p = 0.15 + 0.45 * (1 - np.exp(-4 * t))
    entropy = 0.2 + 0.26 * np.exp(-4 * t)
    if collapse and t > 0.65:
        fall = min(1.0, (t - 0.65) / 0.15)
        p, entropy = p * (1 - fall), entropy + (0.5 * np.sin(np.pi * fall) if fall < 1 else -0.15)
    return float(p), float(entropy)


def _step_line(step, steps, p, entropy, strategy, collapse, noise) -> dict:
    t = step / steps
    wobble = 1 + 0.15 * noise.standard_normal()
    shares = noise.dirichlet([40, 8, 30 * (1 - p), 6])
    clip = 0.0 if strategy == "constant" else 0.004
    counts = noise.multinomial(128, [p, *((1 - p) * np.array([0.6, 0.25, 0.1, 0.03, 0.02]))])
    first = t <= 0.5
    mix = 1 - 2 * t if first else 2 - 2 * t
    if strategy == "id":
        up = (-0.25 * mix, 0.2 + 0.3 * mix) if first else (0.0, 0.2)
        low = (0.0, 0.2) if first else (-0.13 * mix, 0.2 + 0.1 * mix)
        bounds = {
            "upper_slope": up[0],
            "upper_intercept": up[1],
            "lower_slope": low[0],
            "lower_intercept": low[1],
        }
    else:
        bounds = None
    return {
        "step": step,
        "batch": step // 4,
        "loss": float(-p + 0.1 * noise.standard_normal()),
        "grad_norm": float(wobble * (1 + (8 * t**6 if collapse else 0))),
        "lr": 1e-4,
        "reward": p,
        "entropy": float(entropy * (1 + 0.03 * noise.standard_normal())),
        "flow_up": float(0.01 * abs(wobble)),
        "flow_down": float(-0.016 * abs(1 + 0.15 * noise.standard_normal())),
        "regions": {
            "NONE": {"share": 0.0, "clip_fraction": 0.0, "flow": 0.0},
            **{
                name: {"share": float(s), "clip_fraction": float(clip * abs(noise.standard_normal())), "flow": 0.0}
                for name, s in zip(("E1", "E2", "E3", "E4"), shares, strict=True)
            },
        },
        "clip_fraction_low": clip,
        "clip_fraction_high": clip,
        "ratio_outside": float(0.01 + (0.3 * t**5 if collapse else 0.0)),
        "log_ratio_min_punished": float(-0.3 - (11 * t**2 if collapse else 0.4 * t)),
        "bounds": bounds,
        "phase": "constant" if strategy == "constant" else "increase" if first else "decrease",
        "length": 38 + 6 * float(noise.standard_normal() * 0.2 + t),
        "truncated": float(0.02 + (0.4 * t**8 if collapse else 0.0)),
        "verdicts": dict(zip(OUTCOMES, map(int, counts), strict=True)),
        "tokens": {"rollout": 5000, "update": 5000},
        "seconds": {"rollout": 0.2, "grade": 0.1, "update": 0.2},
    }


def _samples(p: float, noise) -> list[dict]:
    return [
        {
            "task": f"task-{i}",
            "prompt": f"Return the items of xs that are greater than {i}, doubled.",
            "completion": PROGRAM.format(comment="keep the large ones", k=i)
            if p > 0.05
            else "x x x x x x x x x x " * 9,
            "outcome": "passed" if noise.random() < p else "wrong" if p > 0.05 else "syntax error",
        }
        for i in range(4)
    ]


def _with_tokens(sample: dict, noise) -> dict:
    """The sample as the embedded engine records it: token by token, with the advantage that it was learned from."""
    pieces = re.findall(r"\s*\S+|\s+$", sample["completion"])
    columns = {
        name: noise.normal(size=len(pieces) + 1).round(4).tolist() for name in ("logp", "entropy", "sensitivity")
    }
    columns["logp"] = [-abs(value) for value in columns["logp"]]
    return {
        **sample,
        "advantage": 1.0 if sample["outcome"] == "passed" else -0.5,
        "tokens": {"text": [*pieces, ""], **columns},
    }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Run]:
    def build(name: str = "run", **options: object) -> Run:
        return make_run(tmp_path / name, **options)

    return build
