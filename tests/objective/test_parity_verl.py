"""Our objectives and advantages on the same tensors as verl's registered functions; skipped where verl is not
installed.

Differences that are verl's alone: it clamps log-ratios to [-20, 20]; DPPO truncates the weight at 20 and drops the
value of a cut token where ours holds it at the band, with the same gradient; Clip-Cov leaves tokens that the band
cuts out of its draw.
"""

import pytest
import torch
from parts import weights_of
from torch import Tensor

from entrostat.control import ClipCov
from entrostat.objective import (
    CLIP_HIGHER,
    ClipRule,
    DppoClip,
    DualClip,
    Gmpo,
    advantages,
    aggregate,
    kl_cov_penalty,
    policy_loss,
)
from entrostat.tokens import TokenStats

pytest.importorskip("verl", reason="verl is not installed: no parity with its losses is checked")
core = pytest.importorskip("verl.trainer.ppo.core_algos")
config = pytest.importorskip("verl.workers.config")
F64 = torch.float64
ROWS, LENGTH = 8, 20
MODES = {"token-mean": "token-mean", "sequence-mean": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}


class Batch:
    """Padded completions with ratios on both sides of the band; one advantage a sequence if asked."""

    def __init__(self, spread: float = 0.4, by_sequence: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        self.old_logp = -4 * torch.rand(ROWS, LENGTH, generator=generator, dtype=F64)
        noise = spread * torch.randn(ROWS, LENGTH, generator=generator, dtype=F64)
        self.logp = (self.old_logp + noise).clamp_max(0).requires_grad_()
        adv = torch.randn(ROWS, LENGTH, generator=generator, dtype=F64)
        self.advantages = adv[:, :1].expand(ROWS, LENGTH).clone() if by_sequence else adv
        lengths = torch.tensor([20, 3, 11, 7, 1, 20, 16, 5])
        self.mask = torch.arange(LENGTH) < lengths[:, None]

    def per_token(self, objective, rule) -> Tensor:
        return policy_loss(
            self.logp, self.old_logp, self.advantages, self.mask, rule=rule, objective=objective
        ).per_token

    def ours(self, objective, rule, mode: str) -> Tensor:
        return self.aggregate(self.per_token(objective, rule), mode)

    def aggregate(self, per_token: Tensor, mode: str) -> Tensor:
        return aggregate(per_token, self.mask, mode, denominator=ROWS * LENGTH if mode == "constant" else None)

    def theirs(self, name: str, mode: str = "token-mean", **settings) -> Tensor:
        policy = config.actor.PolicyLossConfig(**settings.pop("policy", {}))
        actor = config.ActorConfig(
            strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, policy_loss=policy, **settings
        )
        loss = core.get_policy_loss_fn(name)
        return loss(self.old_logp, self.logp, self.advantages, self.mask.double(), MODES[mode], actor)[0]

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, self.logp, retain_graph=True)[0]

    def compare(self, ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(self.gradient(ours), self.gradient(theirs))


@pytest.mark.parametrize("mode", ["token-mean", "sequence-mean", "constant"])
def test_clip_with_verls_dual_clip_equals_vanilla_in_every_aggregation(mode: str) -> None:
    batch = Batch()
    batch.compare(batch.ours("clip", DualClip(), mode), batch.theirs("vanilla", mode))


@pytest.mark.parametrize(
    ("objective", "rule", "mode", "name", "settings"),
    [
        ("clip", DualClip(CLIP_HIGHER, 1.5), "token-mean", "vanilla", {"clip_ratio_high": 0.28, "clip_ratio_c": 1.5}),
        ("sapo", None, "sequence-mean", "sapo", {}),
        ("cispo", ClipRule.constant(0.2, 0.28), "token-mean", "cispo", {"clip_ratio_high": 0.28}),
        (
            "gspo",
            ClipRule.constant(0.02, 0.03),
            "sequence-mean",
            "gspo",
            {"clip_ratio_low": 0.02, "clip_ratio_high": 0.03},
        ),
    ],
)
def test_loss_and_gradient_equal_verl(objective, rule, mode: str, name: str, settings: dict) -> None:
    batch = Batch(by_sequence=objective == "gspo")
    batch.compare(batch.ours(objective, rule, mode), batch.theirs(name, mode, **settings))


def test_gmpo_equals_verl_with_its_widths_on_the_log_ratio() -> None:
    batch = Batch(spread=0.6, by_sequence=True)
    theirs = batch.theirs("geo_mean", clip_ratio_low=0.4, clip_ratio_high=0.4)
    batch.compare(batch.ours(Gmpo(), None, "sequence-mean"), theirs)


def test_dppo_has_the_gradient_of_verl() -> None:
    batch = Batch(spread=1.0)
    ours = batch.ours("clip", DppoClip(delta=0.1), "token-mean")
    theirs = batch.theirs("dppo_tv", clip_ratio_low=0.1, clip_ratio_high=0.1, clip_ratio_c=20.0)
    torch.testing.assert_close(batch.gradient(ours), batch.gradient(theirs))


def test_kl_cov_is_the_unclipped_objective_with_its_penalty() -> None:
    batch = Batch()
    penalty = kl_cov_penalty(batch.logp, batch.old_logp, batch.advantages, batch.mask, share=0.1, coefficient=0.7)
    ours = batch.aggregate(batch.per_token("reinforce", None) + penalty, "token-mean")
    batch.compare(ours, batch.theirs("kl_cov", policy={"kl_cov_ratio": 0.1, "ppo_kl_coef": 0.7}))


def test_clip_cov_that_draws_every_candidate_has_the_gradient_of_verl() -> None:
    batch = Batch()
    stats = TokenStats(*(batch.logp.detach(),) * 4)
    keep = weights_of(ClipCov(share=1.0, low=0.3, high=2.0), stats, batch.advantages, batch.mask)
    assert 0 < (keep == 0).sum() < batch.mask.sum()
    batch.advantages, kept = batch.advantages * keep, batch.advantages
    ours = batch.ours("clip", None, "token-mean")
    batch.advantages = kept
    theirs = batch.theirs("clip_cov", policy={"clip_cov_ratio": 1.0, "clip_cov_lb": 0.3, "clip_cov_ub": 2.0})
    torch.testing.assert_close(batch.gradient(ours), batch.gradient(theirs))


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (advantages.grpo, "grpo", {"norm_adv_by_std_in_grpo": True}),
        (advantages.dr_grpo, "grpo", {"norm_adv_by_std_in_grpo": False}),
        (lambda rewards: advantages.reinforce(rewards, "leave-one-out"), "rloo", {}),
    ],
)
def test_group_advantages_equal_verl(ours, theirs: str, options: dict) -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0], [0.3, 0.9, 0.1, 0.5]])
    groups = [group for group in range(3) for _ in range(4)]
    function = core.get_adv_estimator_fn(theirs)
    found, _ = function(
        token_level_rewards=rewards.reshape(12, 1), response_mask=torch.ones(12, 1), index=groups, **options
    )
    torch.testing.assert_close(ours(rewards).flatten(), found.flatten())
