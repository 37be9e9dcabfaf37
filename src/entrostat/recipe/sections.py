"""The typed configuration of a run. Each field's explanation is the string under it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from entrostat.diagnosis import Acting
from entrostat.diagnosis.notify import require_variable
from entrostat.recipe.combinations import faults
from entrostat.recipe.methods import (
    OBJECTIVES,
    AdvantageChoice,
    BonusChoice,
    ControllerChoice,
    ObjectiveChoice,
    PartChoice,
    ReweightingChoice,
    StrategyChoice,
    WithoutBooleansForNumbers,
    build,
)
from entrostat.tasks.sources import task_source


def known_source(name: str) -> str:
    """The name of a set of tasks. ValueError: there is none of it."""
    task_source.find(name)
    return name


class Section(WithoutBooleansForNumbers, BaseModel):
    """A part of a recipe: unknown keys are refused, and nothing changes after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


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

    family: Annotated[str, AfterValidator(known_source)] = "listcraft"
    """Where the tasks come from: `listcraft`, `humaneval`, `mbpp`, `apps`, `livecodebench`, `jsonl`, or a
    function of your own that returns a list of tasks, as `my_package.module:name`."""
    data: str | None = None
    """The file of a family that no package carries."""
    levels: tuple[int, ...] = (1, 2, 3)
    """listcraft's difficulty levels, in equal shares; other families have none."""
    train: Positive = 48
    """Distinct training tasks."""
    select: Positive = 64
    """Tasks that choose the peak and decide when to stop."""
    report: Positive = 64
    """Tasks that the results are measured on; no decision reads them."""
    ood: int = Field(default=0, ge=0)
    """listcraft: tasks of another kind than is trained on, measured where the report split is; 0 for none."""
    ood_levels: tuple[int, ...] = (4,)
    """The levels of the `ood` tasks, which `levels` should not have."""
    seed: int = 0
    """Which tasks are drawn, how a family without splits is split, and how it is evaluated. The run's own `seed` (in a
    chain the chain's) unless it is set here: seeds then draw tasks anew, so intervals over seeds hold for new tasks.
    Set it where runs of several seeds are to share their tasks."""
    train_seed: int | None = None
    """Which training tasks are drawn, where that should differ from `seed`; the other splits stay."""


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


class KlCovRecipe(Section):
    """KL-Cov's term (arXiv 2505.22617): coefficient |ln pi - ln pi_old| on the tokens whose covariance is largest."""

    share: float = Field(default=2e-4, gt=0, le=1)
    """Share of the tokens."""
    coefficient: float = Field(default=1.0, ge=0)
    """Weight of the term."""


class KlRecipe(Section):
    """What keeps the policy near a reference: a penalty in the loss, in nats a token."""

    kind: Literal["fixed", "adaptive", "fisher"] = "fixed"
    """`fixed`: coefficient x exact KL (the strong `EWC-style` form of arXiv 2606.21090 is .05); `adaptive`: the same,
    the coefficient moved step by step towards `target`; `fisher`: elastic weight consolidation proper, quadratic in the
    weights with the diagonal Fisher information of the reference's own samples."""
    coefficient: float = Field(default=0.05, gt=0)
    """Weight of the term; `adaptive` begins with it."""
    target: float = Field(default=0.02, gt=0)
    """Mean KL in nats a token that `adaptive` holds."""
    reference: Literal["start", "base"] = "start"
    """`start`: the checkpoint that the campaign starts from; `base`: the recipe's own policy.path."""
    fisher_samples: Positive = 64
    """Completions that the Fisher information is estimated on."""


class UpdateRecipe(Section):
    """How the policy learns from a rollout batch."""

    advantage: AdvantageChoice = "grpo"
    """`reinforce`: reward minus `baseline` (with leave-one-out: RLOO); `grpo`: group mean and standard deviation;
    `dr-grpo`: group mean alone; `qae`: group quantile; `w-reinforce`: failures at full weight, successes at a tenth.
    A name, or `{name: qae, level: .3}`."""
    baseline: Literal["none", "batch-mean", "ema", "leave-one-out"] = "none"
    """What `reinforce` subtracts; the group-relative advantages have their own."""
    failure_reward: Literal[0, -1] = 0
    """Reward of a completion that fails: 0 (rewards 0/1) or -1 (rewards +-1)."""
    objective: ObjectiveChoice = Field(default="clip", validate_default=True)
    """`clip`: the clipped surrogate; `reinforce`: ratio times advantage, never clipped; and others by their names."""
    kl_cov: KlCovRecipe | None = None
    """KL-Cov's term beside objective `reinforce`; null for none."""
    kl: KlRecipe | None = None
    """A penalty that keeps the policy near a reference; null for none."""
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


class ControlRecipe(Section):
    """How entropy is steered."""

    strategy: StrategyChoice | None = None
    """Where the clip bounds stand at each step; null keeps the objective's published band."""
    reweighting: ReweightingChoice | None = None
    """Factors for the advantages; null for none."""
    bonus: BonusChoice | None = None
    """The coefficient of an entropy bonus in the loss; null for none."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Ratio above which punished tokens (A < 0) keep no gradient, over any strategy; null for none, 3 is published."""
    parts: tuple[PartChoice, ...] = ()
    """Further reweightings and bonuses, or parts of your own as `my_package.module:Name`; weights multiply, bonuses
    add."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Smoothing of the entropy that strategy, reweighting and bonus see; 0 leaves it as measured."""
    regions: Literal["surprisal", "probability", "exact"] = "surprisal"
    """Convention by which tokens are told into the regions E1-E4 in the records."""
    measure_change: bool = False
    """Score each step's tokens once more after it, to set the measured change of entropy beside the predicted one."""
    first_order: bool = False
    """Log the change of entropy to first order in the weights too, and predict from it, for one more backward pass."""


class EvaluationRecipe(Section):
    """How the policy is measured, on fixed seeds (common random numbers)."""

    every: Positive | None = 1
    """Optimizer steps from one evaluation to the next; null evaluates the select split when the controller asks."""
    report: Literal["every", "peak"] = "every"
    """When the report split is evaluated: `every`: with each evaluation of select; `peak`: at the campaign's start, and
    once it is over at its peak and its end, which is all that its gap needs and halves the cost of evaluation."""
    samples: Positive = 4
    """Completions a task."""
    pass_at: tuple[Positive, ...] = Field(default=(1, 4), min_length=1)
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
    controller: ControllerChoice = Field(default="naive", validate_default=True)
    """What ends a campaign and chooses its hand-over, by its published name, such as `naive`: run to the end and hand
    over the end; `es-online`: stop `patience` steps after the running peak of select and hand over the peak."""
    optimizer: Literal["reset", "carried"] = "reset"
    """AdamW's moments at the start of a later campaign of a chain: fresh, or those of the checkpoint handed over."""
    checkpoint_every: Positive = 10
    """Rollout batches from one resume point to the next."""


class WatchRecipe(Section):
    """What is done when the watchdog finds a failure. It acts at evaluations, and sees no split but select."""

    action: Literal["note", "stop", "keep-peak", "roll-back"] = "note"
    """`note`: write the finding down; `stop`: end the campaign too; `keep-peak`: and hand over the peak; `roll-back`:
    end it, go back to the peak and spend the steps that are left under `switch`."""
    severity: Literal["warning", "critical"] = "critical"
    """The least severity that is acted on; every finding is written down."""
    kinds: tuple[str, ...] | None = None
    """The findings that are acted on; null for all."""
    switch: dict[str, Any] = {}
    """Keys of the recipe that are changed after a roll-back, as in `{control: {strategy: id}}`."""
    webhook: str | None = None
    """The environment variable that holds the address to which each finding is sent as JSON; null for nowhere. The
    address itself is a secret, and a recipe is written to disk."""

    @model_validator(mode="after")
    def _known_kinds(self) -> WatchRecipe:
        self.acting()
        if self.webhook is not None:
            require_variable(self.webhook)
        if self.switch and self.action != "roll-back":
            raise ValueError(f"switch: given with action {self.action}; only roll-back goes on under it")
        return self

    def acting(self) -> Acting:
        """Which findings are acted on, and how."""
        return Acting(self.action, self.severity, self.kinds)


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
    engine: str = Field(default="embedded", min_length=1)
    """The trainer: `embedded`, the package's own; `trl`; or one that another package adds (`engine.registry`)."""
    policy: PolicyRecipe = PolicyRecipe()
    tasks: TasksRecipe = TasksRecipe()
    rollout: RolloutRecipe = RolloutRecipe()
    update: UpdateRecipe = UpdateRecipe()
    control: ControlRecipe = ControlRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()
    campaign: CampaignRecipe = CampaignRecipe()
    grading: GradingRecipe = GradingRecipe()
    watch: WatchRecipe | None = None
    """The watchdog over the run; null for none."""

    @model_validator(mode="before")
    @classmethod
    def _tasks_follow_the_seed(cls, content: Any) -> Any:
        return with_task_seed(content, content.get("seed", 0)) if isinstance(content, Mapping) else content

    @model_validator(mode="after")
    def _makes_sense(self) -> Recipe:
        if found := list(faults(self)):
            raise ValueError("\n".join(found))
        return self

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
                f"rollout.batch_rows: got {self.rollout.batch_rows}, fewer than the {most} samples a prompt; raise it"
            )
        return self

    @model_validator(mode="after")
    def _switch_is_a_recipe(self) -> Recipe:
        if self.watch and self.watch.switch:
            self.after_roll_back(1)
        return self

    def after_roll_back(self, steps: int) -> Recipe:
        """The recipe of the `steps` that follow a roll-back: `watch.switch` applied, and no second roll-back.

        Raises pydantic's ValidationError when that is no recipe.
        """
        watch = self.watch or WatchRecipe()
        merged = _merged(self.model_dump(mode="json"), watch.switch)
        merged["campaign"]["steps"] = steps
        merged["watch"] = {**watch.model_dump(mode="json"), "action": "keep-peak", "switch": {}}
        return Recipe.model_validate(merged)

    def inert_control(self) -> str | None:
        """Why the clip rule or KL-Cov's term can do nothing in this run, or None where they can act."""
        acting = "KL-Cov's term is" if self.update.kl_cov else "clipping and every strategy are"
        banded = build(OBJECTIVES, self.update.objective).banded
        if self.update.steps_per_batch == 1 and (banded or self.update.kl_cov):
            return (
                "update.epochs x update.minibatches is 1: with one gradient step per rollout batch every ratio is 1, "
                f"so {acting} inert; raise one of them"
            )
        return None


def with_task_seed(content: Mapping[str, Any], seed: Any) -> Mapping[str, Any]:
    """A recipe's content whose tasks are drawn by `seed`, unless it says by which."""
    tasks = content.get("tasks", {})
    if isinstance(tasks, Mapping) and tasks.get("seed") is None and isinstance(seed, int):
        return {**content, "tasks": {**tasks, "seed": seed}}
    return content


def _merged(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`whole` with `changes` in it, section by section; a method, which has a name, is replaced with its settings."""
    result = dict(whole)
    for key, value in changes.items():
        inner = result.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping) and "name" not in inner
        result[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return result
