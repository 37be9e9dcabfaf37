"""The record of a run: what is measured, its name, unit and meaning, and what a line of the run folder may hold.

This is the one list. Log readers take their column names from METRICS; what is written and read is checked by STEP,
EVALUATION and the other kinds of lines; docs/metrics.md is made from the fields and their metrics.

Aliases are names as hosts print them, in lower case and with `_` for blanks; `train/`, `rollout/` and the like before a
name are ignored by the reader. `/.../` is a regular expression that the whole name has to match. Where a log has
several aliases of one metric, the first in the list is read. Sources: TRL 1.16, verl 0.9, OpenRLHF 0.11, slime,
prime-rl, SkyRL, NeMo RL, AReaL, ROLL, ms-swift, LLaMA-Factory, Unsloth and tinker-cookbook, as of August 2026.

Words match names that are not listed: the parts of a name, as in `avg`, `response`, `tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from entrostat.runs.checks import (
    BOUNDS,
    COUNT,
    COUNTS,
    MEASURED,
    NUMBER,
    PART,
    SHARES,
    TEXT,
    Fault,
    Line,
    holding,
    named,
    or_null,
    results,
)
from entrostat.runs.files import Record

Unit = Literal["nats per token", "share", "reward", "score", "tokens", "seconds", "updates", "per second", "none"]


@dataclass(frozen=True, slots=True)
class Words:
    """A rule on the parts of a column's name: one of each group in `each`, and none of `none`."""

    each: tuple[frozenset[str], ...]
    none: frozenset[str] = frozenset()

    def fit(self, parts: frozenset[str]) -> bool:
        """Whether a name with these parts follows the rule."""
        return not parts & self.none and all(parts & group for group in self.each)


@dataclass(frozen=True, slots=True)
class Healthy:
    """Where a metric lies in sound runs: least and greatest (None: unbounded), and what shows that."""

    least: float | None
    greatest: float | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Metric:
    """meaning: what it is. record: its name in our run folders. aliases: its names in hosts' logs, best first.

    words: rules for other names, best first. sums: aliases whose values are sums over a completion, not means over
    tokens. panel: the figure of a report that draws it.
    """

    unit: Unit
    meaning: str
    record: str | None = None
    aliases: tuple[str, ...] = ()
    words: tuple[Words, ...] = ()
    sums: tuple[str, ...] = ()
    panel: str | None = None
    healthy: Healthy | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every listed name, our own first."""
        return (*((self.record,) if self.record else ()), *self.aliases)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _any(text: str) -> frozenset[str]:
    return frozenset(text.split())


HELD_OUT = _any("eval evaluation evals val validation heldout held test dev")
SPREAD = _any("std stdev stddev sd var variance stderr se error err")
STATISTICS = SPREAD | _any("min max median p10 p25 p50 p75 p90 p95 p99 count num sum quantile norm gap best ema")
NO_MEASUREMENT = _any("coef coefficient coeff weight beta target bonus limit budget time seconds sec config threshold")
OTHER_NETWORK = _any("critic value vf draft")
NEVER = STATISTICS | NO_MEASUREMENT  # parts of names that are no mean of what was measured
REWARD = _any("reward rewards score scores rew")
LENGTH = _any("length lengths len lens")
COMPLETION = _any(
    "completion completions response responses generation generated gen output outputs answer sequence seq"
)
SHARE = _any("frac fraction ratio share rate pct percent percentage")
KL = _any("kl kld k3 kldiv approxkl")
NO_TOTAL_REWARD = (
    NEVER
    | HELD_OUT
    | _any("format length len penalty fn func function advantage advantages chosen rejected margin margins model")
    | _any("baseline zero frac clip clipped kl shaped shaping positive negative centered centred normalized normalised")
)
NO_LENGTH = (
    NEVER
    | HELD_OUT
    | SHARE
    | REWARD
    | _any("prompt prompts input context clip clipped truncated terminated correct incorrect total")
    | _any("second throughput penalty queue buffer cache batch padded window")
)
NO_KL = NEVER | HELD_OUT | REWARD | _any("cov ctl lr")

METRICS: Mapping[str, Metric] = {
    "entropy": Metric(
        "nats per token",
        "mean entropy of the policy, nats per token",
        record="entropy",
        aliases=_names(
            r"""actor/entropy policy/policy_entropy policy/entropy_avg policy/entropy approx_entropy entropy/mean
            entropy/all/mean optim/entropy actor/entropy_loss entropy_loss ent_loss
            /(ppo|grpo)_actor\/(update\/)?entropy\/avg/ entropy_mean mean_entropy token_entropy objective/entropy"""
        ),
        words=(Words((_any("entropy entropies"),), NEVER | HELD_OUT | _any("delta change drop")),),
        sums=("objective/entropy",),
        panel="Entropy",
    ),
    "reward": Metric(
        "reward",
        "mean training reward",
        record="reward",
        aliases=_names(
            r"""critic/score/mean critic/rewards/mean raw_reward reward/avg_raw_reward reward_mean reward/mean
            reward/all/mean mean_reward env/all/reward/total reward/total avg_total_reward avg_reward
            avg_filtered_reward /(ppo|grpo)_actor\/task_reward\/avg/ score/mean objective/verifiable_reward
            objective/scores"""
        ),
        words=(
            Words((REWARD, _any("total overall all mean avg average episode")), NO_TOTAL_REWARD | _any("raw")),
            Words((REWARD, _any("raw")), NO_TOTAL_REWARD),
            Words((_any("reward score rew"),), NO_TOTAL_REWARD | _any("rewards scores component")),
            Words(
                (_any("accuracy acc correct correctness solved solve success"),),
                NO_TOTAL_REWARD | REWARD | LENGTH | _any("all none token tokens"),
            ),
        ),
        panel="Verdicts",
    ),
    "reward_std": Metric(
        "reward",
        "standard deviation of the training reward",
        record="reward_std",
        aliases=_names("reward/std std_reward critic/score/std critic/rewards/std"),
        words=(Words((REWARD, _any("std stdev stddev sd")), NO_TOTAL_REWARD - _any("std stdev stddev sd")),),
    ),
    "reward_min": Metric(
        "reward",
        "least training reward of a batch",
        aliases=_names("critic/score/min reward_min reward/min min_reward"),
    ),
    "reward_max": Metric(
        "reward",
        "greatest training reward of a batch",
        aliases=_names("critic/score/max reward_max reward/max max_reward"),
    ),
    "heldout": Metric(
        "score",
        "score on held-out tasks",
        record="select",
        aliases=_names(
            r"""eval_reward eval/reward /val-core\/.+\/acc\/mean@\d+/ /val-core\/.+\/mean@\d+/
            /val\/test_score(\/.+)?/ eval/all/avg_score validation/accuracy validation/reward
            test/env/all/reward/total test/env/all/correct val_correct/all/mean val_score/all/mean
            /(eval\/)?eval_.+_pass1/ /eval\/.+\/avg@\d+/ val_reward/mean val_reward/all/mean pass@1 pass_at_1 pass_at.1
            eval/pass@1 eval_pass@1 eval/pass_at_1 eval/accuracy eval_accuracy eval/score heldout"""
        ),
        words=(
            Words(
                (HELD_OUT, REWARD | _any("acc accuracy correct solved solve success pass pass1 avg")),
                NEVER
                | LENGTH
                | _any("loss entropy kl token tokens truncated zero tests cases case format advantage clip clipfrac"),
            ),
        ),
        panel="pass@1",
    ),
    "heldout_error": Metric(
        "score", "standard error of the held-out score", record="select_error", aliases=("heldout_error",)
    ),
    "equal_groups": Metric(
        "share",
        "share of the groups whose completions all earned the same",
        aliases=_names("frac_reward_zero_std zero_variance_group_frac zero_var_group_frac"),
        words=(Words((_any("zero equal"), _any("std variance var group groups advantage"), SHARE), HELD_OUT),),
        healthy=Healthy(None, 0.63, "no step of the 3 sound TRL runs of benchmarks/diagnose has more"),
    ),
    "all_right": Metric(
        "share",
        "share of the groups that are all right",
        record="groups.all_right",
        aliases=_names(r"all_right env/all/by_group/frac_all_good /(.+\/)?solved?_all(\/mean)?/"),
        panel="Verdicts",
    ),
    "all_wrong": Metric(
        "share",
        "share of the groups that are all wrong",
        record="groups.all_wrong",
        aliases=_names(r"all_wrong env/all/by_group/frac_all_bad /(.+\/)?solved?_none(\/mean)?/"),
        panel="Verdicts",
    ),
    "clip_low": Metric(
        "share",
        "share of tokens clipped at the lower side",
        record="clip_fraction_low",
        aliases=_names("clip_ratio/low_mean actor/ppo_ratio_low_clipfrac"),
        panel="Clipped tokens",
        healthy=Healthy(None, 0.14, "no step of the 14 sound runs of benchmarks/diagnose has more"),
    ),
    "clip_high": Metric(
        "share",
        "share of tokens clipped at the upper side",
        record="clip_fraction_high",
        aliases=_names("clip_ratio/high_mean actor/ppo_ratio_high_clipfrac"),
        panel="Clipped tokens",
        healthy=Healthy(None, 0.09, "no step of the 14 sound runs of benchmarks/diagnose has more"),
    ),
    "clip": Metric(
        "share",
        "share of tokens clipped at either side",
        record="clip_fraction",
        aliases=_names(
            r"""clip_ratio/region_mean actor/pg_clipfrac clip_ratio policy/clipfrac_avg policy/ppo_clip_ratio
            ppo_clip_ratio pg_clipfrac actor/ppo_ratio_clipfrac /(ppo|grpo)_actor\/(update\/)?clip_ratio\/avg/"""
        ),
        words=(
            Words(
                (_any("clip clipped clipfrac"), SHARE | _any("clipfrac")),
                NEVER
                | OTHER_NETWORK
                | HELD_OUT
                | COMPLETION
                | LENGTH
                | REWARD
                | _any("grad gradient eps dual lower upper low high tis importance c"),
            ),
        ),
        panel="Clipped tokens",
        healthy=Healthy(None, 0.02, "no step of the 3 sound TRL runs of benchmarks/diagnose has more"),
    ),
    "length": Metric(
        "tokens",
        "mean completion, tokens",
        record="length",
        aliases=_names(
            r"""completions/mean_length response_length/mean completion_length response_length response_len/mean
            response_lengths policy/response_length generate/avg_num_tokens avg_num_tokens mean_gen_tokens_per_sample
            mean_generation_length val/sequence_lengths env/all/ac_tokens_per_turn gen_len
            /(ppo|grpo)_actor\/seq_len\/avg/"""
        ),
        words=(
            Words((COMPLETION, LENGTH), NO_LENGTH),
            Words((COMPLETION, _any("tokens"), _any("mean avg average per")), NO_LENGTH),
            Words((LENGTH,), NO_LENGTH),
        ),
        panel="Length",
    ),
    "truncated": Metric(
        "share",
        "share of the completions cut at the limit",
        record="truncated",
        aliases=_names(
            r"""completions/clipped_ratio response_length/clip_ratio truncated_ratio truncation_rate truncation
            is_truncated/mean /(ppo|grpo)_actor\/no_eos_ratios\/avg/"""
        ),
        words=(
            Words(
                (_any("truncated truncation trunc overlong"),),
                NEVER | HELD_OUT | REWARD | _any("importance sampling tis penalty length prompt"),
            ),
            Words((COMPLETION, _any("clip clipped cut"), SHARE), HELD_OUT | _any("token tokens importance prompt")),
        ),
        panel="Length",
        healthy=Healthy(None, 0.08, "no step of the 14 sound runs of benchmarks/diagnose has more"),
    ),
    "kl": Metric(
        "nats per token",
        "divergence from the reference policy, nats per token",
        record="kl_reference",
        aliases=_names(
            """kl actor/kl_loss actor/reward_kl_penalty kl_loss reference_kl policy/policy_kl critic/kl kl_divergence
            kl_mean mean_kl kl_penalty objective/kl"""
        ),
        words=(
            Words((KL, _any("ref reference base initial")), NO_KL),
            Words(
                (KL - _any("approxkl"),),
                NO_KL
                | HELD_OUT
                | _any("old approx ppo policy rollout sampler sample mismatch vllm sglang gen generation behave v1 v2"),
            ),
        ),
        sums=("objective/kl",),
        healthy=Healthy(None, 0.11, "no step of the 6 sound runs of benchmarks/diagnose that logged it has more"),
    ),
    "kl_old": Metric(
        "nats per token",
        "divergence from the policy of the last rollout, nats per token",
        record="kl_old",
        aliases=_names(
            r"""entrostat/kl actor/entrostat/kl actor/ppo_kl ppo_kl approx_kl approxkl actor/approxkl
            policy/approxkl_avg
            /(ppo|grpo)_actor\/(update\/)?approx_kl\/avg/"""
        ),
        words=(Words((KL, _any("old approx approxkl ppo policy")), NO_KL | _any("behave")),),
    ),
    "kl_sampler": Metric(
        "nats per token",
        "divergence of the trainer's log-probabilities from the sampler's, nats per token",
        record="kl_sampler",
        aliases=_names(
            """mismatch_kl/all/mean mismatch_kl optim/kl_sample_train_v1 optim/kl_sample_train_v2 gen_kl_error
            generation_kl_error vllm_kl rollout_corr/kl rollout_correction/kl rollout_correction/k3_kl"""
        ),
        words=(
            Words(
                (KL, _any("mismatch rollout sampler sample vllm sglang gen generation behave")),
                NO_KL - _any("error err"),
            ),
        ),
    ),
    "mismatch": Metric(
        "nats per token",
        "mean absolute difference of the trainer's and the sampler's log-probabilities (verl: of the probabilities)",
        record="mismatch.distance",
        aliases=_names(
            """sampling/sampling_logp_difference/mean train_rollout_logprob_abs_diff
            policy/rollout_train_logprobs_abs_diff_mean rollout_probs_diff_mean"""
        ),
        words=(Words((_any("logp logprob logprobs"), _any("diff difference")), STATISTICS | HELD_OUT),),
    ),
    "mismatch_k1": Metric(
        "nats per token",
        "mean of ln mu - ln pi_old over the tokens, the unbiased estimate of KL(mu, pi_old)",
        record="mismatch.k1",
    ),
    "mismatch_largest": Metric(
        "nats per token",
        "largest absolute difference of the trainer's and the sampler's log-probabilities",
        record="mismatch.largest",
        aliases=_names("sampling/sampling_logp_difference/max"),
    ),
    "mismatch_chi2": Metric(
        "none",
        "mean of (pi_old/mu)^2 over the tokens, minus 1",
        record="mismatch.chi2",
        aliases=_names("rollout_corr/chi2_token rollout_correction/chi2_token"),
    ),
    "mismatch_outside": Metric(
        "share",
        "share of the tokens with pi_old/mu outside .5 to 2",
        record="mismatch.outside",
    ),
    "mismatch_masked": Metric(
        "share",
        "share of the tokens that the correction removes",
        record="mismatch.masked",
    ),
    "mismatch_sample_size": Metric(
        "share",
        "effective sample size of the sequences' weights, as a share of the sequences",
        record="mismatch.sample_size",
    ),
    "perplexity_ratio": Metric(
        "none",
        "perplexity of the completions under the trainer by that under the sampler, mean over completions",
        record="mismatch.perplexity_ratio",
        aliases=_names("rollout_corr/ppl_ratio rollout_correction/ppl_ratio"),
    ),
    "staleness": Metric(
        "updates",
        "updates between sampling a batch and training on it",
        record="staleness",
        aliases=_names(
            """off_policy/lag_batches avg_trajectory_age max_off-policy max_off_policy max_off_policy_level async_level
            off_policy_level"""
        ),
        words=(Words((_any("staleness lag"),), NEVER),),
    ),
    "grad_norm": Metric(
        "none",
        "norm of the gradient before clipping",
        record="grad_norm",
        aliases=_names(
            """actor/grad_norm actor_grad_norm policy/raw_grad_norm raw_grad_norm policy/grad_norm optim/grad_norm"""
        ),
        words=(
            Words(
                (_any("grad gradient grads"), _any("norm")),
                (NEVER - _any("norm")) | OTHER_NETWORK | HELD_OUT | _any("clip clipped"),
            ),
        ),
        panel="What may announce a cliff",
    ),
    "learning_rate": Metric(
        "none",
        "learning rate",
        record="lr",
        aliases=_names("learning_rate actor/lr actor_lr policy/policy_lr optim/lr lr-pg_0 act_lr"),
        words=(
            Words((_any("lr"),), OTHER_NETWORK | KL | _any("ctl")),
            Words((_any("learning"), _any("rate")), OTHER_NETWORK),
        ),
    ),
    "loss": Metric(
        "none",
        "loss",
        record="loss",
        aliases=_names(
            r"""actor/pg_loss policy_loss pg_loss policy/policy_loss policy/final_loss loss/mean training_loss
            actor/total_loss loss/policy_avg act_loss actor_loss grpo_loss ppo_loss total_loss
            /(ppo|grpo)_actor\/(update\/)?(actor_)?loss\/avg/"""
        ),
    ),
    "entropy_target": Metric(
        "nats per token",
        "entropy that a controller was to hold, nats per token",
        aliases=_names("entropy_target target_entropy control/entropy_target entropy/target"),
    ),
    "repetition": Metric(
        "share",
        "share of the completions that repeat themselves",
        aliases=("repetition_frac",),
        words=(Words((_any("repetition repetitive"),), NEVER | HELD_OUT | REWARD | _any("penalty")),),
    ),
    "step_time": Metric(
        "seconds",
        "time of a step, seconds",
        aliases=_names(
            """step_time timing_s/step perf/step_time timing/step_total time/step_total time/total
            timing/train/total_step_time total_step_time step_seconds time/step timing/step"""
        ),
    ),
    "throughput": Metric(
        "per second",
        "tokens or completions per second",
        aliases=_names("perf/throughput throughput perf/actor_train_tok_per_s tokens_per_second tokens_per_sec"),
    ),
    **{
        f"flow_{region}": Metric("none", f"entropy flow of region {region}", record=f"regions.{region}.flow")
        for region in ("E1", "E2", "E3", "E4")
    },
}


@dataclass(frozen=True, slots=True)
class Field:
    """Fields of a line that are explained together.

    holds: what each may hold. text: what they are. healthy, warning, seen: how sound runs look, what to watch for, and
    what a study showed, with its numbers. was: the field's name in folders of earlier versions.
    """

    holds: Mapping[str, Fault]
    text: str
    healthy: str = ""
    warning: str = ""
    seen: str = ""
    was: str | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is said elsewhere about the same fields."""
        return tuple(
            metric for metric in METRICS.values() if metric.record and metric.record.partition(".")[0] in self.holds
        )


STEP_FIELDS = (
    Field(
        dict.fromkeys(("reward", "reward_std"), MEASURED),
        "Mean reward of the graded completions, and its standard deviation where a host logs it.",
        healthy="climbs, then levels off.",
        warning="a fall over several batches; stuck at either end of its range, where no group teaches.",
    ),
    Field(
        {"groups": SHARES},
        (
            "Shares of the prompts: `mixed`, which some completions pass and others fail, the ones that "
            "group-relative advantages learn from; `all_right`, which all pass; `all_wrong`, which none does."
        ),
        warning=(
            "`mixed` below a half: most of the batch teaches nothing. All right: take harder tasks. All wrong: "
            "easier ones, or look at the grader."
        ),
        seen=(
            "a mean of .77 to .90 in sound runs, with single steps of sound on-policy runs down to .13. AUC of few "
            "mixed groups .72 [.62, .81], matched .66 [.54, .78]."
        ),
    ),
    Field(
        {"entropy": MEASURED},
        "Mean H over the training tokens, in nats per token.",
        warning="near 0: little that is new is sampled. A steep rise: the distributions become flat.",
        seen=(
            "from .28 down to .09 to .14 in sound runs with four passes and to .05 to .08 in on-policy ones, so a "
            "low level is no damage by itself. AUC of a low level .68 [.54, .82], matched .61 [.46, .77]."
        ),
    ),
    Field(
        dict.fromkeys(("flow_up", "flow_down"), MEASURED),
        (
            "Mean flow of the expanding and of the contracting tokens, per token: of the loss as it is trained, "
            "with the aggregation's weight of each token, and in the embedded engine with the entropy bonus, the KL "
            "to a reference and KL-Cov's term; TRL and verl leave the bonus out. Runs recorded before had the "
            "objective alone, each token counted once."
        ),
        seen=(
            "in sound runs the contracting side is the larger one: `flow_up` is .40 to .60 of the size of "
            "`flow_down` (median of a run, sums over four steps). A `flow_up` as large as `flow_down` is the side "
            "on which falls lie: AUC of the expanding share .77 [.66, .86]; matched .59 [.42, .75], so that time "
            "explains much of it. Single sound runs reach 1.2."
        ),
    ),
    Field(
        dict.fromkeys(("share_up", "share_down"), MEASURED),
        "Share of tokens that expand and that contract; the rest is clipped away or moves nothing.",
    ),
    Field(
        dict.fromkeys(("flow_rms", "flow_lowest", "flow_highest"), MEASURED),
        "Root mean square and extremes of the flow of single tokens.",
        seen=(
            "AUC of the root mean square .37 [.30, .46], of the highest .64 [.54, .72], of the lowest .43 [.34, "
            ".53]; matched none is above chance."
        ),
    ),
    Field(
        {"regions": or_null(named(named(MEASURED)))},
        "Share, clip fraction and flow of each of [E1 to E4](concepts.md#regions).",
        seen=(
            "E1 and E3 hold .72 to .94 of the tokens in sound runs. A large share of E4 announces nothing: AUC .35 "
            "[.27, .45], matched .50 [.34, .67]."
        ),
    ),
    Field(
        dict.fromkeys(("clip_fraction_low", "clip_fraction_high", "clip_fraction"), MEASURED),
        "Share of tokens whose gradient the rule removed, by side.",
        warning=(
            "0 with one optimizer step per batch: clipping is inert. Above .2 at one side: the updates are too "
            "large or the batch is used too often."
        ),
        seen=(
            ".042 [.041, .043] and .009 [.008, .011] under GRPO with eight passes (n = 5, t-intervals, "
            "[strategies](../studies/entropy-strategies/README.md))."
        ),
    ),
    Field(
        {"ratio_outside": MEASURED},
        "Share of tokens with a ratio outside .8 to 1.2.",
        warning="climbs: the policy has left the one that sampled the batch.",
        seen=(
            "with four passes a largest value of .04 to .15 in sound runs and of .12 to .72 in those that fell. AUC "
            "of the largest of four steps .73 [.60, .86], matched .61 [.43, .79]."
        ),
    ),
    Field(
        {"log_ratio_min_punished": MEASURED},
        "Lowest ln(π/π_old) of a token with a negative advantage. One token sets it.",
        seen=(
            "with four passes sound runs reach -10.9 to -16.3, those that fell -13.8 to -17.8. AUC .68 [.53, .81], "
            "matched .55 [.36, .71]."
        ),
    ),
    Field(
        {"kl_old": MEASURED},
        (
            "Estimate of KL(π_old, π), π_old the policy of the last rollout: the mean of r - 1 - ln r, in nats per "
            "token; 0 at the first step on a batch."
        ),
        was="kl",
        warning="climbs from batch to batch.",
        seen=(
            "with four passes a largest value of .06 to .31 in sound runs and of .18 to 3.5 in those that fell. AUC "
            "of the largest of four steps .89 among runs with stale updates, .75 [.64, .87] over all causes, "
            "matched .63 [.47, .78]."
        ),
    ),
    Field(
        dict.fromkeys(("kl_reference", "kl_coefficient", "ewc"), MEASURED),
        (
            "Under `update.kl`: KL(π, reference) in nats per token, exact over the vocabulary, and the factor that "
            "it was weighted with; or the Fisher-weighted penalty. In TRL and verl `kl_reference` is what the "
            "trainer logs of its own KL term."
        ),
    ),
    Field(
        {"kl_sampler": MEASURED},
        (
            "Estimate of KL(μ, π_old), μ the policy that sampled and π_old the trainer's scoring of its tokens, in "
            "nats per token: `k3` of `mismatch`; also where verl logs it."
        ),
        warning="climbs: sampler and trainer drift apart.",
    ),
    Field(
        {"mismatch": SHARES},
        (
            "Sampler μ against π_old of the trainer, w = π_old/μ: `k1` and `k3`, the means of -ln w and of w - 1 - "
            "ln w, in nats per token; `distance` and `largest`, mean and largest abs(ln w); `chi2`, the mean of w² "
            "less 1; `outside`, the share of tokens with w outside .5 to 2; `masked`, the share that a correction "
            "removes; `sample_size`, the effective sample size of the completions' weights Π w as a share of the "
            "completions; `perplexity_ratio`, that under π_old by that under μ, mean over completions. See "
            "[staleness and mismatch](mismatch.md)."
        ),
        healthy=(
            "with one number format `k3`, `outside` and `masked` near 0, `sample_size` and `perplexity_ratio` near 1."
        ),
        warning=(
            "`sample_size` near 1 divided by the completions: one completion carries the batch. `masked` climbs: "
            "little is learned."
        ),
    ),
    Field(
        {"staleness": or_null(COUNT)},
        "Optimizer steps since the batch was sampled; 0 at the first step on a batch. Engine and TRL.",
    ),
    Field(
        {
            "predicted_change": MEASURED,
            "predicted_error": MEASURED,
            "measured_change": MEASURED,
            "flow_by_rule": SHARES,
        },
        (
            "Where `control.measure_change` is on: the predicted change of the entropy of the step's own tokens "
            "with its standard error, and the measured one, in nats; and the net flow by T, without C, and by the "
            "surprisal rule. See [polarity](polarity.md)."
        ),
    ),
    Field(
        {"exact": SHARES},
        (
            "Under `engine: tabular`, of the training tasks after the step, by enumeration: `token_entropy` in nats "
            "per token, `entropy` of a whole completion in nats, and `success`, pass@1. See "
            "[the tabular policy](tabular.md)."
        ),
    ),
    Field(
        {"first_order_change": MEASURED},
        "Where `control.first_order` is on: the gradient of the mean entropy times the step of the weights, in nats.",
        healthy="agrees with `measured_change`; where it does not, the step is too large for a first order.",
        seen=(
            "a correlation with it of .97 [.95, 1.00] on-policy and .95 [.87, 1.00] over four passes (n = 5, "
            "t-intervals, [prediction](../studies/polarity-prediction/README.md))."
        ),
    ),
    Field(
        {"bounds": BOUNDS},
        "Slopes and intercepts of the thresholds in force.",
        healthy="as the strategy says.",
    ),
    Field(
        {"entropy_coef": MEASURED},
        "The coefficient of the entropy bonus in force.",
    ),
    Field(
        {"phase": or_null(TEXT)},
        "The strategy's phase by name.",
    ),
    Field(
        {"loss": MEASURED},
        "The objective's value.",
        healthy="no meaning as a level: the baseline moves with the policy.",
        warning="NaN.",
    ),
    Field(
        {"grad_norm": MEASURED},
        "Norm of the gradient before it is clipped.",
        seen=(
            "a largest value of 3.3 to 7.4 times the median in sound runs, of 1.9 to 12.6 times in those that fell. "
            "AUC of its growth .72 [.65, .78], matched .52 [.42, .64]; of its growth from one pass to the next .52 "
            "[.45, .60]."
        ),
    ),
    Field(
        {"lr": MEASURED},
        "Learning rate of the step.",
        healthy="as scheduled.",
    ),
    Field(
        {"length": MEASURED},
        "Mean tokens per completion.",
        healthy="steady.",
        warning="climbs to the limit.",
    ),
    Field(
        {"truncated": MEASURED},
        "Share of completions that hit the limit.",
        healthy="near 0.",
        warning="climbs: completions no longer come to an end.",
        seen="up to .20 in sound runs, up to 1 in those that fell. AUC .57 [.51, .65], matched .54 [.49, .61].",
    ),
    Field(
        {"verdicts": COUNTS},
        "Completions by [outcome](grading.md#outcomes).",
        healthy="`passed` grows at the expense of `wrong`.",
        warning="`no code`, `syntax error` or `timeout` grow.",
    ),
    Field(
        dict.fromkeys(("tokens", "seconds"), named(NUMBER)),
        (
            "Tokens sampled and learned from; time by phase. `grade` is the wait for verdicts once the last token "
            "of a batch is drawn: completions that ended earlier are graded meanwhile."
        ),
    ),
    Field(
        {"step": COUNT, "batch": or_null(COUNT), "epoch": MEASURED, "minibatch": COUNT},
        "Where the line belongs.",
    ),
)

EVALUATION_FIELDS = (
    Field(
        {"split": TEXT},
        "`select` chooses the peak and decides when to stop; `report` is read and decides nothing.",
    ),
    Field(
        {"at": COUNT, "tasks": or_null(PART)},
        (
            "`at` is the step at which the evaluation was made, where that was later than the step that was "
            "evaluated; `tasks` the first and the last task, where it is of a part of the split."
        ),
    ),
    Field(
        {"results": results},
        "For each task n samples, c of them right.",
    ),
    Field(
        {"pass_at": named(MEASURED)},
        "Unbiased pass@k, mean over the tasks.",
        healthy="pass@1 climbs.",
        warning="pass@1 climbs while pass@k falls: the policy narrows onto what it already could.",
    ),
    Field(
        dict.fromkeys(("distinct", "hard"), MEASURED),
        "Mean number of distinct right solutions per task; pass@1 over the tasks of the highest level.",
        warning="falls while pass@1 climbs: the policy narrows.",
    ),
    Field(
        {
            "step": COUNT,
            "verdicts": COUNTS,
            **dict.fromkeys(("entropy", "length", "truncated", "tokens", "seconds"), MEASURED),
        },
        "As in a step line, of the completions of the split; `step` is the step that was evaluated.",
    ),
)


def _line(fields: tuple[Field, ...], *required: str) -> Line:
    return Line({name: fault for field in fields for name, fault in field.holds.items()}, required)


STEP = _line(STEP_FIELDS, "step")
EVALUATION = _line(EVALUATION_FIELDS, "step", "split", "results")
DECISION = Line({"step": COUNT, "kind": TEXT, "cause": TEXT, "to_step": COUNT}, ("step", "kind", "cause"))
SAMPLE = Line(
    {
        "step": COUNT,
        "split": TEXT,
        "task": TEXT,
        "prompt": TEXT,
        "completion": TEXT,
        "outcome": TEXT,
        "advantage": MEASURED,
    },
    ("step", "split", "task", "prompt", "completion", "outcome"),
)
HEADER = Line(
    {
        "recipe": holding(lambda value: isinstance(value, dict), "a recipe by its keys"),
        "seed": holding(lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
        "hashes": named(TEXT),
        "versions": named(TEXT),
    },
    ("recipe", "seed", "hashes", "versions"),
)


RENAMED = {field.was: name for field in STEP_FIELDS if field.was for name in field.holds}


def under_new_names(line: Record) -> dict[str, Any]:
    """A step line, which may be an old one, with today's names of its fields."""
    return {name if (new := RENAMED.get(name)) is None or new in line else new: own for name, own in line.items()}
