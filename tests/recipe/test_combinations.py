"""Objective x strategy x aggregation x advantage x KL x reweighting x bonus x correction: what is accepted acts, the
rest is refused, and the refusal names both settings.
"""

import re
from dataclasses import replace
from functools import cache
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat.engine.local import Advantages
from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample
from entrostat.engine.terms import reference_term
from entrostat.engine.update import Experience, Learner
from entrostat.objective import (
    Clip,
    Gspo,
    aggregate,
    entropy_bonus,
    ewc_penalty,
    kl_cov_penalty,
    kl_to_reference,
    policy_loss,
)
from entrostat.recipe import RecipeError, build_controller, build_objective, parse_recipe
from entrostat.recipe.methods import BONUSES, CORRECTIONS, OBJECTIVES, REWEIGHTINGS, STRATEGIES
from entrostat.tasks import listcraft
from entrostat.tokens import token_stats

CURVE = {"points": [[0, 0.01]]}
RULE = {"upper": {"slope": -0.2, "intercept": 0.5}, "lower": {"slope": 0.0, "intercept": 0.4}}
GIVEN = {
    "constant": {"upper": 0.1, "lower": 0.3},
    "linear": RULE,
    "free-region": {"region": "E1"},
    "piecewise": {"stages": [{"until": 1, "start": RULE}]},
    "target-entropy": {"curve": CURVE},
    "target-weights": {"curve": CURVE},
    "fixed": {"expanding": 1.3, "contracting": 0.7},
    "gepo": {"group_size": 4},
    "dual-clip": {"cap": 2.0},
    "mai": {"target": 9.0},
    "skip-region": {"region": "E1"},
    "clip-cov": {"share": 0.2, "low": 0.0},
    "stare": {"target": 99.0, "weight": 1.4, "share": 0.5},
    "entropic": {"target": 9.0},
    "entropic-weights": {"target": 9.0},
    "repo-r": {"target": 9.0, "least": 0.1, "most": 0.3},
    "adapo": {"target": 9.0},
    "aepo": {"low": 0.001, "high": 0.002},
    "entropy-outliers": {"limit": 0.2},
    "erc": {"low": 0.999, "high": 1.001},
}
NARROW = {"constant": {"upper": 0.001, "lower": 0.002}, **{key: {"scale": 0.002} for key in ("id", "did", "od")}}
ON_SEQUENCES = ("gspo", "luspo")
BONUS = {"constant": {"value": 0.1}, "adaptive": {"target": 9.0}}
STRATEGY = [None, *STRATEGIES]
REWEIGHTING = [None, *REWEIGHTINGS]
AGGREGATE = ["token-mean", "sequence-mean", "sequence-sum", "constant"]
ADVANTAGE = ["reinforce", "grpo", "dr-grpo", "qae", "w-reinforce", "maxrl", "grpo-dropout"]
BASELINE = ["none", "batch-mean", "ema", "leave-one-out"]
KL = [None, {"kind": "fixed"}, {"kind": "adaptive"}, {"kind": "fisher"}]
KL_COV = [None, {"share": 0.1}]
FIELDS = {
    "objective": list(OBJECTIVES),
    "strategy": STRATEGY,
    "aggregate": AGGREGATE,
    "advantage": ADVANTAGE,
    "baseline": BASELINE,
    "failure_reward": [0, -1],
    "kl": KL,
    "kl_cov": KL_COV,
    "reweighting": REWEIGHTING,
    "bonus": [None, *BONUSES],
    "correction": [None, *CORRECTIONS],
    "old_logp": ["sampler", "recomputed"],
    "epochs": [1, 2],
}
IN_CONTROL = ("strategy", "reweighting", "bonus", "correction")


def content(**chosen):
    """A recipe of a small run with these choices; a method comes with settings that differ from the neutral ones."""
    given = {**GIVEN, **(NARROW if chosen.get("objective") in ON_SEQUENCES else {})}
    named = {
        key: {"name": value, **(BONUS[value] if key == "bonus" else given.get(value, {}))}
        for key, value in chosen.items()
        if key in IN_CONTROL and value
    }
    update = {key: value for key, value in chosen.items() if key not in IN_CONTROL}
    return {
        "name": "x",
        "rollout": {"prompts": 1, "samples": 4, "max_new_tokens": 12},
        "update": {"warmup_steps": 0, "learning_rate": 1e-3, "max_grad_norm": None, **update},
        "control": named,
        "campaign": {"steps": 4},
    }


def accepted(**chosen):
    """The recipe, or None where it is refused, by one line per fault that names field, value and remedy."""
    try:
        return parse_recipe(content(**chosen))
    except RecipeError as error:
        for line in str(error).splitlines():
            said = re.fullmatch(r"recipe: (update|control|rollout)\.([a-z_.]+): (got|given) .+[;,] .+", line)
            assert said, line
            field = said[2].split(".")[0]
            assert field in chosen, line
            if said[3] == "got" and isinstance(chosen[field], str | int):
                assert repr(chosen[field]) in line, line
        return None


@given(st.fixed_dictionaries({field: st.sampled_from(values) for field, values in FIELDS.items()}))
@settings(max_examples=150, deadline=None)
def test_any_choice_is_accepted_or_refused_with_field_value_and_remedy(chosen):
    recipe = accepted(**chosen)
    if recipe:
        assert parse_recipe(recipe.model_dump(mode="json")) == recipe


def key_of(field):
    return f"{'control' if field in IN_CONTROL else 'update'}.{field}"


def one_step(recipe):
    """The gradient of one step of a recipe on tiny tensors: 4 completions of at most 6 tokens, 5 words."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    logits = (2 * torch.randn(4, 6, 5, generator=draw)).requires_grad_()
    reference = torch.randn(4, 6, 5, generator=draw)
    tokens = torch.randint(0, 5, (4, 6), generator=draw)
    mask = torch.arange(6) < torch.tensor([[6], [3], [5], [1]])
    stats = token_stats(logits, tokens, entropy_grad=True)
    old = stats.logp.detach() + 0.4 * torch.randn(4, 6, generator=draw)
    recomputed = recipe.update.old_logp == "recomputed"
    sampler = old + 0.4 * torch.randn(4, 6, generator=draw) if recomputed else old
    earned = Advantages(recipe.update)([[1.0, 0.0, 0.0, 1.0]], torch.tensor([0.4, 0.9, 0.3, 0.7]))
    advantages = earned.reshape(4, 1).expand(4, 6)
    controller = build_controller(recipe)
    controller.observe(1, 0.4, 1.0, pass_rate=0.5, kl_old=0.1, kl_sampler=0.0)
    rule, objective = controller.rule(), build_objective(recipe)
    weighted = controller.advantages(
        stats,
        advantages,
        mask,
        old_logp=old,
        sampler_logp=sampler,
        old_entropy=1.02 * stats.entropy.detach(),
        rewards=torch.tensor([1.0, -1.0, -1.0, 1.0]).reshape(4, 1).expand(4, 6),
    )
    per_token = policy_loss(stats.logp, old, weighted, mask, rule=rule, objective=objective).per_token
    per_token = per_token + entropy_bonus(stats.entropy, mask, controller.entropy_coef())
    if term := recipe.update.kl_cov:
        per_token = per_token + kl_cov_penalty(stats.logp, old, weighted, mask, term.share, term.coefficient)
    penalty = torch.zeros(())
    if kl := recipe.update.kl:
        if kl.kind == "fisher":
            penalty = kl.coefficient * ewc_penalty([logits], [reference], [torch.ones_like(reference)])
        else:
            per_token = per_token + kl.coefficient * kl_to_reference(logits, reference).where(mask, 0)
    denominator = 24.0 if recipe.update.aggregate == "constant" else None
    loss = aggregate(per_token, mask, recipe.update.aggregate, denominator=denominator) + penalty
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(logits.grad.isfinite().all())
    return logits.grad


ALL_PAIRS = [
    ({one: a}, {other: b}) for one, other in combinations(FIELDS, 2) for a, b in product(FIELDS[one], FIELDS[other])
]


def beside(chosen):
    """What a choice needs of settings that were not chosen, so that a refusal is about those that were."""
    objective = chosen.get("objective", "reinforce" if chosen.get("kl_cov") else "clip")
    anchored = OBJECTIVES[objective].anchored or chosen.get("strategy") == "dppo" or chosen.get("reweighting") == "erc"
    weighs_old = bool(chosen.get("correction")) and CORRECTIONS[chosen["correction"]].of_old
    needed = {
        "objective": objective,
        "aggregate": aggregate_of(objective),
        "old_logp": "sampler" if anchored and not weighs_old else "recomputed",
        "epochs": 1 if chosen.get("reweighting") == "opefo" else 2,
    }
    if objective == "clip-undetached":
        needed["strategy"] = "id"
    if chosen.get("advantage") == "w-reinforce":
        needed["failure_reward"] = -1
    if chosen.get("baseline", "none") != "none":
        needed["advantage"] = "reinforce"
    if chosen.get("strategy") and not OBJECTIVES[objective].banded and "objective" not in chosen:
        needed |= {"objective": "clip", "kl_cov": None}
    return {**needed, **chosen}


def recipe_or_refusal(chosen):
    """The recipe, or why it is refused."""
    try:
        return parse_recipe(content(**chosen))
    except RecipeError as error:
        return str(error)


def test_every_pair_of_settings_runs_a_step_or_is_refused_by_both_their_names():
    ran, refused = {}, set()
    for one, other in ALL_PAIRS:
        whole = beside({**one, **other})
        why = recipe_or_refusal(whole)
        if not isinstance(why, str):
            ran.setdefault(why.model_dump_json(), why)
            continue
        fields = (*one, *other)
        refused.add(fields)
        assert any(all(key_of(field) in line for field in fields) for line in why.splitlines()), (one, other, why)
    for recipe in ran.values():
        one_step(recipe)
    assert len(ran) > 1000
    assert refused == {
        ("objective", "strategy"),
        ("objective", "aggregate"),
        ("objective", "kl_cov"),
        ("strategy", "kl_cov"),
        ("advantage", "baseline"),
        ("advantage", "failure_reward"),
        ("correction", "old_logp"),
        ("objective", "correction"),
        ("objective", "old_logp"),
        ("strategy", "correction"),
        ("strategy", "old_logp"),
        ("reweighting", "correction"),
        ("reweighting", "old_logp"),
        ("reweighting", "epochs"),
    }


@given(st.fixed_dictionaries({field: st.sampled_from(values) for field, values in FIELDS.items()}))
@settings(max_examples=100, deadline=None)
def test_any_choice_that_is_accepted_runs_a_step(chosen):
    if recipe := accepted(**chosen):
        one_step(recipe)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_every_correction_changes_the_gradient(name):
    found = one_step(accepted(correction=name, old_logp="recomputed"))
    assert not torch.equal(found, one_step(accepted(old_logp="recomputed")))


@cache
def world():
    policy = load_policy()
    state = {name: value.clone() for name, value in policy.model.state_dict().items()}
    rollout = sample(policy, [task.prompt for task in listcraft.tasks("train", 1)], Sampling(4, 12), seed=0)
    away = torch.randn(rollout.old_logp.shape, generator=torch.Generator().manual_seed(1))
    return policy, state, replace(rollout, old_logp=rollout.old_logp + away)


def gradient(recipe):
    """The gradient of a second step on stale completions, after the controller has had the entropy of the first."""
    policy, state, rollout = world()
    policy.model.load_state_dict(state)
    torch.manual_seed(3)
    anchor = None
    if recipe.update.kl:
        reference = load_policy()
        anchor = reference_term(recipe, reference, lambda n: sample(reference, ["a prompt"] * n, Sampling(1, 12), 0))
    learner = Learner(policy, recipe, build_controller(recipe), anchor)
    surprisals = torch.tensor([0.4, 0.9, 0.3, 0.7])
    batch = Experience(rollout, Advantages(recipe.update)([[1.0, 0.0, 0.0, None]], surprisals))
    for step in (1, 2):
        torch.manual_seed(step)
        line = learner.step(step, batch)
    assert (line["bounds"] is None) or learner.objective.banded
    found = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    assert bool(found.isfinite().all())
    return found


@cache
def plain(objective, aggregate):
    """The gradient of an objective under its own band and nothing else."""
    return gradient(accepted(objective=objective, aggregate=aggregate))


def aggregate_of(objective):
    return OBJECTIVES[objective].aggregations[0]


PAIRS = [
    (objective, strategy)
    for objective, strategy in product(OBJECTIVES, STRATEGIES)
    if accepted(objective=objective, strategy=strategy, aggregate=aggregate_of(objective))
]


def pull(objective, rule):
    """The gradient of an objective at 600 stale tokens of 20 sequences under a rule."""
    draw = torch.Generator().manual_seed(0)
    old = -3 * torch.rand(20, 30, generator=draw)
    spread = 0.005 if isinstance(objective, Gspo) else 0.5
    logp = (old + spread * torch.randn(20, 30, generator=draw)).requires_grad_()
    advantages = torch.randn(20, 1, generator=draw)
    torch.manual_seed(0)
    policy_loss(logp, old, advantages, torch.ones(20, 30), rule=rule, objective=objective).per_token.sum().backward()
    assert logp.grad is not None
    assert bool(logp.grad.isfinite().all())
    return logp.grad


@pytest.mark.parametrize(("objective", "strategy"), PAIRS)
def test_every_strategy_that_an_objective_accepts_changes_its_gradient(objective, strategy):
    recipe = accepted(objective=objective, strategy=strategy, aggregate=aggregate_of(objective))
    chosen, controller = build_objective(recipe), build_controller(recipe)
    own = pull(Clip() if objective == "clip-undetached" else chosen, chosen.rule)
    found = []
    for step in range(1, 5):
        controller.observe(step, 0.4, 1.0)
        found.append(pull(chosen, controller.rule()))
    assert any(not torch.equal(gradient, own) for gradient in found)


def test_what_reads_no_band_takes_no_strategy_and_what_reads_one_takes_some():
    takers = {objective for objective, _ in PAIRS}
    assert takers == {name for name, objective in OBJECTIVES.items() if objective.banded}
    assert {objective for objective, strategy in PAIRS if strategy == "id"} == {
        "clip", "clip-undetached", "cispo", "gmpo", "ce-gppo", "nsr", "up", "aspo", *ON_SEQUENCES
    }  # fmt: skip
    assert ("clip-undetached", "dppo") not in PAIRS
    assert ("gspo", "constant") in PAIRS


@pytest.mark.parametrize("name", REWEIGHTINGS)
def test_every_reweighting_changes_the_gradient(name):
    epochs = 1 if name == "opefo" else 2
    assert not torch.equal(gradient(accepted(reweighting=name, epochs=epochs)), plain("clip", "token-mean"))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_is_refused_under_an_aggregation_that_is_not_its_own(objective):
    strategy = "id" if objective == "clip-undetached" else None
    own = [mode for mode in AGGREGATE if accepted(objective=objective, aggregate=mode, strategy=strategy)]
    assert own == list(OBJECTIVES[objective].aggregations)


def test_the_aggregations_have_different_gradients():
    found = [gradient(accepted(aggregate=mode)) for mode in AGGREGATE]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_every_accepted_advantage_baseline_and_failure_reward_gives_other_advantages():
    groups = [[1.0, 0.0, 0.0, None], [1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    surprisals = torch.tensor([0.4, 0.9, 0.3, 0.7] * 3)
    found = []
    for advantage, baseline, failure in product(ADVANTAGE, BASELINE, (0, -1)):
        recipe = accepted(advantage=advantage, baseline=baseline, failure_reward=failure)
        if recipe:
            judge = Advantages(recipe.update)
            judge(groups[::-1], surprisals)  # an EMA baseline begins with its first batch's own mean
            judge([[0.0] * 4], surprisals[:4])
            found.append(((advantage, baseline, failure), judge(groups, surprisals)))
    assert {name for (name, _, _), _ in found} == set(ADVANTAGE)
    for i, (one, a) in enumerate(found):
        for other, b in found[:i]:
            inert = one[0] == other[0] and one[0] in (
                "grpo",
                "qae",
                "grpo-dropout",
            )  # the reward's scale: they divide by its deviation
            if inert:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
            else:
                assert not torch.equal(a, b), (one, other)


@pytest.mark.parametrize(
    "penalty",
    [{"kl": {"coefficient": 0.5}}, {"kl": {"kind": "fisher", "fisher_samples": 4}}, {"kl_cov": {"share": 0.3}}],
)
def test_every_penalty_changes_the_gradient(penalty):
    objective = "reinforce" if "kl_cov" in penalty else "clip"
    assert not torch.equal(gradient(accepted(objective=objective, **penalty)), plain(objective, "token-mean"))


@pytest.mark.parametrize(
    "ignored",
    [
        {"kl": {"kind": "fixed", "target": 0.3}},
        {"kl": {"kind": "adaptive", "fisher_samples": 8}},
        {"kl_cov": {"coefficient": 0}, "objective": "reinforce"},
        {"kl_cov": {"share": 0.1}, "objective": "clip"},
    ],
)
def test_a_setting_of_a_penalty_that_nothing_reads_is_refused(ignored):
    assert accepted(**ignored) is None


@pytest.mark.parametrize("given", [{"name": "fixed"}, {"name": "gepo", "group_size": 8}])
def test_a_weighting_that_does_nothing_or_does_not_fit_the_groups_is_refused(given):
    with pytest.raises(RecipeError, match=r"control\.reweighting.*: got .*; set "):
        parse_recipe({**content(), "control": {"reweighting": given}})


def test_all_faults_are_told_at_once():
    with pytest.raises(RecipeError) as caught:
        parse_recipe(content(objective="gspo", strategy="clip-higher", aggregate="token-mean", baseline="ema"))
    assert len(str(caught.value).splitlines()) == 3
