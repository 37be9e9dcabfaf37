"""The facts that entropy polarity rests on, in numbers: `python studies/polarity-facts/study.py` prints the tables.

Beside a real policy everything here is exact: full distributions, float64, true changes of the entropy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from toy import ToyPolicy, entropy_of

from entrostat.entropy import sensitivity
from entrostat.runs import Estimate, bootstrap_mean
from entrostat.tokens import TokenStats, token_stats, topk_token_stats

F64 = torch.float64
STATES, SEEDS, STEPS = 20_000, 20, 60
SIZES = (0.01, 0.1, 1.0, 3.0)


def peaked(top: float, vocab: int) -> TokenStats:
    """Every token of a distribution of one token of probability `top` and a Zipf tail, exponent 1.5."""
    tail = torch.arange(1, vocab, dtype=F64) ** -1.5
    p = torch.cat([torch.tensor([top], dtype=F64), (1 - top) * tail / tail.sum()])
    one = token_stats(p.log()[None], torch.tensor([0]))
    return TokenStats(p.log(), one.entropy.expand(vocab), one.collision.expand(vocab), one.correction.expand(vocab))


def asymmetry() -> None:
    """How often a sampled token contracts when it is rewarded, and by how much either kind moves the entropy."""
    print("| p_top | P(T<0), a~p | T(top) | mean T given T>0 |\n|---|---|---|---|")
    for top in (0.5, 0.7, 0.9, 0.99):
        stats = peaked(top, 50_000)
        p, t = stats.logp.exp(), sensitivity(stats)
        expanding = (p @ t.clamp_min(0)) / p[t > 0].sum()
        print(f"| {top} | {p[t < 0].sum():.3f} | {t[0]:.4f} | {expanding:+.3f} |")


def wrong_signs() -> None:
    """Share of sampled tokens whose update moves the entropy the other way than polarity says."""
    sizes = " | ".join(f"{size} logits" for size in SIZES)
    print(f"\n| V | std of the logits | {sizes} | sign differs without C |\n|---|---|{'---|' * len(SIZES)}---|")
    for vocab, spread in ((5, 3.0), (100, 3.0), (100, 6.0), (1000, 6.0)):
        generator = torch.Generator().manual_seed(0)
        wrong, without = torch.zeros(len(SIZES), dtype=F64), 0.0
        for _ in range(STATES // 1000):
            logits = spread * torch.randn(1000, vocab, generator=generator, dtype=F64)
            p = logits.softmax(-1)
            ids = torch.multinomial(p, 1, generator=generator)[:, 0]
            sign = torch.randn(1000, generator=generator, dtype=F64).sign()
            stats = token_stats(logits, ids)
            t = sensitivity(stats)
            score = torch.nn.functional.one_hot(ids, vocab) - p
            for i, size in enumerate(SIZES):
                change = entropy_of(logits + (size * sign)[:, None] * score) - entropy_of(logits)
                wrong[i] += (change * sign * t < 0).sum()
            without += (t * (t - stats.correction) < 0).sum().item()
        shares = " | ".join(_share(count / STATES) for count in wrong.tolist())
        print(f"| {vocab} | {spread:g} | {shares} | {_share(without / STATES)} |")


def top_twenty() -> None:
    """Relative error of C from the 20 likeliest of 150 000 tokens with exact H."""
    print("\n| p_top | sum over the top 20 | topk_token_stats |\n|---|---|---|")
    for top in (0.5, 0.7, 0.9, 0.99):
        stats = peaked(top, 150_000)
        p, h, c = stats.logp[:20].exp(), stats.entropy[0], stats.correction[0]
        plain = (p.square() * (stats.logp[:20] + h)).sum()
        estimate = topk_token_stats(stats.logp[None, :20], stats.logp[:1], h[None]).correction[0]
        print(f"| {top} | {(plain / c - 1).abs():.1e} | {(estimate / c - 1).abs():.1e} |")


def toy() -> None:
    """Flow against the true change of the mean entropy, and what either branch alone does."""
    print("\n| parameters | correlation of flow and change |\n|---|---|")
    for name, features in (("a table", None), ("12 features for 16 states", 12), ("4 features for 16 states", 4)):
        found = bootstrap_mean([_correlation(features, seed) for seed in range(SEEDS)])
        print(f"| {name} | {_interval(found, 3)} |")
    print("\n| branch | entropy at the end | reward at the end |\n|---|---|---|")
    starts = bootstrap_mean([ToyPolicy(seed=seed).entropy for seed in range(SEEDS)])
    rewards = bootstrap_mean([ToyPolicy(seed=seed).reward for seed in range(SEEDS)])
    print(f"| (start) | {_interval(starts, 2)} | {_interval(rewards, 2)} |")
    for branch in ("both", "expanding", "contracting"):
        policies = [ToyPolicy(seed=seed) for seed in range(SEEDS)]
        for policy in policies:
            for _ in range(STEPS):
                policy.step(branch)
        ends, rewards = (bootstrap_mean([getattr(one, name) for one in policies]) for name in ("entropy", "reward"))
        print(f"| {branch} | {_interval(ends, 2)} | {_interval(rewards, 2)} |")


def _correlation(features: int | None, seed: int) -> float:
    policy = ToyPolicy(features=features, seed=seed)
    steps: Tensor = torch.tensor([policy.step(rate=0.2) for _ in range(STEPS)], dtype=F64)
    return torch.corrcoef(steps.T)[0, 1].item()


def _share(share: float) -> str:
    return f"{100 * share:.2f} ± {196 * math.sqrt(share * (1 - share) / STATES):.2f} %"


def _interval(found: Estimate, digits: int) -> str:
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


if __name__ == "__main__":
    asymmetry()
    wrong_signs()
    top_twenty()
    toy()
