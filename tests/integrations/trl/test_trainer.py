"""The TRL trainer under a controller: plain TRL where the controller is trivial, our loss where it is not.

Skipped where TRL is not installed.
"""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed: the trainer under a controller is not checked")

from datasets import Dataset
from parts import weights_of
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM
from trl import GRPOConfig, GRPOTrainer
from trl_world import PROMPTS, policy, steps, trainer

from entrostat.control import (
    Constant,
    ConstantBonus,
    Curve,
    EntropyController,
    FixedWeights,
    HighEntropyTokens,
    IncreaseThenDecrease,
    OscillatoryDecay,
    Part,
    TargetWeights,
)
from entrostat.entropy import bonus_flow
from entrostat.integrations.trl.checks import inert, refuse_what_bypasses
from entrostat.integrations.trl.trainer import _RETURNS_AUX_LOSS, STATE_FILE, EntropyGRPOTrainer
from entrostat.objective import (
    AbcClip,
    Cispo,
    Clip,
    ClipRule,
    Gspo,
    LinearThreshold,
    Sapo,
    Tis,
    aggregate,
    policy_loss,
)
from entrostat.tokens import TokenStats, token_stats

TRIVIAL = Constant()
TIMES = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "eval_runtime"} | {
    "eval_samples_per_second",
    "eval_steps_per_second",
    "eval_step_time",
}


def controlled(folder, controller=None, model=None, options=None, **changes):
    controller = controller or EntropyController(TRIVIAL, changes.get("max_steps", 4))
    return trainer(folder, EntropyGRPOTrainer, model, {"controller": controller, **(options or {})}, **changes)


def assert_plain_trl(plain, make_ours):
    """Losses, gradient norms, every other number that TRL logs, and the final weights are the same.

    The second trainer is made after the first has run, because making one seeds torch's generator.
    """
    plain.train()
    ours = make_ours()
    ours.train()
    for theirs, found in zip(plain.state.log_history, ours.state.log_history, strict=True):
        for name in theirs.keys() - TIMES:
            assert found[name] == pytest.approx(theirs[name], abs=1e-5), name
    for a, b in zip(plain.model.parameters(), ours.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    return ours


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("statistics", ["head", "logits"])
def test_a_trivial_controller_is_plain_trl_over_20_steps(tmp_path, loss_type, statistics):
    changes = {"max_steps": 20, "loss_type": loss_type}
    plain = trainer(tmp_path / "plain", **changes)
    assert_plain_trl(plain, lambda: controlled(tmp_path / "ours", options={"statistics": statistics}, **changes))


SEQUENCE = {"importance_sampling_level": "sequence"}
LOSSES = {  # TRL's settings, and the same band as the controller's
    "gspo": ({"loss_type": "grpo", **SEQUENCE, "epsilon": 3e-4, "epsilon_high": 4e-4}, ClipRule.constant(3e-4, 4e-4)),
    "gspo-dual": ({"loss_type": "grpo", **SEQUENCE, "epsilon": 0.01, "delta": 1.1}, ClipRule.constant(0.01, 0.01)),
    "luspo": ({"loss_type": "luspo", **SEQUENCE, "epsilon": 0.01}, ClipRule.constant(0.01, 0.01)),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 1.1}, ClipRule.constant(1.0, 0.1)),
    "sapo": ({"loss_type": "sapo", "sapo_temperature_neg": 1.5}, ClipRule()),
    "entropy-quantile": ({"loss_type": "dapo", "top_entropy_quantile": 0.5}, ClipRule()),
}
FAST = {"learning_rate": 1e-2, "num_iterations": 3}  # far enough from the old policy for every band to clip


@pytest.mark.parametrize("name", LOSSES)
def test_every_other_loss_is_plain_trl_too(tmp_path, name):
    settings, band = LOSSES[name]
    changes = {**settings, **FAST, "eval_strategy": "steps", "eval_steps": 3, "max_steps": 6}
    data = {"options": {"eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:4]})}}
    plain = trainer(tmp_path / "plain", **data, **changes)
    controller = EntropyController(Constant(band), 6)
    ours = assert_plain_trl(plain, lambda: controlled(tmp_path / "ours", controller, **data, **changes))
    if name != "sapo":
        assert any(line["entrostat/clip_fraction_high"] > 0 for line in steps(ours)) or name == "entropy-quantile"


@pytest.mark.parametrize("name", ["gspo", "cispo", "sapo", "vespo"])
def test_without_a_controller_every_loss_is_plain_trl_and_is_measured(tmp_path, name):
    settings = LOSSES[name][0] if name in LOSSES else {"loss_type": "vespo"}
    if "vespo_k_pos" not in GRPOConfig.__dataclass_fields__ and name == "vespo":
        pytest.skip("this TRL has no VESPO")
    changes = {**settings, **FAST, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    ours = assert_plain_trl(
        trainer(tmp_path / "plain", **changes),
        lambda: trainer(tmp_path / "ours", EntropyGRPOTrainer, None, {"controller": None}, **changes),
    )
    lines = steps(ours)
    assert all(math.isfinite(line["entrostat/entropy"]) for line in lines)
    assert lines[0]["entrostat/flow_up"] > 0
    assert ("entrostat/clip_fraction_high" in lines[0]) == (name != "vespo")
    if name not in ("vespo", "sapo"):
        clipped = sum(line["entrostat/clip_fraction_high"] for line in lines)
        same = controlled(tmp_path / "same", EntropyController(Constant(LOSSES[name][1]), 4), **changes)
        same.train()
        assert clipped == pytest.approx(sum(line["entrostat/clip_fraction_high"] for line in steps(same)), abs=1e-6)
    resumed = trainer(tmp_path / "ours", EntropyGRPOTrainer, None, {"controller": None}, **changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "ours/checkpoint-2"))


def test_an_evaluation_is_measured_over_all_its_tokens(tmp_path):
    held_out = Dataset.from_dict({"prompt": PROMPTS[:8]})
    weights = EntropyController(TRIVIAL, 2, reweighting=FixedWeights(expanding=3.0))

    def evaluated(rows, controller):
        run = controlled(
            tmp_path / str(rows),
            controller,
            options={"eval_dataset": held_out},
            per_device_eval_batch_size=rows,
            num_generations_eval=4,
            max_steps=2,
        )
        counted = []
        counting = run._counted
        run._counted = lambda current, *rest: counted.append(counting(current, *rest)) or counted[-1]
        return run.evaluate(), counted

    found, counted = evaluated(8, EntropyController(TRIVIAL, 2))
    assert len(counted) > 1
    total = sum(one.entropy for one in counted) / sum(one.tokens for one in counted)
    assert found["eval_entrostat/entropy"] == pytest.approx(total, rel=1e-6)
    assert sum(value for name, value in found.items() if name.endswith("/share")) == pytest.approx(1)
    assert not any("phase" in name for name in found)
    weighted, _ = evaluated(8, weights)  # an evaluation is steered by nothing
    assert weighted["eval_loss"] == pytest.approx(found["eval_loss"], abs=1e-6)


class Seen(EntropyGRPOTrainer):
    """Keeps what goes into the loss and what comes out."""

    def _compute_loss(self, model, inputs):
        rule = self.controller.rule()
        loss = super()._compute_loss(model, inputs)
        self.seen = [*getattr(self, "seen", []), (inputs, rule, loss.detach())]
        return loss


OURS = {  # the objective, its band, and the aggregation of TRL's loss type
    "gspo": (Gspo(), ClipRule.constant(0.002, 0.004), "sequence-mean"),
    "cispo": (Cispo(), ClipRule(LinearThreshold(-0.1, 0.15), LinearThreshold(-0.1, 0.15)), "token-mean"),
    "cispo-id": (Cispo(), IncreaseThenDecrease().rule(1, 1), "token-mean"),
    "sapo": (Sapo(1.0, 1.5), ClipRule(), "sequence-mean"),
    "clip": (Clip(), ClipRule(LinearThreshold(-0.1, 0.15), LinearThreshold(-0.1, 0.15)), "token-mean"),
}


@pytest.mark.parametrize("name", OURS)
def test_the_thresholds_act_in_trls_loss_as_in_our_objective(tmp_path, name):
    """Value and gradient in ln pi of TRL's own loss, against `policy_loss` on the same tensors."""
    objective, band, mode = OURS[name]
    settings = {**LOSSES.get(name.partition("-")[0], ({"loss_type": "dapo"},))[0], "epsilon_high": 9.0, "epsilon": 0.9}
    run = controlled(tmp_path, EntropyController(Constant(band), 2), max_steps=2, **settings)
    torch.manual_seed(0)
    mask = torch.rand(4, 6) < 0.8
    mask[:, 0] = True
    logp = (-3 * torch.rand(4, 6)).requires_grad_()
    moved = torch.tensor([[0.02], [-0.02], [0.001], [0.02]]) if name == "gspo" else 0.3 * torch.randn(4, 6)
    old = logp.detach() - moved
    inputs = sampled(mask, old)
    entropy = torch.rand(4, 6)
    stats = TokenStats(logp, entropy, torch.rand(4, 6), -torch.rand(4, 6))

    def model_was_run(*_, **__):
        read = run._steer(run._current, stats)
        return (read.logp, read.entropy, None) if _RETURNS_AUX_LOSS else (read.logp, read.entropy)

    run._get_per_token_logps_and_entropies = model_was_run
    run.current_gradient_accumulation_steps = run.args.steps_per_generation = 1
    run.accelerator.gradient_state._set_sync_gradients(False)
    run.model.train()
    theirs = run._compute_loss(run.model, inputs)
    out = policy_loss(logp, old, inputs["advantages"][:, None], mask, rule=band, objective=objective)
    ours = aggregate(out.per_token, mask, mode)
    assert bool(out.clipped_high.any()) or name == "sapo"
    assert bool(out.clipped_low.any()) or name == "sapo"
    torch.testing.assert_close(theirs, ours)
    gradients = (torch.autograd.grad(loss, logp, retain_graph=True)[0] for loss in (theirs, ours))
    torch.testing.assert_close(*gradients)
    counted = run._sums.metrics()
    assert counted["clip_fraction_low"] == pytest.approx(float(out.clipped_low[mask].double().mean()))
    assert counted["clip_fraction_high"] == pytest.approx(float(out.clipped_high[mask].double().mean()))


def test_the_loss_is_ours_under_the_rule_and_the_weights(tmp_path):
    weights = FixedWeights(expanding=1.5, contracting=0.5)
    controller = EntropyController(IncreaseThenDecrease(), 2, reweighting=weights)
    one_model = {"max_steps": 2, "num_iterations": 4, "gradient_accumulation_steps": 4, "learning_rate": 0.3}
    ours = trainer(tmp_path, Seen, None, {"controller": controller}, loss_type="bnpo", **one_model)
    before = [p.detach().clone() for p in ours.model.parameters()]
    ours.train()
    first = [line for line in ours.seen if line[1] == IncreaseThenDecrease().rule(0, 2)]
    with torch.no_grad():
        for p, start in zip(ours.model.parameters(), before, strict=True):
            p.copy_(start)
    assert len(first) == 4
    for inputs, rule, loss in first:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        kept = inputs["completion_ids"].shape[1]
        logits = ours.model(input_ids=ids, attention_mask=attention).logits[:, -kept - 1 : -1]
        stats = token_stats(logits.detach(), inputs["completion_ids"])
        advantages = inputs["advantages"][:, None].expand_as(stats.logp)
        mask = inputs["completion_mask"].bool()
        weighted = advantages * weights_of(weights, stats, advantages, mask)
        out = policy_loss(stats.logp, inputs["old_per_token_logps"], weighted, mask, rule=rule)
        torch.testing.assert_close(loss, aggregate(out.per_token, mask) / 4)
        assert not torch.equal(weighted, advantages)


def test_a_bonus_is_the_mean_entropy_times_its_coefficient(tmp_path):
    changes = {"max_steps": 1, "gradient_accumulation_steps": 1, "steps_per_generation": 1, "num_iterations": 1}
    losses = {}
    for coefficient in (0.0, 10.0):
        controller = EntropyController(TRIVIAL, 1, bonus=ConstantBonus(coefficient))
        run = controlled(tmp_path / str(coefficient), controller, **changes)
        run.train()
        losses[coefficient] = steps(run)[0]
    expected = losses[0.0]["loss"] - 10 * losses[0.0]["entrostat/entropy"]
    assert losses[10.0]["loss"] == pytest.approx(expected, abs=1e-4)
    assert losses[10.0]["grad_norm"] != pytest.approx(losses[0.0]["grad_norm"], rel=1e-3)


def sampled(mask, old_logp):
    """The inputs of TRL's loss for completions whose tokens are all 1."""
    ids = {"prompt_ids": torch.ones(4, 2, dtype=torch.long), "prompt_mask": torch.ones(4, 2, dtype=torch.long)}
    return {
        **ids,
        "completion_ids": torch.ones(4, 6, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": torch.tensor([1.0, -0.5, 2.0, -1.5]),
        "old_per_token_logps": old_logp,
        "num_items_in_batch": mask.sum(),
    }


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
@pytest.mark.parametrize("whose", ["ours", "TRL's", "both absent"])
def test_the_flow_of_trls_loss_is_the_change_of_the_entropy_with_a_bonus_too(tmp_path, loss_type, whose):
    """Finite differences: a small step on each token's own logits against the flow that is recorded."""
    if whose == "TRL's" and "entropy_coef" not in GRPOConfig.__dataclass_fields__:
        pytest.skip("this TRL has no entropy bonus")
    settings = {"entropy_coef": 0.4} if whose == "TRL's" else {}
    controller = EntropyController(TRIVIAL, 2, bonus=ConstantBonus(0.4) if whose == "ours" else None)
    run = controlled(tmp_path, controller, max_steps=2, loss_type=loss_type, temperature=0.7, **settings)
    torch.manual_seed(0)
    mask = torch.rand(4, 6) < 0.8
    mask[:, 0] = True
    logits = (2 * torch.randn(4, 6, 9)).requires_grad_()  # tempered
    tokens = torch.ones(4, 6, dtype=torch.long)
    stats = token_stats(logits, tokens, entropy_grad=True)
    run._score = lambda *_: (stats, bonus_flow(logits), None)
    recorded = []
    counting = run._counted
    run._counted = lambda current, steered, flow: recorded.append(flow) or counting(current, steered, flow)
    run.current_gradient_accumulation_steps = run.args.steps_per_generation = 1
    run.accelerator.gradient_state._set_sync_gradients(False)
    run.model.train()
    loss = run._compute_loss(run.model, sampled(mask, stats.logp.detach() - 0.3 * torch.randn(4, 6)))
    (gradient,) = torch.autograd.grad(loss, logits)
    size = 1e-3
    moved = [token_stats(logits.detach() - step * gradient, tokens).entropy for step in (size, -size)]
    torch.testing.assert_close(recorded[0], (moved[0] - moved[1]) / (2 * size), rtol=2e-2, atol=2e-4)
    assert float(recorded[0][~mask].abs().max()) == 0
    assert (float(recorded[0].sum()) > 0.05) == (whose != "both absent")


@pytest.mark.parametrize("rows", [2, 4])
def test_the_entropy_of_a_step_does_not_depend_on_its_micro_batches(tmp_path, rows):
    observed = {}
    for size in (16, rows):
        changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 16 // size}
        run = controlled(
            tmp_path / str(size), max_steps=2, steps_per_generation=16 // size, num_iterations=2, **changes
        )
        run.train()
        observed[size] = steps(run)
    for whole, cut in zip(observed[16], observed[rows], strict=True):
        for name, value in whole.items():
            if name.startswith("entrostat/") and "clip" not in name and "ratio" not in name:
                assert cut[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_two_processes_observe_the_same_whole_entropy(tmp_path):
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agrees") == 2


def test_fsdp2_over_two_ranks_is_plain_trl_under_fsdp2(tmp_path):
    script = Path(__file__).with_name("fsdp2_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agrees") == 2


def test_metrics_join_trls_own(tmp_path):
    run = controlled(tmp_path, EntropyController(IncreaseThenDecrease(), 4))
    run.train()
    line = steps(run)[0]
    assert line["entrostat/phase"] == 1
    assert line["entrostat/bounds/upper_intercept"] == 0.5
    assert line["entrostat/entropy"] == pytest.approx(line["entropy"], rel=0.2)
    shares = [value for name, value in line.items() if name.endswith("/share")]
    assert sum(shares) == pytest.approx(1)
    assert all(math.isfinite(value) for name, value in line.items() if name.startswith("entrostat/"))


def test_a_resumed_run_continues_with_the_controllers_state(tmp_path):
    def made() -> EntropyController:
        return EntropyController(OscillatoryDecay(h_init=None), TargetWeights(Curve.constant(0.1)), 6, ema=0.5)

    whole = controlled(tmp_path / "whole", made(), max_steps=6)
    whole.train()
    half = {"save_strategy": "steps", "save_steps": 4, "max_steps": 6}
    first = controlled(tmp_path / "cut", made(), **half)
    first.train()
    resumed = controlled(tmp_path / "cut", made(), **half)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-4"))
    at_four, at_six = (controller.state_dict() for controller in (first.controller, resumed.controller))
    assert at_six["parts"][0]["state"]["h_init"] == at_four["parts"][0]["state"]["h_init"]
    assert at_six["parts"][1]["state"]["first"] == at_four["parts"][1]["state"]["first"]
    assert -1 <= at_six["parts"][1]["state"]["action"] <= at_four["parts"][1]["state"]["action"] < 0
    assert at_six["step"] == 6
    assert steps(resumed)[-1]["entrostat/entropy_smoothed"] != steps(resumed)[-1]["entrostat/entropy"]
    assert whole.controller.state_dict()["step"] == 6


def test_a_checkpoint_of_plain_trl_is_refused(tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    trainer(tmp_path, **saved).train()
    run = controlled(tmp_path, max_steps=4)
    with pytest.raises(ValueError, match=f"has no {STATE_FILE}"):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_lora_trains_its_adapter_under_the_controller(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed: no adapter is trained")
    adapter = {"peft_config": peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)}
    plain = trainer(tmp_path / "plain", options=adapter)
    plain.train()
    ours = controlled(tmp_path / "ours", options=adapter)
    ours.train()
    for theirs, found in zip(steps(plain), steps(ours), strict=True):
        assert found["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert found["grad_norm"] == pytest.approx(theirs["grad_norm"], abs=1e-5)
    for (name, a), (_, start) in zip(ours.model.named_parameters(), policy().named_parameters(), strict=False):
        if "lora" not in name and a.shape == start.shape:
            assert not a.requires_grad


def mixture():
    torch.manual_seed(0)
    size = {"vocab_size": 171, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    return MixtralForCausalLM(MixtralConfig(**size, **heads, pad_token_id=0, bos_token_id=None, eos_token_id=1))


def test_a_mixture_of_experts_keeps_its_auxiliary_loss(tmp_path):
    if "router_aux_loss_coef" not in GRPOConfig.__dataclass_fields__:
        pytest.skip("this TRL adds no auxiliary loss")
    changes = {"max_steps": 3, "router_aux_loss_coef": 0.1}
    plain = trainer(tmp_path / "plain", model=mixture(), **changes)
    plain.train()
    ours = controlled(tmp_path / "ours", None, mixture(), {"statistics": "logits"}, **changes)
    ours.train()
    for theirs, found in zip(steps(plain), steps(ours), strict=True):
        for name in ("loss", "aux_loss", "grad_norm"):
            assert found[name] == pytest.approx(theirs[name], abs=1e-5), name
    with pytest.raises(ValueError, match=r"mixture of experts.*set statistics='logits'"):
        controlled(tmp_path, model=mixture(), **changes)


@pytest.mark.parametrize(
    ("changes", "controller", "message"),
    [
        ({"loss_type": "vespo"}, {}, "loss_type is 'vespo' .* which a controller cannot steer; .* controller=None"),
        ({"loss_type": "cispo", **SEQUENCE}, {}, "'cispo' with importance_sampling_level 'sequence'"),
        ({"loss_type": "sapo", **SEQUENCE}, {}, "'sapo' with importance_sampling_level 'sequence'"),
        ({"loss_type": "sapo"}, {"strategy": IncreaseThenDecrease()}, "'sapo' .* which uses no clip band; .* leave it"),
        ({"loss_type": "sapo"}, {"strategy": Constant(ClipRule.constant(0.1))}, "which uses no clip band"),
        (
            SEQUENCE,
            {"strategy": IncreaseThenDecrease()},
            "a sequence's ratio, which a band of 0.48 never.* same for every",
        ),
        (
            SEQUENCE,
            {"strategy": Constant(ClipRule.constant(3e-4, 4e-4)), "reweighting": FixedWeights()},
            "FixedWeights could not weight them; set",
        ),
        ({}, {"strategy": Constant(AbcClip())}, "AbcClip clips differently from TRL's losses"),
    ],
)
def test_what_contradicts_the_controller_is_refused_by_name(tmp_path, changes, controller, message):
    built = EntropyController(controller.get("strategy", TRIVIAL), 4, reweighting=controller.get("reweighting"))
    with pytest.raises(ValueError, match=message):
        controlled(tmp_path, built, **changes)


def test_unsloth_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", object())
    with pytest.raises(ValueError, match="unsloth replaces GRPOTrainer's loss"):
        controlled(tmp_path)


def test_ligers_loss_is_refused_where_this_trl_has_one(tmp_path, monkeypatch):
    monkeypatch.setattr(GRPOTrainer, "compute_liger_loss", lambda self: None, raising=False)
    built = controlled(tmp_path)
    built.args.use_liger_kernel = True
    with pytest.raises(ValueError, match="use_liger_kernel is True"):
        refuse_what_bypasses(built)


def test_a_loss_past_the_controller_stops_the_run(tmp_path):
    class Bypassed(EntropyGRPOTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return sum(p.sum() for p in model.parameters())

    run = trainer(tmp_path, Bypassed, None, {"controller": EntropyController(TRIVIAL, 4)})
    with pytest.raises(RuntimeError, match=r"did not pass through GRPOTrainer\._compute_loss"):
        run.train()


def test_a_strategy_that_can_do_nothing_says_so(tmp_path):
    once = {"num_iterations": 1, "steps_per_generation": 2, "gradient_accumulation_steps": 2}
    with pytest.warns(UserWarning, match="every ratio is 1"):
        controlled(tmp_path, EntropyController(IncreaseThenDecrease(), 4), **once)


def test_vllms_correction_leaves_every_ratio_1(tmp_path):
    once = {"num_iterations": 1, "steps_per_generation": 2, "gradient_accumulation_steps": 2}
    run = controlled(tmp_path, EntropyController(IncreaseThenDecrease(), 4), **once)
    run.args.use_vllm, run.args.vllm_importance_sampling_correction = True, True
    assert "every ratio is 1" in inert(run)


@pytest.mark.parametrize("given", [None, 1000])
def test_a_run_by_epochs_tells_the_controller_its_steps(tmp_path, given, recwarn):
    run = controlled(tmp_path, EntropyController(IncreaseThenDecrease(), given), max_steps=-1, num_train_epochs=1)
    run.train()
    assert run.controller.total_steps == run.state.max_steps == run.state.global_step
    phases = [line["entrostat/phase"] for line in steps(run)]
    assert (phases[0], phases[-1]) == (1, -1)
    said = [str(one.message) for one in recwarn if "EntropyController.total_steps is 1000" in str(one.message)]
    assert len(said) == (given is not None)


def test_a_schedule_that_is_longer_than_the_run_is_kept_on_purpose(tmp_path):
    with pytest.raises(ValueError, match="total_steps is None"):
        controlled(tmp_path, EntropyController(TRIVIAL), options={"horizon": "controller"})
    run = controlled(tmp_path, EntropyController(TRIVIAL, 9), options={"horizon": "controller"}, max_steps=1)
    run.train()
    assert run.controller.total_steps == 9


def test_a_resume_with_another_number_of_steps_is_refused_unless_it_is_extended(tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2}
    controlled(tmp_path, EntropyController(IncreaseThenDecrease()), max_steps=2, **saved).train()
    longer = controlled(tmp_path, EntropyController(IncreaseThenDecrease()), max_steps=4, **saved)
    checkpoint = str(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match=r"total_steps is 4, but the resumed run had 2.*horizon='extended'"):
        longer.train(resume_from_checkpoint=checkpoint)
    on_purpose = {"horizon": "extended"}
    longer = controlled(tmp_path, EntropyController(IncreaseThenDecrease()), None, on_purpose, max_steps=4, **saved)
    longer.train(resume_from_checkpoint=checkpoint)
    assert longer.controller.state_dict()["step"] == longer.controller.total_steps == 4


def test_a_model_in_bfloat16_is_warned_of_with_the_share_that_rounding_swallows(tmp_path):
    short = controlled(tmp_path, model=policy().bfloat16(), max_steps=1, learning_rate=1e-6)
    with pytest.warns(UserWarning, match=r"rounding swallows \d+\.\d%.*dtype=torch\.float32"):
        short.train()


def test_a_masking_reweighting_drops_its_tokens(tmp_path):
    controller = EntropyController(TRIVIAL, 4, reweighting=HighEntropyTokens(0.25))
    run = controlled(tmp_path, controller)
    run.train()
    assert steps(run)[0]["entrostat/regions/NONE/share"] == pytest.approx(0.75, abs=0.1)


class AnotherSampler:
    """As if another policy had sampled: log-probabilities that differ from those of the trainer by noise."""

    corrected_by_trl = False

    def _generate_and_score_completions(self, inputs):
        found = super()._generate_and_score_completions(inputs)
        old, mask = found["old_per_token_logps"], found["completion_mask"]
        noise = 0.5 * torch.randn(old.shape, generator=torch.Generator().manual_seed(len(self.sampled)))
        found["sampling_per_token_logps"] = (old + noise) * mask
        self.sampled.append(float((noise.abs() * mask).sum() / mask.sum()))
        if self.corrected_by_trl:
            found["importance_sampling_ratio"] = (-noise).exp().clamp_max(1.2)
        return found

    def _compute_loss(self, model, inputs):
        self.use_vllm = self.vllm_importance_sampling_correction = self.corrected_by_trl
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.use_vllm = False


class SampledElsewhere(AnotherSampler, EntropyGRPOTrainer):
    pass


class CorrectedByTrl(AnotherSampler, GRPOTrainer):
    corrected_by_trl = True


def test_a_correction_is_trls_own_and_the_parts_receive_what_is_measured(tmp_path):
    class Listener(Part):
        def observe(self, step):
            seen.append(step)

    def no_rollout(*_):
        raise AssertionError

    def trained(kind, **options):
        model = LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
        one = trainer(tmp_path / kind.__name__, kind, model, options, beta=0.1)
        one.sampled = []
        one.rollout_func = None
        one.train()
        return one

    policy().save_pretrained(tmp_path / "model")
    seen: list = []
    theirs = trained(CorrectedByTrl)
    controller = EntropyController(Tis(1.2), Listener())
    ours = trained(SampledElsewhere, controller=controller, rollout_func=no_rollout)
    lines = steps(ours)
    for mine, plain in zip(lines, steps(theirs), strict=True):
        assert mine["loss"] == pytest.approx(plain["loss"], abs=2e-4)
        assert mine["grad_norm"] == pytest.approx(plain["grad_norm"], rel=2e-3)
    uncorrected = trained(SampledElsewhere, controller=EntropyController(), rollout_func=no_rollout)
    assert abs(steps(uncorrected)[0]["grad_norm"] / lines[0]["grad_norm"] - 1) > 0.02
    assert lines[0]["entrostat/mismatch/distance"] == pytest.approx(ours.sampled[0], rel=0.2)
    assert lines[0]["entrostat/mismatch/masked"] == 0
    assert [line["entrostat/staleness"] for line in lines] == [0, 1, 2, 3]
    for step, line in zip(seen, lines, strict=True):
        assert step.kl_sampler == pytest.approx(line["entrostat/kl_sampler"])
        assert step.kl_reference == pytest.approx(line["kl"], abs=1e-6)
        assert step.kl_old == pytest.approx(line["entrostat/kl_old"])
        assert 0 < step.pass_rate <= 1


def test_a_correction_without_a_sampler_or_beside_trls_own_is_refused_by_name(tmp_path):
    def built(**changes):
        return trainer(tmp_path, EntropyGRPOTrainer, options={"controller": EntropyController(Tis())}, **changes)

    with pytest.raises(ValueError, match="correction Tis needs the sampler"):
        built()
    plain = trainer(tmp_path, EntropyGRPOTrainer, options={"controller": EntropyController()})
    plain.controller, plain.use_vllm = EntropyController(Tis()), True
    plain.args.vllm_importance_sampling_correction = True
    with pytest.raises(ValueError, match="vllm_importance_sampling_correction"):
        refuse_what_bypasses(plain)


def test_a_deepspeed_that_accelerate_would_leave_out_is_refused(tmp_path):
    run = controlled(tmp_path)
    run.args.deepspeed = "zero.json"
    with pytest.raises(ValueError, match=r"deepspeed is 'zero\.json', and accelerate trains without it"):
        refuse_what_bypasses(run)
