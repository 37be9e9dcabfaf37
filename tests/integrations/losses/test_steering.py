"""Trainers whose own loss runs under our control: thresholds, weights and bonus of every step, through a kill.

Losses of our own, which read what the hosts' read, stand in for the hosts'; `scripts/host_parity.py` holds the adapters
beside the hosts themselves.
"""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from steered_hosts import (
    HOSTS,
    LENGTH,
    ROWS,
    Areal,
    Host,
    HostModule,
    Miles,
    Nemo,
    NemoLoss,
    NemoPolicy,
    OpenRlhf,
    Prime,
    Roll,
    SaveState,
    SkyRl,
    Slime,
    Tokens,
    skyrl_loss,
)

from entrostat.control import Constant, EntropyController, IncreaseThenDecrease, OscillatoryDecay, Part
from entrostat.control.part import weighting
from entrostat.integrations.losses import areal, nemo_rl, openrlhf, prime_rl, roll, skyrl, slime, steering
from entrostat.integrations.losses.steering import (
    CONTROL,
    HandedOver,
    Overlay,
    Steering,
    parse,
    read_state,
    write_state,
)
from entrostat.objective import AbcClip, ClipRule, policy_loss
from entrostat.recipe.methods import CORRECTIONS

TOTAL = 5
SHARPNESS = (0.2, 1.5, 6.0, 4.0, 0.5)  # of the tokens of each step, so that the entropy moves
ID = {"strategy": {"name": "id"}}
FOLLOWING = {"strategy": {"name": "od", "h_init": 1.4, "h_min_ratio": 0.5}}
LIKELY = {"parts": [{"name": "test_steering:Unlikely"}]}
SETTINGS = {  # what each kind of host can do
    "A": {**ID, **LIKELY},
    "B": {**FOLLOWING, "reweighting": {"name": "skip-region", "region": "E2"}},
    "C": {**FOLLOWING, "reweighting": {"name": "polarity-aware", "reference": {"points": [[0, 1.0]]}}, "ema": 0.3},
}
BONUS = {"bonus": {"name": "adaptive", "target": 1.2, "delta": 0.1}}


class Unlikely(Part):
    """Weights 1 - p / 2, which need ln p alone."""

    def weights(self, batch):
        return 1 - batch.stats.logp.exp() / 2


def settings_of(kind):
    """The most that a host can do."""
    if kind in (SkyRl, *SkyRl.__subclasses__()):
        return {**FOLLOWING, **LIKELY, **BONUS}
    return {**SETTINGS[kind.module.TIER], **(BONUS if kind in (Slime, Miles, Roll, OpenRlhf) else {})}


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A host in a new process under a control: start(kind, settings)."""

    def begin(kind, settings):
        settings = {"total_steps": TOTAL, **settings}
        file = tmp_path / "control.yaml"
        file.write_text(yaml.safe_dump(settings))
        monkeypatch.setenv(CONTROL, str(file))
        monkeypatch.setattr(kind, "kwargs", {**settings, "kl_tau": 0.5}, raising=False)
        steering.steering_of_file.cache_clear()
        return kind(monkeypatch, tmp_path / "run")

    (tmp_path / "run").mkdir()
    yield begin
    steering.steering_of_file.cache_clear()
    for cached in (areal._actor, roll._worker):
        cached.cache_clear()
    Prime.forget()


def library(settings, lost=None):
    """Gradient and entropy coefficient of every step by the library's own controller and loss; the losses are sums.

    lost: a step whose entropy is not observed.
    """
    controller = parse({"total_steps": TOTAL, **settings}, "here", "C", "a coefficient").controller
    for number in range(TOTAL):
        tokens = Tokens(SHARPNESS[number])
        stats, total = tokens.stats, 0
        for rows in ([0], [1, 2]):
            part = tokens.rows(rows)
            factors = controller.weights(part.stats, part.advantages, part.mask, old_logp=part.old)
            out = policy_loss(part.logp, part.old, part.advantages * factors, part.mask, rule=controller.rule())
            total = total + out.per_token[part.mask].sum()
        coefficient = controller.entropy_coef()
        loss = total - coefficient * stats.entropy[tokens.mask].sum()
        yield torch.autograd.grad(loss, tokens.logp)[0], coefficient
        entropy, count = float(stats.entropy[tokens.mask].detach().double().sum()), int(tokens.mask.sum())
        if number != lost and any(part.needs_entropy for part in controller.parts):
            controller.observe(number + 1, entropy, count)
        else:
            controller.advance(number + 1)


def trained(host, numbers):
    """The gradient of every step of a host."""
    for number in numbers:
        tokens = Tokens(SHARPNESS[number])
        host.step(number, tokens)
        yield tokens.logp.grad


@pytest.mark.parametrize("kind", HOSTS)
@pytest.mark.parametrize("killed", [None, 3])
def test_every_step_is_the_librarys_through_a_kill_and_a_resume(start, kind, killed):
    settings = settings_of(kind)
    host = start(kind, settings)
    found = list(trained(host, range(killed or TOTAL)))
    if killed:
        host.kill()
        found += trained(host, range(killed, TOTAL))
    expected, coefficients = zip(*library(settings), strict=True)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-6, msg=lambda text, k=number: f"step {k}: {text}")
    plain = next(zip(*library({}), strict=True))
    assert sum(not torch.allclose(a, b, atol=1e-4) for a, b in zip(found, plain, strict=True)) >= 3  # it did something
    if "bonus" in settings:
        assert host.coefficients == pytest.approx([one for one in coefficients for _ in range(2)])
        assert len(set(coefficients)) > 2


@pytest.mark.parametrize("kind", HOSTS)
def test_without_a_strategy_the_thresholds_stay_the_hosts(start, kind):
    settings = LIKELY
    host = start(kind, settings)
    if kind is Prime:
        kind.kwargs |= {"dppo_mask_low": 9.0, "dppo_mask_high": 9.0}
        own = ClipRule.constant(1 - 1e-6, 1e6)
    else:
        own = ClipRule.constant(0.2, 0.2)
    tokens = Tokens()
    host.step(0, tokens)
    factors = 1 - tokens.logp.detach().exp() / 2
    out = policy_loss(tokens.logp, tokens.old, tokens.advantages * factors, tokens.mask, rule=own)
    expected = torch.autograd.grad(out.per_token[tokens.mask].sum(), tokens.logp)[0]
    torch.testing.assert_close(tokens.logp.grad, expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("kind", [Slime, Miles, Roll, Areal, Nemo, OpenRlhf])
def test_a_resume_without_the_state_is_refused(start, kind):
    host = start(kind, settings_of(kind))
    list(trained(host, range(2)))
    for file in host.folder.rglob("*.json"):
        file.unlink()
    if kind in (Nemo, OpenRlhf):
        host.saved = {**host.saved, "states": {}, nemo_rl.STATE: None}

    def resumed():
        (Host if kind in (Slime, Miles) else kind).kill(host)
        list(trained(host, [2]))

    with pytest.raises(ValueError, match=r"state of the controller"):
        resumed()


def test_killed_between_two_rollouts_slime_loses_one_observation(start):
    settings = {**FOLLOWING, "reweighting": {"name": "fixed", "expanding": 2.0}}
    host = start(Slime, settings)
    list(trained(host, range(2)))
    Host.kill(host)
    (found,) = trained(host, [2])
    expected = [gradient for gradient, _ in library(settings, lost=1)]
    torch.testing.assert_close(found, expected[2], rtol=2e-4, atol=2e-6)


WEIGHTINGS = {  # what each registered weighting reads, so what a host has to hand over
    "80/20": "B",
    "clip-cov": "A",
    "entropy-outliers": "B",
    "skip-region": "B",
    "fixed": "C",
    "polarity-aware": "C",
    "target-weights": "C",
    "opefo": "C",
    "steer": "B",
    "stare": "A, following",
    "entrocraft": "A, following",
    "entropic": "none",
    "entropic-weights": "A, following",
    "repo-r": "A, following",
    "aepo": "A, following",
    "gepo": "none",
    "erc": "none",
}
REQUIRED = {  # settings without a default; a group of GEPO is rollout.samples of a recipe
    "fixed": {"expanding": 2.0},
    "target-weights": {"curve": {"points": [[0, 1.0]]}},
    "entropic": {"target": 1.0},
    "entropic-weights": {"target": 1.0},
    "repo-r": {"target": 1.0},
    "aepo": {"low": 0.1, "high": 0.5},
    "skip-region": {"region": "E1"},
    "gepo": {"group_size": 8},
}


def test_every_registered_weighting_is_in_the_table():
    assert set(weighting) == set(WEIGHTINGS)


@pytest.mark.parametrize("tier", ["A", "B", "C"])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_weighting_is_refused_by_name_where_the_host_does_not_hand_over_what_it_reads(name, tier):
    needs, _, follows = WEIGHTINGS[name].partition(", ")
    choice = {"reweighting": {"name": name, **REQUIRED.get(name, {})}, "total_steps": 3}
    if needs <= tier and not (follows and tier == "A"):
        control = parse(choice, "file", tier)
        control.begin_step(0)
        tokens = Tokens()
        known = {field: getattr(tokens.stats, field).detach() for field in steering.HANDED[tier]}
        factors = control.weights(HandedOver(**known), tokens.advantages, tokens.mask, tokens.old)
        expected = control.controller.weights(tokens.stats, tokens.advantages, tokens.mask, old_logp=tokens.old)
        assert name == "clip-cov" or torch.equal(factors, expected)
        assert (control.weights(HandedOver(**known), tokens.advantages, tokens.mask & False, tokens.old) == 1).all()
    else:
        with pytest.raises(
            ValueError, match=r"file: \w+.*(needs the|follows the entropy|whole groups|term of its own)"
        ):
            parse(choice, "file", tier)


def test_target_weights_by_logp_need_only_log_probabilities_and_the_mean_entropy():
    chosen = {"name": "target-weights", "by": "logp", "curve": {"points": [[0, 1.0]]}}
    control = parse({"reweighting": chosen, "total_steps": 3}, "file", "A", measured=True)
    for step in range(3):
        control.begin_step(step)
        control.add(0.5, 1.0)
    tokens = Tokens()
    factors = control.weights(HandedOver(logp=tokens.stats.logp), tokens.advantages, tokens.mask, tokens.old)
    rewarded = tokens.mask & (tokens.advantages > 0)
    assert (factors[rewarded] >= 1).all()
    assert (factors[rewarded] > 1).any()
    with pytest.raises(ValueError, match="file: TargetWeights: needs the correction of the tokens"):
        parse({"reweighting": {**chosen, "by": "polarity"}, "total_steps": 3}, "file", "A", measured=True)
    with pytest.raises(ValueError, match="TargetWeights follows the entropy, which this host does not hand over"):
        parse({"reweighting": chosen, "total_steps": 3}, "file", "A")


def test_what_a_host_cannot_do_is_refused_by_name():
    choice = {"bonus": {"name": "constant", "value": 0.1}, "total_steps": 3}
    with pytest.raises(ValueError, match="file: ConstantBonus is an entropy bonus, and this host's loss has none"):
        parse(choice, "file", "C")
    with pytest.raises(ValueError, match="OscillatoryDecay follows the entropy"):
        Steering(EntropyController(OscillatoryDecay(), total_steps=TOTAL))
    with pytest.raises(ValueError, match="AbcClip clips differently from PPO's minimum"):
        Steering(EntropyController(Constant(AbcClip()), total_steps=TOTAL))
    assert Steering(EntropyController(OscillatoryDecay(), total_steps=TOTAL), measured=True).follows


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_correction_is_refused_by_name_because_the_hosts_own_runs(name):
    with pytest.raises(ValueError, match=r"control\.yaml: Corrected: correction \w+ needs the log-probabilities"):
        parse({"parts": [{"name": name}], "total_steps": 3}, "control.yaml", "C")
    with pytest.raises(ValueError, match=r"control\.yaml: correction: hosts read only"):
        parse({"correction": name, "total_steps": 3}, "control.yaml", "C")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strategy: id\ntotal_steps: 5\ndual_clip: 3\n", "dual_clip: hosts read only"),
        ("strategy: id\n", "total_steps is None; give the host's training steps"),
        ("strategy: id\ntotal_steps: 0\n", "total_steps is 0"),
        ("strategy: {name: idd}\ntotal_steps: 5\n", "idd"),
        ("strategy: id\ntotal_steps: 5\nextended: 9\n", "extended is 9; give true or false"),
        ("reweighting: {name: 80-20}\ntotal_steps: 5\n", "80-20"),
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


def thresholds(band, old, own=(0.2, 0.28)):
    control = Steering(EntropyController(Constant(band), total_steps=1))
    return control.thresholds(old, own)


def test_thresholds_are_the_bounds_of_the_rule_at_each_token():
    old = Tokens().old
    for step in (0, 2, TOTAL, TOTAL + 5):
        control = Steering(EntropyController(IncreaseThenDecrease(), total_steps=TOTAL))
        control.begin_step(step)
        low, high = IncreaseThenDecrease().rule(min(step, TOTAL), TOTAL).bounds(old)
        found = [torch.as_tensor(one).expand(ROWS, LENGTH) for one in control.thresholds(old, (9.0, 9.0))]
        torch.testing.assert_close(found, [1 - low, high - 1])


def test_a_constant_band_is_two_numbers_and_padding_does_no_harm():
    old = Tokens().old
    assert thresholds(ClipRule.constant(0.2, 0.28), old, (9.0, 9.0)) == (0.2, 0.28)
    old[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    assert all(bool(one.isfinite().all()) for one in thresholds(IncreaseThenDecrease().rule(0, 1), old))


def test_micro_batches_and_ranks_add_up_and_padding_does_not_count(monkeypatch):
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    control = Steering(EntropyController(OscillatoryDecay(), total_steps=TOTAL), "B")
    control.begin_step(0)
    control.begin_step(0)  # a step has several mini-batches
    for row, value in enumerate((2.0, 6.0)):
        control.record(torch.where(mask[row].bool(), value, torch.nan), mask[row])
    assert control.mean() == 3.0
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    other = torch.tensor([4.0, 1.0], dtype=torch.float64)  # a token of another rank
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.add_(other))
    control.begin_step(1)
    assert control.controller.metrics()["entropy"] == pytest.approx(16 / 5)


def test_the_advantages_keep_the_hosts_dtype():
    control, tokens = parse({**LIKELY, "total_steps": 3}, "file", "A"), Tokens()
    control.begin_step(0)
    logp = tokens.stats.logp.detach()
    for mask in (tokens.mask, tokens.mask & False):
        factors = control.weights(HandedOver(logp=logp), tokens.advantages.bfloat16(), mask, tokens.old)
        assert factors.dtype == torch.bfloat16


def test_a_run_of_another_length_resumes_only_if_it_is_extended():
    control = {"strategy": {"name": "od"}, "total_steps": 4}
    state = parse(control, "file", "B").state_dict()
    parse(control, "file", "B").load_state_dict(state)
    with pytest.raises(ValueError, match="total_steps is 8, but the resumed run had 4"):
        parse({**control, "total_steps": 8}, "file", "B").load_state_dict(state)
    parse({**control, "total_steps": 8, "extended": True}, "file", "B").load_state_dict(state)


def test_a_state_file_is_whole_or_not_there(tmp_path):
    control = Steering(EntropyController(OscillatoryDecay(), total_steps=TOTAL), "B")
    control.begin_step(2)
    write_state(tmp_path, control)
    (folder,) = tmp_path.iterdir()
    assert [file.name for file in folder.iterdir()] == ["step_2.json"]
    assert read_state("host", (None, tmp_path), 2) == json.loads(json.dumps(control.state_dict()))
    with pytest.raises(ValueError, match=r"host resumes at step 4, .*step_4\.json, .*step_3\.json"):
        read_state("host", (tmp_path,), 4)
    write_state(None, control)


def test_an_overlay_replaces_what_it_names_and_leaves_the_object_alone():
    base = SimpleNamespace(a=1, b=2)
    assert (Overlay(base, a=3).a, Overlay(base, a=3).b, base.a) == (3, 2, 1)
    with pytest.raises(AttributeError):
        _ = Overlay(base).c


@pytest.mark.parametrize("kind", HOSTS)
def test_every_host_names_its_tier(kind):
    assert f"Tier {kind.module.TIER}" in " ".join(kind.module.__doc__.split()) or kind is Miles


@pytest.mark.parametrize("kind", [Slime, Miles])
def test_slime_leaves_its_settings_alone_and_needs_its_hook(start, kind):
    host = start(kind, ID)
    with pytest.raises(ValueError, match=rf"before_train_step_hook_path .*\.{kind.module.HOST}\.before_train_step"):
        host.loss(Tokens())
    list(trained(host, [1]))
    assert (host.args.eps_clip, host.args.eps_clip_high) == (0.2, 0.2)
    assert host.loss(Tokens(), old=False)[1] == {"tis": True}  # no old log-probabilities: every ratio is 1
    host.args.advantage_estimator = "gspo"
    with pytest.raises(ValueError, match=f"{kind.module.HOST}: advantage_estimator is 'gspo'"):
        host.loss(Tokens())


@pytest.mark.parametrize(("setting", "value"), [("rollout_top_p", 0.9), ("allgather_cp", True)])
def test_slime_refuses_settings_under_which_its_logits_are_not_the_loss_s(start, setting, value):
    host = start(Slime, settings_of(Slime))
    setattr(host.args, setting, value)
    with pytest.raises(ValueError, match=f"slime: {setting} is {value}"):
        host.step(0, Tokens())


@pytest.mark.parametrize(
    ("kind", "place", "name"),
    [
        (Slime, lambda host: host.args, "entropy_coef"),
        (Roll, lambda host: host.worker.pipeline_config, "entropy_loss_coef"),
    ],
)
def test_a_coefficient_of_the_hosts_own_beside_a_bonus_is_refused(start, kind, place, name):
    host = start(kind, BONUS)
    setattr(place(host), name, 0.01)
    with pytest.raises(ValueError, match=f"{name} is 0.01"):
        host.step(0, Tokens())


@pytest.mark.parametrize("coefficient", [None, 0.01])
def test_openrlhf_is_told_to_compute_the_entropy(start, monkeypatch, coefficient):
    monkeypatch.setattr(OpenRlhf, "coefficient", coefficient)
    with pytest.raises(ValueError, match=rf"OpenRLHF: actor\.entropy_coef is {coefficient}"):
        start(OpenRlhf, settings_of(OpenRlhf))
    start(OpenRlhf, ID)


def test_openrlhf_and_skyrl_refuse_a_ratio_that_is_not_a_tokens():
    host, control = HostModule(), Steering(EntropyController(IncreaseThenDecrease(), total_steps=TOTAL))
    host.policy_loss_type = "gspo"
    with pytest.raises(ValueError, match=r"OpenRLHF: actor\.policy_loss_type is 'gspo'"):
        openrlhf.SteeredPolicyLoss(host, control, lambda: 0, SimpleNamespace(entropy_coef=None))
    algorithm = SimpleNamespace(policy_loss_type="gspo")
    with pytest.raises(ValueError, match=r"SkyRL: trainer\.algorithm\.policy_loss_type is 'gspo'"):
        skyrl.steered_loss(skyrl_loss, control)(None, None, None, config=algorithm)


def test_a_loss_that_a_tinker_client_names_is_its_own(start):
    host = start(SkyRl, {**FOLLOWING, "bonus": {"name": "constant", "value": 0.3}})
    algorithm = host.worker.cfg.algorithm
    host.worker.forward_backward(Tokens(), loss_fn="ppo")
    assert host.coefficients == [0.0, 0.0]
    list(trained(host, range(2)))
    assert steering.steering(skyrl.TIER, skyrl.COEFFICIENT, measured=True).step == 2
    assert host.coefficients[2:] == [0.3] * 4
    assert (algorithm.use_entropy_loss, algorithm.entropy_loss_coef) == (False, 0.01)  # ours only during the call


def test_a_checkpoint_of_skyrl_in_the_cloud_is_refused():
    with pytest.raises(ValueError, match=r"trainer\.ckpt_path is s3://bucket/run"):
        skyrl.state_file("s3://bucket/run")


def test_roll_keeps_what_its_cluster_reads_of_train_step_and_needs_the_step(start):
    host = start(Roll, ID)
    assert type(host.worker).train_step.BIND_WORKER_METHOD_FLAG == "dispatch"
    plain = host.worker.pipeline_config
    list(trained(host, [0]))
    assert host.worker.pipeline_config is plain
    with pytest.raises(ValueError, match="meta_info has no global_step"):
        host.worker.train_step(SimpleNamespace(meta_info={}))
    plain.importance_sampling = "seq"
    with pytest.raises(ValueError, match="ROLL: importance_sampling is 'seq'"):
        list(trained(host, [1]))


@pytest.mark.parametrize("name", ["use_cispo", "force_on_policy_ratio", "disable_ppo_ratio"])
def test_nemo_rl_refuses_a_ratio_that_is_not_clipped(start, name):
    host, loss = start(Nemo, ID), NemoLoss()
    setattr(loss, name, True)
    with pytest.raises(ValueError, match=rf"NeMo RL: loss_fn\.{name} is True"):
        nemo_rl.SteeredLoss(loss, host.steered.control)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sequence_packing": {"fuse_loss": True}}, r"sequence_packing\.fuse_loss is True"),
        ({"generation": {"top_p": 0.9}}, r"generation\.top_p is 0\.9"),
        ({"generation": SimpleNamespace(top_k=20)}, r"generation\.top_k is 20"),
        ({"dtensor_cfg": {"context_parallel_size": 2}}, r"dtensor_cfg\.context_parallel_size is 2"),
        ({"megatron_cfg": {"enabled": True, "context_parallel_size": 2}}, r"megatron_cfg\.context_parallel_size is 2"),
    ],
)
def test_nemo_rl_refuses_settings_without_logits_of_whole_rows(start, config, message):
    host = start(Nemo, settings_of(Nemo))
    with pytest.raises(ValueError, match=message):
        nemo_rl.steer(NemoPolicy(host, **config), NemoLoss(), SaveState())
    plain = Steering(EntropyController(IncreaseThenDecrease(), total_steps=TOTAL))
    steered = nemo_rl.steer(NemoPolicy(host, **config), NemoLoss(), SaveState(), control=plain)
    assert steered.input_type.name == "LOGPROB"


def test_nemo_rl_goes_on_from_the_step_of_either_of_its_loops(start):
    host = start(Nemo, ID)
    for state in (SaveState(total_steps=3, current_step=1), SaveState(total_steps=0, current_step=3)):
        control = Steering(EntropyController(IncreaseThenDecrease(), total_steps=TOTAL))
        nemo_rl.steer(host.policy, NemoLoss(), state, control=control)
        assert control.step == 3


def test_areals_engine_steers_its_policy_loss_alone(start):
    host = start(Areal, ID)
    areal.steer()
    assert type(host.engine).__module__ == areal.__name__
    assert type(host.engine).__name__ == "EntropyFSDPPPOActor"  # the path that AReaL gives its workers
    assert getattr(areal, "EntropyFSDPPPOActor") is type(host.engine)  # noqa: B009
    packed = host.packed(Tokens())
    assert host.engine.train_batch(packed, lambda *_: "critic", None) == "critic"
    with pytest.raises(ValueError, match=r"AReaL: actor\.use_sapo_loss is True"):
        host.engine.train_batch(packed, host.loss_fn(use_sapo_loss=True), None)
    with pytest.raises(ValueError, match=r"AReaL: actor\.prox_logp_method is 'loglinear'"):
        host.engine.train_batch({**packed, "prox_logp": None}, host.loss_fn(prox_logp_method="loglinear"), None)


def test_prime_rls_own_masks_exclude_a_strategy(start):
    host = start(Prime, ID)
    list(trained(host, [0]))
    assert set(host.taus) == {0.5}
    with pytest.raises(ValueError, match=r"trainer\.loss\.kwargs: dppo_mask_low beside a strategy"):
        prime_rl.loss(None, **Prime.kwargs, dppo_mask_low=0.2)


def test_slimes_rollouts_before_the_actor_trains_are_no_resume(start):
    host = start(Slime, settings_of(Slime))
    host.args.num_critic_only_steps = 2
    slime.before_train_step(host.args, 2, 0, None, None, None)
    assert steering.steering("C", "entropy_coef").step == 2
