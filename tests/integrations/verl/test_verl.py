"""verl's own functions, configuration and plugin loader around our losses, on the CPU; skipped where verl is not
installed.
"""

import os
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed: its losses and its trainer are not checked")

from hydra import compose, initialize_config_dir
from ray import cloudpickle
from tensordict import TensorDict
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils import tensordict_utils
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import ActorConfig, PolicyLossConfig
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from entrostat.control import (
    Constant,
    ConstantBonus,
    Curve,
    EntropyController,
    FixedWeights,
    IncreaseThenDecrease,
    OscillatoryDecay,
    Part,
    TargetWeights,
    mismatch_sums,
)
from entrostat.entropy import entropy_push
from entrostat.integrations.verl.loss import METHODS, register_losses
from entrostat.integrations.verl.trainer import check, controller_of, optimizer_steps
from entrostat.integrations.verl.worker import (
    LOSS_MODE,
    ControlledLoss,
    EntropyActorRolloutRefWorker,
    EntropyTrainingWorker,
)
from entrostat.objective import (
    Bapo,
    CeGppo,
    Cispo,
    ClipRule,
    Estr,
    Gmpo,
    Gspo,
    LinearThreshold,
    Opsm,
    Reinforce,
    SampledTokens,
    Sapo,
    SeqMaskTis,
    Tis,
    aggregate,
    policy_loss,
)
from entrostat.tokens import token_stats

ROOT = Path(__file__).parents[3]
ROWS, LENGTH, VOCABULARY = 6, 9, 23
PROMPT = 3
MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"]

register_losses()


def actor(loss_mode, **settings):
    policy = PolicyLossConfig(loss_mode=loss_mode)
    return ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, policy_loss=policy, **settings)


def padded():
    generator = torch.Generator().manual_seed(0)
    old = -4 * torch.rand(ROWS, LENGTH, generator=generator, dtype=torch.float64)
    logp = old + 0.5 * torch.randn(ROWS, LENGTH, generator=generator, dtype=torch.float64)
    advantages = torch.randn(ROWS, LENGTH, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([9, 2, 5, 7, 1, 8])
    return old, logp.clamp_max(0).requires_grad_(), advantages, torch.arange(LENGTH) < lengths[:, None]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("changes", [{}, {"clip_ratio_low": 0.1, "clip_ratio_high": 0.28, "clip_ratio_c": 1.4}])
@pytest.mark.parametrize("corrected", [False, True])
def test_the_constant_band_is_verls_vanilla(mode, changes, corrected):
    old, logp, advantages, mask = padded()
    weights = torch.linspace(0.5, 1.5, LENGTH).expand(ROWS, LENGTH).double() if corrected else None
    found = {}
    for name in ("vanilla", "entrostat_clip"):
        loss, metrics = core_algos.get_policy_loss_fn(name)(
            old, logp, advantages, mask, mode, actor(name, **changes), weights
        )
        found[name] = loss, torch.autograd.grad(loss, logp)[0], metrics
    for theirs, ours in zip(*found.values(), strict=True):
        if isinstance(theirs, dict):
            assert ours == pytest.approx(theirs, abs=1e-6)
        else:
            torch.testing.assert_close(ours, theirs)


def test_raise_and_lower_open_the_side_that_they_name():
    config = actor("x")
    q = torch.tensor([[0.1, 0.5, 0.9]]).log()
    for name, sign, edges in (
        ("entrostat_raise", 1.0, [1.463, 1.333, 1.224]),
        ("entrostat_lower", -1.0, [0.709, 0.749, 0.793]),
    ):
        for shift, survives in ((1e-3, False), (-1e-3, True)):
            ratio = torch.tensor([edges]) + sign * shift
            logp = (q + ratio.log()).requires_grad_()
            loss, _ = core_algos.get_policy_loss_fn(name)(
                q, logp, torch.full_like(q, sign), torch.ones_like(q), "token-mean", config
            )
            gradient = torch.autograd.grad(loss, logp)[0]
            assert bool((gradient != 0).all()) == survives, (name, shift)


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_does_not_depend_on_micro_batches(name):
    old, logp, advantages, mask = padded()
    loss = core_algos.get_policy_loss_fn(name)
    whole = torch.autograd.grad(loss(old, logp, advantages, mask, "token-mean", actor(name))[0], logp)[0]
    config = actor(name)
    config.global_batch_info.update(dp_size=1, batch_num_tokens=int(mask.sum()), global_batch_size=ROWS)
    parts = [
        torch.autograd.grad(loss(old[i], logp[i], advantages[i], mask[i], "token-mean", config)[0], logp)[0]
        for i in torch.arange(ROWS).split(2)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_micro_batch_without_a_token_is_a_zero_with_a_gradient():
    old, logp, advantages, mask = padded()
    loss, _ = core_algos.get_policy_loss_fn("entrostat_raise")(
        old, logp, advantages, torch.zeros_like(mask), "token-mean", actor("x")
    )
    assert torch.equal(torch.autograd.grad(loss, logp)[0], torch.zeros_like(logp))


class Batch:
    """Sequences as verl's engine holds them, and its own outputs for logits that are a parameter."""

    def __init__(self, rows=range(ROWS), **changes) -> None:
        generator = torch.Generator().manual_seed(1)
        lengths = [9, 2, 5, 7, 1, 8]
        everything = [self._row(length, generator) for length in lengths]
        chosen = [everything[row] for row in rows]
        self.logits = [row["logits"] for row in chosen]
        fields = ("input_ids", "prompts", "responses", "response_mask", "old_log_probs", "advantages")
        self.data = TensorDict({name: jagged([row[name] for row in chosen]) for name in fields}, [len(chosen)])
        info = {"dp_size": 1, "batch_num_tokens": sum(lengths), "global_batch_size": ROWS, **changes}
        tensordict_utils.assign_non_tensor(self.data, use_remove_padding=True, calculate_entropy=True, **info)

    def sampled_elsewhere(self, spread=0.3):
        """The same sequences with the log-probabilities of another sampler, and a score per completion."""
        generator = torch.Generator().manual_seed(5)
        old = self.data["old_log_probs"].unbind()
        self.data["rollout_log_probs"] = jagged([x + spread * torch.randn(len(x), generator=generator) for x in old])
        self.data["rm_scores"] = jagged([torch.ones(len(x)) * (i % 3 == 0) for i, x in enumerate(old)])
        return self

    def _row(self, length, generator):
        ids = torch.randint(VOCABULARY, (PROMPT + length,), generator=generator)
        logits = 2 * torch.randn(len(ids), VOCABULARY, generator=generator)
        logp = token_stats(logits[PROMPT - 1 : -1], ids[PROMPT:]).logp
        return {
            "logits": logits.requires_grad_(),
            "input_ids": ids,
            "prompts": ids[:PROMPT],
            "responses": ids[PROMPT:],
            "response_mask": torch.ones(length, dtype=torch.long),
            "old_log_probs": logp + 0.3 * torch.randn(length, generator=generator),
            "advantages": torch.randn(1, generator=generator).expand(length),
        }

    def outputs(self, loss, **settings):
        """The model outputs of verl's FSDP engine, from its own code."""
        engine = object.__new__(FSDPEngineWithLMHead)
        engine.engine_config = SimpleNamespace(entropy_checkpointing=False, entropy_from_logits_with_chunking=False)
        engine.compute_entropy_from_logits = core_algos.verl_F.entropy_from_logits
        engine._gather_and_unpad_packed = lambda tensor, pad_size: tensor
        tensordict_utils.assign_non_tensor(self.data, **settings)
        logits = torch.cat(self.logits)
        arguments = {
            "input_ids_rmpad_rolled": self.data["input_ids"].values().roll(-1),
            "temperature_rmpad": torch.ones(len(logits)),
            "temperature_is_one": True,
            "pad_size": 0,
        }
        return engine.prepare_model_outputs(SimpleNamespace(logits=logits[None]), arguments, self.data, loss)

    def step(self, loss, **settings):
        found, metrics = loss(model_output=self.outputs(loss, **settings), data=self.data, dp_group=None)
        return found, torch.autograd.grad(found, self.logits), metrics


def jagged(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def controlled(controller=None, tier="C", **changes):
    return ControlledLoss(controller or EntropyController(Constant(), 10), actor(LOSS_MODE, **changes), tier)


@pytest.mark.parametrize("tier", ["B", "C"])
@pytest.mark.parametrize("mode", MODES)
def test_a_trivial_controller_is_verls_own_loss(tier, mode):
    vanilla, theirs, _ = Batch().step(partial(ppo_loss, actor("vanilla", loss_agg_mode=mode)))
    loss, ours, _ = Batch().step(controlled(tier=tier, loss_agg_mode=mode), distillation_use_topk=tier == "C")
    torch.testing.assert_close(loss, vanilla)
    torch.testing.assert_close(ours, theirs)


WIDTHS = ("clip_ratio_low", "clip_ratio_high", "clip_ratio_c")
OWN = {  # an objective, its band, verl's loss of that name and the same settings there
    "gspo": (Gspo(), ClipRule.constant(0.02, 0.03), "gspo", {"clip_ratio_low": 0.02, "clip_ratio_high": 0.03}),
    "cispo": (Cispo(), ClipRule.constant(0.2, 0.28), "cispo", {"clip_ratio_high": 0.28}),
    "sapo": (Sapo(1.2, 1.4), ClipRule(), "sapo", {"tau_pos": 1.2, "tau_neg": 1.4}),
    "kl-cov": (Reinforce(), ClipRule(), "kl_cov", {}),
    "reinforce": (Reinforce(), ClipRule(), "vanilla", dict.fromkeys(WIDTHS, 1e9)),
}


@pytest.mark.parametrize("tier", ["B", "C"])
@pytest.mark.parametrize("name", OWN)
def test_verls_own_loss_of_an_objective_runs_steered(name, tier):
    """Equal to verl's with a constant band; with a schedule's thresholds of each token, to the library's objective."""
    objective, band, mode, settings = OWN[name]
    kl_cov = (0.3, 0.7) if name == "kl-cov" else None
    policy = PolicyLossConfig(loss_mode=mode, **({"kl_cov_ratio": 0.3, "ppo_kl_coef": 0.7} if kl_cov else {}))
    theirs_config = actor(mode, loss_agg_mode="seq-mean-token-mean", **settings)
    object.__setattr__(theirs_config, "policy_loss", policy)
    vanilla, theirs, their_metrics = Batch().step(partial(ppo_loss, theirs_config))

    def ours(rule):
        own = actor(LOSS_MODE, loss_agg_mode="seq-mean-token-mean")
        return ControlledLoss(
            EntropyController(Constant(rule), 10), own, tier, objective=objective, kl_cov=kl_cov
        ), Batch()

    loss, batch = ours(band)
    found, gradients, metrics = batch.step(loss, distillation_use_topk=tier == "C")
    torch.testing.assert_close(found, vanilla)
    torch.testing.assert_close(gradients, theirs)
    assert {key: value.aggregate() for key, value in metrics.items() if key in their_metrics} == pytest.approx(
        {key: value.aggregate() for key, value in their_metrics.items()}
    )
    assert ("entrostat/flow_up" in loss.finish_step()) == (tier == "C")
    if name == "cispo":
        sloped = ClipRule(LinearThreshold(-0.1, 0.15), LinearThreshold(-0.1, 0.15))
        loss, batch = ours(sloped)
        found, _, _ = batch.step(loss, distillation_use_topk=tier == "C")
        names = ("old_log_probs", "advantages", "response_mask")
        old, advantages, mask = (batch.data.select(one).to_padded_tensor()[one] for one in names)
        rows = zip(batch.logits, batch.data["input_ids"].unbind(), strict=True)
        logp = torch.nn.utils.rnn.pad_sequence(
            [token_stats(z[PROMPT - 1 : -1].detach(), ids[PROMPT:]).logp for z, ids in rows], True
        )
        out = policy_loss(logp, old, advantages, mask.bool(), rule=sloped, objective=objective)
        torch.testing.assert_close(found, aggregate(out.per_token, mask.bool(), "sequence-mean"))


@pytest.mark.parametrize("objective", [Gmpo(), CeGppo()], ids=repr)
def test_our_objective_runs_where_verl_has_none_however_the_step_is_cut(objective):
    def loss():
        own = actor(LOSS_MODE, loss_agg_mode="seq-mean-token-mean")
        return ControlledLoss(EntropyController(Constant(ClipRule.constant(0.1, 0.1)), 10), own, objective=objective)

    _, gradients, _ = Batch().step(loss(), distillation_use_topk=True)
    parts = [Batch(rows).step(loss(), distillation_use_topk=True)[1] for rows in ([0, 1], [2], [3, 4, 5])]
    torch.testing.assert_close(tuple(g for part in parts for g in part), gradients)
    with pytest.raises(ValueError, match="Bapo, which compares the tokens of a whole batch"):
        ControlledLoss(EntropyController(Constant(), 10), actor(LOSS_MODE), objective=Bapo())


@pytest.mark.parametrize("tier", ["B", "C"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", [Tis(1.2), SeqMaskTis(0.9, 1.1), Opsm(0.05), Estr(0.5)], ids=repr)
def test_a_correction_multiplies_the_loss_as_verls_weights_do(tier, mode, rule):
    plain = Batch().sampled_elsewhere()
    padded = {
        name: plain.data.select(name).to_padded_tensor()[name]
        for name in ("old_log_probs", "rollout_log_probs", "advantages", "response_mask")
    }
    rows = [
        token_stats(logits[PROMPT - 1 : -1].detach(), ids[PROMPT:])
        for logits, ids in zip(plain.logits, plain.data["input_ids"].unbind(), strict=True)
    ]
    logp, entropy = (
        torch.nn.utils.rnn.pad_sequence([getattr(row, name) for row in rows], True) for name in ("logp", "entropy")
    )
    mask = padded["response_mask"].bool()
    factors = rule(
        SampledTokens(logp, padded["old_log_probs"], padded["rollout_log_probs"], padded["advantages"], mask, entropy)
    ).where(mask, 1)
    plain.data["rollout_is_weights"] = jagged([row[kept] for row, kept in zip(factors, mask, strict=True)])
    theirs, wanted, _ = plain.step(partial(ppo_loss, actor("vanilla", loss_agg_mode=mode)))
    loss = controlled(EntropyController(Constant(), rule, total_steps=10), tier=tier, loss_agg_mode=mode)
    ours, found, _ = Batch().sampled_elsewhere().step(loss, distillation_use_topk=tier == "C")
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found, wanted)
    measured = mismatch_sums(padded["old_log_probs"], padded["rollout_log_probs"], mask, factors=factors)
    logged = loss.finish_step()
    for name, value in measured.metrics().items():
        assert logged[f"entrostat/mismatch/{name}"] == pytest.approx(value, rel=1e-5)
    assert logged["entrostat/kl_sampler"] == pytest.approx(measured.kl, rel=1e-5)


def test_the_parts_receive_what_verl_measures_however_the_step_is_cut():
    class Listener(Part):
        def observe(self, step):
            self.step = step

    found = []
    for rows in (512, 2):
        part = Listener()
        loss = controlled(EntropyController(part, total_steps=10), use_kl_loss=True)
        for first in range(0, ROWS, rows):
            batch = Batch(range(first, min(first + rows, ROWS))).sampled_elsewhere()
            batch.data["ref_log_prob"] = jagged([x - 0.1 for x in batch.data["old_log_probs"].unbind()])
            batch.step(loss, distillation_use_topk=True)
        loss.finish_step()
        found.append([part.step.kl_old, part.step.kl_reference, part.step.pass_rate])
    assert None not in found[0]
    assert found[0][2] > 0
    assert found[1][:2] == pytest.approx(found[0][:2], rel=1e-5)


def test_verls_weights_beside_ours_are_refused():
    batch = Batch().sampled_elsewhere()
    batch.data["rollout_is_weights"] = batch.data["old_log_probs"].exp()
    with pytest.raises(ValueError, match=r"rollout_correction\.rollout_is"):
        batch.step(controlled(EntropyController(Tis(), total_steps=10)), distillation_use_topk=True)


def test_the_statistics_come_from_the_engines_logits():
    loss, batch = controlled(EntropyController(Constant(), 10, reweighting=FixedWeights(2.0, 0.5))), Batch()
    batch.step(loss, distillation_use_topk=True)
    found = loss.finish_step()
    stats = [
        token_stats(logits[PROMPT - 1 : -1].detach(), ids[PROMPT:])
        for logits, ids in zip(batch.logits, batch.data["input_ids"].unbind(), strict=True)
    ]
    tokens = sum(s.entropy.numel() for s in stats)
    assert found["entrostat/entropy"] == pytest.approx(sum(float(s.entropy.sum()) for s in stats) / tokens, rel=1e-5)
    assert found["entrostat/flow_up"] > 0 > found["entrostat/flow_down"]


def test_tier_b_receives_the_entropy_and_reports_no_flow():
    loss = controlled(tier="B")
    Batch().step(loss)
    found = loss.finish_step()
    assert found["entrostat/entropy"] > 0
    assert not any("flow" in name or "region" in name for name in found)
    with pytest.raises(ValueError, match="FixedWeights in tier B"):
        controlled(EntropyController(Constant(), 10, reweighting=FixedWeights()), tier="B")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("whose", ["controller", "verl"])
def test_the_flow_includes_an_entropy_bonus(mode, whose):
    """Against <S, dL/dz> of the logits themselves, summed over all tokens."""
    bonus = ConstantBonus(0.3) if whose == "controller" else None
    changes = {"loss_agg_mode": mode, "entropy_coeff": 0.0 if bonus else 0.3}
    loss = controlled(EntropyController(IncreaseThenDecrease(), 10, bonus=bonus), **changes)
    batch = Batch()
    _, gradients, _ = batch.step(loss, distillation_use_topk=True)
    found = loss.finish_step()
    flow = sum((entropy_push(z.detach()) * g).sum() for z, g in zip(batch.logits, gradients, strict=True))
    tokens = int(batch.data["response_mask"].values().sum())
    mean = found["entrostat/flow_up"] + found["entrostat/flow_down"]
    assert mean == pytest.approx(float(flow), rel=1e-4, abs=1e-7), tokens
    without = controlled(EntropyController(IncreaseThenDecrease(), 10), loss_agg_mode=mode)
    Batch().step(without, distillation_use_topk=True)
    plain = without.finish_step()
    assert mean > plain["entrostat/flow_up"] + plain["entrostat/flow_down"]


def test_the_statistics_keep_their_float32_entropy_beside_verls_rounded_one():
    loss, batch = controlled(), Batch()
    outputs = batch.outputs(loss, distillation_use_topk=True)
    expected = no_padding_2_padding(outputs["entrostat_entropy"], batch.data)
    outputs["entropy"] = outputs["entropy"].to(torch.bfloat16).float()
    loss(model_output=outputs, data=batch.data, dp_group=None)
    mask = batch.data.select("response_mask").to_padded_tensor()["response_mask"].bool()
    assert loss.finish_step()["entrostat/entropy"] == pytest.approx(float(expected[mask].double().mean()), rel=1e-7)


def test_micro_batches_add_up_to_the_step():
    strategy = IncreaseThenDecrease()
    whole, cut = (controlled(EntropyController(strategy, 10, bonus=ConstantBonus(0.1))) for _ in range(2))
    _, gradients, _ = Batch().step(whole, distillation_use_topk=True)
    parts = [Batch(rows).step(cut, distillation_use_topk=True)[1] for rows in ([0, 1], [2], [3, 4, 5])]
    torch.testing.assert_close(tuple(g for part in parts for g in part), gradients)
    assert cut.finish_step() == pytest.approx(whole.finish_step())


def test_ranks_add_up_to_the_step(tmp_path):
    loss = controlled(EntropyController(IncreaseThenDecrease(), 10))
    _, gradients, _ = Batch().step(loss, distillation_use_topk=True)
    torch.save((gradients, loss.finish_step()), tmp_path / "whole.pt")
    script = Path(__file__).with_name("verl_two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run([*command, str(tmp_path / "whole.pt")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agrees") == 2


def test_a_fresh_process_finds_the_plugin_and_prints_it(tmp_path):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read the declaration")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["verl.plugins"]
    installed = tmp_path / "entrostat_plugin-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: entrostat-plugin\nVersion: 0\n")
    lines = [f"{name} = {module}" for name, module in declared.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[verl.plugins]", *lines]))
    code = (
        "import verl; from verl.trainer.ppo.core_algos import get_policy_loss_fn as f; f('entrostat_raise'); "
        "from verl.workers.engine_workers import ActorRolloutRefWorker as w; print(w.actor_worker_cls.__name__)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}", "FLEXEC_STRATEGY": "od"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "entrostat: tier A, registered with verl the policy losses entrostat_clip" in done.stderr
    assert done.stdout.split()[-1] == "FlexecTrainingWorker"  # which flexec's od needs


def composed(*overrides):
    own = f"hydra.searchpath=[file://{Path(core_algos.__file__).parents[1] / 'config'}]"
    with initialize_config_dir(config_dir=str(ROOT / "examples"), version_base=None):
        return compose("verl_id_8gpu", overrides=[own, *overrides])


def test_the_recipe_composes_and_builds_its_controller():
    config = composed()
    assert check(config) == "C"
    steps = optimizer_steps(config, 400)
    assert steps == 800
    controller = controller_of(config, steps)
    assert controller.rule() == IncreaseThenDecrease().rule(0, 800)
    constant = controller_of(composed("trainer.v1.entrostat.strategy=null"), steps)
    assert constant.rule() == ClipRule.constant(0.2, 0.2)
    assert EntropyActorRolloutRefWorker.actor_worker_cls.__name__ == "EntropyTrainingWorker"


KEPT = "actor_rollout_ref.rollout.calculate_log_probs="
OURS = "+trainer.v1.entrostat.correction=tis"


def test_a_correction_is_built_from_its_key():
    config = composed(KEPT + "true", OURS)
    assert check(config) == "C"
    assert [part.correction for part in controller_of(config, 10).corrections] == [Tis()]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([KEPT + "false"], "rollout.calculate_log_probs"),
        ([KEPT + "true", "algorithm.rollout_correction.rollout_is=token"], "rollout_correction.rollout_is"),
        ([KEPT + "true", "algorithm.rollout_correction.rollout_rs=token_k1"], "rollout_correction.rollout_rs"),
        ([KEPT + "true", "algorithm.rollout_correction.bypass_mode=true"], "rollout_correction.bypass_mode"),
    ],
)
def test_a_correction_without_a_sampler_or_beside_verls_own_is_refused_by_its_key(overrides, message):
    with pytest.raises(ValueError, match=message):
        check(composed(OURS, *overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.actor.policy_loss.loss_mode=vanilla", "loss_mode is 'vanilla', which reads no"),
        (
            "+trainer.v1.entrostat.reweighting={name:fixed,expanding:1.5} "
            "actor_rollout_ref.actor.use_fused_kernels=true",
            "needs the logits",
        ),
        ("actor_rollout_ref.actor.use_fused_kernels=true", "calculate_entropy is false"),
        ("actor_rollout_ref.actor.pad_to_length=true", "fsdp_config.pad_to_length is true"),
        ("+trainer.v1.entrostat.bonus={name:constant,value:0.1}", "calculate_entropy is false"),
        ("trainer.v1.entrostat.strategy.name=ido", "name: 'ido' is no strategy"),
        ("+trainer.v1.entrostat.colour=red", "colour: unknown key"),
    ],
)
def test_what_contradicts_the_controller_is_refused_by_its_key(override, message):
    with pytest.raises(ValueError, match=message):
        check(composed(*override.split(" ")))


def test_one_update_a_batch_is_said_to_be_inert():
    with pytest.warns(UserWarning, match="every ratio is 1"):
        check(composed("actor_rollout_ref.actor.ppo_mini_batch_size=512"))


class Engine:
    """What verl's worker asks of its engine, over `Batch` cut into two micro-batches, without an optimizer."""

    def train_mode(self, **_):
        return nullcontext()

    def train_batch(self, data, loss_function):
        topk = tensordict_utils.get(data, "distillation_use_topk")
        parts = [Batch(rows).step(loss_function, distillation_use_topk=topk) for rows in ([0, 1, 2], [3, 4, 5])]
        losses = [float(loss.detach()) for loss, _, _ in parts]
        return {"model_output": {}, "loss": losses, "metrics": {"grad_norm": 1.0}}

    def is_mp_src_rank_with_outputs(self):
        return True

    def get_data_parallel_group(self):
        return None

    def save_checkpoint(self, path, *_):
        Path(path).mkdir(exist_ok=True)

    def load_checkpoint(self, *_):
        pass


def worker(loss):
    """verl's own worker around that engine; its __init__ needs a Ray cluster and a GPU."""
    made = object.__new__(EntropyTrainingWorker)
    made.engine, made.loss_fn, made.device_name = Engine(), loss, "cpu"
    made.model_config, made.flops_counter, made.profiler = {}, None, None
    made.engine_config = SimpleNamespace(
        forward_only=False,
        use_dynamic_bsz=False,
        max_token_len_per_gpu=None,
        micro_batch_size_per_gpu=3,
        use_fused_kernels=False,
    )
    return made


def mini_batch():
    data = TensorDict({}, [ROWS])
    tensordict_utils.assign_non_tensor(data, global_token_num=None, distillation_use_topk=False)
    return data


def test_the_worker_receives_each_step_and_reports_it():
    loss = controlled(EntropyController(IncreaseThenDecrease(), 10))
    made = worker(loss)
    first, second = (tensordict_utils.get(made.train_batch(mini_batch()), "metrics") for _ in range(2))
    assert loss.controller.state_dict()["step"] == 2
    assert first["entrostat/bounds/upper_intercept"] == 0.5
    assert second["entrostat/bounds/upper_intercept"] == pytest.approx(0.5 - 0.3 * 1 / 5)
    whole = controlled(EntropyController(IncreaseThenDecrease(), 10))
    Batch().step(whole, distillation_use_topk=True)
    assert first["entrostat/entropy"] == pytest.approx(whole.finish_step()["entrostat/entropy"])


def test_the_workers_checkpoint_brings_the_controller_back(tmp_path):
    curve = Curve.constant(1.0)
    saved, fresh = (controlled(EntropyController(OscillatoryDecay(), TargetWeights(curve), 10)) for _ in range(2))
    made = worker(saved)
    made.train_batch(mini_batch())
    made.save_checkpoint(str(tmp_path / "actor"))
    worker(fresh).load_checkpoint(str(tmp_path / "actor"))
    assert fresh.controller.state_dict() == saved.controller.state_dict()
    with pytest.raises(ValueError, match="the checkpoint has no controller"):
        worker(controlled()).load_checkpoint(str(tmp_path))


def test_a_checkpoint_of_a_run_with_other_steps_is_refused_unless_it_is_extended(tmp_path):
    made = worker(controlled(EntropyController(IncreaseThenDecrease(), 10)))
    made.train_batch(mini_batch())
    made.save_checkpoint(str(tmp_path))
    longer = controlled(EntropyController(IncreaseThenDecrease(), 20))
    with pytest.raises(ValueError, match="total_steps is 20, but the resumed run had 10"):
        worker(longer).load_checkpoint(str(tmp_path))
    longer.extended = True
    worker(longer).load_checkpoint(str(tmp_path))
    assert longer.controller.state_dict()["step"] == 1


def test_weights_that_the_optimizer_holds_in_bfloat16_are_warned_of():
    made = worker(controlled(EntropyController(Constant(), 10)))
    short = torch.nn.Parameter(0.02 * torch.randn(100, dtype=torch.bfloat16))
    made.engine.optimizer = torch.optim.AdamW([short], lr=1e-6)
    with pytest.warns(UserWarning, match=r"rounding swallows .*fsdp_config\.model_dtype to fp32"):
        made.train_batch(mini_batch())


def test_the_loss_travels_to_the_workers():
    config = composed()
    sent = ControlledLoss(controller_of(config, 800), omega_conf_to_dataclass(config.actor_rollout_ref.actor))
    arrived = cloudpickle.loads(cloudpickle.dumps(sent))
    assert arrived.controller.rule() == sent.controller.rule()
    assert arrived.config.policy_loss.loss_mode == LOSS_MODE


def test_the_trainer_is_found_by_its_mode_and_gives_the_actor_our_worker():
    config = composed()
    trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    assert (trainer.tier, trainer.trainer_mode) == ("C", "sync")
    trainer._init_resource_pool_mgr()
    actor_class = trainer.role_worker_mapping[Role.ActorRollout].__ray_metadata__.modified_class
    assert actor_class.actor_worker_cls is EntropyTrainingWorker
