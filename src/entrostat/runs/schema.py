"""What a line of the run folder may hold: the fields of steps, evaluations and the other kinds of lines.

What is written and read is checked by STEP, EVALUATION and the other kinds; docs/metrics.md is made from the fields
and their metrics (`entrostat.runs.metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from entrostat.runs.metrics import METRICS, Metric


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
            "mixed groups .72 [.60, .81], matched .66 [.52, .77]."
        ),
    ),
    Field(
        {"entropy": MEASURED},
        "Mean H over the training tokens, in nats per token.",
        warning="near 0: little that is new is sampled. A steep rise: the distributions become flat.",
        seen=(
            "from .28 down to .09 to .14 in sound runs with four passes and to .05 to .08 in on-policy ones, so a "
            "low level by itself does no harm. AUC of a low level .68 [.52, .80], matched .61 [.45, .73]."
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
            "on which falls lie: AUC of the expanding share .77 [.62, .86]; matched .59 [.38, .74], so that time "
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
            "AUC of the root mean square .37 [.28, .46], of the highest .64 [.53, .72], of the lowest .43 [.33, "
            ".52]; matched none is above chance."
        ),
    ),
    Field(
        {"regions": or_null(named(named(MEASURED)))},
        "Share, clip fraction and flow of each of [E1 to E4](concepts.md#regions).",
        seen=(
            "E1 and E3 hold .72 to .94 of the tokens in sound runs. A large share of E4 announces nothing: AUC .35 "
            "[.27, .48], matched .50 [.33, .68]."
        ),
    ),
    Field(
        {"information": SHARES},
        (
            "Where `control.information` is on, at the first step of a batch: whether completions depend on their "
            "prompts. `nats`, the mutual information of prompts and completions, from 0 to `most` = ln of the number "
            "of prompts; `per_token`, the same of mean log-probabilities per token; `conditional_entropy`, -ln p of "
            "the completions given their prompts, in nats per token; `retrieval`, the share of completions that their "
            "own prompt makes likeliest, `chance` if they do not depend on it. See [agents](agents.md)."
        ),
        warning="`per_token` falls while `conditional_entropy` stays: a template collapse, which no entropy shows.",
    ),
    Field(
        {"turns_per_completion": MEASURED, "turns": or_null(named(named(MEASURED)))},
        (
            "Of completions with a tool's or an environment's tokens between the model's turns: their mean number of "
            "turns, and by turn the share of completions that have it, its mean tokens, and entropy, surprisal, "
            "polarity and flow, means over its tokens; `8` is the eighth and all later turns. TRL and verl. See "
            "[agents](agents.md)."
        ),
        warning="`turns_per_completion` falls to 1: the tools are no longer called.",
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
            "of the largest of four steps .73 [.57, .85], matched .61 [.41, .80]."
        ),
    ),
    Field(
        {"log_ratio_min_punished": MEASURED},
        "Lowest ln(π/π_old) of a token with a negative advantage. One token sets it.",
        seen=(
            "with four passes sound runs reach -10.9 to -16.3, those that fell -13.8 to -17.8. AUC .68 [.51, .81], "
            "matched .55 [.37, .74]."
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
            "of the largest of four steps .89 among runs with stale updates, .75 [.61, .86] over all causes, "
            "matched .63 [.43, .79]."
        ),
    ),
    Field(
        dict.fromkeys(("kl_reference", "kl_coefficient", "ewc"), MEASURED),
        (
            "Under `update.kl`: KL(π, reference) in nats per token, by `update.kl.estimate`, and the factor that "
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
            "per token, `entropy` of a whole completion in nats, `success`, pass@1, and `kl_sampler`, the KL of the "
            "policy that sampled the batch to the current one in nats per token. See [the tabular policy](tabular.md)."
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
        {"entropy_target": MEASURED},
        "The entropy that the control steers to, nats per token, where it steers to one.",
        healthy="`entropy` is near it.",
        warning="`entropy` stays on one side of it: the control is at its limit, or too few tokens have an advantage.",
    ),
    Field(
        {"entropy_push": MEASURED},
        "The control's action in force, from 1, all it can do to raise the entropy, to -1, all it can do to lower it.",
        warning="1 or -1 for long: it can do no more.",
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
            "AUC of its growth .72 [.65, .78], matched .52 [.41, .62]; of its growth from one pass to the next .52 "
            "[.45, .68]."
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
        seen="up to .20 in sound runs, up to 1 in those that fell. AUC .57 [.51, .70], matched .54 [.49, .67].",
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
    Field(
        {"traces": COUNT},
        (
            "In a supervised step after a restart from traces: the banked completions that it learned from. Such a "
            "step samples nothing and has no reward; its loss is the mean of -ln pi over their tokens."
        ),
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
