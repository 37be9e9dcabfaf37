"""Hosts steered by their thresholds. Losses of our own, which read them as the hosts' do, stand in for the hosts';
`scripts/host_parity.py` holds the adapters beside the hosts themselves.
"""

import functools
import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from entrostat.control import Constant, IncreaseThenDecrease, OscillatoryDecay
from entrostat.integrations.losses import areal, miles, nemo_rl, openrlhf, prime_rl, roll, skyrl, slime, steering
from entrostat.integrations.losses.steering import CONTROL, Overlay, Steering
from entrostat.objective import AbcClip, ClipRule, policy_loss

HOSTS = [areal, miles, nemo_rl, openrlhf, prime_rl, roll, skyrl, slime]
ROWS, LENGTH, TOTAL = 3, 8, 10
ID = Steering(IncreaseThenDecrease(), TOTAL)
STEPS = (0, 4, TOTAL)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    old = -0.1 - 2 * torch.rand(ROWS, LENGTH, generator=generator)
    ratios = torch.linspace(0.5, 1.9, ROWS * LENGTH)[torch.randperm(ROWS * LENGTH, generator=generator)]
    logp = (old + ratios.log().view_as(old)).requires_grad_()
    advantages = torch.tensor([1.0, -0.5, 2.0])[:, None].expand(ROWS, LENGTH)
    mask = torch.arange(LENGTH) < torch.tensor([8, 5, 2])[:, None]
    return SimpleNamespace(logp=logp, old=old, advantages=advantages, mask=mask)


def clipped(batch, low, high):
    """PPO's loss of every token as the hosts write it."""
    ratio = (batch.logp - batch.old).exp()
    return -torch.min(ratio * batch.advantages, ratio.clamp(1 - low, 1 + high) * batch.advantages)


def expected(batch, step):
    """The gradient of the summed token losses under ID's rule after `step` steps, by the library's own loss."""
    rule = IncreaseThenDecrease().rule(step, TOTAL)
    out = policy_loss(batch.logp, batch.old, batch.advantages, batch.mask, rule=rule)
    return torch.autograd.grad(out.per_token[batch.mask].sum(), batch.logp, retain_graph=True)[0]


def same(batch, loss, step):
    found = torch.autograd.grad(loss, batch.logp, retain_graph=True)[0]
    torch.testing.assert_close(found, expected(batch, step), rtol=1e-5, atol=1e-6)


def stand_in(monkeypatch, path, **names):
    """A module of the host, and its parents."""
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, value in names.items():
        monkeypatch.setattr(sys.modules[path], name, value, raising=False)


@pytest.fixture
def control(tmp_path, monkeypatch):
    """ENTROSTAT_CONTROL as a user sets it."""
    file = tmp_path / "control.yaml"
    file.write_text(f"strategy: {{name: id}}\ntotal_steps: {TOTAL}\n")
    monkeypatch.setenv(CONTROL, str(file))
    return file


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__.rpartition(".")[2])
def test_every_host_names_its_tier(host):
    assert host.TIER in ("A", "B")
    assert f"Tier {host.TIER}" in " ".join(host.__doc__.split())


def test_thresholds_are_the_bounds_of_the_rule_at_each_token(batch):
    for step in (*STEPS, TOTAL + 5):
        low, high = IncreaseThenDecrease().rule(min(step, TOTAL), TOTAL).bounds(batch.old)
        found = [torch.as_tensor(one).expand(ROWS, LENGTH) for one in ID.thresholds(step, batch.old)]
        torch.testing.assert_close(found, [1 - low, high - 1])


def test_a_constant_band_is_two_numbers_and_padding_does_no_harm(batch):
    assert Steering(Constant(ClipRule.constant(0.2, 0.28)), 1).thresholds(0, batch.old) == (0.2, 0.28)
    broken = batch.old.clone()
    broken[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    for threshold in ID.thresholds(0, broken):
        assert bool(threshold.isfinite().all())


def test_what_needs_more_than_thresholds_is_refused():
    with pytest.raises(ValueError, match="OscillatoryDecay, which follows the entropy"):
        Steering(OscillatoryDecay(), TOTAL)
    with pytest.raises(ValueError, match="AbcClip clips differently from PPO's minimum"):
        Steering(Constant(AbcClip()), TOTAL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strategy: id\ntotal_steps: 5\nreweighting: {name: polarity-aware}\n", "reweighting: this host reads only"),
        ("strategy: id\n", "total_steps is None; give the host's training steps"),
        ("strategy: id\ntotal_steps: 0\n", "total_steps is 0"),
        ("strategy: {name: idd}\ntotal_steps: 5\n", "idd"),
        ("- 1\n", "not a mapping"),
    ],
)
def test_a_faulty_control_file_is_refused_by_its_key(tmp_path, monkeypatch, text, message):
    file = tmp_path / "control.yaml"
    file.write_text(text)
    monkeypatch.setenv(CONTROL, str(file))
    with pytest.raises(ValueError, match=message):
        steering.steering()


def test_without_a_control_file_nothing_trains(tmp_path, monkeypatch):
    monkeypatch.delenv(CONTROL, raising=False)
    with pytest.raises(ValueError, match="ENTROSTAT_CONTROL is not set"):
        steering.steering()
    monkeypatch.setenv(CONTROL, str(tmp_path / "missing.yaml"))
    with pytest.raises(ValueError, match=r"missing\.yaml"):
        steering.steering()


def test_an_overlay_replaces_what_it_names_and_leaves_the_object_alone():
    base = SimpleNamespace(a=1, b=2)
    assert (Overlay(base, a=3).a, Overlay(base, a=3).b, base.a) == (3, 2, 1)
    with pytest.raises(AttributeError):
        _ = Overlay(base).c


class HostModule(torch.nn.Module):
    """OpenRLHF's loss module, as far as the adapter knows it."""

    policy_loss_type = "ppo"
    clip_eps_low = clip_eps_high = 0.2

    def forward(self, log_probs, old_log_probs, advantages, action_mask=None, **_):
        batch = SimpleNamespace(logp=log_probs, old=old_log_probs, advantages=advantages)
        return (clipped(batch, self.clip_eps_low, self.clip_eps_high) * action_mask).sum(), "kl"


@pytest.mark.parametrize("step", STEPS)
def test_openrlhf(batch, step):
    host = HostModule()
    loss, kl = openrlhf.SteeredPolicyLoss(host, ID, lambda: step)(
        batch.logp, batch.old, batch.advantages, action_mask=batch.mask
    )
    same(batch, loss, step)
    assert (kl, host.clip_eps_low, host.clip_eps_high) == ("kl", 0.2, 0.2)
    host.policy_loss_type = "gspo"
    with pytest.raises(ValueError, match=r"OpenRLHF: actor\.policy_loss_type is 'gspo'"):
        openrlhf.SteeredPolicyLoss(host, ID, lambda: step)


def test_openrlhfs_actor_is_steered_by_its_schedulers_step(batch):
    class PolicyModelActor:
        def init_model_from_pretrained(self, strategy):
            self.trainer = SimpleNamespace(actor_loss_fn=HostModule(), actor_scheduler=SimpleNamespace(last_epoch=0))
            return strategy

    actor = openrlhf.steered_actor(PolicyModelActor, ID)()
    assert actor.init_model_from_pretrained("strategy") == "strategy"
    for step in STEPS:
        actor.trainer.actor_scheduler.last_epoch = step
        same(
            batch, actor.trainer.actor_loss_fn(batch.logp, batch.old, batch.advantages, action_mask=batch.mask)[0], step
        )


def slime_world(monkeypatch, batch, home):
    def policy_loss_function(args, rollout, logits, sum_of_sample_mean):
        per_token = clipped(batch, args.eps_clip, args.eps_clip_high) if rollout.get("log_probs") else batch.logp
        return (per_token * batch.mask).sum(), {"tis": args.use_tis}

    stand_in(monkeypatch, home, policy_loss_function=policy_loss_function)
    monkeypatch.setattr(slime, "_rollout", None)
    args = {"advantage_estimator": "grpo", "use_rollout_logprobs": False, "use_tis": True, "eps_clip": 0.2}
    return SimpleNamespace(**args, eps_clip_high=0.2)


@pytest.mark.parametrize("host", [slime, miles], ids=["slime", "miles"])
def test_slime_and_miles(batch, monkeypatch, control, host):
    args = slime_world(monkeypatch, batch, host.LOSS)
    rollout = {"log_probs": list(batch.old.unbind())}
    with pytest.raises(ValueError, match=rf"before_train_step_hook_path .*entrostat\.integrations\.{host.HOST}\."):
        host.loss_function(args, rollout, None, None)
    for step in STEPS:
        host.before_train_step(args, step, 0, None, None, None)
        steered = slime_batch(monkeypatch, host, args, rollout, batch)
        same(batch, steered, step)
    assert args.eps_clip == 0.2
    plain, metrics = host.loss_function(args, {"log_probs": None}, None, None)
    assert metrics == {"tis": True}
    assert torch.equal(torch.autograd.grad(plain, batch.logp)[0], batch.mask.float())
    args.advantage_estimator = "gspo"
    with pytest.raises(ValueError, match=f"{host.HOST}: advantage_estimator is 'gspo'"):
        host.loss_function(args, rollout, None, None)


def slime_batch(monkeypatch, host, args, rollout, batch):
    """The host's loss over flat tensors, as slime packs them."""
    flat = SimpleNamespace(
        logp=batch.logp.flatten(),
        old=batch.old.flatten(),
        advantages=batch.advantages.flatten(),
        mask=batch.mask.flatten(),
    )
    module = sys.modules[host.LOSS]
    plain = module.policy_loss_function
    monkeypatch.setattr(
        module,
        "policy_loss_function",
        lambda args, *_: ((clipped(flat, args.eps_clip, args.eps_clip_high) * flat.mask).sum(), {}),
    )
    loss = host.loss_function(args, rollout, None, None)[0]
    monkeypatch.setattr(module, "policy_loss_function", plain)
    return loss


class RollWorker:
    """ROLL's actor worker, as far as the adapter knows it."""

    def __init__(self, batch):
        self.seen = batch
        self.pipeline_config = SimpleNamespace(
            importance_sampling="token", actor_train=SimpleNamespace(), use_pg_clip_range=False, pg_clip=0.2
        )

    def get_old_log_probs_with_cache(self, data, log_probs):
        return self.seen.old

    def loss_func(self, data, output_tensor):
        old, config = self.get_old_log_probs_with_cache(data, self.seen.logp), self.pipeline_config
        assert config.use_pg_clip_range
        assert old is self.seen.old
        return (clipped(self.seen, config.pg_clip_low, config.pg_clip_high) * self.seen.mask).sum(), {
            "m": config.pg_clip
        }


def test_roll(batch, monkeypatch, control):
    stand_in(monkeypatch, "roll.pipeline.rlvr.actor_worker", ActorWorker=RollWorker)
    roll._worker.cache_clear()
    worker = roll.EntropyActorWorker(batch)
    plain = worker.pipeline_config
    for step in STEPS:
        loss, metrics = worker.loss_func(SimpleNamespace(meta_info={"global_step": step}), None)
        same(batch, loss, step)
        assert metrics == {"m": 0.2}
        assert worker.pipeline_config is plain
    with pytest.raises(ValueError, match="meta_info has no global_step"):
        worker.loss_func(SimpleNamespace(meta_info={}), None)
    plain.importance_sampling = "seq"
    with pytest.raises(ValueError, match="ROLL: importance_sampling is 'seq'"):
        worker.loss_func(SimpleNamespace(meta_info={"global_step": 0}), None)
    roll._worker.cache_clear()


class NemoLoss:
    """NeMo RL's loss object, as far as the adapter knows it."""

    sequence_level_importance_ratios = use_cispo = disable_ppo_ratio = force_on_policy_ratio = False
    ratio_clip_min = ratio_clip_max = 0.2
    loss_type = "TOKEN_LEVEL"

    def __call__(self, next_token_logprobs, data, seqs, toks):
        old, advantages, mask = (data[name][:, 1:] for name in ("prev_logprobs", "advantages", "token_mask"))
        batch = SimpleNamespace(logp=next_token_logprobs, old=old, advantages=advantages)
        return (clipped(batch, self.ratio_clip_min, self.ratio_clip_max) * mask).sum(), {"gen_kl_error": 0.0}


def nemo_data(batch):
    def whole(x):
        return torch.cat([torch.zeros(ROWS, 1), x.float()], 1)

    return {"prev_logprobs": whole(batch.old), "advantages": whole(batch.advantages), "token_mask": whole(batch.mask)}


class Policy:
    """NeMo RL's policy: what reaches its workers is a copy of the loss, new at every call."""

    def __init__(self, batch):
        self.batch, self.losses = batch, []

    def train(self, data, loss_fn, timer=None):
        copy = pickle.loads(pickle.dumps(loss_fn))
        self.losses.append(copy(self.batch.logp, data, None, None)[0])
        return "results"


def test_nemo_rl_counts_on_from_the_step_that_was_resumed(batch):
    policy = Policy(batch)
    steered = nemo_rl.steer(policy, NemoLoss(), SimpleNamespace(total_steps=3), ID)
    assert steered.loss_type == "TOKEN_LEVEL"
    for _ in range(3):
        assert policy.train(nemo_data(batch), steered, timer=None) == "results"
    policy.train(nemo_data(batch), NemoLoss())  # another loss, such as a validation's, is no step
    assert steered.step == 6
    for loss, step in zip(policy.losses, (3, 4, 5), strict=False):
        same(batch, loss, step)
    assert steered.loss_fn.ratio_clip_min == 0.2


@pytest.mark.parametrize("name", ["use_cispo", "force_on_policy_ratio", "disable_ppo_ratio"])
def test_nemo_rl_refuses_a_ratio_that_is_not_clipped(name):
    loss = NemoLoss()
    setattr(loss, name, True)
    with pytest.raises(ValueError, match=rf"NeMo RL: loss_fn\.{name} is True"):
        nemo_rl.SteeredLoss(loss, ID)


def skyrl_loss(log_probs, old_log_probs, advantages, config, loss_mask=None, rollout_logprobs=None):
    batch = SimpleNamespace(logp=log_probs, old=old_log_probs, advantages=advantages)
    return (clipped(batch, config.eps_clip_low, config.eps_clip_high) * loss_mask).sum(), {"c": config.correction}


def test_skyrls_worker_is_steered_by_its_schedulers_step(batch):
    algorithm = SimpleNamespace(policy_loss_type="regular", eps_clip_low=0.2, eps_clip_high=0.2, correction="tis")

    class FSDPPolicyWorkerBase:
        def __init__(self, cfg):
            self.cfg, self.policy_loss_fn, self.scheduler = cfg, skyrl_loss, SimpleNamespace(last_epoch=0)

    worker = skyrl.steered_worker(FSDPPolicyWorkerBase, ID)(cfg=SimpleNamespace(algorithm=algorithm))
    for step in STEPS:
        worker.scheduler.last_epoch = step
        loss, metrics = worker.policy_loss_fn(
            batch.logp, batch.old, batch.advantages, config=algorithm, loss_mask=batch.mask, rollout_logprobs=None
        )
        same(batch, loss, step)
        assert metrics == {"c": "tis"}
    algorithm.policy_loss_type = "gspo"
    with pytest.raises(ValueError, match=r"SkyRL: trainer\.algorithm\.policy_loss_type is 'gspo'"):
        skyrl.steered_worker(FSDPPolicyWorkerBase, ID)(cfg=SimpleNamespace(algorithm=algorithm))


def grpo_loss_fn(logprobs, entropy, input_data, eps_clip, eps_clip_higher, **_):
    batch = SimpleNamespace(logp=logprobs, old=input_data["prox_logp"], advantages=input_data["advantages"])
    return (clipped(batch, eps_clip, eps_clip_higher) * input_data["loss_mask"]).sum()


class AreaEngine:
    """AReaL's engine, as far as the adapter knows it."""

    version = 0

    def get_version(self):
        return self.version

    def train_batch(self, input_, loss_fn, loss_weight_fn):
        return loss_fn(input_["logp"], torch.zeros(()), input_)


def test_areals_engine_steers_its_policy_loss_alone(batch, monkeypatch, control):
    stand_in(monkeypatch, "areal.engine.fsdp_engine", FSDPPPOActor=AreaEngine)
    areal._actor.cache_clear()
    areal.steer()
    kind = sys.modules["areal.engine"].FSDPPPOActor
    assert (kind.__module__, kind.__name__) == (areal.__name__, "EntropyFSDPPPOActor")  # the path AReaL gives workers
    assert getattr(areal, kind.__name__) is kind
    engine = kind()
    settings = {"importance_sampling_level": "token", "use_sapo_loss": False, "prox_logp_method": "recompute"}
    loss_fn = functools.partial(grpo_loss_fn, eps_clip=0.2, eps_clip_higher=None, **settings)
    packed = {"prox_logp": batch.old, "advantages": batch.advantages, "loss_mask": batch.mask, "logp": batch.logp}
    for engine.version in STEPS:
        same(batch, engine.train_batch(packed, loss_fn, None), engine.version)
    assert engine.train_batch(packed, lambda *_: "critic", None) == "critic"
    with pytest.raises(ValueError, match=r"AReaL: actor\.use_sapo_loss is True"):
        engine.train_batch(packed, functools.partial(loss_fn, use_sapo_loss=True), None)
    approximated = functools.partial(loss_fn, prox_logp_method="loglinear")
    with pytest.raises(ValueError, match=r"AReaL: actor\.prox_logp_method is 'loglinear'"):
        engine.train_batch({**packed, "prox_logp": None}, approximated, None)
    areal._actor.cache_clear()


@pytest.fixture
def primes(monkeypatch):
    """prime-rl's loss and checkpoints, as far as the adapter knows them."""

    class CheckpointManager:
        def load(self, step, model):
            return model

    class DefaultLossConfig:
        def __init__(self, adv_tau=1.0, kl_tau=1e-3):
            self.adv_tau, self.kl_tau = adv_tau, kl_tau

    def default_loss_fn(inputs, config):
        move = inputs.trainer_logprobs.exp() - inputs.inference_logprobs.exp()
        rewarded = inputs.advantages > 0
        masked = torch.where(rewarded, move > config.dppo_mask_high, move < -config.dppo_mask_low)
        ratio = (inputs.trainer_logprobs - inputs.inference_logprobs).exp()
        return -(config.adv_tau * inputs.advantages * ratio * (inputs.loss_mask & ~masked)).sum(), config.kl_tau

    stand_in(monkeypatch, "prime_rl.configs.trainer", DefaultLossConfig=DefaultLossConfig)
    stand_in(monkeypatch, "prime_rl.trainer.rl.loss", default_loss_fn=default_loss_fn)
    stand_in(monkeypatch, "prime_rl.trainer.ckpt", CheckpointManager=CheckpointManager)
    for name, value in (("_resumed_at", 0), ("_counting", False)):
        monkeypatch.setattr(prime_rl, name, value)
    prime_rl._steps.clear()
    yield CheckpointManager
    prime_rl._steps.clear()


def test_prime_rls_masks_are_the_band_and_its_step_the_optimizers(batch, primes):
    prime_rl.count_steps()
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    assert primes().load(4, "model") == "model"
    kwargs = {"strategy": "id", "total_steps": TOTAL, "kl_tau": 0.5}
    for step in (4, 5, 6):
        assert prime_rl.current_step() == step
        total = 0
        for row in range(ROWS):
            inputs = SimpleNamespace(
                trainer_logprobs=batch.logp[row],
                inference_logprobs=batch.old[row],
                advantages=batch.advantages[row],
                loss_mask=batch.mask[row],
            )
            loss, kl_tau = prime_rl.loss(inputs, **kwargs)
            assert kl_tau == 0.5
            total = total + loss
        same(batch, total, step)
        weight.grad = torch.ones(1)
        optimizer.step()
    with pytest.raises(ValueError, match=r"trainer\.loss\.kwargs: dppo_mask_low"):
        prime_rl.loss(inputs, **kwargs, dppo_mask_low=0.2)
