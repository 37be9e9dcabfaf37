"""The facts that entropy polarity rests on, in numbers.

    python studies/polarity-facts/study.py run     computes the CSV files; half a minute of CPU time
    python studies/polarity-facts/study.py read    makes the README's tables from them

Beside a real policy everything here is exact: full distributions, float64, true changes of the entropy.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tables import Row, cell, fill, read_rows, table, write_rows

if TYPE_CHECKING:
    from entrostat.tokens import TokenStats

HERE = Path(__file__).parent
STATES, SEEDS, STEPS = 20_000, 20, 60
TOPS = (0.5, 0.7, 0.9, 0.99)
SIZES = (0.01, 0.1, 1.0, 3.0)
PARAMETERS = {"a table": None, "12 features for 16 states": 12, "4 features for 16 states": 4}
BRANCHES = ("both", "expanding", "contracting")


# --- what is computed ---


def run() -> None:
    """Compute every number and write it."""
    made = {"asymmetry": asymmetry, "signs": signs, "top-twenty": top_twenty, "flow": flow, "branches": branches}
    for name, rows in made.items():
        write_rows(HERE / f"{name}.csv", list(rows()))


def peaked(top: float, vocab: int) -> TokenStats:
    """Every token of a distribution of one token of probability `top` and a Zipf tail, exponent 1.5."""
    import torch

    from entrostat.tokens import TokenStats, token_stats

    tail = torch.arange(1, vocab, dtype=torch.float64) ** -1.5
    p = torch.cat([torch.tensor([top], dtype=torch.float64), (1 - top) * tail / tail.sum()])
    one = token_stats(p.log()[None], torch.tensor([0]))
    return TokenStats(p.log(), one.entropy.expand(vocab), one.collision.expand(vocab), one.correction.expand(vocab))


def asymmetry() -> Iterator[Row]:
    """How often a sampled token contracts when it is rewarded, and by how much either kind moves the entropy."""
    from entrostat.entropy import sensitivity

    for top in TOPS:
        stats = peaked(top, 50_000)
        p, t = stats.logp.exp(), sensitivity(stats)
        expanding = (p @ t.clamp_min(0)) / p[t > 0].sum()
        yield {"top": top, "contracting": p[t < 0].sum().item(), "t_top": t[0].item(), "t_expanding": expanding.item()}


def signs() -> Iterator[Row]:
    """How many sampled tokens' updates move the entropy the other way than polarity says."""
    import torch
    from toy import entropy_of

    from entrostat.entropy import sensitivity
    from entrostat.tokens import token_stats

    for vocab, spread in ((5, 3.0), (100, 3.0), (100, 6.0), (1000, 6.0)):
        generator = torch.Generator().manual_seed(0)
        wrong, without = [0] * len(SIZES), 0
        for _ in range(STATES // 1000):
            logits = spread * torch.randn(1000, vocab, generator=generator, dtype=torch.float64)
            p = logits.softmax(-1)
            ids = torch.multinomial(p, 1, generator=generator)[:, 0]
            sign = torch.randn(1000, generator=generator, dtype=torch.float64).sign()
            stats = token_stats(logits, ids)
            t = sensitivity(stats)
            score = torch.nn.functional.one_hot(ids, vocab) - p
            for i, size in enumerate(SIZES):
                change = entropy_of(logits + (size * sign)[:, None] * score) - entropy_of(logits)
                wrong[i] += int((change * sign * t < 0).sum())
            without += int((t * (t - stats.correction) < 0).sum())
        counts = {f"wrong_{size}": count for size, count in zip(SIZES, wrong, strict=True)}
        yield {"vocab": vocab, "spread": spread, "n": STATES, **counts, "differs_without_c": without}


def top_twenty() -> Iterator[Row]:
    """Relative error of C from the 20 likeliest of 150 000 tokens with exact H."""
    from entrostat.tokens import topk_token_stats

    for top in TOPS:
        stats = peaked(top, 150_000)
        p, h, c = stats.logp[:20].exp(), stats.entropy[0], stats.correction[0]
        plain = (p.square() * (stats.logp[:20] + h)).sum()
        estimate = topk_token_stats(stats.logp[None, :20], stats.logp[:1], h[None]).correction[0]
        yield {"top": top, "sum": (plain / c - 1).abs().item(), "topk_token_stats": (estimate / c - 1).abs().item()}


def flow() -> Iterator[Row]:
    """The correlation of a step's flow with the true change of the mean entropy, seed by seed."""
    import torch
    from toy import ToyPolicy

    for parameters, features in PARAMETERS.items():
        for seed in range(SEEDS):
            policy = ToyPolicy(features=features, seed=seed)
            steps = torch.tensor([policy.step(rate=0.2) for _ in range(STEPS)], dtype=torch.float64)
            yield {"parameters": parameters, "seed": seed, "correlation": torch.corrcoef(steps.T)[0, 1].item()}


def branches() -> Iterator[Row]:
    """What either branch alone does to entropy and reward, seed by seed."""
    from toy import ToyPolicy

    for branch in ("(start)", *BRANCHES):
        for seed in range(SEEDS):
            policy = ToyPolicy(seed=seed)
            for _ in range(STEPS if branch in BRANCHES else 0):
                policy.step(branch)
            yield {"branch": branch, "seed": seed, "entropy": policy.entropy, "reward": policy.reward}


# --- what is read ---


def read() -> None:
    """The README's tables, from the CSV files."""
    rows = {name: read_rows(HERE / f"{name}.csv") for name in ("asymmetry", "signs", "top-twenty", "flow", "branches")}
    fill(
        HERE / "README.md",
        {
            "asymmetry": table(
                ("p_top", "P(T<0), a~p", "T(top)", "mean T given T>0"),
                [
                    (x["top"], f"{x['contracting']:.3f}", f"{x['t_top']:.4f}", f"{x['t_expanding']:+.3f}")
                    for x in rows["asymmetry"]
                ],
            ),
            "signs": table(
                ("V", "std of the logits", *(f"{size} logits" for size in SIZES), "sign differs without C"),
                [
                    (
                        x["vocab"],
                        f"{x['spread']:g}",
                        *(_share(x[f"wrong_{size}"], x["n"]) for size in SIZES),
                        _share(x["differs_without_c"], x["n"]),
                    )
                    for x in rows["signs"]
                ],
            ),
            "top twenty": table(
                ("p_top", "sum over the top 20", "topk_token_stats"),
                [(x["top"], f"{x['sum']:.1e}", f"{x['topk_token_stats']:.1e}") for x in rows["top-twenty"]],
            ),
            "flow": table(
                ("parameters", "correlation of flow and change"),
                [(name, cell(_of(rows["flow"], "parameters", name, "correlation"), 3, -1, 1)) for name in PARAMETERS],
            ),
            "branches": table(
                ("branch", "entropy at the end", "reward at the end"),
                [
                    (name, *(cell(_of(rows["branches"], "branch", name, field)) for field in ("entropy", "reward")))
                    for name in ("(start)", *BRANCHES)
                ],
            ),
        },
    )


def _of(rows: Sequence[Row], key: str, name: str, field: str) -> list[Any]:
    return [row[field] for row in rows if row[key] == name]


def _share(count: int, n: int) -> str:
    share = count / n
    return f"{100 * share:.2f} ± {196 * math.sqrt(share * (1 - share) / n):.2f} %"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "read"])
    {"run": run, "read": read}[parser.parse_args().action]()
