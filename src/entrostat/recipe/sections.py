"""The typed configuration of a run. Each field's explanation is the string under it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from entrostat._renamed import moved_names
from entrostat.diagnosis import Acting
from entrostat.diagnosis.notify import require_variable
from entrostat.diagnosis.watchdog import RESTART, ROLL_BACK
from entrostat.objective.surrogates import Aggregation
from entrostat.recipe.methods import (
    AdvantageChoice,
    BonusChoice,
    ControllerChoice,
    CorrectionChoice,
    ObjectiveChoice,
    PartChoice,
    ReweightingChoice,
    StrategyChoice,
    WithoutBooleansForNumbers,
)
from entrostat.tasks.sources import task_source


def known_source(name: str) -> str:
    """The name of a set of tasks. Raises ValueError if there is none of this name."""
    task_source.find(name)
    return name


class Section(WithoutBooleansForNumbers, BaseModel):
    """A part of a recipe: unknown keys are refused, and it is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


RECOMPUTING = ("verl", "entrostat.integrations.verl.recipe:build_verl_engine")
"""Engines that score the completions anew, so that their default of update.old_logp is recomputed."""

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class PolicyRecipe(Section):
    """Which model is trained."""

    path: str = "embedded"
    """`embedded` (the package's own), a folder in Hugging Face format, a hub id, or what a run keeps: `RUN@peak`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights and activations; statistics and losses are float32 in both cases."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda` or `cuda:N`."""


class TasksRecipe(Section):
    """The tasks for training, for choosing the peak (select) and for reporting (report); the three never overlap."""

    family: Annotated[str, AfterValidator(known_source)] = "listcraft"
    """Where the tasks come from: `listcraft`, `humaneval`, `mbpp`, `apps`, `livecodebench`, `jsonl`, or a
    function of your own that returns a list of tasks, as `my_package.module:name`."""
    data: str | None = None
    """The file of a family that no installed package contains."""
    levels: tuple[int, ...] = (1, 2, 3)
    """listcraft's difficulty levels, in equal shares; other families have none."""
    train: Positive = 48
    """Distinct training tasks."""
    select: Positive = 64
    """Tasks that choose the peak and decide when to stop."""
    report: Positive = 64
    """Tasks on which results are measured; no decision uses them."""
    ood: int = Field(default=0, ge=0)
    """listcraft: tasks of a kind that is not trained on, measured whenever the report split is; 0 for none."""
    ood_levels: tuple[int, ...] = (4,)
    """The levels of the `ood` tasks, which `levels` should not have."""
    seed: int = 0
    """Seed of the choice of tasks, of the splits of a family without splits, and of evaluation. The run's `seed` (in a
    chain, the chain's) unless it is set here: each seed then draws its own tasks, so intervals over seeds hold for new
    tasks. Set it if runs of several seeds are to share their tasks."""
    train_seed: int | None = None
    """Seed of the choice of training tasks, if it should differ from `seed`; the other splits do not change."""


class RolloutRecipe(Section):
    """How completions are sampled for training."""

    prompts: Positive = 16
    """Prompts per rollout batch."""
    samples: Positive = 8
    """Completions per prompt (the group)."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature; the trained policy is the one that samples, at this temperature."""
    max_new_tokens: Positive = 48
    """Maximum length of a completion in tokens; longer ones are cut and counted as truncated."""
    batch_rows: Positive = 512
    """Completions sampled at once."""
    staleness: int = Field(default=0, ge=0)
    """Optimizer steps by which the policy that samples lags behind the trained one at the start of a batch; as many
    copies of the weights are kept."""
    dtype: Literal["float32", "bfloat16", "int8"] | None = None
    """Number format in which the policy samples, as an inference engine may have another than the trainer: `int8`
    rounds each row of the weights to 255 levels. null: that of the policy."""
    top_k: Positive | None = None
    """Draw among so many likeliest tokens only; null for all."""
    top_p: Share = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    resample: Positive | None = 1
    """DAPO's dynamic sampling: at most so many batches of `prompts` are drawn to fill one with groups whose completions
    do not all pass or all fail; what is then missing is filled up with other groups. 1: every group is kept. null: no
    limit, which engine `verl` alone has."""
    variance_top_p: Share = 1.0
    """RAGEN-2's SNR-aware filter: only the groups with the largest standard deviation of reward teach, as many of a
    batch as together have this share of its sum. 1: every group."""
    overlong_buffer: int = Field(default=0, ge=0)
    """DAPO's overlong reward shaping: over the last so many tokens before max_new_tokens, the reward falls linearly by
    `overlong_penalty`; 0 for none."""
    overlong_penalty: float = Field(default=1.0, gt=0)
    """What a completion of max_new_tokens loses of its reward."""


class KlCovRecipe(Section):
    """KL-Cov's term (arXiv 2505.22617): coefficient |ln pi - ln pi_old| on the tokens whose covariance is largest."""

    share: float = Field(default=2e-4, gt=0, le=1)
    """Share of the tokens."""
    coefficient: float = Field(default=1.0, ge=0)
    """Weight of the term."""


class KlRecipe(Section):
    """A penalty in the loss that keeps the policy near a reference, in nats per token."""

    kind: Literal["fixed", "adaptive", "fisher"] = "fixed"
    """`fixed`: coefficient x exact KL (the strong `EWC-style` form of arXiv 2606.21090 is .05); `adaptive`: the same,
    with a coefficient that is adapted each step so that the KL reaches `target`; `fisher`: elastic weight consolidation
    proper, quadratic in the weights with the diagonal Fisher information of the reference's own samples."""
    coefficient: float = Field(default=0.05, gt=0)
    """Weight of the term; for `adaptive`, its initial weight."""
    target: float = Field(default=0.02, gt=0)
    """Mean KL in nats per token that `adaptive` maintains."""
    estimate: Literal["exact", "k1", "k2", "k3"] = "exact"
    """`exact`: over the whole vocabulary; Schulman's estimates from the sampled token's d = ln pi - ln pi_ref: `k1` d,
    `k2` d^2/2, `k3` exp(-d) - 1 + d. As a loss k1 has no gradient on average and k2 that of the KL."""
    place: Literal["loss", "reward"] = "loss"
    """`loss`: a term of the loss; `reward`: coefficient x the sum of an estimate over the completion's tokens, under
    the policy of the rollout, is taken from its reward."""
    reference: Literal["start", "base"] = "start"
    """`start`: the checkpoint that the campaign starts from; `base`: the recipe's own policy.path."""
    fisher_samples: Positive = 64
    """Completions from which the Fisher information is estimated."""


class UpdateRecipe(Section):
    """How the policy learns from a rollout batch."""

    advantage: AdvantageChoice = "grpo"
    """`reinforce`: reward minus `baseline` (with leave-one-out: RLOO); `grpo`: group mean and standard deviation;
    `dr-grpo`: group mean alone; `maxrl`: over the group's mean; `qae`: group quantile; `w-reinforce`: failures at full
    weight, successes at a tenth; `grpo-dropout`: without likely successes.
    A name, or `{name: qae, level: .3}`."""
    baseline: Literal["none", "batch-mean", "ema", "leave-one-out"] = "none"
    """What `reinforce` subtracts; the group-relative advantages have their own."""
    failure_reward: Literal[0, -1] = 0
    """Reward of a completion that fails: 0 (rewards 0/1) or -1 (rewards +-1)."""
    objective: ObjectiveChoice = Field(default="clip", validate_default=True)
    """`clip`: the clipped surrogate; `reinforce`: ratio times advantage, never clipped; and others by their names."""
    kl_cov: KlCovRecipe | None = None
    """KL-Cov's term, with objective `reinforce`; null for none."""
    kl: KlRecipe | None = None
    """A penalty that keeps the policy near a reference; null for none."""
    old_logp: Literal["sampler", "recomputed"] = "sampler"
    """The log-probabilities that the ratio is taken against. `sampler`: those that the tokens were drawn with;
    `recomputed`: those of one more forward pass when a rollout batch begins, the default of `engine: verl`. With
    `engine: trl` both are the same policy, which samples in the trainer's process and is scored by TRL once more;
    `control.correction` and the metrics of the mismatch compare them with the sampler's."""
    aggregate: Aggregation = "token-mean"
    """How per-token losses are reduced to one number: their mean over all tokens, or over each completion and then all
    (`sequence-mean`); `sequence-sum` divides by the completions (LUSPO), `constant` by batch x max_new_tokens
    (Dr.GRPO)."""
    epochs: Positive = 2
    """Passes over a rollout batch."""
    minibatches: Positive = 1
    """Optimizer steps per pass."""
    microbatch_rows: Positive = 512
    """Completions per forward pass; gradients are accumulated over the whole minibatch."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`adamw`, or `sgd`: plain gradient descent without momentum, in which a step is learning rate x gradient."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """The optimizer's step size, after the warm-up."""
    warmup_steps: int = Field(default=3, ge=0)
    """Optimizer steps over which the learning rate rises linearly from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay rates of the first and second moments."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Maximum gradient norm; null for no limit."""

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps per rollout batch."""
        return self.epochs * self.minibatches


class InformationRecipe(Section):
    """How often it is measured whether completions depend on their prompts (RAGEN-2, arXiv 2604.06268)."""

    every: Positive = 5
    """Rollout batches between two measurements."""
    completions: Positive = 64
    """Completions that are scored under each prompt of the batch, taken evenly from it: so many times the number of
    prompts are the sequences that go through the model, without a gradient."""


class ControlRecipe(Section):
    """How the entropy is controlled."""

    strategy: StrategyChoice | None = None
    """The clip bounds at each step; null keeps the objective's published band."""
    reweighting: ReweightingChoice | None = None
    """Factors for the advantages; null for none."""
    correction: CorrectionChoice | None = None
    """Factors of the advantages for tokens that another policy sampled: `tis`, `mis`, `icepop`, `seq-mask-tis`,
    `decoupled`, `opsm`, `estr`; null for none."""
    bonus: BonusChoice | None = None
    """The coefficient of an entropy bonus in the loss; null for none."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Ratio above which punished tokens (A < 0) get no gradient, with any strategy; null for none, published: 3."""
    parts: tuple[PartChoice, ...] = ()
    """Further reweightings, bonuses and corrections, or parts of your own as `my_package.module:Name`; weights
    multiply, bonuses add."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Smoothing of the entropy that strategy, reweighting and bonus receive; 0 leaves it as measured."""
    regions: Literal["surprisal", "probability", "exact"] = "surprisal"
    """Convention that assigns tokens to the regions E1-E4 in the records."""
    measure_change: bool = False
    """Score each step's tokens again after it, to log the measured change of entropy next to the predicted one."""
    first_order: bool = False
    """Also log the change of entropy to first order in the weights and predict from it; needs another backward pass."""
    information: InformationRecipe | None = None
    """Log the mutual information of prompts and completions, the sign of a template collapse; null for never. The
    engines `embedded` and `trl` take it."""


class EvaluationRecipe(Section):
    """How the policy is measured, on fixed seeds (common random numbers)."""

    every: Positive | None = 1
    """Optimizer steps between evaluations; null evaluates the select split only when the campaign rule requests it."""
    report: Literal["every", "peak"] = "every"
    """When the report split is evaluated. `every`: with each evaluation of select; `peak`: at the campaign's start and,
    when it is over, at its peak and end. These suffice for the gap and halve the cost of evaluation."""
    samples: Positive = 4
    """Completions per task."""
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
    """The length of a campaign, and what ends it."""

    steps: Positive = 60
    """Maximum number of optimizer steps."""
    schedule_steps: Positive | None = None
    """Optimizer steps over which schedules run, after which they keep their last value; null: `steps`. A run that is
    extended by `--set campaign.steps` gets here the steps that it had."""
    controller: ControllerChoice = Field(default="naive", validate_default=True)
    """The campaign rule, by its published name: what ends a campaign and which checkpoint it hands over. `naive`: run
    to the end and hand over the end; `es-online`: stop `patience` steps after the running peak of select and hand over
    the peak; and others."""
    optimizer: Literal["reset", "carried"] = "reset"
    """AdamW's moments at the start of a later campaign of a chain: zero, or those of the checkpoint handed over."""
    checkpoint_every: Positive = 10
    """Rollout batches between two resume points."""


class TableRecipe(Section):
    """The policy of `engine: tabular` and its rewards. Its tasks are listcraft's."""

    states: Literal["phrase", "prefix"] = "phrase"
    """What a row of logits belongs to. `phrase`: the phrase of the prompt whose operation is due; tasks share rows, so
    learning carries over to the select and report tasks. `prefix`: the prompt and its whole prefix; all logits are
    independent, and nothing carries over: read the field `exact` of the step lines."""
    choices: int = Field(default=6, ge=2, le=16)
    """Operations that a prompt offers, the right ones among them."""
    start: float = 2.0
    """How much larger the first logit of the operation that is asked for is, in nats."""
    spread: float = Field(default=1.0, ge=0)
    """Standard deviation of the first logits."""
    random_rewards: float = Field(default=0.0, ge=0, le=1)
    """Share of the training completions whose reward is a fair coin, whatever they contain."""
    sampled_select: bool = False
    """Evaluate the select split on `evaluation.samples` completions per task, as other engines do, so that campaign
    rules decide under noise; the other splits stay exact."""


class RestartRecipe(Section):
    """How `restart-from-traces` begins again: supervised steps on completions that passed during the run."""

    policy: Literal["start", "peak"] = "start"
    """The weights that learn from the bank: those of the campaign's start, or of its peak."""
    steps: Positive = 20
    """Supervised optimizer steps, which count among the campaign's; reinforcement learning takes the rest."""
    rows: Positive = 64
    """Completions per supervised step, drawn uniformly from the bank."""
    per_task: Positive = 8
    """Different passing completions that the bank keeps of each task."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Of the supervised steps; null: that of `update`."""


class WatchRecipe(Section):
    """What happens when the watchdog finds a failure. It acts at evaluations and sees no split except select."""

    action: Literal["note", "stop", "keep-peak", "roll-back", "restart-from-traces"] = "note"
    """`note`: record the finding; `stop`: also end the campaign; `keep-peak`: also hand over the peak; `roll-back`: end
    it, return to the peak and continue with the remaining steps under `switch`; `restart-from-traces`: end it, let the
    weights of its start learn from the completions that passed, as `restart` says, and continue likewise. The last is
    for engine embedded and tabular."""
    severity: Literal["warning", "critical"] = "critical"
    """The lowest severity that triggers the action; every finding is recorded."""
    kinds: tuple[str, ...] | None = None
    """The findings that trigger the action; null for all."""
    detectors: tuple[str, ...] = ()
    """Detectors of your own beside ours: `my_package.module:Name`, or the names of entry points."""
    switch: dict[str, Any] = {}
    """Keys of the recipe that change after a roll-back or a restart, as in `{control: {strategy: id}}`."""
    restart: RestartRecipe | None = None
    """How `restart-from-traces` begins again; null for the defaults."""
    webhook: str | None = None
    """The environment variable with the address to which each finding is sent as JSON; null for none. The address
    itself is a secret, and a recipe is written to disk."""

    @model_validator(mode="after")
    def _known_kinds(self) -> WatchRecipe:
        self.acting()
        if self.webhook is not None:
            require_variable(self.webhook)
        if self.switch and self.action not in (ROLL_BACK, RESTART):
            raise ValueError(f"switch: given with action {self.action}; only {ROLL_BACK} and {RESTART} use it")
        if self.restart and self.action != RESTART:
            raise ValueError(f"restart: given with action {self.action}; only {RESTART} uses it")
        return self

    @property
    def restarting(self) -> RestartRecipe | None:
        """How to restart from traces, if that is the action."""
        return (self.restart or RestartRecipe()) if self.action == RESTART else None

    def acting(self) -> Acting:
        """Which findings trigger an action, and which action."""
        return Acting(self.action, self.severity, self.kinds, self.detectors)


class GradingRecipe(Section):
    """How completions are graded."""

    workers: Positive = 2
    """Number of grading processes."""
    isolation: Literal["full", "best-effort"] = "full"
    """`full` refuses to run if the kernel lacks a layer; `best-effort` reports what is missing and runs."""
    timeout: float = Field(default=2.0, gt=0)
    """Time limit in seconds for all calls of a completion."""


__getattr__ = moved_names(__name__, {"Recipe": "entrostat.recipe.recipe"})
