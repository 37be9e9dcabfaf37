"""An optimizer step: independent of how the batch is cut, and refused when it would break the policy."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from entrostat.control import EntropyController, Part
from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample
from entrostat.engine.terms import Piece, reference_term
from entrostat.engine.update import Experience, Learner, TrainingError
from entrostat.entropy import entropy_flow
from entrostat.objective import aggregate, entropy_bonus, policy_loss
from entrostat.objective.losses import token_weights
from entrostat.recipe import build_controller, parse_recipe
from entrostat.tasks import listcraft
from entrostat.tokens import token_stats

PROMPTS = [task.prompt for task in listcraft.tasks("train", 4)]


PIC = {"name": "entropic", "target": 1.0, "likely": 0.6}


def learner(control=None, **update):
    update = {"warmup_steps": 0, "learning_rate": 1e-3, **update}
    recipe = parse_recipe({"name": "step", "update": update, "control": control or {}})
    policy = load_policy()
    return Learner(policy, recipe, build_controller(recipe))


def experience(policy, advantages=None):
    rollout = sample(policy, PROMPTS, Sampling(4, 48), seed=0)
    drawn = torch.randn(16, generator=torch.Generator().manual_seed(1))
    return Experience(rollout, drawn if advantages is None else advantages)


@pytest.mark.parametrize("mode", ["token-mean", "sequence-mean", "constant"])
@pytest.mark.parametrize("objective", ["clip", "reinforce"])
def test_micro_batches_change_neither_loss_nor_gradient_nor_diagnostics(mode, objective):
    lines, gradients = [], []
    for rows in (512, 5, 1):
        one = learner(aggregate=mode, objective=objective, microbatch_rows=rows)
        batch = experience(one.policy)
        one.step(1, batch)
        lines.append(one.step(2, batch))
        gradients.append(torch.cat([p.grad.flatten() for p in one.policy.model.parameters()]))
    for line, gradient in zip(lines[1:], gradients[1:], strict=True):
        assert (gradient - gradients[0]).norm() <= 2e-3 * gradients[0].norm()
        assert line["loss"] == pytest.approx(lines[0]["loss"], abs=1e-5)
        assert line["entropy"] == pytest.approx(lines[0]["entropy"], rel=1e-4)
        assert line["flow_down"] == pytest.approx(lines[0]["flow_down"], rel=1e-2)


@pytest.mark.parametrize(
    "whole",
    [
        {"update": {"objective": "bapo"}},
        {"update": {"objective": "reinforce", "kl_cov": {"share": 0.1}}},
        {"update": {"aggregate": "sequence-mean"}, "control": {"reweighting": PIC}},
    ],
    ids=["bapo", "kl_cov", "entropic"],
)
def test_what_compares_tokens_compares_those_of_the_whole_batch_however_it_is_cut(whole):
    gradients, losses = [], []
    for rows in (512, 5):
        one = learner(microbatch_rows=rows, learning_rate=3e-3, control=whole.get("control"), **whole["update"])
        batch = experience(one.policy)
        away = torch.randn(batch.rollout.old_logp.shape, generator=torch.Generator().manual_seed(2))
        batch = replace(batch, rollout=replace(batch.rollout, old_logp=batch.rollout.old_logp + 0.4 * away))
        losses.append(one.step(1, batch)["loss"])
        gradients.append(torch.cat([p.grad.flatten() for p in one.policy.model.parameters()]))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert (gradients[1] - gradients[0]).norm() <= 2e-3 * gradients[0].norm()


@pytest.mark.parametrize("mode", ["sequence-mean", "constant"])
@pytest.mark.parametrize("reweighting", [None, PIC], ids=["", "with EntroPIC"])
@pytest.mark.parametrize(
    "rest",
    [{}, *({"kl": {"coefficient": 0.5, "estimate": how}} for how in ("exact", "k1", "k2", "k3"))],
    ids=["objective", "with KL", "with k1", "with k2", "with k3"],
)
def test_the_flow_of_a_step_is_that_of_the_scalar_loss(mode, rest, reweighting):
    one = learner(aggregate=mode, **rest)
    control = {"bonus": BONUS, "reweighting": reweighting}
    recipe = parse_recipe({"name": "x", "update": {"aggregate": mode, **rest}, "control": control})
    anchor = reference_term(recipe, load_policy(), None) if rest else None
    one = Learner(one.policy, recipe, build_controller(recipe), anchor)
    batch = experience(one.policy)
    if anchor:
        moved = one.policy.model.lm_head.weight
        moved.data += 0.02 * torch.randn(moved.shape, generator=torch.Generator().manual_seed(0))
    logits = one._logits(batch.rollout)
    stats = one._statistics_of(logits, batch.rollout, entropy_grad=True)
    mask, rollout = batch.rollout.mask, batch.rollout
    advantages = batch.advantages[:, None].expand(mask.shape)
    per_token = policy_loss(stats.logp, rollout.old_logp, advantages, mask).per_token
    per_token = per_token + entropy_bonus(stats.entropy, mask, BONUS["value"])
    if anchor:
        piece = Piece(rollout, logits, stats, advantages, rollout.old_logp, mask)
        per_token = per_token + 0.5 * anchor.kl(piece)[0].where(mask, 0)
    if reweighting:
        likely = mask & (stats.logp > math.log(0.6))
        weights = token_weights(mask, mode, denominator=one._denominator(mask))
        alpha = max(float(stats.entropy.detach()[mask].mean()) - 1.0, -1.0)
        pull = alpha * advantages.abs() * weights.sum() / weights[likely].sum()
        per_token = per_token - (pull * (stats.logp - rollout.old_logp).exp()).where(likely, 0)
    loss = aggregate(per_token, mask, mode, denominator=one._denominator(mask))
    flow = entropy_flow(stats, advantages, loss, logits=logits, temperature=one.temperature).sum()
    line = one.step(1, batch)
    assert line["flow_up"] + line["flow_down"] == pytest.approx(float(flow), rel=1e-3)


BONUS = {"name": "constant", "value": 0.2}


def test_completions_of_advantage_0_are_measured_without_a_graph_and_all_else_stays():
    lines, gradients, graphs = [], [], []
    for nothing in (0.0, 1e-30):  # the second is too small to count, but not 0
        one = learner()
        advantages = torch.randn(16, generator=torch.Generator().manual_seed(1))
        advantages[4:8] = advantages[13] = nothing
        logits = one._logits
        one._logits = lambda part, logits=logits: (
            graphs.append((len(part.texts), torch.is_grad_enabled())) or logits(part)
        )
        lines.append(one.step(1, experience(one.policy, advantages)))
        gradients.append(torch.cat([p.grad.flatten() for p in one.policy.model.parameters()]))
    assert graphs == [(11, True), (5, False), (16, True)]
    assert (gradients[1] - gradients[0]).norm() <= 1e-4 * gradients[0].norm()
    for field in ("loss", "grad_norm", "entropy", "flow_up", "flow_down"):
        assert lines[1][field] == pytest.approx(lines[0][field], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "opefo", "off_policy": True},
        {"name": "80/20"},
        {"name": "gepo", "group_size": 4},
        {"name": "clip-cov", "low": 0.1},
    ],
    ids=lambda settings: settings["name"],
)
def test_micro_batches_do_not_change_what_a_reweighting_compares(settings):
    lines = []
    for rows in (512, 5):
        update = {"warmup_steps": 0, "learning_rate": 1e-3, "microbatch_rows": rows}
        rollout = {"samples": 4}
        recipe = parse_recipe(
            {"name": "step", "rollout": rollout, "update": update, "control": {"reweighting": settings}}
        )
        one = Learner(load_policy(), recipe, build_controller(recipe))
        torch.manual_seed(0)
        lines.append(one.step(1, experience(one.policy)))
    for field in ("loss", "grad_norm", "flow_up", "flow_down"):
        assert lines[1][field] == pytest.approx(lines[0][field], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("section", "key", "settings"),
    [
        *(
            ("control", "reweighting", {"name": name})
            for name in ("polarity-aware", "80/20", "clip-cov", "entropy-outliers", "erc", "entrocraft", "steer")
        ),
        ("control", "reweighting", {"name": "gepo", "group_size": 8}),
        ("control", "bonus", {"name": "constant", "value": 0.01}),
        ("control", "strategy", {"name": "target-entropy", "curve": {"points": [[0, 0.3]]}}),
        ("control", "reweighting", {"name": "opefo", "off_policy": True}),
        *(("control", "strategy", {"name": name}) for name in ("id", "dual-clip", "dppo", "dcpo", "abc", "ripo")),
        *(("update", "objective", {"name": name}) for name in ("cispo", "gspo", "gmpo", "sapo", "ce-gppo", "nsr")),
        *(("update", "objective", {"name": name}) for name in ("luspo", "dppo", "cppo", "drpo", "up", "aspo", "vespo")),
    ],
    ids=lambda value: value.get("name") if isinstance(value, dict) else None,
)
def test_every_method_of_a_recipe_moves_the_policy_and_stays_finite(section, key, settings):
    on_sequences = dict.fromkeys(("gspo", "gmpo", "sapo"), "sequence-mean") | {"luspo": "sequence-sum"}
    mode = on_sequences.get(settings["name"], "token-mean")
    recipe = parse_recipe(
        {"name": "step", "update": {"aggregate": mode}, section: {key: settings}}
        | ({"update": {"aggregate": mode, key: settings}} if section == "update" else {})
    )
    one = Learner(load_policy(), recipe, build_controller(recipe))
    batch = experience(one.policy)
    lines = [one.step(number, batch) for number in (1, 2, 3)]
    assert all(line["grad_norm"] > 0 for line in lines)
    assert any(line["log_ratio_min_punished"] < 0 for line in lines)


def test_an_entropy_bonus_raises_entropy_and_nothing_else_does_without_advantages():
    batch_of = {}
    for value in (0.0, 1.0):
        recipe = parse_recipe({"name": "step", "control": {"bonus": {"name": "constant", "value": value}}})
        one = Learner(load_policy(), recipe, build_controller(recipe))
        batch = experience(one.policy, torch.zeros(16))
        lines = [one.step(number, batch) for number in (1, 2, 3)]
        batch_of[value] = [line["entropy"] for line in lines]
    assert batch_of[0.0] == pytest.approx([batch_of[0.0][0]] * 3, abs=1e-6)
    assert batch_of[1.0][2] > batch_of[1.0][0] + 1e-3


def test_the_first_step_on_fresh_rollouts_has_ratio_one_and_clips_nothing():
    one = learner()
    line = one.step(1, experience(one.policy))
    assert line["ratio_outside"] == 0
    assert line["clip_fraction_low"] == line["clip_fraction_high"] == 0
    assert line["loss"] == pytest.approx(_mean_advantage(one), abs=1e-4)


def _mean_advantage(one):
    batch = experience(load_policy())
    weights = batch.rollout.mask.float()
    return float(-(batch.advantages.unsqueeze(1) * weights).sum() / weights.sum())


def test_rewarded_completions_become_likelier_and_punished_ones_less_likely():
    for sign in (1.0, -1.0):
        one = learner(objective="reinforce", learning_rate=1e-4)
        batch = experience(one.policy, torch.full((16,), sign))
        one.step(1, batch)
        after = one._statistics(batch.rollout).logp.detach()
        moved = ((after - batch.rollout.old_logp) * batch.rollout.mask).sum()
        assert sign * float(moved) > 0


def test_a_gradient_that_is_not_finite_is_refused_and_the_weights_stay():
    one = learner(objective="reinforce")
    before = {name: tensor.clone() for name, tensor in one.policy.model.state_dict().items()}
    with torch.no_grad():
        batch = experience(one.policy)
    far = replace(batch.rollout, old_logp=batch.rollout.old_logp - 200)
    for faulty in (Experience(batch.rollout, torch.full((16,), 1e38)), Experience(far, torch.ones(16))):
        with pytest.raises(TrainingError, match=r"step 7: .*[Nn]othing was applied, the last checkpoint is intact"):
            one.step(7, faulty)
    for name, tensor in one.policy.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_an_entropy_that_is_not_finite_is_refused_and_weights_and_controller_stay(monkeypatch):
    one = learner()
    batch = experience(one.policy)
    one.step(1, batch)
    before = {name: tensor.clone() for name, tensor in one.policy.model.state_dict().items()}
    state = one.controller.state_dict()
    monkeypatch.setattr("entrostat.engine.update.token_stats", _without_entropy)
    with pytest.raises(TrainingError, match=r"step 2: entropy is nan.*Nothing was applied, the last checkpoint is"):
        one.step(2, batch)
    assert one.controller.state_dict() == state
    for name, tensor in one.policy.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def _without_entropy(*args, **kwargs):
    stats = token_stats(*args, **kwargs)
    return replace(stats, entropy=torch.full_like(stats.entropy, float("nan")))


def test_the_learning_rate_rises_linearly_and_then_stays():
    one = learner(warmup_steps=4, learning_rate=8e-4)
    assert [one.learning_rate(step) for step in (1, 2, 4, 9)] == pytest.approx([2e-4, 4e-4, 8e-4, 8e-4])


def test_the_measured_change_is_the_next_entropy_of_the_same_tokens_and_the_flow_predicts_its_sign():
    recipe = parse_recipe(
        {
            "name": "step",
            "control": {"measure_change": True},
            "update": {"objective": "reinforce", "learning_rate": 2e-5, "warmup_steps": 0},
        }
    )
    one = Learner(load_policy(), recipe, build_controller(recipe))
    batch = experience(one.policy)
    lines = [one.step(number, batch) for number in range(1, 7)]
    for line, after in pairwise(lines):
        assert line["measured_change"] == pytest.approx(after["entropy"] - line["entropy"], abs=1e-6)
    assert [line["predicted_change"] is None for line in lines] == [True] * 3 + [False] * 3
    flows = [line["flow_up"] + line["flow_down"] for line in lines]
    assert all(flow * line["measured_change"] > 0 for flow, line in zip(flows, lines, strict=True))


@pytest.mark.parametrize("rows", [512, 5])
def test_to_first_order_the_weights_announce_the_measured_change_in_nats_and_the_step_is_the_same(rows):
    update = {"objective": "reinforce", "learning_rate": 1e-5, "warmup_steps": 0, "microbatch_rows": rows}
    lines = {}
    for wanted in (True, False):
        control = {"measure_change": True, "first_order": wanted}
        recipe = parse_recipe({"name": "step", "control": control, "update": update})
        one = Learner(load_policy(), recipe, build_controller(recipe))
        batch = experience(one.policy)
        lines[wanted] = [one.step(number, batch) for number in (1, 2, 3)]
    for line, plain in zip(lines[True], lines[False], strict=True):
        assert line["first_order_change"] == pytest.approx(line["measured_change"], rel=0.05)
        assert line["measured_change"] == pytest.approx(plain["measured_change"], rel=1e-3)
        assert "first_order_change" not in plain


def test_the_flow_by_rule_is_logged_where_the_change_is_measured_and_its_exact_one_is_the_net_flow():
    recipe = parse_recipe({"name": "step", "control": {"measure_change": True}, "update": {"microbatch_rows": 5}})
    one = Learner(load_policy(), recipe, build_controller(recipe))
    batch = experience(one.policy)
    lines = [one.step(number, batch) for number in (1, 2)]
    for line in lines:
        assert line["flow_by_rule"]["exact"] == pytest.approx(line["flow_up"] + line["flow_down"], rel=1e-4)
    assert "flow_by_rule" not in learner().step(1, batch)


CORRECTIONS = ["tis", "mis", "icepop", "seq-mask-tis", "decoupled", "opsm", "estr"]


def another_sampler(batch, own, spread=0.4):
    """The batch as if a policy that differs by noise had sampled it, pi_old recomputed."""
    away = torch.randn(batch.rollout.old_logp.shape, generator=torch.Generator().manual_seed(2))
    sampler = (batch.rollout.old_logp + spread * away).where(batch.rollout.mask, 0)
    return replace(batch, rollout=replace(batch.rollout, old_logp=sampler), recomputed=own.recomputed(batch.rollout))


@pytest.mark.parametrize("name", CORRECTIONS)
@pytest.mark.parametrize("objective", ["clip", "bapo"])
def test_a_correction_is_the_same_however_the_batch_is_cut_and_changes_the_gradient(name, objective):
    gradients, lines = [], []
    for correction, rows in ((name, 512), (name, 5), (None, 512)):
        update = {"objective": objective, "microbatch_rows": rows, "old_logp": "recomputed", "warmup_steps": 0}
        control = {"correction": correction} if correction else {}
        recipe = parse_recipe({"name": "step", "update": update, "control": control})
        one = Learner(load_policy(), recipe, build_controller(recipe))
        lines.append(one.step(1, another_sampler(experience(one.policy), one)))
        gradients.append(torch.cat([p.grad.flatten() for p in one.policy.model.parameters()]))
    assert (gradients[1] - gradients[0]).norm() <= 2e-3 * gradients[0].norm()
    assert (gradients[2] - gradients[0]).norm() >= 1e-3 * gradients[0].norm()
    assert lines[1]["mismatch"] == pytest.approx(lines[0]["mismatch"], rel=1e-3)
    assert (lines[0]["mismatch"]["masked"] > 0) == (name not in ("tis", "seq-mask-tis", "decoupled"))
    assert lines[2]["mismatch"]["masked"] == 0
    assert lines[0]["mismatch"]["distance"] == pytest.approx(0.4 * (2 / math.pi) ** 0.5, rel=0.1)


def test_log_probabilities_recomputed_at_once_are_the_samplers_and_a_correction_of_them_changes_nothing():
    batch = None
    gradients = []
    for update, control in (({}, {}), ({"old_logp": "recomputed"}, {"correction": "tis"})):
        recipe = parse_recipe({"name": "step", "update": {"warmup_steps": 0, **update}, "control": control})
        one = Learner(load_policy(), recipe, build_controller(recipe))
        batch = experience(one.policy)
        if update:
            batch = replace(batch, recomputed=one.recomputed(batch.rollout))
        line = one.step(1, batch)
        gradients.append(torch.cat([p.grad.flatten() for p in one.policy.model.parameters()]))
    assert (gradients[1] - gradients[0]).norm() <= 1e-4 * gradients[0].norm()
    assert line["mismatch"]["largest"] < 1e-4
    assert line["mismatch"]["sample_size"] == pytest.approx(1, abs=1e-6)


def test_the_parts_receive_everything_that_a_step_measures():
    class Listener(Part):
        def observe(self, step):
            self.step = step

        def weights(self, batch):
            self.batch = batch

    part = Listener()
    recipe = parse_recipe({"name": "step", "update": {"kl": {"coefficient": 0.1}, "old_logp": "recomputed"}})
    policy = load_policy()
    anchor = reference_term(recipe, load_policy(), None)
    one = Learner(policy, recipe, EntropyController(part, total_steps=5), anchor)
    rewards = torch.tensor([1.0, 0.0, math.nan, 1.0] * 4)
    batch = replace(another_sampler(experience(policy), one), rewards=rewards)
    line = one.step(1, batch)
    assert part.step.pass_rate == pytest.approx(2 / 3)
    assert (part.step.kl_old, part.step.kl_reference) == (line["kl_old"], line["kl_reference"])
    assert part.step.kl_sampler == line["kl_sampler"] == line["mismatch"]["k3"] > 0.05
    assert torch.equal(part.batch.sampler_logp, batch.rollout.old_logp)
    assert torch.equal(part.batch.old_logp, batch.recomputed)
