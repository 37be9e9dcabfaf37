"""What to change, failure by failure, with what has been measured of it.

The first remedy of a list is the one to try first: those with evidence come before those without. Intervals of counts
are Clopper and Pearson's, 95 %. `studies/...` are ours, on a small policy: they show that a thing can help, not that it
helps at another size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from entrostat.diagnosis.hosts import turned
from entrostat.runs.finding import Remedy

HALF_RATE = "half of the learning rate"  # stands for a number that depends on the run

_ROLL_BACK = Remedy(
    action="go back to the peak, and let the watchdog keep it next time",
    reason="what comes after the peak is lost: the checkpoint of the peak is the best that this run has made",
    evidence="in five runs that fell the peak had .62 [.58, .65] more pass@1 than the end",
    source="arXiv 2606.21090, early stop; studies/what-makes-the-cliff",
    settings={"recipe": {"watch": {"action": "keep-peak"}}},
)
_FRESH = Remedy(
    action="take one pass over each batch of completions",
    reason="later passes learn from what the policy would no longer write",
    evidence="with one pass 0 of 5 runs fell (0 to 52 %), with four 5 of 5 (48 to 100 %)",
    source="studies/what-makes-the-cliff",
    settings={**turned(passes=1), "trl": {"num_iterations": 1, "steps_per_generation": 1}},
)
_SLOWER = Remedy(
    action="halve the learning rate",
    reason="each update moves the policy less between two rollouts",
    evidence="at about half the rate GRPO fell in 0 of 5 runs (0 to 52 %) in place of 3 of 5 (15 to 95 %)",
    source="studies/what-makes-the-cliff",
    settings=turned(rate=HALF_RATE),
)
_CAP_ON_LAG = Remedy(
    action="train on batches that are at most one update old",
    reason="the further the sampler lags behind, the less its completions are what the policy would write",
    evidence="in ours stale passes over a batch made the fall: 0 of 5 runs fell with one pass, 5 of 5 with four",
    source="studies/what-makes-the-cliff; thinking-machines-lab/tinker-cookbook PR 822",
    settings=turned(lag=1),
)
_OPSM = Remedy(
    action="drop punished completions that the policy has moved away from (off-policy sequence masking)",
    reason="pushing down what the policy would no longer write moves it anywhere",
    evidence="completions 8 updates old: with it 0 of 5 runs fell (0 to 52 %), without 5 of 5 (48 to 100 %)",
    source="studies/staleness; arXiv 2512.02556",
    settings={"recipe": {"control": {"correction": "opsm"}}, "slime": {"--use-opsm": True}},
)
_CLIP_TO_SAMPLER = Remedy(
    action="clip the ratio, and take it against the log-probabilities that the sampler recorded",
    reason="recomputed ones are those of the trainer, so the ratio begins at 1 and hides the age of the completions",
    evidence="completions 8 updates old: with it 0 of 5 runs fell (0 to 52 %), without 5 of 5 (48 to 100 %)",
    source="studies/staleness",
    settings={"recipe": {"update": {"old_logp": "sampler", "objective": "clip"}}},
)
_CORRECTION = Remedy(
    action="weigh tokens by the ratio of trainer to sampler, cut at 2",
    reason="without it the gradient is that of another policy than the one that wrote the completions",
    evidence="three of three mixture-of-experts runs collapsed without a correction (29 to 100 %)",
    source="Megatron-LM issue 4168 (routing replay); arXiv 2605.14220",
    settings={
        "trl": {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_cap": 2.0},
        "verl": {
            "algorithm.rollout_correction.rollout_is": "token",
            "algorithm.rollout_correction.rollout_is_threshold": 2.0,
        },
        "openrlhf": {"--enable_vllm_is_correction": True},
        "slime": {"--use-tis": True},
        "skyrl": {"trainer.algorithm.off_policy_correction.tis_ratio_type": "token"},
        "nemo-rl": {"loss_fn.use_importance_sampling_correction": True},
        "areal": {"actor.use_decoupled_loss": True},
        "ms-swift": {"--rollout_importance_sampling_mode": "token_truncate"},
    },
)
_CLIP = Remedy(
    action="bound the ratios",
    reason="an unclipped ratio bounds neither how far rewarded tokens rise nor how far punished ones fall",
    evidence="with a clip of .2 2 of 5 runs fell (5 to 85 %) in place of 5 of 5 (48 to 100 %)",
    source="studies/what-makes-the-cliff",
    settings={
        **turned(clip_low=0.2, clip_high=0.2),
        "recipe": {"update": {"objective": "clip"}},
        "trl": {"loss_type": "dapo", "epsilon": 0.2},
    },
)
_ENTROPY_HELD = Remedy(
    action="let a controller hold the entropy",
    reason="weights by polarity raise the entropy where it is below a curve of yours, and lower it where it is above",
    evidence=(
        "on a table of logits it held a constant entropy within 3 % [3, 4] (n = 20; without control 81 % [79, 82]), "
        "with less pass@1 than GRPO (-.27 [-.30, -.23]); an adaptive bonus, which TRL has, follows a curve as closely"
    ),
    source="studies/thermostat; Skywork-OR1, arXiv 2505.22312, section 4, for the bonus",
    settings={
        "recipe": {"control": {"reweighting": {"name": "target-weights", "curve": {"points": [[0, 0.2]]}}}},
        "trl": {"use_adaptive_entropy": True, "entropy_target": 0.2},
    },
)
_CLIP_HIGHER = Remedy(
    action="open the upper threshold",
    reason="a constant bound cuts rewarded improbable tokens first, and they are what keeps entropy up",
    evidence=(
        "entropy of one 32B model +298 % with .28 above, -57 % with .2 (arXiv 2603.11682, one run each); on our small "
        "policy within .01 nats of GRPO (n = 5), for the upper threshold clipped .5 to 1.3 % of the tokens there"
    ),
    source="DAPO, arXiv 2503.14476, section 3.1; studies/entropy-strategies",
    settings={
        **turned(clip_high=0.28),
        "openrlhf": {"--eps_clip_low_high": "0.2 0.28"},
        "recipe": {"update": {"objective": "clip"}, "control": {"strategy": {"name": "clip-higher"}}},
    },
)
_REWARDED_ONLY = Remedy(
    action="weigh the rewarded tokens alone by their polarity",
    reason="it damps rewarded likely tokens, which contract entropy, and leaves punished ones as they are",
    evidence="pass@1 +.020 [.001, .035] and pass@8 +.022 [.009, .035] against GRPO (n = 5, not significant after Holm)",
    source="studies/polarity-control; arXiv 2605.11775",
    settings={"recipe": {"control": {"reweighting": {"name": "polarity-aware", "rewarded_only": True}}}},
)
_PUNISH_LESS = Remedy(
    action="reward with 0 and 1, so that nothing is pushed down",
    reason="punished tokens (E4) carry this contraction, and what is pushed down takes its neighbours with it",
    evidence="with rewards 0 and 1 1 of 5 runs fell (1 to 72 %), with +1 and -1 5 of 5 (48 to 100 %)",
    source="studies/what-makes-the-cliff",
    settings={"recipe": {"update": {"failure_reward": 0}}},
)
COLLAPSE = (_FRESH, _SLOWER, _ENTROPY_HELD, _REWARDED_ONLY, _CLIP_HIGHER)
COLLAPSE_BY_PUNISHMENT = (_FRESH, _SLOWER, _PUNISH_LESS, _REWARDED_ONLY, _ENTROPY_HELD)
EXPLOSION = (
    Remedy(
        action="take away any entropy bonus, and close the upper threshold",
        reason="a bonus pays for noise as well as for exploration, and once text is no longer text for noise alone",
        evidence="with a bonus of .15 all of four runs fell (40 to 100 %)",
        source="studies/early-warning; arXiv 2505.22617, on entropy bonuses",
        settings={
            **turned(clip_high=0.2, bonus=0.0),
            "recipe": {"update": {"objective": "clip"}, "control": {"strategy": {"name": "constant"}, "bonus": None}},
        },
    ),
    _FRESH,
    _ROLL_BACK,
)
RISE_THEN_FALL = (_ROLL_BACK, _FRESH, _SLOWER, _CAP_ON_LAG, _CLIP)
DIVERGENCE = (
    Remedy(
        action="read samples that are rewarded and look for what the grader pays by mistake, then grade in isolation",
        reason="a reward that rises while held-out tasks fall is paid for something else than solving the task",
        source="arXiv 2210.10760; docs/grading.md lists the ways a code grader is cheated",
        settings={"recipe": {"grading": {"isolation": "full"}}},
    ),
    Remedy(
        action="train on more tasks",
        reason="few tasks, seen often, are learned by heart; the value is ten times the default",
        source="arXiv 2606.21090: 50 training problems a campaign",
        settings={"recipe": {"tasks": {"train": 480}}},
    ),
    _ROLL_BACK,
)
ALL_RIGHT = (
    Remedy(
        action="go on to harder tasks",
        reason="a group that is all right has advantage 0 in every completion: these tasks are learned",
        source="arXiv 2503.14476, section 3.2 (dynamic sampling)",
        settings={"recipe": {"tasks": {"levels": [3, 4]}}},
    ),
    Remedy(
        action="sample more completions per prompt",
        reason="a larger group is less often all right: with pass rate p and n samples, p^n",
        source="arXiv 2503.14476, section 3.2",
        settings=turned(samples=16),
    ),
)
_CHECK_GRADER = Remedy(
    action="check the grader with known solutions",
    reason="a grader that refuses everything, say for its form, looks the same as tasks that are too hard",
    source="docs/grading.md",
)
_EASIER = Remedy(
    action="begin with easier tasks",
    reason="a group that is all wrong has advantage 0 in every completion: nothing is ever rewarded",
    source="arXiv 2503.14476, section 3.2 (dynamic sampling)",
    settings={"recipe": {"tasks": {"levels": [1, 2]}}},
)
_LARGER_GROUPS = Remedy(
    action="sample more completions per prompt",
    reason="a larger group more often holds a success: with pass rate p and n samples, 1 - (1-p)^n",
    source="arXiv 2503.14476, section 3.2",
    settings=turned(samples=16),
)
_LONGER = Remedy(
    action="allow longer completions",
    reason="a completion that is cut earns nothing, so all its tokens are punished whatever they say",
    source="arXiv 2503.14476, section 3.4 (overlong filtering)",
    settings={
        **turned(longest=2048),
        "recipe": {"rollout": {"max_new_tokens": 96}},
        "trl": {"max_completion_length": 2048, "mask_truncated_completions": True},
        "ms-swift": {"--max_completion_length": 2048, "--overlong_filter": True},
    },
)
ALL_WRONG = (_CHECK_GRADER, _EASIER, _LARGER_GROUPS)
CLIPPING: Mapping[str, tuple[Remedy, ...]] = {
    "clip_low": (
        _FRESH,
        _SLOWER,
        Remedy(
            action="open the lower threshold for improbable tokens",
            reason="punished tokens run into their bound: DID opens it where the token's probability is low",
            evidence="DID ended within .01 nats of GRPO (n = 5)",
            source="arXiv 2602.09782, strategy DID; studies/entropy-strategies",
            settings={**turned(clip_low=0.3), "recipe": {"control": {"strategy": {"name": "did"}}}},
        ),
    ),
    "clip_high": (_FRESH, _SLOWER, _CLIP_HIGHER),
    "clip": (_FRESH, _SLOWER),
}
TRUNCATION = (_LONGER, _ROLL_BACK, _FRESH)
LENGTH = (
    Remedy(
        action="divide each loss by a constant, not by the completion's own length",
        reason="a mean over its own tokens makes a long wrong completion cheaper than a short one, so wrong ones grow",
        source="Dr.GRPO, arXiv 2503.20783, section 3.1",
        settings={
            "recipe": {"update": {"aggregate": "constant", "advantage": "dr-grpo"}},
            "trl": {"loss_type": "dr_grpo", "scale_rewards": "none"},
            "verl": {
                "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum-norm",
                "algorithm.norm_adv_by_std_in_grpo": False,
            },
        },
    ),
    _ROLL_BACK,
)
KL = (
    _SLOWER,
    _FRESH,
    Remedy(
        action="tie the policy to its reference",
        reason="nothing else bounds the distance from where the policy began",
        source="GRPO, arXiv 2402.03300, section 4.1",
        settings={
            **turned(kl=0.01),
            "trl": {"beta": 0.04},
            "verl": {"actor_rollout_ref.actor.use_kl_loss": True, "actor_rollout_ref.actor.kl_loss_coef": 0.01},
            "slime": {"--use-kl-loss": True, "--kl-loss-coef": 0.01},
        },
    ),
)
FADE = (
    Remedy(
        action="look at the groups first: fresh tasks, or more completions per prompt",
        reason="with rewards that are equal within every group all advantages are 0, and so is the gradient",
        source="arXiv 2503.14476, section 3.2",
        settings=turned(samples=16),
    ),
    _ENTROPY_HELD,
)
NO_GRADIENT = (
    Remedy(
        action="count the parameters that require a gradient, and compare a weight before and after a step",
        reason="a frozen adapter, a detached loss or advantages that are all 0 give a gradient of exactly 0",
        source="modelscope/ms-swift issues 5890 and 7229",
    ),
    _CHECK_GRADER,
)
NEVER_LEARNED = (
    _CHECK_GRADER,
    _EASIER,
    _LARGER_GROUPS,
    Remedy(
        action="raise the learning rate, if the gradient is there and groups are mixed",
        reason="with mixed groups and a gradient that reaches the weights, too small a step is what is left",
        source="no study of ours",
    ),
)
PLATEAU = (
    Remedy(
        action="go on to harder tasks, or end the run here",
        reason="entropy is left to explore with, and these tasks no longer reward it",
        source="arXiv 2505.22617: reward is bought with entropy",
        settings={"recipe": {"tasks": {"levels": [3, 4]}}},
    ),
    _LARGER_GROUPS,
)
_BOUND_GRADIENT = Remedy(
    action="bound the gradient's norm at 1",
    reason="one step of a huge gradient undoes many of the usual size; AdamW's second moment keeps it for long",
    source="arXiv 1211.5063",
    settings=turned(grad_norm=1.0),
)
GRADIENT_EXPLOSION = (_SLOWER, _FRESH, _CORRECTION, _BOUND_GRADIENT)
MISMATCH = (_CAP_ON_LAG, _OPSM, _CORRECTION, Remedy(
    action="compute the head and the log-probabilities in float32, in sampler and trainer",
    reason="rounding to bfloat16 makes ratios differ from 1 where nothing has changed",
    evidence="an fp32 head lifted the asymptote of one setting from .52 to .61",
    source="ScaleRL, in TRL PR 4303; verl issue 6280",
))  # fmt: skip
STALE = (_FRESH, _CAP_ON_LAG, _OPSM, _CLIP_TO_SAMPLER, _CORRECTION)
REPETITION = (_FRESH, _SLOWER, _ENTROPY_HELD, _LONGER)
_MIXED_PROMPTS = Remedy(
    action="learn from prompts whose completions earn different rewards, and leave the others out of the batch",
    reason="where rewards hardly differ, noise and regularisation outweigh what the task teaches about each prompt",
    source="RAGEN-2, arXiv 2604.06268 (SNR-aware filtering; no study of ours); DAPO, arXiv 2503.14476, section 3.2",
    settings={
        "recipe": {"rollout": {"resample": 3}},
        "verl": {"algorithm.filter_groups.enable": True, "algorithm.filter_groups.metric": "reward"},
    },
)
_LESS_REGULARISED = Remedy(
    action="take away the KL term and the entropy bonus",
    reason="both pull every completion in the same way whatever its prompt says",
    source="RAGEN-2, arXiv 2604.06268 (no study of ours)",
    settings={**turned(kl=0.0, bonus=0.0), "recipe": {"update": {"kl": None}, "control": {"bonus": None}}},
)
TEMPLATE = (_MIXED_PROMPTS, _LESS_REGULARISED, _LARGER_GROUPS)
SLOW = (
    Remedy(
        action="look at what else runs on the machine, at the sandbox of the grader and at the longest completions",
        reason="a batch waits for its longest completion and its slowest grading",
        source="no study of ours",
    ),
)
STALLED = (
    Remedy(
        action="look whether the process is alive and where it waits, with py-spy dump --pid PID",
        reason="a rank that waits for another, a sandbox that does not return and a full disk raise nothing",
        source="no study of ours",
    ),
)
NOT_FINITE = (
    Remedy(
        action="go back to the last checkpoint, halve the learning rate and bound the gradient",
        reason="weights that a NaN has passed through stay NaN; what came before it is whole",
        source="IEEE 754",
        settings=turned(rate=HALF_RATE, grad_norm=1.0),
    ),
    _CLIP,
)


def with_half_the_rate(remedies: tuple[Remedy, ...], rate: float | None) -> tuple[Remedy, ...]:
    """The remedies with half of `rate` where they say `HALF_RATE`; without that key where the rate is not known."""
    half = None if rate is None else float(f"{rate / 2:.3g}")
    return tuple(
        replace(
            remedy,
            settings={host: set_ for host, keys in remedy.settings.items() if (set_ := _with_half(keys, half))},
        )
        for remedy in remedies
    )


def _with_half(changes: Mapping[str, Any], half: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in changes.items():
        fitted = _with_half(value, half) if isinstance(value, Mapping) else half if value == HALF_RATE else value
        if fitted != {} and not (fitted is None and value == HALF_RATE):
            found[key] = fitted
    return found
