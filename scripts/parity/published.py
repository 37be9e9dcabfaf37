"""Published methods beside their authors' own code, on the same tokens: largest difference in loss and gradient.

A case names the repository and the file, pulls the authors' function out of it by `ast`, and calls both on `Tokens`.
What a repository does outside that function, such as the mean over the tokens, is `mean` here for both.
"""

from __future__ import annotations

import ast
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from parity.batch import LENGTHS, WIDTH, Tokens
from parity.source import pull
from torch import Tensor

from entrostat.control import (
    ClipCov,
    Constant,
    Curve,
    Entrocraft,
    EntroPic,
    EntropyController,
    EntropyOutliers,
    EntropyRatioClip,
    HighEntropyTokens,
    Part,
    Stare,
    Steer,
)
from entrostat.control.repo_r import RepoR
from entrostat.objective import (
    Aspo,
    Bapo,
    CeGppo,
    ClipBand,
    ClipRule,
    Cppo,
    DcpoClip,
    Dppo,
    Drpo,
    DualClip,
    Objective,
    aggregate,
    kl_cov_penalty,
    policy_loss,
)
from entrostat.objective.advantages import grpo, w_reinforce
from entrostat.objective.maxrl import maxrl

GROUP = 3  # completions per prompt: rows 0 to 2 and 3 to 5
REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])


@dataclass(frozen=True)
class Case:
    """One method in one setting. theirs, ours: the scalar loss of the tokens, whose gradient reaches `tokens.logp`."""

    method: str
    repository: str
    file: str
    setting: str
    theirs: Callable[[Path, Tokens], Tensor]
    ours: Callable[[Tokens], Tensor]


def differences(case: Case, source: Path) -> tuple[float, float]:
    """The difference of the losses, and the largest one of the gradients."""
    found = []
    for side in (lambda tokens: case.theirs(source, tokens), case.ours):
        torch.manual_seed(0)
        tokens = Tokens()
        loss = side(tokens)
        (gradient,) = torch.autograd.grad(loss, tokens.logp)
        found.append((float(loss.detach()), gradient.where(tokens.mask, 0)))
    (theirs, their_gradient), (ours, our_gradient) = found
    if not bool(their_gradient.any()):
        raise ValueError(f"{case.method}: the authors' gradient is 0 everywhere; the comparison would say nothing")
    return abs(theirs - ours), float((their_gradient - our_gradient).abs().max())


class Config(SimpleNamespace):
    """verl's configuration of an actor."""

    global_batch_info: ClassVar[dict[str, Any]] = {}

    def get(self, name: str, default: Any = None) -> Any:
        """As of a mapping."""
        return getattr(self, name, default)


def masked_mean(values: Tensor, mask: Tensor, axis: int | None = None) -> Tensor:
    """verl's."""
    mask = mask.to(values.dtype)
    return (values * mask).sum(axis) / mask.sum(axis).clamp_min(1e-8)


def mean(loss_mat: Tensor, loss_mask: Tensor, loss_agg_mode: str = "token-mean", **_: Any) -> Tensor:
    """The authors' aggregations that are used here."""
    kept = loss_mat.where(loss_mask.bool(), 0)
    if loss_agg_mode == "token-mean":
        return kept.sum() / loss_mask.sum()
    per_row = kept.sum(-1)
    return (per_row / loss_mask.sum(-1).clamp_min(1) if loss_agg_mode == "seq-mean-token-mean" else per_row).mean()


def authors(source: Path, file: str, names: str, **given: Any) -> Any:
    """The authors' definitions, with what they import from verl."""
    usual = {
        "verl_F": SimpleNamespace(masked_mean=masked_mean, masked_sum=lambda x, m: (x * m).sum()),
        "agg_loss": mean,
        "AlgoConfig": type("AlgoConfig", (), {}),
        "np": np,
        "ActorConfig": Config,
        "DictConfig": dict,
        "defaultdict": defaultdict,
        "Optional": None,
        "Any": Any,
        "Dict": dict,
        "Tuple": tuple,
    }
    return pull(source / file, names, f"published.{Path(file).stem}", **{**usual, **given})


# Our side


def steered(
    tokens: Tokens,
    part: Part | None = None,
    *,
    objective: Objective | str = "clip",
    rule: ClipBand | None = None,
    entropy: float | None = None,
    mode: str = "token-mean",
    advantages: Tensor | None = None,
    **given: Tensor,
) -> Tensor:
    """Our loss under a controller with this part."""
    controller = EntropyController(Constant(rule or ClipRule()), *([part] if part else []), total_steps=10)
    if entropy is not None:
        controller.observe(1, entropy, 1.0)
    stats, earned = tokens.stats, tokens.advantages if advantages is None else advantages
    weighted = controller.advantages(stats, earned, tokens.mask, old_logp=tokens.old, **given)
    chosen = policy_loss(tokens.logp, tokens.old, weighted, tokens.mask, rule=rule, objective=objective)
    return aggregate(chosen.per_token, tokens.mask, mode)  # type: ignore[arg-type]


def from_advantages(advantages: Tensor) -> Callable[[Tokens], Tensor]:
    """The plain policy gradient of advantages (6,): a loss in which every advantage shows."""

    def loss(tokens: Tokens) -> Tensor:
        return steered(tokens, objective="reinforce", advantages=advantages[:, None].expand(-1, WIDTH))

    return loss


# The authors' side


def _clip_b(file: str, name: str, **settings: Any) -> Callable[[Path, Tokens], Tensor]:
    def theirs(source: Path, tokens: Tokens) -> Tensor:
        module = authors(source, file, name, AdvantageFn=object)
        stats = tokens.stats
        scores = REWARDS[:, None] * torch.nn.functional.one_hot(torch.tensor(LENGTHS) - 1, WIDTH)
        exps = SimpleNamespace(
            batch={
                "token_level_rewards": scores,
                "response_mask": tokens.mask.clone(),
                "rollout_log_probs": stats.logp,
                "old_log_probs": stats.logp,
                "entropys": stats.entropy,
                "necs": stats.correction,
            },
            non_tensor_batch={"uid": np.array([0, 0, 0, 1, 1, 1])},
        )
        exps, _ = getattr(module, name)(**settings)(exps)
        ratio = (tokens.logp - tokens.old).exp()
        advantages = exps.batch["advantages"]
        clipped = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        return mean(-clipped, exps.batch["response_mask"])

    return theirs


def _grpo_rows() -> Tensor:
    return grpo(REWARDS.reshape(2, GROUP)).reshape(6, 1).expand(-1, WIDTH)


def loss_function(
    file: str, names: str, function: str, pick: int = 0, **given: Any
) -> Callable[[Path, Tokens], Tensor]:
    """A policy loss of verl's signature; `given` are its further arguments, callables of the tokens or values."""

    def theirs(source: Path, tokens: Tokens) -> Tensor:
        module = authors(source, file, names)
        arguments = {key: value(tokens) if callable(value) else value for key, value in given.items()}
        found = getattr(module, function)(
            old_log_prob=tokens.old,
            log_prob=tokens.logp,
            advantages=tokens.advantages,
            response_mask=arguments.pop("response_mask", tokens.mask.float()),
            **arguments,
        )
        return found[pick]

    return theirs


CORE = "verl/trainer/ppo/core_algos.py"
BAND = {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 10.0}
HIGHER = DualClip(ClipRule.constant(0.2, 0.28), 10.0)
VERL = "verl-project/verl"


def _verl_loss(name: str, mode: str, **settings: Any) -> Callable[[Path, Tokens], Tensor]:
    function = f"compute_policy_loss_{name}"
    return loss_function(CORE, function, function, loss_agg_mode=mode, config=Config(**settings))


def _tokens_of_eighty_twenty(source: Path, tokens: Tokens) -> Tensor:
    module = authors(source, CORE, "get_global_entropy_top_mask compute_policy_loss_vanilla")
    top = module.get_global_entropy_top_mask(tokens.stats.entropy, tokens.mask, 0.2)
    return module.compute_policy_loss_vanilla(
        tokens.old, tokens.logp, tokens.advantages, tokens.mask.long(), config=Config(**BAND), entropy_top_mask=top
    )[0]


def _entrocraft(entropy: float) -> Callable[[Path, Tokens], Tensor]:
    def theirs(source: Path, tokens: Tokens) -> Tensor:
        names = "compute_raftpp_outcome_advantage compute_nsr_outcome_advantage compute_grpo_outcome_advantage"
        module = authors(source, CORE, f"{names} compute_grpo_range_outcome_advantage")
        scores = (2 * REWARDS - 1)[:, None] * torch.nn.functional.one_hot(torch.tensor(LENGTHS) - 1, WIDTH)
        advantages, _ = module.compute_grpo_range_outcome_advantage(
            scores, tokens.mask.float(), entropy, 0.5, 0.6, np.array([0, 0, 0, 1, 1, 1])
        )
        ratio = (tokens.logp - tokens.old).exp()
        return mean(-torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages), tokens.mask)

    return theirs


def _our_entrocraft(entropy: float) -> Callable[[Tokens], Tensor]:
    def ours(tokens: Tokens) -> Tensor:
        part = Entrocraft(Curve.constant(0.5), Curve.constant(0.6))
        earned = grpo((2 * REWARDS - 1).reshape(2, GROUP)).reshape(6, 1).expand(-1, WIDTH)
        rewards = (2 * REWARDS - 1)[:, None].expand(-1, WIDTH)
        return steered(tokens, part, entropy=entropy, advantages=earned, rewards=rewards)

    return ours


def stare(variant: str, adaptive: bool) -> tuple[Callable[[Path, Tokens], Tensor], Callable[[Tokens], Tensor]]:
    """After three steps of entropy .2, .35 and .1."""
    course = (0.2, 0.35, 0.1)

    def theirs(source: Path, tokens: Tokens) -> Tensor:
        module = authors(source, CORE, "STAREController compute_stare_token_weights compute_policy_loss_stare")
        control = module.STAREController(0.3, 1.1, 0.9, adaptive, 0.01)
        for entropy in course:
            control.update(entropy)
        settings = {"enabled": True, "variant": variant, "top_p_ratio": 0.1, "reweight_w": 1.1, "reweight_m": 0.9}
        return module.compute_policy_loss_stare(
            tokens.old,
            tokens.logp,
            tokens.advantages,
            tokens.mask.float(),
            config=Config(**BAND, stare=settings),
            stare_ctrl_dict=vars(control),
        )[0]

    def ours(tokens: Tokens) -> Tensor:
        part = Stare(variant=variant, adaptive=adaptive)  # type: ignore[arg-type]
        controller = EntropyController(Constant(HIGHER), part, total_steps=10)
        for step, entropy in enumerate(course, start=1):
            controller.observe(step, entropy, 1.0)
        weighted = tokens.advantages * controller.weights(
            tokens.stats, tokens.advantages, tokens.mask, old_logp=tokens.old
        )
        return aggregate(
            policy_loss(tokens.logp, tokens.old, weighted, tokens.mask, rule=HIGHER).per_token, tokens.mask
        )

    return theirs, ours


def _kl_cov(share: float) -> tuple[Callable[[Path, Tokens], Tensor], Callable[[Tokens], Tensor]]:
    name = "compute_policy_loss_kl_cov"

    def ours(tokens: Tokens) -> Tensor:
        plain = policy_loss(tokens.logp, tokens.old, tokens.advantages, tokens.mask, objective="reinforce").per_token
        penalty = kl_cov_penalty(tokens.logp, tokens.old, tokens.advantages, tokens.mask, share)
        return aggregate(plain + penalty, tokens.mask)

    return loss_function(CORE, name, name, k_percent=100 * share, ppo_kl_coef=1), ours


def _entropic(
    history: Sequence[float], target: float
) -> tuple[Callable[[Path, Tokens], Tensor], Callable[[Tokens], Tensor]]:
    """After steps of these entropies, with likely .5, because few of these tokens are above .95."""
    name = "compute_policy_loss_entropic"

    def theirs(source: Path, tokens: Tokens) -> Tensor:
        entropy = float(tokens.stats.entropy[tokens.mask].mean())
        past = sum(before - target for before in history)
        alpha = float(np.clip(past * 0.01 + (entropy - target) * 1.0, -1.0, 1.0))
        call = loss_function(
            "core_algos.py", name, name, high_prob_thresh=0.5, control_alpha=alpha, config=Config(**BAND)
        )
        return call(source, tokens)

    def ours(tokens: Tokens) -> Tensor:
        part = EntroPic(target, likely=0.5)
        controller = EntropyController(Constant(HIGHER), part, total_steps=10)
        for step, entropy in enumerate(history, start=1):
            controller.observe(step, entropy, 1.0)
        out = policy_loss(tokens.logp, tokens.old, tokens.advantages, tokens.mask, rule=HIGHER)
        extra = controller.unclipped(tokens.stats, tokens.advantages, tokens.mask)
        return aggregate(out.per_token - extra * (tokens.logp - tokens.old).exp(), tokens.mask)

    return theirs, ours


def _drpo(source: Path, tokens: Tokens) -> Tensor:
    module = authors(source, "unirl/algorithms/drpo.py", "_drpo_loss")
    loss, _ = module._drpo_loss(new_logp=tokens.logp, old_logp=tokens.old, advantages=tokens.advantages, epsilon=0.05)
    return mean(loss, tokens.mask)


def _cppo(source: Path, tokens: Tokens) -> Tensor:
    module = authors(source, "unirl/algorithms/cppo.py", "_cppo_mask _cppo_loss", List=list)
    lengths = torch.tensor(LENGTHS)
    loss, _ = module._cppo_loss(
        new_logp=tokens.logp[tokens.mask],
        old_logp=tokens.old[tokens.mask],
        advantages=tokens.advantages[tokens.mask],
        lengths=lengths,
        delta=0.03,
        w_min=0.8,
        delta_b=0.005,
    )
    return loss.mean()


def _repo_r(course: Sequence[float]) -> tuple[Callable[[Path, Tokens], Tensor], Callable[[Tokens], Tensor]]:
    """REPO-R after steps of these entropies, at a target of .5 with a range of z wide enough to tell."""
    least, most, target = 0.01, 0.2, 0.5
    file = "skyrl/backends/skyrl_train/utils/ppo_utils.py"

    def theirs(source: Path, tokens: Tokens) -> Tensor:
        module = authors(source, file, "repo_r_rescale_advantages repo_r_update_zeta")
        zeta = least
        for entropy in course:
            zeta = module.repo_r_update_zeta(zeta, entropy, target, least, most)
        advantages = module.repo_r_rescale_advantages(tokens.advantages, tokens.logp, zeta)
        ratio = (tokens.logp - tokens.old).exp()
        return mean(-torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages), tokens.mask)

    def ours(tokens: Tokens) -> Tensor:
        part = RepoR(target, least=least, most=most)
        controller = EntropyController(Constant(ClipRule()), part, total_steps=10)
        for step, entropy in enumerate(course, start=1):
            controller.observe(step, entropy, 1.0)
        weighted = controller.advantages(tokens.stats, tokens.advantages, tokens.mask, old_logp=tokens.old)
        return aggregate(policy_loss(tokens.logp, tokens.old, weighted, tokens.mask).per_token, tokens.mask)

    return theirs, ours


def outcome(function: str, **given: Any) -> Callable[[Path, Tokens], Tensor]:
    """An advantage of verl's signature, as a plain policy gradient."""

    def theirs(source: Path, tokens: Tokens) -> Tensor:
        module = authors(source, CORE, function)
        scores = REWARDS[:, None] * torch.nn.functional.one_hot(torch.tensor(LENGTHS) - 1, WIDTH)
        advantages = getattr(module, function)(scores, tokens.mask.float(), np.array([0, 0, 0, 1, 1, 1]), **given)[0]
        return mean(-(tokens.logp - tokens.old).exp() * advantages, tokens.mask)

    return theirs


def _decomposed(source: Path, tokens: Tokens) -> Tensor:
    function = "compute_psr_nsr_outcome_advantage"
    module = authors(source, CORE, function)
    scores = REWARDS[:, None] * torch.nn.functional.one_hot(torch.tensor(LENGTHS) - 1, WIDTH)
    advantages, _ = getattr(module, function)(scores, scores, tokens.mask.float(), 1.0, "weighted", 0.1)
    return mean(-(tokens.logp - tokens.old).exp() * advantages, tokens.mask)


def _vespo_of_trl(source: Path, tokens: Tokens) -> Tensor:
    tree = ast.parse((source / "trl/trainer/grpo_trainer.py").read_text(encoding="utf-8"))
    found = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "get_gamma_weights"
    )
    found.decorator_list = []
    space: dict[str, Any] = {"torch": torch, "math": math}
    exec(compile(ast.Module([found], []), "trl", "exec"), space)
    with torch.no_grad():
        phi = space["get_gamma_weights"](tokens.advantages[:, :1], tokens.logp - tokens.old, tokens.mask, None)
    return mean(-phi * tokens.advantages * tokens.logp, tokens.mask)


def cases() -> Iterator[Case]:
    """Every comparison."""
    trinity, folder = "hiyuchang/Trinity-RFT@example/entropy", "trinity/algorithm/advantage_fn"
    for limit in (0.2, 2.5):
        yield Case(
            "entropy-outliers",
            trinity,
            f"{folder}/clipb_advantage.py",
            f"Clip-B, mu {limit}",
            _clip_b(f"{folder}/clipb_advantage.py", "ClipBAdvantageFn", mu=limit),
            lambda tokens, limit=limit: steered(tokens, EntropyOutliers(limit), advantages=_grpo_rows()),
        )
        yield Case(
            "entropy-outliers",
            trinity,
            f"{folder}/clipv_advantage.py",
            f"Clip-V, mu {limit}, share .08",
            _clip_b(f"{folder}/clipv_advantage.py", "ClipVAdvantageFn", mu=limit, max_frac=0.08),
            lambda tokens, limit=limit: steered(
                tokens, EntropyOutliers(limit, centred=True, most=0.08), advantages=_grpo_rows()
            ),
        )
    for entropy, place in ((0.7, "above"), (0.55, "inside"), (0.4, "below")):
        yield Case(
            "entrocraft",
            "lblaoke/entrocraft",
            CORE,
            f"{place} the band",
            _entrocraft(entropy),
            _our_entrocraft(entropy),
        )
    for form, linear, most in (("linear", True, 1.2), ("exponential", False, 1.0)):
        names = "compute_token_weights compute_policy_loss_with_entropy"
        yield Case(
            "steer",
            "zz-haooo/STEER",
            CORE,
            form,
            loss_function(
                CORE,
                names,
                "compute_policy_loss_with_entropy",
                entropys=lambda tokens: tokens.stats.entropy,
                cliprange=0.2,
                cliprange_low=0.2,
                cliprange_high=0.28,
                clip_ratio_c=10.0,
                token_weight_min=0.8,
                token_weight_max=most,
                linear=linear,
            ),
            lambda tokens, form=form: steered(tokens, Steer(form=form), rule=HIGHER),
        )
    for variant, adaptive in (("O1", False), ("O1", True), ("C2", True)):
        theirs, ours = stare(variant, adaptive)
        yield Case("stare", "hp-luo/STARE", CORE, f"{variant}{', adaptive' if adaptive else ''}", theirs, ours)
    yield Case(
        "80/20",
        "zhouxiangxin1998/Beyond-the-80-20-Rule-RLVR",
        CORE,
        "the highest fifth",
        _tokens_of_eighty_twenty,
        lambda tokens: steered(tokens, HighEntropyTokens(), rule=HIGHER),
    )
    name = "compute_policy_loss_clip_cov"
    wide = {"clip_cov_lb": 0.05, "clip_cov_ub": 5.0, "clip_ratio": 0.3}
    for low, high in ((1.0, 1.0), (0.2, 0.2)):
        yield Case(
            "clip-cov",
            "PRIME-RL/Entropy-Mechanism-of-RL",
            CORE,
            f"band {1 - low:g} to {1 + high:g}",
            loss_function(CORE, name, name, cliprange_low=low, cliprange_high=high, **wide),
            lambda tokens, low=low, high=high: steered(
                tokens, ClipCov(0.3, 0.05, 5.0), rule=ClipRule.constant(low, high)
            ),
        )
    for target in (1.2, 1.6, 5.0):  # above it, below it, and at the limit of alpha
        theirs, ours = _entropic((1.5, 1.1), target)
        yield Case("entropic", "yk7333/EntroPIC", "core_algos.py", f"target {target}, likely .5", theirs, ours)
    for share in (2e-3, 0.2):
        theirs, ours = _kl_cov(share)
        yield Case("kl-cov", "PRIME-RL/Entropy-Mechanism-of-RL", CORE, f"share {share:g}", theirs, ours)
    for divergence, delta in (("tv", 0.15), ("kl", 0.05)):
        yield Case(
            "dppo",
            VERL,
            CORE,
            f"binary {divergence}, delta {delta}",
            _verl_loss(
                f"dppo_{divergence}", "token-mean", clip_ratio=delta, clip_ratio_low=delta, clip_ratio_high=delta
            ),
            lambda tokens, divergence=divergence, delta=delta: steered(tokens, objective=Dppo(divergence, delta)),
        )
    for target in (0.5, 0.45):
        searched = Config(
            ratio_lower_start=0.6,
            ratio_lower_max=0.9,
            ratio_upper_start=1.2,
            ratio_upper_max=3.0,
            ratio_lower_step=0.05,
            ratio_upper_step=0.05,
            adv_ratio_target=target / (1 - target),
            eps=1e-8,
        )
        file = "recipe/bapo/policy_loss.py"
        yield Case(
            "bapo",
            "WooooDyy/BAPO",
            file,
            f"form code, share {target}",
            loss_function(
                file,
                "_compute_effective_advantage _append_metric compute_policy_loss_bapo",
                "compute_policy_loss_bapo",
                config=Config(clip_ratio=0.2, clip_ratio_low=None, clip_ratio_high=None, policy_loss=searched),
            ),
            lambda tokens, target=target: steered(tokens, objective=Bapo(form="code", share=target)),
        )
    name = "compute_gppo_loss_general_beta"
    yield Case(
        "ce-gppo",
        "Kwai-Klear/CE-GPPO",
        CORE,
        "beta .75 and 1, dual clip 1.5",
        loss_function(
            CORE,
            name,
            name,
            cliprange=0.2,
            cliprange_low=0.2,
            cliprange_high=0.28,
            clip_ratio_c=1.5,
            gppo_loss_beta1=0.75,
            gppo_loss_beta2=1.0,
        ),
        lambda tokens: steered(tokens, objective=CeGppo(), rule=DualClip(ClipRule.constant(0.2, 0.28), 1.5)),
    )
    old = 1.0 + 0.06 * torch.linspace(-1, 1, len(LENGTHS) * WIDTH).view(len(LENGTHS), WIDTH)
    name = "compute_policy_loss_grpo_erc"
    yield Case(
        "erc",
        "Kwai-Klear/ERC",
        CORE,
        "gradient; the loss keeps what is masked",
        loss_function(
            CORE,
            name,
            name,
            entropy=lambda tokens: tokens.stats.entropy,
            old_entropy=lambda tokens: tokens.stats.entropy / old,
            config=Config(**BAND, entropy_mask_low=0.95, entropy_mask_high=1.05, tis_imp_ratio_cap=0),
        ),
        lambda tokens: steered(tokens, EntropyRatioClip(), rule=HIGHER, old_entropy=tokens.stats.entropy / old),
    )
    yield Case(
        "cispo",
        VERL,
        CORE,
        "clip .2 and .28",
        _verl_loss("cispo", "token-mean", clip_ratio_low=0.2, clip_ratio_high=0.28),
        lambda tokens: steered(tokens, objective="cispo", rule=ClipRule.constant(0.2, 0.28)),
    )
    for name, ours_name, settings, rule in (
        ("gspo", "gspo", {"clip_ratio": 0.2, "clip_ratio_low": 0.03, "clip_ratio_high": 0.04}, (0.03, 0.04)),
        ("sapo", "sapo", {"tau_pos": 1.0, "tau_neg": 1.05}, None),
        ("geo_mean", "gmpo", {"clip_ratio": 0.4, "clip_ratio_low": 0.4, "clip_ratio_high": 0.4}, None),
    ):
        yield Case(
            ours_name,
            VERL,
            CORE,
            "clip .03 and .04" if rule else "the published settings",
            _verl_loss(name, "seq-mean-token-mean", **settings),
            lambda tokens, ours_name=ours_name, rule=rule: steered(
                tokens,
                objective=ours_name,
                rule=ClipRule.constant(*rule) if rule else None,
                mode="sequence-mean",
            ),
        )
    name = "compute_policy_loss_dcpo"
    yield Case(
        "dcpo",
        "lime-RL/DCPO",
        CORE,
        "clip .16 and .2, dual clip 10",
        loss_function(
            CORE,
            f"get_clip_low_high {name}",
            name,
            config=Config(
                clip_type="dynamic", clip_ratio=0.2, clip_ratio_low=0.16, clip_ratio_high=0.2, clip_ratio_c=10.0
            ),
        ),
        lambda tokens: steered(tokens, rule=DualClip(DcpoClip(), 10.0)),
    )
    name = "compute_policy_loss_archer"
    yield Case(
        "aspo",
        "wizard-III/Archer2.0",
        CORE,
        "one band of .2, cap 1.5",
        loss_function(
            CORE,
            name,
            name,
            response_mask=lambda tokens: tokens.mask,
            high_entropy_mask=lambda tokens: tokens.mask,
            negative_clip_ratio_c=1.5,
            positive_clip_ratio_c=1.5,
        ),
        lambda tokens: steered(tokens, objective=Aspo(1.5)),
    )
    yield Case(
        "vespo",
        "FloyedShen/VESPO",
        "recipe/vespo/code/core_algos.py",
        "the published settings",
        loss_function(
            "recipe/vespo/code/core_algos.py",
            "compute_policy_loss_vespo",
            "compute_policy_loss_vespo",
            config=Config(policy_loss={}),
        ),
        lambda tokens: steered(tokens, objective="vespo"),
    )
    yield Case(
        "vespo",
        "huggingface/trl",
        "trl/trainer/grpo_trainer.py",
        "get_gamma_weights",
        _vespo_of_trl,
        lambda tokens: steered(tokens, objective="vespo"),
    )
    yield Case(
        "drpo",
        "Tencent-Hunyuan/UniRL",
        "unirl/algorithms/drpo.py",
        "epsilon .05",
        _drpo,
        lambda tokens: steered(tokens, objective=Drpo(0.05)),
    )
    yield Case(
        "cppo",
        "Tencent-Hunyuan/UniRL",
        "unirl/algorithms/cppo.py",
        "delta .03, budget .005, adaptive",
        _cppo,
        lambda tokens: steered(tokens, objective=Cppo(0.03, 0.005, adaptive=True)),
    )
    name = "compute_policy_loss_up"
    yield Case(
        "up",
        f"{VERL}@pull/7022",
        CORE,
        "clip .2, dual clip 1.5",
        loss_function(
            CORE, name, name, config=Config(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.2, clip_ratio_c=1.5)
        ),
        lambda tokens: steered(tokens, objective="up", rule=DualClip(ClipRule(), 1.5)),
    )
    for course, where in (((0.1, 0.2, 0.3), "below the target"), ((0.9, 0.8, 0.7, 0.6), "above it, z turned")):
        theirs, ours = _repo_r(course)
        yield Case(
            "repo-r",
            "NovaSky-AI/SkyRL@pull/1896",
            "skyrl/backends/skyrl_train/utils/ppo_utils.py",
            where,
            theirs,
            ours,
        )
    yield Case(
        "maxrl",
        "tajwarfahim/maxrl",
        CORE,
        "two groups of three",
        outcome("compute_maxrl_outcome_advantage"),
        from_advantages(maxrl(REWARDS.reshape(2, GROUP)).flatten()),
    )
    yield Case(
        "w-reinforce",
        "TianHongZXY/RLVR-Decomposed",
        CORE,
        "weight .1",
        _decomposed,
        from_advantages(w_reinforce(2 * REWARDS - 1)),
    )
