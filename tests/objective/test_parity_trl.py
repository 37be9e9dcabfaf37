"""Our objectives on the same tensors as TRL's own loss; skipped where TRL is not installed.

TRL's `_compute_loss` is called on an object that has only the attributes it reads. Where ours takes a bound on the
ratio and TRL a width, the test says how they translate. Two differences are TRL's alone: CISPO has no lower bound
there, and `epsilon_high` is then the bound itself. TRL finds high-entropy tokens in float32.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from parts import measured, weights_of
from torch import Tensor

from entrostat.control import AdaptiveBonus, HighEntropyTokens
from entrostat.objective import CLIP_HIGHER, ClipRule, DualClip, Gmpo, aggregate, policy_loss
from entrostat.tokens import TokenStats

trl = pytest.importorskip("trl", reason="TRL is not installed: no parity with its losses is checked")
GRPOTrainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
F64 = torch.float64
ROWS, LENGTH = 8, 20


class Batch:
    """Padded completions with ratios on both sides of the band and one advantage a sequence."""

    def __init__(self, spread: float = 0.4) -> None:
        generator = torch.Generator().manual_seed(0)
        self.old_logp = -4 * torch.rand(ROWS, LENGTH, generator=generator, dtype=F64)
        noise = spread * torch.randn(ROWS, LENGTH, generator=generator, dtype=F64)
        self.logp = (self.old_logp + noise).clamp_max(0).requires_grad_()
        self.entropy = torch.rand(ROWS, LENGTH, generator=generator, dtype=F64)
        self.advantages = torch.randn(ROWS, generator=generator, dtype=F64)
        lengths = torch.tensor([20, 3, 11, 7, 1, 20, 16, 5])
        self.mask = torch.arange(LENGTH) < lengths[:, None]

    def ours(self, objective, rule, mode: str) -> Tensor:
        out = policy_loss(self.logp, self.old_logp, self.advantages[:, None], self.mask, rule=rule, objective=objective)
        return aggregate(out.per_token, self.mask, mode, denominator=ROWS * LENGTH if mode == "constant" else None)

    def theirs(self, compute=GRPOTrainer._compute_loss, host: SimpleNamespace | None = None, **settings) -> Tensor:
        inputs = {
            "prompt_ids": torch.zeros(ROWS, 1, dtype=torch.long),
            "prompt_mask": torch.ones(ROWS, 1, dtype=torch.long),
            "completion_ids": torch.zeros(ROWS, LENGTH, dtype=torch.long),
            "completion_mask": self.mask.long(),
            "advantages": self.advantages,
            "old_per_token_logps": self.old_logp,
            "num_items_in_batch": self.mask.sum(),
        }
        return compute(host or self.host(**settings), None, inputs)

    def host(self, **settings) -> SimpleNamespace:
        accelerator = SimpleNamespace(
            num_processes=1,
            sync_gradients=True,
            gather=lambda x: x,
            reduce=lambda x, reduction: x,
            pad_across_processes=lambda x, dim, pad_index: x,
        )
        args = SimpleNamespace(
            delta=settings.pop("delta", None),
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=1,
        )
        defaults = {
            "loss_type": "grpo",
            "importance_sampling_level": "token",
            "epsilon_low": 0.2,
            "epsilon_high": 0.2,
            "beta": 0.0,
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "use_vllm": False,
            "vllm_importance_sampling_correction": False,
            "aux_loss_enabled": False,
            "use_adaptive_entropy": False,
            "_entropy_bonus_enabled": False,
            "current_gradient_accumulation_steps": 1,
            "max_completion_length": LENGTH,
            "model": SimpleNamespace(training=True),
            "_metrics": {"train": defaultdict(list)},
        }
        host = SimpleNamespace(**{**defaults, **settings}, accelerator=accelerator, args=args)
        host._get_per_token_logps_and_entropies = lambda *_, **__: (self.logp, self.entropy, None)
        return host

    def compare(self, ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(ours, theirs)
        gradients = (torch.autograd.grad(loss, self.logp, retain_graph=True)[0] for loss in (ours, theirs))
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("objective", "rule", "mode", "settings"),
    [
        ("clip", None, "sequence-mean", {"loss_type": "grpo"}),
        ("clip", None, "token-mean", {"loss_type": "bnpo"}),
        ("clip", CLIP_HIGHER, "token-mean", {"loss_type": "dapo", "epsilon_high": 0.28}),
        ("clip", None, "constant", {"loss_type": "dr_grpo"}),
        ("clip", DualClip(cap=1.5), "sequence-mean", {"delta": 1.5}),
        ("sapo", None, "sequence-mean", {"loss_type": "sapo"}),
        ("cispo", None, "token-mean", {"loss_type": "cispo", "epsilon_high": 5.0}),
        ("cispo", ClipRule.constant(1.0, 0.5), "token-mean", {"loss_type": "cispo", "epsilon_high": 1.5}),
        (
            "gspo",
            ClipRule.constant(0.02, 0.03),
            "sequence-mean",
            {"importance_sampling_level": "sequence", "epsilon_low": 0.02, "epsilon_high": 0.03},
        ),
    ],
)
def test_loss_and_gradient_equal_trl(objective, rule, mode: str, settings: dict) -> None:
    batch = Batch()
    batch.compare(batch.ours(objective, rule, mode), batch.theirs(**settings))


def test_gmpo_equals_trl_with_its_widths_on_the_log_ratio() -> None:
    gmpo = pytest.importorskip("trl.experimental.gmpo")
    batch = Batch(spread=0.6)
    theirs = batch.theirs(gmpo.GMPOTrainer._compute_loss, epsilon_low=0.4, epsilon_high=0.4)
    batch.compare(batch.ours(Gmpo(), None, "sequence-mean"), theirs)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_high_entropy_tokens_are_those_of_trl(share: float) -> None:
    batch = Batch()
    batch.entropy = batch.entropy.float()
    stats = TokenStats(batch.logp.detach(), batch.entropy, batch.entropy, batch.entropy)
    ours = weights_of(HighEntropyTokens(share), stats, batch.advantages[:, None], batch.mask) > 0
    theirs = GRPOTrainer.get_high_entropy_mask(batch.host(), batch.entropy, batch.mask, 1 - share)
    assert torch.equal(ours, theirs)


def test_adaptive_bonus_moves_and_applies_like_trl() -> None:
    batch = Batch()
    host = batch.host(
        loss_type="bnpo",
        _entropy_bonus_enabled=True,
        use_adaptive_entropy=True,
        entropy_coef=0.0,
        _last_world_entropy=float("inf"),
        _entropy_window_stats=None,
    )
    host.args.__dict__.update(entropy_target=0.5, entropy_coef_delta=0.1, entropy_coef_min=0.0, entropy_coef_max=0.25)
    bonus = AdaptiveBonus(target=0.5, delta=0.1, most=0.25)
    for scale in (0.6, 0.9, 0.5, 2.0, 2.0, 0.3):
        batch.entropy = Batch().entropy * scale
        mean_entropy = batch.entropy[batch.mask].mean()
        difference = batch.theirs(loss_type="bnpo") - batch.theirs(host=host)
        torch.testing.assert_close(difference, bonus.bonus() * mean_entropy)
        bonus.observe(measured(mean_entropy.item()))
    assert bonus.bonus() > 0
