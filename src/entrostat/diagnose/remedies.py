"""What to change, failure by failure: as keys of our recipe, of TRL's GRPOConfig and of verl's configuration.

The first remedy of a list is the one to try first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from entrostat.diagnose.finding import Remedy

RATES = ("learning_rate", ".lr")

_ROLL_BACK = Remedy(
    action="go back to the peak, and let the watchdog keep it next time",
    recipe={"watch": {"action": "keep-peak"}},
    reason="what comes after the peak is lost: the checkpoint of the peak is the best that this run has made",
    source="arXiv 2606.21090, early stop; studies/what-makes-the-cliff",
)
_FRESH = Remedy(
    action="take fewer passes over each batch of completions",
    recipe={"update": {"epochs": 1}},
    trl={"num_iterations": 1, "steps_per_generation": 1},
    verl={"actor_rollout_ref.actor.ppo_epochs": 1},
    reason="it goes on learning from what it would no longer write: with one pass 0 of 5 runs fell, with four 5 of 5",
    source="studies/what-makes-the-cliff",
)
_SLOWER = Remedy(
    action="halve the learning rate",
    recipe={"update": {"learning_rate": 5e-5}},
    trl={"learning_rate": 5e-7},
    verl={"actor_rollout_ref.actor.optim.lr": 5e-7},
    reason="each update moves the policy less between two rollouts",
    source="studies/what-makes-the-cliff: held at half, 2 of 5 runs fell in place of 5 of 5",
)
_CLIP = Remedy(
    action="bound the ratios",
    recipe={"update": {"objective": "clip"}},
    trl={"loss_type": "dapo", "epsilon": 0.2},
    verl={"actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla", "actor_rollout_ref.actor.clip_ratio": 0.2},
    reason="an unclipped ratio bounds neither how far rewarded tokens rise nor how far punished ones fall",
    source="studies/what-makes-the-cliff: a clip of .2 makes the fall a third as deep",
)
_ENTROPY_HELD = Remedy(
    action="let a controller hold the entropy (in TRL from 1.8 on)",
    recipe={"control": {"bonus": {"name": "adaptive", "target": 0.2}}},
    trl={"use_adaptive_entropy": True, "entropy_target": 0.2},
    reason="a bonus whose coefficient follows the entropy acts when it sinks and rests when it does not",
    source="Skywork-OR1, arXiv 2505.22312, section 4",
)

_TIGHTEN = Remedy(
    action="tighten the upper threshold where p > .7 and open it for improbable tokens: ID",
    recipe={"update": {"objective": "clip", "epochs": 2}, "control": {"strategy": {"name": "id"}}},
    trl={"epsilon_high": 0.28},
    verl={"actor_rollout_ref.actor.clip_ratio_high": 0.28},
    reason=(
        "likely tokens that are rewarded again (E1) contract entropy, improbable ones (E2) expand it, and a constant "
        "bound cuts E2 first; ID's threshold falls with p, .50 at p = 0 to .25 at p = 1"
    ),
    source="arXiv 2602.09782, strategy ID; clip-higher: arXiv 2503.14476, section 3.1",
)
_POLARITY = Remedy(
    action="weigh the tokens by their polarity",
    recipe={"control": {"reweighting": {"name": "polarity-aware"}}},
    reason="it damps what contracts entropy, rewarded likely tokens (E1) and punished rare ones (E4) alike",
    source="arXiv 2605.11775",
)
_POLARITY_OF_REWARDS = Remedy(
    action="weigh the rewarded tokens by their polarity",
    recipe={"control": {"reweighting": {"name": "polarity-aware", "rewarded_only": True}}},
    reason="it damps rewarded likely tokens (E1) and does not push failed completions down harder, which unlearns",
    source="arXiv 2605.11775; studies/polarity-control",
)
COLLAPSE = (_TIGHTEN, _POLARITY_OF_REWARDS, _ENTROPY_HELD)
COLLAPSE_BY_PUNISHMENT = (_POLARITY, _TIGHTEN, _ENTROPY_HELD)
EXPLOSION = (
    Remedy(
        action="close the upper threshold and take away any entropy bonus",
        recipe={"update": {"objective": "clip"}, "control": {"strategy": {"name": "constant"}, "bonus": None}},
        trl={"epsilon_high": 0.2, "entropy_coef": 0.0},
        verl={"actor_rollout_ref.actor.clip_ratio_high": 0.2, "actor_rollout_ref.actor.entropy_coeff": 0.0},
        reason="a bonus pays for noise as well as for exploration, and once text is no longer text for noise alone",
        source="arXiv 2505.22617, on entropy bonuses",
    ),
    _FRESH,
    _ROLL_BACK,
)
RISE_THEN_FALL = (_ROLL_BACK, _FRESH, _CLIP, _SLOWER)
DIVERGENCE = (
    Remedy(
        action="read samples that are rewarded and look for what the grader pays by mistake, then grade in isolation",
        recipe={"grading": {"isolation": "full"}},
        reason="a reward that rises while held-out tasks fall is paid for something else than solving the task",
        source="arXiv 2210.10760; docs/grading.md lists the ways a code grader is cheated",
    ),
    Remedy(
        action="train on more tasks",
        recipe={"tasks": {"train": 480}},
        reason="few tasks, seen often, are learned by heart; the value is ten times the default",
        source="arXiv 2606.21090: 50 training problems a campaign",
    ),
    _ROLL_BACK,
)
ALL_RIGHT = (
    Remedy(
        action="go on to harder tasks",
        recipe={"tasks": {"levels": [3, 4]}},
        reason="a group that is all right has advantage 0 in every completion: these tasks are learned",
        source="arXiv 2503.14476, section 3.2 (dynamic sampling)",
    ),
    Remedy(
        action="sample more completions a prompt",
        recipe={"rollout": {"samples": 16}},
        trl={"num_generations": 16},
        verl={"actor_rollout_ref.rollout.n": 16},
        reason="a larger group is less often all right: with pass rate p and n samples, p^n",
        source="arXiv 2503.14476, section 3.2",
    ),
)
ALL_WRONG = (
    Remedy(
        action="begin with easier tasks",
        recipe={"tasks": {"levels": [1, 2]}},
        reason="a group that is all wrong has advantage 0 in every completion: nothing is ever rewarded",
        source="arXiv 2503.14476, section 3.2 (dynamic sampling)",
    ),
    Remedy(
        action="sample more completions a prompt, at temperature 1",
        recipe={"rollout": {"samples": 16, "temperature": 1.0}},
        trl={"num_generations": 16, "temperature": 1.0},
        verl={"actor_rollout_ref.rollout.n": 16, "actor_rollout_ref.rollout.temperature": 1.0},
        reason="a larger and more varied group more often holds a success: with pass rate p and n samples, 1 - (1-p)^n",
        source="arXiv 2503.14476, section 3.2",
    ),
    Remedy(
        action="check the grader with known solutions",
        reason="a grader that refuses everything, say for its form, looks the same as tasks that are too hard",
        source="docs/grading.md",
    ),
)
CLIPPING: Mapping[str, tuple[Remedy, ...]] = {
    "clip_low": (
        Remedy(
            action="open the lower threshold for improbable tokens",
            recipe={"control": {"strategy": {"name": "did"}}},
            trl={"epsilon": 0.3},
            verl={"actor_rollout_ref.actor.clip_ratio_low": 0.3},
            reason="punished tokens run into their bound: DID opens it where the token's probability is low",
            source="arXiv 2602.09782, strategy DID",
        ),
        _FRESH,
        _SLOWER,
    ),
    "clip_high": (
        Remedy(
            action="open the upper threshold for improbable tokens",
            recipe={"control": {"strategy": {"name": "id"}}},
            trl={"epsilon_high": 0.28},
            verl={"actor_rollout_ref.actor.clip_ratio_high": 0.28},
            reason="rewarded tokens run into their bound, the improbable ones first; what is cut there is exploration",
            source="arXiv 2602.09782, strategy ID; arXiv 2503.14476, section 3.1",
        ),
        _FRESH,
        _SLOWER,
    ),
    "clip": (_FRESH, _SLOWER),
}
TRUNCATION = (
    Remedy(
        action="allow longer completions",
        recipe={"rollout": {"max_new_tokens": 96}},
        trl={"max_completion_length": 2048, "mask_truncated_completions": True},
        verl={"data.max_response_length": 2048},
        reason="a completion that is cut earns nothing, so all its tokens are punished whatever they say",
        source="arXiv 2503.14476, section 3.4 (overlong filtering)",
    ),
    _ROLL_BACK,
    _FRESH,
)
LENGTH = (
    Remedy(
        action="divide each loss by a constant, not by the completion's own length",
        recipe={"update": {"aggregate": "constant", "advantage": "dr-grpo"}},
        trl={"loss_type": "dr_grpo", "scale_rewards": "none"},
        verl={
            "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum-norm",
            "algorithm.norm_adv_by_std_in_grpo": False,
        },
        reason="a mean over its own tokens makes a long wrong completion cheaper than a short one, so wrong ones grow",
        source="Dr.GRPO, arXiv 2503.20783, section 3.1",
    ),
    _ROLL_BACK,
)
KL = (
    _SLOWER,
    Remedy(
        action="tie the policy to its reference",
        trl={"beta": 0.04},
        verl={"actor_rollout_ref.actor.use_kl_loss": True, "actor_rollout_ref.actor.kl_loss_coef": 0.01},
        reason="nothing else bounds the distance from where the policy began",
        source="GRPO, arXiv 2402.03300, section 4.1",
    ),
    _FRESH,
)
FADE = (
    Remedy(
        action="look at the groups first: fresh tasks, or more completions a prompt",
        recipe={"rollout": {"samples": 16}},
        trl={"num_generations": 16},
        verl={"actor_rollout_ref.rollout.n": 16},
        reason="with rewards that are equal within every group all advantages are 0, and so is the gradient",
        source="arXiv 2503.14476, section 3.2",
    ),
    _ENTROPY_HELD,
)
NOT_FINITE = (
    Remedy(
        action="go back to the last checkpoint, halve the learning rate and bound the gradient",
        recipe={"update": {"learning_rate": 5e-5, "max_grad_norm": 1.0}},
        trl={"learning_rate": 5e-7, "max_grad_norm": 1.0},
        verl={"actor_rollout_ref.actor.optim.lr": 5e-7, "actor_rollout_ref.actor.grad_clip": 1.0},
        reason="weights that a NaN has passed through stay NaN; what came before it is whole",
        source="IEEE 754",
    ),
    _CLIP,
)


def with_half_the_rate(remedies: tuple[Remedy, ...], rate: float | None) -> tuple[Remedy, ...]:
    """The remedies with every learning rate in them at half of `rate`; without it where that is not known."""
    half = None if rate is None else float(f"{rate / 2:.3g}")
    return tuple(
        replace(remedy, recipe=_set(remedy.recipe, half), trl=_set(remedy.trl, half), verl=_set(remedy.verl, half))
        for remedy in remedies
    )


def _set(changes: Mapping[str, Any], rate: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in changes.items():
        fitted = _set(value, rate) if isinstance(value, Mapping) else rate if key.endswith(RATES) else value
        if fitted != {} and not (fitted is None and key.endswith(RATES)):
            found[key] = fitted
    return found
