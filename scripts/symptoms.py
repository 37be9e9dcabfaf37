"""A page per symptom of a run: what it is, how to be sure, and what to do in each trainer, with its evidence.

What to do is read off the remedies that `diagnose` gives; the rest is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrostat.diagnosis import remedies
from entrostat.diagnosis.hosts import HOSTS
from entrostat.runs.finding import Remedy


@dataclass(frozen=True)
class Symptom:
    """One page. findings: the kinds that `diagnose` reports; remedies: those of each, under a heading of its own."""

    title: str
    findings: tuple[str, ...]
    is_: str
    sure: tuple[str, ...]
    remedies: Mapping[str, tuple[Remedy, ...]]


SYMPTOMS: Mapping[str, Symptom] = {
    "entropy-falls": Symptom(
        "The entropy falls",
        ("entropy-collapse",),
        "The mean entropy per token sinks towards 0 while the run still has something to learn: samples of a group "
        "become equal, their advantages 0, and exploration stops. A fall alone is no failure: a policy that learns "
        "becomes surer.",
        (
            "The entropy is far below where it began, and keeps falling.",
            "Reward or held-out score no longer rise with it.",
            "More and more groups have equal rewards (`frac_reward_zero_std` in TRL).",
            "It is an entropy: a mean over completion tokens in nats, at the sampling temperature, and not a loss "
            "term with a sign or a coefficient. `diagnose` says so where the numbers cannot be one.",
        ),
        {"What to do": remedies.COLLAPSE, "If punished tokens make it fall": remedies.COLLAPSE_BY_PUNISHMENT},
    ),
    "entropy-explodes": Symptom(
        "The entropy explodes",
        ("entropy-explosion",),
        "The entropy climbs to several times its start, and the text dissolves: completions run to their limit, "
        "rewards fall. Exploring is not exploding: where reward or held-out score rise with the entropy, leave it.",
        (
            "The entropy has risen well beyond its noise, for more than a few steps.",
            "Reward, held-out score or the share of finished completions fall at the same time.",
            "There is an entropy bonus, a wide upper threshold, or a rate that climbs.",
        ),
        {"What to do": remedies.EXPLOSION},
    ),
    "rise-then-fall": Symptom(
        "pass@1 rose and fell",
        ("rise-then-fall", "divergence"),
        "The score climbs for tens of steps and then falls, often to nothing within a few. What the run had at its "
        "peak is lost unless a checkpoint was kept.",
        (
            "The fall is larger than the noise of the evaluation: with n completions a pass rate p has a standard "
            "error of sqrt(p (1 - p) / n), 4 points for p = .2 and n = 100.",
            "It is seen on tasks that are not trained on. A training reward also falls when the tasks become harder.",
            "Lengths, clip shares and the gradient's norm show when it began.",
        ),
        {"What to do": remedies.RISE_THEN_FALL, "If the training reward still rises": remedies.DIVERGENCE},
    ),
    "reward-flat": Symptom(
        "The reward stays flat",
        ("never-learned", "degenerate-groups", "gradient-fade", "plateau"),
        "The reward is where it began, or has stopped rising early. Either nothing reaches the weights, or the "
        "groups are all wrong, or all right.",
        (
            "The gradient's norm: exactly 0 means that no update is made.",
            "The share of groups with equal rewards: near 1 there is nothing to learn from.",
            "The grader passes a solution that is known to be right, in the very form in which the policy answers "
            "(`entrostat tasks check`, `entrostat audit`).",
        ),
        {
            "All groups wrong": remedies.ALL_WRONG,
            "All groups right": remedies.ALL_RIGHT,
            "No gradient": remedies.NO_GRADIENT,
            "Mixed groups, and still flat": remedies.NEVER_LEARNED,
        },
    ),
    "lengths": Symptom(
        "The lengths run away",
        ("truncation", "length-degeneration", "repetition"),
        "Completions grow to their limit and are cut, shrink to nothing, or repeat themselves. Shorter is not "
        "worse: fewer cut completions and a rising reward are progress.",
        (
            "The share of completions that reach the limit (`completions/clipped_ratio`, "
            "`response_length/clip_ratio`).",
            "Some samples, read: do they end, and do they say anything new at their end?",
            "Whether the reward pays for length, or a mean over each completion's own tokens makes long wrong ones "
            "cheap.",
        ),
        {
            "Cut completions": remedies.TRUNCATION,
            "Growing completions": remedies.LENGTH,
            "Repeated text": remedies.REPETITION,
        },
    ),
    "template": Symptom(
        "Completions ignore their prompts",
        ("template-collapse",),
        "Every prompt gets a completion of the same pattern. The entropy need not fall: completions of a prompt may "
        "differ as much as before, only they no longer differ between prompts. Agents of several turns are where it "
        "was described first.",
        (
            "The mutual information of prompts and completions falls while the conditional entropy stays (see "
            "[agents](../agents.md)).",
            "Completions of different prompts, read side by side: exchange two, and nothing seems wrong.",
            "The score is level or falls: where it rises, a pattern may be all that the task needs.",
        ),
        {"What to do": remedies.TEMPLATE, "If the entropy is gone too": remedies.COLLAPSE},
    ),
    "not-finite": Symptom(
        "NaN, or a gradient that explodes",
        ("not-finite", "gradient-explosion"),
        "A loss or a gradient is NaN or infinite, or the gradient's norm is many times what it was. One NaN in a "
        "logged mean, such as that of an empty group, is no NaN of the weights.",
        (
            "The NaN stays: in the loss and in the rows that follow.",
            "The gradient's norm before it is bounded, not after.",
            "Ratios far from 1 in the same step point to stale or mismatched completions.",
        ),
        {"NaN": remedies.NOT_FINITE, "A gradient that explodes": remedies.GRADIENT_EXPLOSION},
    ),
    "mismatch": Symptom(
        "Sampler and trainer differ",
        ("sampler-mismatch", "staleness"),
        "The engine that samples (vLLM, SGLang) and the one that learns give the same tokens different "
        "probabilities, because of their kernels, number formats, routing of experts, or because the sampler's "
        "weights are older.",
        (
            "The divergence from the sampler (`sampling/sampling_logp_difference/mean` in TRL, `mismatch_kl` in "
            "prime-rl, `rollout_corr/kl` in verl) right after a synchronisation: what is left then is numerical.",
            "The effective sample size of the ratios, and their largest.",
            "`entrostat score MODEL FILE` measures it on completions with the sampler's log-probabilities.",
        ),
        {"A mismatch": remedies.MISMATCH, "Old completions": remedies.STALE},
    ),
}


def symptom_page(symptom: Symptom) -> str:
    """A page in Markdown."""
    kinds = ", ".join(f"`{kind}`" for kind in symptom.findings)
    parts = [
        f"# {symptom.title}",
        symptom.is_,
        f"`entrostat diagnose LOG` reports it as {kinds}.",
        "## How to be sure",
        "\n".join(f"* {line}" for line in symptom.sure),
    ]
    for heading, listed in symptom.remedies.items():
        parts += [f"## {heading}", *(_remedy(number, remedy) for number, remedy in enumerate(listed, 1))]
    parts.append(
        "Intervals are 95 %. Studies of ours are on a policy of 0.8 M parameters: they show that a thing can help, "
        "not that it helps at another size."
    )
    return "\n\n".join(parts) + "\n"


def _remedy(number: int, remedy: Remedy) -> str:
    shown = f"Measured: {remedy.evidence}. " if remedy.evidence else "Not measured by us. "
    parts = [f"**{number}. {remedy.action[0].upper()}{remedy.action[1:]}.** {_sentence(remedy.reason)}"]
    parts.append(f"{shown}Source: {remedy.source}.")
    if remedy.settings:
        rows = [f"| {HOSTS.get(host, host)} | {_settings(keys)} |" for host, keys in remedy.settings.items()]
        parts.append("\n".join(["| trainer | setting |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _settings(keys: Mapping[str, Any], prefix: str = "") -> str:
    """Keys with their values, nested ones with dots."""
    found = []
    for key, value in keys.items():
        if isinstance(value, Mapping) and "name" not in value:
            found.append(_settings(value, f"{prefix}{key}."))
        else:
            found.append(f"`{prefix}{key}`: {_value(value)}")
    return ", ".join(found)


def _value(value: Any) -> str:
    if value == remedies.HALF_RATE:
        return "half of what it is"
    return f"`{value}`".replace("|", "\\|")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
