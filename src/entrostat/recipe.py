"""The typed configuration of a run, from YAML. Each field's explanation is the string under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from entrostat.campaign import EarlyStop, Naive, StopRule
from entrostat.control.controller import EntropyController
from entrostat.control.strategies import (
    Constant,
    DecreaseIncreaseDecrease,
    IncreaseThenDecrease,
    OscillatoryDecay,
    Strategy,
)
from entrostat.objective.clipping import ClipRule, LinearThreshold


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the field, the value and the remedy, one line a fault."""


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, and nothing changes after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class PolicyRecipe(Section):
    """Which model is trained."""

    path: str = "embedded"
    """`embedded` (the package's own), a folder in Hugging Face format, or a hub id."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights and activations; statistics and losses are float32 in either."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda` or `cuda:N`."""


class TasksRecipe(Section):
    """Which tasks are trained on, choose the peak (select) and are reported (report); the three never overlap."""

    family: Literal["listcraft"] = "listcraft"
    """Where the tasks come from."""
    levels: tuple[int, ...] = (1, 2, 3)
    """Difficulty levels, in equal shares."""
    train: Positive = 48
    """Distinct training tasks."""
    select: Positive = 64
    """Tasks that choose the peak and decide when to stop."""
    report: Positive = 64
    """Tasks that the results are measured on; no decision reads them."""
    seed: int = 0
    """Which tasks are drawn; runs that are compared share it."""


class RolloutRecipe(Section):
    """How completions are sampled for training."""

    prompts: Positive = 16
    """Prompts a rollout batch."""
    samples: Positive = 8
    """Completions a prompt (the group)."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature; the policy that is trained is the one that samples, at this temperature."""
    max_new_tokens: Positive = 48
    """Longest completion in tokens; longer ones are cut and counted as truncated."""
    batch_rows: Positive = 512
    """Completions sampled at a time."""


class UpdateRecipe(Section):
    """How the policy learns from a rollout batch."""

    advantage: Literal["reinforce", "grpo", "dr-grpo"] = "grpo"
    """`reinforce`: reward minus `baseline`; `grpo`: group mean and standard deviation; `dr-grpo`: group mean alone."""
    baseline: Literal["none", "batch-mean", "ema", "leave-one-out"] = "none"
    """What `reinforce` subtracts; the group-relative advantages have their own."""
    failure_reward: Literal[0, -1] = 0
    """Reward of a completion that fails: 0 (rewards 0/1) or -1 (rewards +-1)."""
    objective: Literal["clip", "reinforce"] = "clip"
    """`clip`: the clipped surrogate; `reinforce`: ratio times advantage, never clipped."""
    aggregate: Literal["token-mean", "sequence-mean", "constant"] = "token-mean"
    """How per-token losses become one number; `constant` divides by batch x max_new_tokens (Dr.GRPO)."""
    epochs: Positive = 2
    """Passes over a rollout batch."""
    minibatches: Positive = 1
    """Optimizer steps a pass."""
    microbatch_rows: Positive = 512
    """Completions a forward pass; gradients add up to the whole minibatch."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """AdamW's step size, after the warm-up."""
    warmup_steps: int = Field(default=3, ge=0)
    """Optimizer steps over which the learning rate rises linearly from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay rates of the first and second moments."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Largest gradient norm; null leaves the gradient as it is."""

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps that one rollout batch serves."""
        return self.epochs * self.minibatches


class ThresholdRecipe(Section):
    """A threshold linear in the sampled token's probability: eps(p) = slope p + intercept."""

    slope: float = 0.0
    """Change of the threshold from p = 0 to p = 1."""
    intercept: float = 0.2
    """The threshold at p = 0."""

    def build(self) -> LinearThreshold:
        """The threshold object."""
        return LinearThreshold(slope=self.slope, intercept=self.intercept)


class ConstantRecipe(Section):
    """The same bounds at every step."""

    name: Literal["constant"] = "constant"
    """The strategy's name."""
    upper: ThresholdRecipe = ThresholdRecipe()
    """Room above ratio 1."""
    lower: ThresholdRecipe = ThresholdRecipe()
    """Room below ratio 1."""

    def build(self) -> Strategy:
        """The strategy object."""
        return Constant(ClipRule(upper=self.upper.build(), lower=self.lower.build()))


class FlexibleRecipe(Section):
    """Thresholds that the published strategies share (arXiv 2602.09782, section on thresholds)."""

    upper: ThresholdRecipe = ThresholdRecipe(slope=-0.25, intercept=0.5)
    """The raised upper threshold, which lets entropy rise."""
    lower: ThresholdRecipe = ThresholdRecipe(slope=-0.13, intercept=0.3)
    """The widened lower threshold, which lets entropy fall."""
    eps_std: float = Field(default=0.2, gt=0, lt=1)
    """The standard threshold of both sides."""


class IncreaseThenDecreaseRecipe(FlexibleRecipe):
    """ID: entropy rises in the first phase and falls in the second."""

    name: Literal["id"]
    """The strategy's name."""
    split: float = Field(default=0.5, gt=0, lt=1)
    """Share of the steps that the first phase takes."""

    def build(self) -> Strategy:
        """The strategy object."""
        return IncreaseThenDecrease(
            upper=self.upper.build(), lower=self.lower.build(), eps_std=self.eps_std, split=self.split
        )


class DecreaseIncreaseDecreaseRecipe(FlexibleRecipe):
    """DID: entropy falls, recovers, and falls again."""

    name: Literal["did"]
    """The strategy's name."""
    split: float = Field(default=0.5, gt=0, lt=1)
    """Share of the steps that the first phase takes."""

    def build(self) -> Strategy:
        """The strategy object."""
        return DecreaseIncreaseDecrease(
            upper=self.upper.build(), lower=self.lower.build(), eps_std=self.eps_std, split=self.split
        )


class OscillatoryDecayRecipe(FlexibleRecipe):
    """OD: entropy oscillates under a falling ceiling."""

    name: Literal["od"]
    """The strategy's name."""
    h_init: float | None = Field(default=None, gt=0)
    """Entropy in nats that the ceiling starts from; null takes the first measured one."""
    h_min_ratio: float = Field(default=0.2, gt=0, lt=1)
    """The floor, as a share of h_init."""

    def build(self) -> Strategy:
        """The strategy object."""
        return OscillatoryDecay(
            upper=self.upper.build(),
            lower=self.lower.build(),
            eps_std=self.eps_std,
            h_init=self.h_init,
            h_min_ratio=self.h_min_ratio,
        )


StrategyRecipe = Annotated[
    ConstantRecipe | IncreaseThenDecreaseRecipe | DecreaseIncreaseDecreaseRecipe | OscillatoryDecayRecipe,
    Field(discriminator="name"),
]


class ControlRecipe(Section):
    """How entropy is steered."""

    strategy: StrategyRecipe = ConstantRecipe()
    """Where the clip bounds stand at each step."""
    regions: Literal["surprisal", "probability", "exact"] = "surprisal"
    """Convention by which tokens are told into the regions E1-E4 in the records."""

    @model_validator(mode="after")
    def _strategy_has_a_band(self) -> ControlRecipe:
        try:
            self.strategy.build()
        except ValueError as error:
            raise ValueError(f"strategy: {error}") from error
        return self


class EvaluationRecipe(Section):
    """How the policy is measured, on fixed seeds (common random numbers)."""

    every: Positive = 1
    """Optimizer steps from one evaluation to the next."""
    samples: Positive = 4
    """Completions a task."""
    pass_at: tuple[Positive, ...] = (1, 4)
    """The k of pass@k."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""

    @model_validator(mode="after")
    def _k_within_samples(self) -> EvaluationRecipe:
        if max(self.pass_at) > self.samples:
            raise ValueError(f"pass_at: got {max(self.pass_at)} with samples {self.samples}; pass@k needs k <= samples")
        return self


class CampaignRecipe(Section):
    """How long a campaign is, and what ends it."""

    steps: Positive = 60
    """Optimizer steps, at the most."""
    stop: Literal["naive", "es-online"] = "naive"
    """`naive`: run to the end and hand over the end; `es-online`: stop `patience` steps after the running peak of the
    select split and hand over the peak."""
    patience: Positive = 3
    """Steps without a new peak that end an `es-online` campaign."""
    checkpoint_every: Positive = 10
    """Rollout batches from one resume point to the next."""


class GradingRecipe(Section):
    """How completions are judged."""

    workers: Positive = 2
    """Processes that grade."""
    isolation: Literal["full", "best-effort"] = "full"
    """`full` refuses to run where the kernel lacks a layer; `best-effort` says what is missing and runs."""
    timeout: float = Field(default=2.0, gt=0)
    """Seconds a completion may take for all its calls."""


class Recipe(Section):
    """One run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What the run is called in tables and figures."""
    seed: int = Field(default=0, ge=0)
    """Every random number of the run follows from it."""
    threads: Positive | None = None
    """Torch's threads on the CPU; null leaves torch's own choice. Traces are equal bit for bit at equal threads."""
    policy: PolicyRecipe = PolicyRecipe()
    tasks: TasksRecipe = TasksRecipe()
    rollout: RolloutRecipe = RolloutRecipe()
    update: UpdateRecipe = UpdateRecipe()
    control: ControlRecipe = ControlRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()
    campaign: CampaignRecipe = CampaignRecipe()
    grading: GradingRecipe = GradingRecipe()

    @model_validator(mode="after")
    def _batch_divides(self) -> Recipe:
        if self.rollout.prompts > self.tasks.train:
            raise ValueError(
                f"rollout.prompts: got {self.rollout.prompts}, more than tasks.train {self.tasks.train}; "
                "lower one or raise the other"
            )
        if self.rollout.prompts % self.update.minibatches:
            raise ValueError(
                f"update.minibatches: got {self.update.minibatches}, which does not divide rollout.prompts "
                f"{self.rollout.prompts}; choose a divisor"
            )
        most = max(self.rollout.samples, self.evaluation.samples)
        if self.rollout.batch_rows < most:
            raise ValueError(
                f"rollout.batch_rows: got {self.rollout.batch_rows}, fewer than the {most} samples of a prompt; raise it"
            )
        return self

    def inert_control(self) -> str | None:
        """Why the clip rule can do nothing in this run, or None where it can act."""
        if self.update.objective != "clip":
            return None
        if self.update.steps_per_batch == 1:
            return (
                "update.epochs x update.minibatches is 1: with one gradient step a rollout batch every ratio is 1, "
                "so clipping and every strategy are inert; raise one of them"
            )
        return None


def build_controller(recipe: Recipe) -> EntropyController:
    """The controller that a recipe describes."""
    return EntropyController(recipe.control.strategy.build(), total_steps=recipe.campaign.steps)


def build_stop_rule(recipe: Recipe) -> StopRule:
    """The stop rule that a recipe describes."""
    campaign = recipe.campaign
    match campaign.stop:
        case "naive":
            return Naive(steps=campaign.steps)
        case "es-online":
            return EarlyStop(patience=campaign.patience, mode="online", steps=campaign.steps)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file.

    overrides: `section.key=value` settings that win over the file, the value read as YAML.
    Raises RecipeError when the file is missing or no mapping, or a key is unknown, of the wrong type or out of range.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{file}: no such recipe file; give the path of a YAML recipe") from error
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise RecipeError(f"{file}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{file}: holds {type(content).__name__}, not a mapping; start with `name: ...`")
    return parse_recipe(content, overrides, origin=str(file))


def parse_recipe(content: Mapping[str, Any], overrides: Sequence[str] = (), origin: str = "recipe") -> Recipe:
    """A recipe from plain data; raises RecipeError naming each faulty field, its value and what is allowed."""
    merged = _with_overrides(content, overrides)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError("\n".join(_fault(origin, fault) for fault in error.errors())) from error


def _with_overrides(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise RecipeError(f"override {override!r}: write it as section.key=value")
        keys = path.split(".")
        place: dict[str, Any] = merged
        for key in keys[:-1]:
            inner = place.get(key)
            place[key] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[key]
        place[keys[-1]] = yaml.safe_load(text)
    return merged


def _fault(origin: str, fault: Any) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{origin}: {field}: unknown key; remove it or look up its name with `entrostat train --help`"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{origin}: {field}.{message}" if field else f"{origin}: {message}"
    if fault["type"] == "missing":
        return f"{origin}: {field}: missing; add it"
    return f"{origin}: {field}: got {fault['input']!r}; {message[0].lower()}{message[1:]}"
