"""What each correction, reweighting, objective and advantage costs on top of plain GRPO, as a share of a step.

    python benchmarks/control/methods.py --rounds 100 --csv benchmarks/control/methods.csv

Weights, loss and its gradient for 64 completions of 48 tokens are computed under every method in turn, each right after
plain GRPO's, round after round, in CPU seconds of the thread. A method's cost is the median over the rounds of the
difference, with a 95 % bootstrap interval; its share is of the median time of a whole step of the embedded engine on as
many completions, which is taken in between.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from entrostat.control import Constant, Corrected, EntropyController
from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample
from entrostat.engine.update import Experience, Learner
from entrostat.objective import ClipRule, aggregate, policy_loss
from entrostat.recipe import build_controller, parse_recipe
from entrostat.recipe.methods import (
    ADVANTAGES,
    CORRECTIONS,
    OBJECTIVES,
    REWEIGHTINGS,
    STRATEGIES,
    build,
    build_advantage,
    takes_surprisals,
)
from entrostat.tasks import listcraft
from entrostat.tokens import token_stats

ROWS, WIDTH, WORDS = 64, 48, 64
CURVE = {"points": [[0, 0.5]]}
NEEDED: dict[str, dict[str, Any]] = {
    "skip-region": {"region": "E1"},
    "free-region": {"region": "E1"},
    "target-weights": {"curve": CURVE},
    "target-entropy": {"curve": CURVE},
    "entropic": {"target": 9.0},
    "entropic-weights": {"target": 9.0},
    "repo-r": {"target": 9.0},
    "adapo": {"target": 9.0},
    "aepo": {"low": 0.1, "high": 0.2},
    "gepo": {"group_size": 8},
    "stare": {"target": 9.0},
    "fixed": {"expanding": 1.2},
    "piecewise": {"stages": [{"until": 1}]},
    "clip-undetached": {},
}
Call = Callable[[], None]


def methods() -> Iterator[tuple[str, str, Call]]:
    """Every method: its kind, its name, and one round of it."""
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(ROWS, WIDTH, WORDS, generator=draw)
    ids = torch.randint(0, WORDS, (ROWS, WIDTH), generator=draw)
    stats, mask = token_stats(logits, ids), torch.ones(ROWS, WIDTH, dtype=torch.bool)
    old = stats.logp - 0.1 * torch.randn(ROWS, WIDTH, generator=draw)
    sampler = old - 0.1 * torch.randn(ROWS, WIDTH, generator=draw)
    rewards = torch.randint(0, 2, (ROWS // 8, 8), generator=draw).float()
    earned = torch.randn(ROWS, 1, generator=draw).expand(ROWS, WIDTH)

    def loss(controller: EntropyController, objective: Any = "clip", rule: Any = None) -> None:
        controller.observe(controller._step + 1, 0.4, 1.0)
        weighted = controller.advantages(
            stats,
            earned,
            mask,
            old_logp=old,
            sampler_logp=sampler,
            old_entropy=stats.entropy,
            rewards=earned.sign(),
        )
        logp = stats.logp.detach().requires_grad_()
        out = policy_loss(logp, old, weighted, mask, rule=rule or controller.rule(), objective=objective)
        per_token = out.per_token
        if controller.adds:
            per_token = per_token - controller.unclipped(stats, earned, mask) * (logp - old).exp()
        aggregate(per_token, mask).backward()

    def under(part: Any = None, objective: Any = "clip") -> Call:
        band = Constant(ClipRule()) if part is None or not getattr(part, "owns_band", False) else part
        rest = [part] if part is not None and band is not part else []
        controller = EntropyController(band, *rest, total_steps=10**9)
        own = None if objective == "clip" else objective.rule
        return lambda: loss(controller, objective, own)

    yield "", "plain", under()
    for name in CORRECTIONS:
        yield "correction", name, under(Corrected(build(CORRECTIONS, {"name": name})))
    for name in REWEIGHTINGS:
        yield "reweighting", name, under(build(REWEIGHTINGS, {"name": name, **NEEDED.get(name, {})}))
    for name in STRATEGIES:
        yield "strategy", name, under(build(STRATEGIES, {"name": name, **NEEDED.get(name, {})}))
    for name in OBJECTIVES:
        yield "objective", name, under(objective=build(OBJECTIVES, {"name": name}))
    for name in ADVANTAGES:
        judge, plain = build_advantage(name), under()
        given = {"surprisals": torch.rand(rewards.shape)} if takes_surprisals(name) else {}

        def both(judge: Any = judge, plain: Call = plain, given: Any = given) -> None:
            judge(rewards, **given)
            plain()

        yield "advantage", name, both


def a_step() -> Call:
    """One optimizer step of the embedded engine on 64 completions."""
    recipe = parse_recipe({"name": "step", "update": {"epochs": 8}})
    policy = load_policy()
    learner = Learner(policy, recipe, build_controller(recipe))
    prompts = [task.prompt for task in listcraft.tasks("train", 8)]
    batch = Experience(sample(policy, prompts, Sampling(8, WIDTH), seed=0), torch.randn(ROWS))
    number = [0]

    def step() -> None:
        number[0] += 1
        if number[0] < recipe.campaign.steps:
            learner.step(number[0], batch)

    return step


def seconds(call: Call) -> float:
    """CPU seconds of this thread."""
    started = time.thread_time()
    call()
    return time.thread_time() - started


def main() -> None:
    """Print a row of Markdown per method, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="the methods to measure; all if left out")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    (_, _, usual), *listed = methods()
    listed = [each for each in listed if not args.only or each[1] in args.only]
    step = a_step()
    taken = np.empty((args.rounds, len(listed), 2))
    steps = []
    for turn in range(args.rounds + 3):
        row = [(seconds(usual), seconds(call)) for _, _, call in listed]
        if turn >= 3:
            taken[turn - 3] = row
        if turn % max(args.rounds // 20, 1) == 0:
            steps.append(seconds(step))
    whole = float(np.median(steps[1:]))
    draws = np.random.default_rng(0).integers(0, args.rounds, (500, args.rounds))
    rows = []
    for place, (kind, name, _) in enumerate(listed):
        extra = taken[:, place, 1] - taken[:, place, 0]
        low, high = np.percentile(np.median(extra[draws], axis=1), [2.5, 97.5])
        rows.append(
            (kind, name, *(f"{1e6 * x:.0f}" for x in (np.median(extra), low, high)), f"{np.median(extra) / whole:.2%}")
        )
    plain = 1e6 * np.median(taken[:, :, 0])
    print(f"a step: {1e3 * whole:.0f} ms of CPU; weights, loss and gradient of plain GRPO: {plain:.0f} us")
    print("| kind | method | extra, CPU us | 95 % interval | of a step |\n|---|---|---|---|---|")
    for kind, name, middle, low_us, high_us, share in rows:
        print(f"| {kind} | `{name}` | {middle} | {low_us} to {high_us} | {share} |")
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("kind", "method", "extra_us", "low_us", "high_us", "share_of_step"))
            writer.writerows(rows)


if __name__ == "__main__":
    main()
