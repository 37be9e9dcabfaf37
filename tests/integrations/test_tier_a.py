"""The contract of each host that hands over log-probabilities alone, on recorded shapes: the call it makes, the tensors
it passes, the answer it unpacks. The hosts themselves are stood in for by what their sources say of the call.
"""

import sys
from dataclasses import dataclass
from enum import Enum
from types import ModuleType, SimpleNamespace

import pytest
import torch

from entrostat.control import IncreaseThenDecrease, OscillatoryDecay
from entrostat.integrations import areal, nemo_rl, openrlhf, prime_rl, roll, skyrl, slime
from entrostat.integrations.packed import Schedule
from entrostat.objective import policy_loss

ROWS, LENGTH = 4, 6
HOSTS = [areal, nemo_rl, openrlhf, prime_rl, roll, skyrl, slime]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    old = -3 * torch.rand(ROWS, LENGTH, generator=generator)
    logp = (old + 0.5 * torch.randn(ROWS, LENGTH, generator=generator)).clamp_max(0).requires_grad_()
    advantages = torch.randn(ROWS, 1, generator=generator).expand(ROWS, LENGTH)
    mask = torch.arange(LENGTH) < torch.tensor([6, 2, 4, 1])[:, None]
    return SimpleNamespace(logp=logp, old=old, advantages=advantages, mask=mask)


def ours(batch, mask=None):
    return policy_loss(batch.logp, batch.old, batch.advantages, batch.mask if mask is None else mask).per_token


def stand_in(monkeypatch, path, **names):
    """A module of the host, and its parents."""
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, value in names.items():
        monkeypatch.setattr(sys.modules[path], name, value, raising=False)


def same(batch, found, expected):
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, batch.logp, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__.rpartition(".")[2])
def test_every_host_names_its_tier(host):
    assert host.TIER == "A"
    assert "Tier A" in " ".join(host.__doc__.split())


@pytest.mark.parametrize("pair", [False, True])
def test_slime(batch, monkeypatch, pair):
    seen = {}

    def get_log_probs_and_entropy(logits, *, args, unconcat_tokens, total_lengths, response_lengths, with_entropy):
        seen.update(logits=logits.shape, with_entropy=with_entropy)
        answer = {"log_probs": list(batch.logp), "entropy": [torch.ones(LENGTH)] * ROWS}
        return (torch.zeros(0), answer) if pair else answer

    home = "slime.backends.megatron_utils.loss"
    stand_in(monkeypatch, home, get_log_probs_and_entropy=get_log_probs_and_entropy)
    rollout = {
        "unconcat_tokens": [torch.zeros(8)] * ROWS,
        "total_lengths": [8] * ROWS,
        "response_lengths": [LENGTH] * ROWS,
        "log_probs": list(batch.old),
        "advantages": list(batch.advantages),
        "loss_masks": [row.int() for row in batch.mask],
    }

    def sum_of_sample_mean(x):
        means = [(a * m).sum() / m.sum() for a, m in zip(x.split(LENGTH), batch.mask, strict=True)]
        return torch.stack(means).sum()

    args = SimpleNamespace(use_rollout_logprobs=False, entropy_coef=0.01)
    loss, metrics = slime.loss_function(args, rollout, torch.zeros(1, 32, 50), sum_of_sample_mean)
    same(batch, loss, sum_of_sample_mean(ours(batch).flatten()) - 0.01 * ROWS)
    assert metrics["entropy"] == ROWS
    assert seen == {"logits": (1, 32, 50), "with_entropy": True}


def test_nemo_rl_normalises_by_the_global_batch(batch, monkeypatch):
    kinds = {"LossType": Enum("LossType", "TOKEN_LEVEL"), "LossInputType": Enum("LossInputType", "LOGPROB")}
    stand_in(monkeypatch, "nemo_rl.algorithms.loss.interfaces", **kinds)
    loss = nemo_rl.ClippedLoss()
    assert (loss.loss_type.name, loss.input_type.name) == ("TOKEN_LEVEL", "LOGPROB")

    def whole(x, fill=0.0):
        return torch.cat([torch.full((ROWS, 1), fill, dtype=x.dtype), x], 1)

    data = {
        "input_ids": torch.zeros(ROWS, LENGTH + 1, dtype=torch.long),
        "token_mask": whole(batch.mask.float(), 1.0),
        "sample_mask": torch.tensor([1.0, 1.0, 0.0, 1.0]),
        "advantages": whole(batch.advantages),
        "prev_logprobs": whole(batch.old),
    }
    found, metrics = loss(data, torch.tensor(3.0), torch.tensor(20.0), next_token_logprobs=batch.logp)
    kept = batch.mask & torch.tensor([True, True, False, True])[:, None]
    same(batch, found, ours(batch, kept).sum() / 20)
    assert metrics["num_valid_samples"] == 3


def test_roll(batch, monkeypatch):
    def agg_loss(loss_mat, loss_mask, loss_agg_mode):
        assert loss_agg_mode == "token-mean"
        return (loss_mat * loss_mask).sum() / loss_mask.sum()

    class ActorWorker:
        strategy = SimpleNamespace(op_compute_log_probs=lambda logits, input_ids, attention_mask: batch.logp)
        pipeline_config = SimpleNamespace(loss_agg_mode="token-mean")

    stand_in(monkeypatch, "roll.utils.functionals", agg_loss=agg_loss)
    stand_in(monkeypatch, "roll.pipeline.rlvr.actor_worker", ActorWorker=ActorWorker)
    whole_mask = torch.cat([torch.zeros(ROWS, 1, dtype=torch.bool), batch.mask], 1)
    tensors = {
        "input_ids": torch.zeros(ROWS, LENGTH + 1, dtype=torch.long),
        "response_mask": whole_mask,
        "old_log_probs": batch.old,
        "advantages": batch.advantages,
    }
    worker = roll.EntropyActorWorker()
    loss, metrics = worker.loss_func(SimpleNamespace(batch=tensors), torch.zeros(ROWS, LENGTH + 1, 50))
    same(batch, loss, ours(batch).sum() / batch.mask.sum())
    assert 0 < metrics["actor/ppo_ratio_clipfrac"] < 1


def test_areal_is_packed_and_weighted_by_tokens(batch):
    packed = {
        "loss_mask": batch.mask.flatten(),
        "advantages": batch.advantages.flatten(),
        "logprobs": batch.old.flatten() - 1,
        "prox_logp": batch.old.flatten(),
    }
    loss = areal.loss_fn(batch.logp.flatten(), torch.ones(ROWS * LENGTH), packed, eps_clip=0.2)
    same(batch, loss, ours(batch).sum() / batch.mask.sum())
    assert areal.loss_weight(packed) == batch.mask.sum()


def test_skyrl_sums_and_follows_the_scale_of_its_advantages(batch, monkeypatch):
    registered = {}
    registry = SimpleNamespace(register=lambda name, fn: registered.update({name: fn}))
    stand_in(monkeypatch, "skyrl_train.utils.ppo_utils", PolicyLossRegistry=registry)
    skyrl.register()
    loss_of = registered["entrostat"]
    loss, metrics = loss_of(batch.logp, batch.old, batch.advantages, None, batch.mask.float())
    same(batch, loss, ours(batch).sum())
    scaled, scaled_metrics = loss_of(batch.logp, batch.old, batch.advantages / 1000, None, batch.mask.float())
    torch.testing.assert_close(scaled, loss / 1000)
    assert scaled_metrics == metrics


def test_prime_rl(batch, monkeypatch):
    @dataclass
    class LossOutputs:
        loss: torch.Tensor
        metrics: dict

    stand_in(monkeypatch, "prime_rl.trainer.rl.loss", LossOutputs=LossOutputs)
    total = 0
    for row in range(ROWS):
        inputs = SimpleNamespace(
            trainer_logprobs=batch.logp[row],
            inference_logprobs=batch.old[row],
            teacher_logprobs=None,
            advantages=batch.advantages[row],
            loss_mask=batch.mask[row],
        )
        total = total + prime_rl.loss(inputs).loss
    same(batch, total, ours(batch).sum())


@pytest.mark.parametrize("by_token", [True, False])
def test_openrlhf(batch, by_token):
    loss, clip_ratio, kl, _ = openrlhf.PolicyLoss(token_level_loss=by_token)(
        batch.logp, batch.old, batch.advantages, action_mask=batch.mask
    )
    per_token = ours(batch)
    means = per_token.sum(1) / batch.mask.sum(1)
    same(batch, loss, per_token.sum() / batch.mask.sum() if by_token else means.mean())
    assert 0 < clip_ratio < 1
    assert kl == pytest.approx(float((batch.old - batch.logp.detach())[batch.mask].mean()), rel=1e-5)
    assert len(openrlhf.PolicyLoss(answers=2)(batch.logp, batch.old, batch.advantages)) == 2


def test_a_batch_without_a_token_is_a_zero_with_a_gradient(batch):
    nothing = torch.zeros_like(batch.mask)
    found = [
        openrlhf.PolicyLoss()(batch.logp, batch.old, batch.advantages, nothing)[0],
        skyrl.policy_loss(batch.logp, batch.old, batch.advantages, None, nothing)[0],
    ]
    for loss in found:
        assert torch.equal(torch.autograd.grad(loss, batch.logp)[0], torch.zeros_like(batch.logp))


def test_a_schedule_moves_with_the_steps(batch):
    schedule = Schedule(IncreaseThenDecrease(), total_steps=4)
    first = openrlhf.PolicyLoss(schedule)(batch.logp, batch.old, batch.advantages, batch.mask)[0]
    for _ in range(4):
        schedule.advance()
    last = openrlhf.PolicyLoss(schedule)(batch.logp, batch.old, batch.advantages, batch.mask)[0]
    assert schedule.rule() == IncreaseThenDecrease().rule(4, 4)
    assert first != last


def test_a_strategy_that_needs_the_entropy_is_refused_in_tier_a():
    with pytest.raises(ValueError, match=r"OscillatoryDecay, which follows the entropy.*tier A"):
        Schedule(OscillatoryDecay(), total_steps=10)
