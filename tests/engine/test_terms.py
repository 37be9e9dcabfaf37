"""Penalties that keep the policy near a reference, in the trainer."""

import pytest
import torch

from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample
from entrostat.engine.terms import FisherTerm, KlTerm, Piece, diagonal_fisher
from entrostat.engine.train import train
from entrostat.objective import kl_to_reference
from entrostat.recipe import parse_recipe
from entrostat.recipe.sections import KlRecipe
from entrostat.runs import Run
from entrostat.tokens import token_stats

PROMPTS = ["# square every number\n", "# sort the list\n"]
RECIPE = {
    "name": "kl",
    "threads": 1,
    "tasks": {"train": 4, "select": 2, "report": 2},
    "rollout": {"prompts": 4, "samples": 2},
    "update": {"epochs": 4, "learning_rate": 2e-3, "warmup_steps": 0, "objective": "reinforce"},
    "evaluation": {"samples": 1, "pass_at": [1], "every": None, "report": "peak"},
    "campaign": {"steps": 4},
    "grading": {"workers": 1},
}


def nudge(policy, scale, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += scale * torch.randn_like(parameter)


def own_samples(policy, count):
    return sample(policy, [PROMPTS[i % len(PROMPTS)] for i in range(count)], Sampling(1, 24), seed=1)


def test_kl_is_zero_at_the_reference_and_positive_away_from_it():
    policy, reference = load_policy(), load_policy()
    rollout = sample(reference, PROMPTS, Sampling(2, 24), seed=0)
    anchor = KlTerm(KlRecipe(), reference, 1.0)
    tensors = rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask

    def kl():
        logits = policy.logits(*tensors)
        stats = token_stats(logits, rollout.completions)
        piece = Piece(rollout, logits, stats, torch.ones_like(stats.logp), rollout.old_logp, rollout.mask)
        return anchor.kl(piece)[0][rollout.mask]

    with torch.no_grad():
        assert kl().abs().max() < 1e-5
        nudge(policy, 0.01)
        assert kl().mean() > 1e-4


def test_the_ewc_penalty_is_the_kl_to_second_order():
    reference, moved = load_policy(), load_policy()
    anchor = FisherTerm(KlRecipe(kind="fisher", coefficient=1.0), reference, own_samples(reference, 256), 1.0)
    nudge(moved, 1e-3)
    rollout = sample(reference, PROMPTS, Sampling(128, 24), seed=5)
    tensors = rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask
    with torch.no_grad():
        kl = kl_to_reference(reference.logits(*tensors), moved.logits(*tensors))[rollout.mask].mean()
        penalty = anchor.on_weights(moved)
    assert 0.6 < float(penalty) / float(kl) < 1.6  # a random direction, so the diagonal carries the most of it


def test_the_fisher_information_is_the_same_again_and_nowhere_negative():
    policy = load_policy()
    one, other = (diagonal_fisher(policy, own_samples(policy, 6), 1.0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(bool((part >= 0).all()) for part in one)
    assert sum(float(part.sum()) for part in one) > 0


@pytest.mark.parametrize("kind", ["fixed", "fisher"])
def test_a_stronger_penalty_keeps_the_policy_nearer(kind, tmp_path):
    reached = []
    for coefficient in (1e-4, 1e4 if kind == "fisher" else 10.0):
        samples = {"fisher_samples": 8} if kind == "fisher" else {}
        update = {**RECIPE["update"], "kl": {"kind": kind, "coefficient": coefficient, **samples}}
        out = tmp_path / str(coefficient)
        train(parse_recipe({**RECIPE, "update": update}), out)
        line = Run.open(out).steps()[-1]
        reached.append(line["ewc" if kind == "fisher" else "kl_reference"] / (coefficient if kind == "fisher" else 1))
    weak, strong = reached
    assert 0 < strong < 0.5 * weak


def test_the_adaptive_coefficient_is_logged_and_climbs_while_the_kl_is_above_its_target(tmp_path):
    update = {**RECIPE["update"], "kl": {"kind": "adaptive", "coefficient": 0.01, "target": 1e-4}}
    recipe = parse_recipe({**RECIPE, "update": update, "campaign": {"steps": 8, "checkpoint_every": 1}})
    train(recipe, tmp_path / "whole")
    coefficients = [line["kl_coefficient"] for line in Run.open(tmp_path / "whole").steps()]
    assert coefficients[0] == 0.01
    assert coefficients[-1] > 0.01
