"""Rows of runs made to order, under TRL's names."""

import numpy as np
import pytest


def make_rows(n=120, seed=0, **curves):
    """A healthy run of `n` rows; `curves` replaces columns by values of t in 0 ... 1, None by nothing."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, n)
    base = {
        "entropy": 0.5 * (0.5 + 0.5 * np.exp(-4 * t)) * np.exp(rng.normal(0, 0.02, n)),
        "reward": 0.3 + 0.3 * t + rng.normal(0, 0.02, n),
        "frac_reward_zero_std": np.clip(0.4 + rng.normal(0, 0.05, n), 0, 1),
        "completions/mean_length": 200 * np.exp(rng.normal(0, 0.03, n)),
        "completions/clipped_ratio": np.full(n, 0.02),
        "kl": 0.05 * np.sqrt(t) * np.exp(rng.normal(0, 0.05, n)),
        "grad_norm": 0.3 * np.exp(rng.normal(0, 0.1, n)),
        "clip_ratio/low_mean": np.full(n, 0.002),
        "clip_ratio/high_mean": np.full(n, 0.003),
        "loss": rng.normal(0, 0.01, n),
        **{name: np.asarray(curve(t, rng), dtype=float) for name, curve in curves.items() if curve},
    }
    base = {name: column for name, column in base.items() if name not in curves or curves[name]}
    return [{"step": i + 1, **{name: float(column[i]) for name, column in base.items()}} for i in range(n)]


@pytest.fixture
def rows():
    return make_rows
