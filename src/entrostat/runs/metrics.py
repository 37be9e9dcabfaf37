"""What is measured in a run: each metric's name, unit and meaning, and its names in the logs of hosts.

This is the one list of metrics; log readers take their column names from it.

Aliases are names as hosts print them, in lower case and with `_` for blanks; `train/`, `rollout/` and the like before a
name are ignored by the reader. `/.../` is a regular expression that the whole name has to match. Where a log has
several aliases of one metric, the first in the list is read. Sources: TRL 1.16, verl 0.9, OpenRLHF 0.11, slime,
prime-rl, SkyRL, NeMo RL, AReaL, ROLL, ms-swift, LLaMA-Factory, Unsloth and tinker-cookbook, as of August 2026.

Words match names that are not listed: the parts of a name, as in `avg`, `response`, `tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal[
    "nats per token",
    "nats per completion",
    "share",
    "reward",
    "score",
    "tokens",
    "seconds",
    "updates",
    "per second",
    "none",
]


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


def _information(theirs: str, ours: str) -> tuple[str, ...]:
    """What RAGEN and our trainers in other hosts log of prompts and completions."""
    kinds = ("collapse_first_turn_sample", "collapse_trajectory_sample", "collapse_turn_sample", "collapse")
    return (f"entrostat/information/{ours}", *(f"{kind}/{theirs}" for kind in kinds))


HELD_OUT = _any("eval evaluation evals val validation heldout held test dev")
SPREAD = _any("std stdev stddev sd var variance stderr se error err")
STATISTICS = SPREAD | _any("min max median p10 p25 p50 p75 p90 p95 p99 count num sum quantile norm gap best ema")
NO_MEASUREMENT = _any("coef coefficient coeff weight beta target bonus limit budget time seconds sec config threshold")
OTHER_NETWORK = _any("critic value vf draft")
NEVER = STATISTICS | NO_MEASUREMENT  # parts of names of numbers that are not the mean of a measurement
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
    | _any("non partial some mixed")
)
NO_LENGTH = (
    NEVER
    | HELD_OUT
    | SHARE
    | REWARD
    | _any("prompt prompts input context clip clipped truncated terminated correct incorrect total")
    | _any("second throughput penalty queue buffer cache batch padded window")
)
NO_KL = NEVER | HELD_OUT | REWARD | SHARE | _any("cov ctl lr sqrt")

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
        words=(
            Words(
                (_any("entropy entropies"),),
                NEVER | HELD_OUT | _any("delta change drop conditional reasoning marginal turns"),
            ),
        ),
        sums=("objective/entropy",),
        panel="Entropy",
    ),
    "reward": Metric(
        "reward",
        "mean training reward",
        record="reward",
        aliases=_names(
            r"""critic/score/mean critic/rewards/mean raw_reward reward/avg_raw_reward reward_mean reward/mean
            /agg\/all\/(.+\/)?reward\/mean/ /agg\/effective\/(.+\/)?reward\/mean/
            reward/all/mean mean_reward env/all/reward/total reward/total avg_total_reward avg_reward
            avg_filtered_reward /(ppo|grpo)_actor\/task_reward\/avg/ score/mean objective/verifiable_reward
            objective/scores scores rewards actor/rewards rollout_scores/mean ep_rew_mean"""
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
            eval/pass@1 eval_pass@1 eval/pass_at_1 /(val|eval|test)\/.+\/pass@1/ eval/accuracy eval_accuracy eval/score
            heldout"""
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
        aliases=_names(
            r"""all_right env/all/by_group/frac_all_good /(.+\/)?solved?_all(\/(mean|all))?/
            baseline_reward/pct_1 /batch\/.+\/fractions\/too_easy/"""
        ),
        panel="Verdicts",
    ),
    "all_wrong": Metric(
        "share",
        "share of the groups that are all wrong",
        record="groups.all_wrong",
        aliases=_names(
            r"""all_wrong env/all/by_group/frac_all_bad /(.+\/)?solved?_none(\/(mean|all))?/
            baseline_reward/pct_0 /batch\/.+\/fractions\/too_hard/"""
        ),
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
            generation_length response_lengths policy/response_length generate/avg_num_tokens avg_num_tokens
            mean_gen_tokens_per_sample mean_generation_length val/sequence_lengths env/all/ac_tokens_per_turn gen_len
            episode/response_tokens /agg\/all\/num_output_tokens\/mean/ /(.+\/)?num_output_tokens\/mean/
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
            is_truncated/mean /agg\/all\/(.+\/)?is_truncated\/mean/ /(ppo|grpo)_actor\/no_eos_ratios\/avg/"""
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
            kl_mean mean_kl kl_penalty objective/kl2_avg objective/kl"""
        ),
        words=(
            Words((KL, _any("ref reference base initial init")), NO_KL),
            Words(
                (KL - _any("approxkl"),),
                NO_KL
                | HELD_OUT
                | _any(
                    "old approx ppo policy rollout sampler sample mismatch mis vllm sglang gen generation behave v1 v2"
                ),
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
                (KL, _any("mismatch mis rollout sampler sample vllm sglang gen generation behave")),
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
            off_policy_level off_policy/trajectory_staleness/mean async/staleness_mean off_policy/mean"""
        ),
        words=(Words((_any("staleness lag"),), NEVER | SHARE | _any("worst")),),
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
        record="entropy_target",
        aliases=_names("target_entropy control/entropy_target entropy/target"),
    ),
    "repetition": Metric(
        "share",
        "share of the completions that repeat themselves",
        aliases=("repetition_frac",),
        words=(Words((_any("repetition repetitive"),), NEVER | HELD_OUT | REWARD | _any("penalty")),),
    ),
    "information": Metric(
        "nats per token",
        "mutual information of prompts and completions, by mean log-probabilities per token",
        record="information.per_token",
        aliases=_information("mi_estimate", "per_token"),
    ),
    "information_nats": Metric(
        "nats per completion",
        "mutual information of prompts and completions",
        record="information.nats",
        aliases=_information("mi_seq_estimate", "nats"),
    ),
    "conditional_entropy": Metric(
        "nats per token",
        "entropy of the completions within a prompt: mean of -ln p over tokens, then over completions",
        record="information.conditional_entropy",
        aliases=_information("conditional_entropy_est", "conditional_entropy"),
    ),
    "retrieval": Metric(
        "share",
        "share of the completions that their own prompt makes more likely than any other prompt of the batch does",
        record="information.retrieval",
        aliases=_information("retrieval_accuracy", "retrieval"),
    ),
    "step_time": Metric(
        "seconds",
        "time of a step, seconds",
        aliases=_names(
            """step_time timing_s/step perf/step_time perf/time_per_step timing/step_total time/step_total time/total
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
