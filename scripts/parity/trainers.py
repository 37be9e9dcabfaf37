"""Methods of ours that a public trainer has too, beside that trainer's code, on the same tokens.

As in `published.py`, whose `Case` this uses; here the source is a trainer, not the authors of the method.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import torch
from parity.batch import Tokens
from parity.published import (
    BAND,
    CORE,
    GROUP,
    HIGHER,
    REWARDS,
    VERL,
    Case,
    Config,
    authors,
    from_advantages,
    loss_function,
    mean,
    outcome,
    steered,
)
from parity.source import pull
from torch import Tensor

from entrostat.control import AdaptiveBonus, Constant, EntropyController
from entrostat.objective import ClipRule, Correction, DualClip, aggregate, entropy_bonus, policy_loss
from entrostat.objective.advantages import dr_grpo, grpo, reinforce
from entrostat.objective.corrections import IcePop, Mis, Opsm, SeqMaskTis, Tis
from entrostat.objective.grpo_dropout import grpo_dropout

TRL, GRPO = "huggingface/trl", "trl/trainer/grpo_trainer.py"
SKYWORK, HELPER = "SkyworkAI/Skywork-OR1", "verl/trainer/ppo/rollout_corr_helper.py"


def corrected(tokens: Tokens, correction: Correction) -> Tensor:
    """Our clipped loss under a correction."""
    out = policy_loss(
        tokens.logp,
        tokens.old,
        tokens.advantages,
        tokens.mask,
        correction=correction,
        sampler_logp=tokens.sampler,
    )
    return aggregate(out.per_token, tokens.mask)


def clipped(tokens: Tokens, factors: Tensor) -> Tensor:
    """PPO's loss times a trainer's factors."""
    ratio = (tokens.logp - tokens.old).exp()
    kept = torch.minimum(ratio * tokens.advantages, ratio.clamp(0.8, 1.2) * tokens.advantages)
    return mean(-factors * kept, tokens.mask)


def _by_verl(level: str, threshold: str) -> Callable[[Path, Tokens], Tensor]:
    def theirs(source: Path, tokens: Tokens) -> Tensor:
        names = "SAFETY_BOUND _parse_rollout_is_threshold compute_rollout_correction_weights"
        module = authors(source, HELPER, names, compute_is_metrics=lambda **_: {})
        module.verl_F.masked_sum = lambda x, mask, axis=None: (x * mask).sum(axis)
        factors, _ = module.compute_rollout_correction_weights(
            tokens.old - tokens.sampler, tokens.mask.float(), level, threshold
        )
        return clipped(tokens, factors)

    return theirs


def _by_openrlhf(kind: str, low: float, high: float) -> Callable[[Path, Tokens], Tensor]:
    def theirs(source: Path, tokens: Tokens) -> Tensor:
        models = source / "openrlhf" / "models"
        utils = pull(models / "utils.py", "masked_mean", "published.openrlhf_utils", Optional=Optional)
        given = {"masked_mean": utils.masked_mean, "Optional": Optional, "Tuple": tuple}
        module = pull(models / "loss.py", "PolicyLoss aggregate_loss", "published.openrlhf", **given)
        loss = module.PolicyLoss(
            enable_vllm_is_correction=True, vllm_is_truncated_threshold=[low, high], vllm_is_correction_type=kind
        )
        mask = tokens.mask.float()
        return loss(
            tokens.logp,
            tokens.old,
            tokens.advantages,
            mask,
            tokens.sampler,
            batch_num_tokens=mask.sum(),
            global_batch_size=len(mask),
        )[0]

    return theirs


def _opsm(source: Path, tokens: Tokens) -> Tensor:
    module = pull(source / "slime/utils/ppo_utils.py", "compute_opsm_mask", "published.slime", Namespace=Any)
    factors, _ = module.compute_opsm_mask(
        SimpleNamespace(opsm_delta=0.02),
        *(list(x) for x in (tokens.logp.detach(), tokens.sampler, tokens.advantages, tokens.mask)),
    )
    return clipped(tokens, factors.view_as(tokens.logp))


# TRL's loss is one method; its statements are found by what they test


def _statements(source: Path, *tests: str) -> list[ast.stmt]:
    """The first `if` with each of the tests, as they are written in TRL's loss."""
    tree = ast.parse((source / GRPO).read_text(encoding="utf-8"))
    every = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    return [next(node for node in every if ast.unparse(node.test) == test) for test in tests]


def _run(statements: Sequence[ast.stmt], **space: Any) -> dict[str, Any]:
    exec(compile(ast.Module(list(statements), []), "trl", "exec"), space)
    return space


def _luspo(source: Path, tokens: Tokens) -> Tensor:
    mask = tokens.mask.float()
    ratio = ((tokens.logp - tokens.old) * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
    trainer = SimpleNamespace(
        loss_type="luspo",
        epsilon_low=0.02,
        epsilon_high=0.025,
        args=SimpleNamespace(delta=None),
        current_gradient_accumulation_steps=1,
    )
    tests = ("self.loss_type == 'cispo'", "self.loss_type in ['grpo', 'sapo']")
    found = _run(
        _statements(source, *tests),
        torch=torch,
        self=trainer,
        coef_1=ratio.exp(),
        advantages=tokens.advantages[:, :1],
        mask=mask,
        mode="train",
    )
    loss: Tensor = found["loss"]
    return loss


COURSE = (0.4, 0.15, 0.1, 0.3, 0.18, 0.05)
ADAPTIVE = {"target": 0.2, "delta": 0.004, "most": 0.015}


def _entropy_loss(tokens: Tokens, coefficient: float) -> Tensor:
    plain = policy_loss(tokens.logp, tokens.old, tokens.advantages, tokens.mask).per_token
    return aggregate(plain + entropy_bonus(tokens.entropy, tokens.mask, coefficient), tokens.mask)


def _adaptive(course: Sequence[float]) -> Callable[[Tokens], Tensor]:
    def ours(tokens: Tokens) -> Tensor:
        controller = EntropyController(Constant(), AdaptiveBonus(**ADAPTIVE), total_steps=10)
        for step, entropy in enumerate(course, start=1):
            controller.observe(step, entropy, 1.0)
        return _entropy_loss(tokens, controller.entropy_coef())

    return ours


def _skywork(course: Sequence[float]) -> Callable[[Path, Tokens], Tensor]:
    def theirs(source: Path, tokens: Tokens) -> Tensor:
        controller = authors(source, CORE, "EntController").EntController(
            0.0, ADAPTIVE["most"], 0.0, ADAPTIVE["delta"], ADAPTIVE["target"], True
        )
        for entropy in course:
            controller.update(entropy)
        return _entropy_loss(tokens, controller.value * controller.entropy_loss_enabled)

    return theirs


def _adaptive_trl(course: Sequence[float]) -> Callable[[Path, Tokens], Tensor]:
    def theirs(source: Path, tokens: Tokens) -> Tensor:
        args = SimpleNamespace(
            entropy_target=ADAPTIVE["target"],
            entropy_coef_delta=ADAPTIVE["delta"],
            entropy_coef_max=ADAPTIVE["most"],
            entropy_coef_min=0.0,
        )
        trainer = SimpleNamespace(args=args, entropy_coef=0.0, use_adaptive_entropy=True)
        moved = _statements(source, "world_entropy <= self.args.entropy_target")
        for entropy in course:
            _run(moved, self=trainer, world_entropy=entropy, min=min, max=max)
            trainer._last_world_entropy = entropy
        applied = next(
            node
            for node in ast.walk(ast.parse((source / GRPO).read_text(encoding="utf-8")))
            if isinstance(node, ast.If) and "apply_coef = self.entropy_coef if" in ast.unparse(node.body[0])
        )
        return _entropy_loss(tokens, _run([applied], self=trainer)["apply_coef"])

    return theirs


SELECTOR = "verl/examples/grpo_dropout/selector_methods.py"
SURPRISALS = torch.tensor([0.4, 1.9, 0.7, 0.3, 1.4, 0.9])


def _grpo_dropout(source: Path, tokens: Tokens) -> Tensor:
    """The authors' choice of completions, variant balance_neg; equation 9's centre of them is written out here."""
    names = (
        "BASIS_ALIASES basis_suffix _sample_subset select_balanced_push_zero "
        "_select_balanced_push_zero_add_negpush_adv_sign"
    )
    module = pull(source / SELECTOR, names, "published.grpo_dropout", random=random, Any=Any)
    native, earned = grpo(REWARDS.reshape(2, GROUP), 1e-6).flatten(), torch.zeros(2 * GROUP)
    for first in (0, GROUP):
        group = range(first, first + GROUP)
        centre = float(SURPRISALS[list(group)].mean())
        push = [float(native[i] * (SURPRISALS[i] - centre) / GROUP) for i in range(2 * GROUP)]
        chosen, _ = module._select_balanced_push_zero_add_negpush_adv_sign(
            list(group), GROUP, "group", 0, native.tolist(), push, push, "avg", "negative"
        )
        weights = np.exp([-float(SURPRISALS[i]) for i in chosen])
        earned[chosen] = native[chosen] - float(np.average(native[chosen].numpy(), weights=weights))
    return mean(-(tokens.logp - tokens.old).exp() * earned[:, None], tokens.mask)


def cases() -> Iterator[Case]:
    """Every comparison with a trainer, and those of authors that need more than one function."""
    yield Case(
        "grpo-dropout",
        "hexuandeng/GRPODropout",
        SELECTOR,
        "balance_neg, groups of three",
        _grpo_dropout,
        from_advantages(grpo_dropout(REWARDS.reshape(2, GROUP), SURPRISALS.reshape(2, GROUP)).flatten()),
    )
    for level, threshold, correction, name in (
        ("token", "1.05", Tis(1.05), "tis"),
        ("sequence", "1.05", Tis(1.05, level="sequence"), "tis"),
        ("token", "0.9_1.1", IcePop(0.9, 1.1), "icepop"),
        ("sequence", "0.7_1.4", Mis(0.7, 1.4, level="sequence"), "mis"),
    ):
        yield Case(
            name,
            VERL,
            HELPER,
            f"{level}, {threshold.replace('_', ' to ')}",
            _by_verl(level, threshold),
            lambda tokens, correction=correction: corrected(tokens, correction),
        )
    for kind, correction in (
        ("tis", Tis(1.1, 0.9)),
        ("icepop", IcePop(0.9, 1.1)),
        ("seq-mask-tis", SeqMaskTis(0.95, 1.05)),
    ):
        low, high = (0.95, 1.05) if kind == "seq-mask-tis" else (0.9, 1.1)
        yield Case(
            kind,
            "OpenRLHF/OpenRLHF",
            "openrlhf/models/loss.py",
            f"{low} to {high}",
            _by_openrlhf(kind, low, high),
            lambda tokens, correction=correction: corrected(tokens, correction),
        )
    yield Case(
        "opsm",
        "THUDM/slime",
        "slime/utils/ppo_utils.py",
        "delta .02",
        _opsm,
        lambda tokens: corrected(tokens, Opsm(0.02)),
    )
    yield Case(
        "luspo",
        TRL,
        GRPO,
        "clip .02 and .025",
        _luspo,
        lambda tokens: steered(tokens, objective="luspo", rule=ClipRule.constant(0.02, 0.025), mode="sequence-sum"),
    )
    for place, course in (("below the target", COURSE), ("above it", COURSE[:4])):
        yield Case("adaptive", SKYWORK, CORE, f"{place}, EntController", _skywork(course), _adaptive(course))
        yield Case("adaptive", TRL, GRPO, place, _adaptive_trl(course), _adaptive(course))
    name = "compute_policy_loss_vanilla"
    for ours, settings, rule in (
        ("clip-higher", BAND, HIGHER),
        ("dual-clip", {**BAND, "clip_ratio_high": 0.2, "clip_ratio_c": 1.5}, None),
    ):
        yield Case(
            ours,
            VERL,
            CORE,
            "dual clip 10" if rule else "clip .2, cap 1.5",
            loss_function(CORE, name, name, config=Config(**settings), loss_agg_mode="token-mean"),
            lambda tokens, rule=rule: steered(tokens, rule=rule or DualClip(ClipRule.constant(0.2, 0.2), 1.5)),
        )
    grouped = REWARDS.reshape(2, GROUP)
    for ours, function, given, advantages in (
        ("grpo", "compute_grpo_outcome_advantage", {}, grpo(grouped)),
        ("dr-grpo", "compute_grpo_outcome_advantage", {"norm_adv_by_std_in_grpo": False}, dr_grpo(grouped)),
        ("reinforce", "compute_rloo_outcome_advantage", {}, reinforce(grouped, "leave-one-out")),
    ):
        yield Case(
            ours,
            VERL,
            CORE,
            "leave-one-out, two groups of three" if ours == "reinforce" else "two groups of three",
            outcome(function, **given),
            from_advantages(advantages.flatten()),
        )
