"""Hosts that hand over the entropy: a strategy that follows it, over micro-batches, ranks, a kill and a resume.

Losses of our own stand in for the hosts'.
"""

import functools
import sys
from types import SimpleNamespace

import pytest
import torch
from test_steering import TOTAL, AreaEngine, clipped, grpo_loss_fn, stand_in

from entrostat.control import EntropyController, OscillatoryDecay, PolarityAware
from entrostat.integrations.losses import areal, miles, slime, steering
from entrostat.integrations.losses.steering import CONTROL, EntropySteering, steering_of_file

ENTROPIES = [2.0, 1.5, 0.3, 0.2, 1.9]  # of the five steps: OD lowers, then boosts, then lowers again
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
OLD = torch.tensor([[-0.1, -1.0, -2.0], [-0.5, -0.2, -3.0]])


def directly(entropies):
    """The thresholds before each step by the library's own controller."""
    controller, found = EntropyController(OscillatoryDecay(), total_steps=TOTAL), []
    for number, entropy in enumerate(entropies):
        low, high = controller.rule().bounds(OLD)
        found.append((1 - low, high - 1))
        controller.observe(number + 1, entropy, 1.0)
    return found


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(torch.as_tensor(a).expand_as(b), b)


@pytest.fixture
def control(tmp_path, monkeypatch):
    file = tmp_path / "control.yaml"
    file.write_text(f"strategy: {{name: od}}\ntotal_steps: {TOTAL}\n")
    monkeypatch.setenv(CONTROL, str(file))
    steering_of_file.cache_clear()
    yield file
    steering_of_file.cache_clear()


def test_micro_batches_add_up_and_padding_does_not_count():
    control, found = EntropySteering(OscillatoryDecay(), TOTAL), []
    for number, entropy in enumerate(ENTROPIES):
        control.begin_step(number)
        control.begin_step(number)  # a step has several mini-batches
        found.append(control.thresholds(number, OLD))
        for row in range(2):
            drawn = entropy + torch.tensor([-0.1, 0.0, 0.1]) * (row == 0)
            control.record(torch.where(MASK[row].bool(), drawn, torch.nan), MASK[row])
    same(found, directly(ENTROPIES))
    assert len({tuple(map(str, one)) for one in found}) > 1


def test_ranks_add_up(monkeypatch):
    control = EntropySteering(OscillatoryDecay(), TOTAL)
    control.begin_step(0)
    control.record(torch.tensor([1.0]), torch.ones(1))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    other = torch.tensor([9.0, 3.0], dtype=torch.float64)  # three tokens of another rank, 3 nats each
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.add_(other))
    control.begin_step(1)
    assert control.controller.metrics()["entropy"] == pytest.approx(10 / 4)


def test_a_strategy_that_weighs_tokens_is_refused():
    with pytest.raises(ValueError, match="PolarityAware, which weighs tokens"):
        EntropySteering(PolarityAware(), TOTAL)


def test_a_host_of_tier_a_refuses_the_strategy(control):
    with pytest.raises(ValueError, match=r"OscillatoryDecay, which follows the entropy.*tier A"):
        steering.steering()


class Slime:
    """slime's loss module: the forward pass returns an entropy, the loss the thresholds that it read."""

    def __init__(self, monkeypatch, host):
        self.seen, self.entropy = [], 0.0
        result = {"entropy": [], "log_probs": []}

        def get_log_probs_and_entropy():
            result["entropy"] = [torch.full((3,), self.entropy), torch.full((3,), self.entropy)]
            return (None, result) if host is slime else result

        def policy_loss_function(args, batch, logits, mean):
            sys.modules[host.LOSS].get_log_probs_and_entropy()
            self.seen.append((args.eps_clip, args.eps_clip_high))
            return torch.zeros(()), {}

        names = {"policy_loss_function": policy_loss_function, "get_log_probs_and_entropy": get_log_probs_and_entropy}
        stand_in(monkeypatch, host.LOSS, **names)
        monkeypatch.setattr(slime, "_rollout", None)


def settings(folder):
    names = {"advantage_estimator": "grpo", "use_rollout_logprobs": False, "eps_clip": 0.2, "eps_clip_high": 0.2}
    return SimpleNamespace(**names, context_parallel_size=1, save=str(folder), load=None)


def rollouts(host, world, args, numbers):
    batch = {"log_probs": list(OLD.unbind()), "loss_masks": list(MASK.unbind())}
    for number in numbers:
        host.before_train_step(args, number, 0, None, None, None)
        world.entropy = ENTROPIES[number]
        for _ in range(2):
            host.loss_function(args, batch, None, None)


@pytest.mark.parametrize("host", [slime, miles], ids=["slime", "miles"])
@pytest.mark.parametrize("begun", [3, 2], ids=["killed within the rollout", "killed before it"])
def test_slime_goes_on_from_the_state_beside_its_checkpoint(tmp_path, monkeypatch, control, host, begun):
    world, args = Slime(monkeypatch, host), settings(tmp_path)
    rollouts(host, world, args, range(begun + 1))
    steering_of_file.cache_clear()  # another process, which slime starts at rollout 3
    monkeypatch.setattr(slime, "_rollout", None)
    world.seen.clear()
    rollouts(host, world, args, [3, 4])
    found = [tuple(x.view_as(OLD) if isinstance(x, torch.Tensor) else x for x in one) for one in world.seen[::2]]
    lost = ENTROPIES if begun == 3 else [*ENTROPIES[:2], *ENTROPIES[3:]]  # the entropy of rollout 2 was not written
    same(found, directly(lost)[-2:])


def test_slime_refuses_to_resume_without_a_state_and_under_context_parallelism(tmp_path, monkeypatch, control):
    world, args = Slime(monkeypatch, slime), settings(tmp_path)
    with pytest.raises(ValueError, match="slime resumes at rollout 3, and the strategy's state is in none of"):
        rollouts(slime, world, args, [3])
    args.context_parallel_size = 2
    with pytest.raises(ValueError, match="slime: context_parallel_size is 2"):
        rollouts(slime, world, args, [0])


class Engine(AreaEngine):
    """AReaL's engine with its checkpoints."""

    def save(self, meta):
        return "saved"

    def load(self, meta):
        return "loaded"


def test_areals_checkpoints_hold_the_state(tmp_path, monkeypatch, control):
    stand_in(monkeypatch, "areal.engine.fsdp_engine", FSDPPPOActor=Engine)
    areal._actor.cache_clear()
    seen = []

    def loss(logprobs, entropy, input_data, eps_clip, eps_clip_higher, **_):
        seen.append((eps_clip, eps_clip_higher))
        batch = SimpleNamespace(logp=logprobs, old=input_data["prox_logp"], advantages=torch.ones_like(logprobs))
        return clipped(batch, eps_clip, eps_clip_higher).sum()

    loss.__name__ = grpo_loss_fn.__name__
    fixed = {"importance_sampling_level": "token", "use_sapo_loss": False, "prox_logp_method": "recompute"}
    loss_fn = functools.partial(loss, eps_clip=0.2, eps_clip_higher=None, **fixed)
    meta = SimpleNamespace(path=str(tmp_path), with_optim=True)

    def train(engine, versions):
        for engine.version in versions:
            packed = {"prox_logp": OLD, "loss_mask": MASK, "logp": OLD, "entropy": ENTROPIES[engine.version]}
            for _ in range(2):
                engine.train_batch(packed, loss_fn, None)

    monkeypatch.setattr(
        Engine,
        "train_batch",
        lambda self, data, loss_fn, _: loss_fn(data["logp"], torch.full_like(OLD, data["entropy"]), data),
    )
    engine = areal.EntropyFSDPPPOActor()
    train(engine, range(3))
    engine.version = 3  # AReaL sets the next version, then saves
    assert engine.save(meta) == "saved"
    steering_of_file.cache_clear()
    resumed = areal.EntropyFSDPPPOActor()
    assert resumed.load(meta) == "loaded"
    train(resumed, [3, 4])
    same(seen[::2], directly(ENTROPIES))
    (tmp_path / areal.STATE_FILE).unlink()
    with pytest.raises(ValueError, match="has no strategy's state"):
        resumed.load(meta)
    areal._actor.cache_clear()
