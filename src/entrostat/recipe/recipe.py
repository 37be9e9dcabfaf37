"""A whole recipe: its sections, what builds from it, and which settings can be combined.

A recipe is refused if a setting would be recorded but have no effect, or if a method would not be the one that its name
promises. Each fault is one line: the field, its value, the other field, and the remedy. The methods state their needs:
an objective by `Objective.refuses`, `aggregations` and `banded`, a band by `ClipBand.per_token`, a strategy by
`Strategy.bands`, a correction by `Correction.of_old`; so a user's method is checked like ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field, model_validator

from entrostat.campaign import Controller
from entrostat.control import Constant, Corrected, DualClipped, EntropyController, FixedWeights, Gepo
from entrostat.objective import DualClip, Objective
from entrostat.recipe.methods import (
    BONUSES,
    CONTROLLERS,
    CORRECTIONS,
    OBJECTIVES,
    PARTS,
    REWEIGHTINGS,
    STRATEGIES,
    build,
    build_advantage,
    takes_baseline,
    takes_surprisals,
)
from entrostat.recipe.sections import (
    RECOMPUTING,
    CampaignRecipe,
    ControlRecipe,
    EvaluationRecipe,
    GradingRecipe,
    KlRecipe,
    PolicyRecipe,
    Positive,
    RolloutRecipe,
    Section,
    TableRecipe,
    TasksRecipe,
    UpdateRecipe,
    WatchRecipe,
)

OWN = ("embedded", "tabular")  # engines that compute the loss themselves


class Recipe(Section):
    """One run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name in tables and figures."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random number of the run."""
    threads: Positive | None = None
    """Torch's CPU threads; null leaves torch's own choice. Traces are equal bit for bit with equal threads."""
    engine: str = Field(default="embedded", min_length=1)
    """The trainer: `embedded`, the package's own; `tabular`, a policy whose entropy is known exactly; `trl`; `verl`; or
    one of another package (`entrostat.engine.registry`)."""
    engine_arguments: tuple[str, ...] = ()
    """`verl`: settings that no key of a recipe describes, as on verl's command line: `trainer.n_gpus_per_node=8`. Other
    engines read none."""
    policy: PolicyRecipe = PolicyRecipe()
    tasks: TasksRecipe = TasksRecipe()
    rollout: RolloutRecipe = RolloutRecipe()
    update: UpdateRecipe = UpdateRecipe()
    control: ControlRecipe = ControlRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()
    campaign: CampaignRecipe = CampaignRecipe()
    grading: GradingRecipe = GradingRecipe()
    table: TableRecipe | None = None
    """The policy and rewards of `engine: tabular`; null for the defaults."""
    watch: WatchRecipe | None = None
    """The watchdog over the run; null for none."""

    @model_validator(mode="before")
    @classmethod
    def _engine_has_its_own_default(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or content.get("engine") not in RECOMPUTING:
            return content
        update = content.get("update") or {}
        given = isinstance(update, Mapping) and "old_logp" not in update
        return {**content, "update": {"old_logp": "recomputed", **update}} if given else content

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
                f"rollout.batch_rows: got {self.rollout.batch_rows}, fewer than the {most} samples per prompt; raise it"
            )
        return self

    @model_validator(mode="after")
    def _switch_is_a_recipe(self) -> Recipe:
        if self.watch and self.watch.switch:
            self.after_roll_back(1)
        return self

    def after_roll_back(self, steps: int) -> Recipe:
        """The recipe of the `steps` that follow a roll-back: `watch.switch` applied, and no second roll-back.

        Raises pydantic's ValidationError if that is not a valid recipe.
        """
        watch = self.watch or WatchRecipe()
        merged = _merged(self.model_dump(mode="json"), watch.switch)
        merged["campaign"] |= {"steps": steps, "schedule_steps": None}
        merged["watch"] = {**watch.model_dump(mode="json"), "action": "keep-peak", "switch": {}, "restart": None}
        return Recipe.model_validate(merged)

    def inert_control(self) -> str | None:
        """Why the clip rule or KL-Cov's term has no effect in this run, or None if it can have one."""
        acting = "KL-Cov's term is" if self.update.kl_cov else "clipping and every strategy are"
        banded = build(OBJECTIVES, self.update.objective).banded
        if self.update.steps_per_batch == 1 and (banded or self.update.kl_cov):
            return (
                "update.epochs x update.minibatches is 1: with one gradient step per rollout batch every ratio is 1, "
                f"so {acting} inert; raise one of them"
            )
        return None


def build_controller(recipe: Recipe) -> EntropyController:
    """The controller that a recipe describes."""
    control = recipe.control
    owner = build(STRATEGIES, control.strategy) if control.strategy else Constant(build_objective(recipe).rule)
    chosen: list[tuple[Any, dict[str, Any] | None]] = [
        (CORRECTIONS, control.correction),
        (REWEIGHTINGS, control.reweighting),
        (BONUSES, control.bonus),
        *((PARTS, part) for part in control.parts),
    ]
    return EntropyController(
        owner if control.dual_clip is None else DualClipped(owner, control.dual_clip),
        *(build(table, choice) for table, choice in chosen if choice),
        total_steps=recipe.campaign.schedule_steps or recipe.campaign.steps,
        ema=control.ema,
    )


def build_objective(recipe: Recipe) -> Objective:
    """The objective that a recipe describes."""
    return build(OBJECTIVES, recipe.update.objective)


def build_campaign_controller(recipe: Recipe) -> Controller:
    """The campaign rule that a recipe describes."""
    return build(CONTROLLERS, recipe.campaign.controller, steps=recipe.campaign.steps)


def with_task_seed(content: Mapping[str, Any], seed: Any) -> Mapping[str, Any]:
    """The recipe's content with `seed` as the seed of its tasks, unless it sets its own."""
    tasks = content.get("tasks", {})
    if isinstance(tasks, Mapping) and tasks.get("seed") is None and isinstance(seed, int):
        return {**content, "tasks": {**tasks, "seed": seed}}
    return content


def _merged(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`whole` with `changes` merged into it by section; a method, which has a name, is replaced as a whole."""
    result = dict(whole)
    for key, value in changes.items():
        inner = result.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping) and "name" not in inner
        result[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def faults(recipe: Recipe) -> Iterator[str]:
    """The combinations in a recipe that do not work, one line per fault."""
    yield from _objective_and_band(recipe)
    yield from _anchored(recipe)
    yield from _advantage(recipe)
    yield from _penalties(recipe)
    yield from _reweighting(recipe)
    yield from _own_terms(recipe)
    yield from _corrections(recipe)
    yield from _engine(recipe)


def _objective_and_band(recipe: Recipe) -> Iterator[str]:
    name, control = recipe.update.objective["name"], recipe.control
    objective = build(OBJECTIVES, recipe.update.objective)
    owner = build(STRATEGIES, control.strategy) if control.strategy else None
    bands = owner.bands() if owner else [objective.rule]
    if (owner or objective.banded) and (reason := objective.refuses(bands)):
        yield (
            f"control.strategy: got {control.strategy['name']!r}, but update.objective {name!r} {reason}; set it to "
            "null, the objective's own band, or change one of the two"
            if control.strategy
            else f"update.objective: got {name!r}, which {reason}, and control.strategy is null; set a strategy whose "
            "thresholds have a slope, such as id, or set the objective to clip"
        )
    elif control.dual_clip is not None:
        if any(isinstance(band, DualClip) for band in bands):
            yield f"control.dual_clip: got {control.dual_clip}, but control.strategy has a dual clip; set it to null"
        elif reason := objective.refuses([DualClip(band, control.dual_clip) for band in bands]):
            yield f"control.dual_clip: got {control.dual_clip}, but update.objective {name!r} {reason}; set it to null"
    if recipe.update.aggregate not in objective.aggregations:
        yield (
            f"update.aggregate: got {recipe.update.aggregate!r}, but update.objective {name!r} is defined over "
            f"sequences; set {' or '.join(objective.aggregations)}"
        )
    if objective.needs_drift:
        yield (
            f"update.objective: got {name!r} with a predicted direction, which needs the sampler's whole distribution, "
            "and no engine keeps it; set direction to ratio (policy_loss takes the drift)"
        )


def _anchored(recipe: Recipe) -> Iterator[str]:
    """Methods for which pi_old must be the policy that sampled."""
    control = recipe.control
    found = []
    if build(OBJECTIVES, recipe.update.objective).anchored:
        found.append(f"update.objective: got {recipe.update.objective['name']!r}, whose trust region is around")
    if control.strategy and any(band.anchored for band in build(STRATEGIES, control.strategy).bands()):
        found.append(f"control.strategy: got {control.strategy['name']!r}, whose band is around")
    if control.reweighting and build(REWEIGHTINGS, control.reweighting).needs_old_entropy:
        found.append(f"control.reweighting: got {control.reweighting['name']!r}, which reads the entropy of")
    correction = build(CORRECTIONS, control.correction) if control.correction else None
    for each in found:
        if recipe.update.old_logp == "recomputed":
            yield (
                f"{each} the policy that sampled, but with update.old_logp 'recomputed' pi_old is another; set "
                "update.old_logp to sampler"
            )
        if control.correction and correction and correction.of_old:
            yield (
                f"{each} the policy that sampled, so that pi_old is that policy and every factor of control.correction "
                f"{control.correction['name']!r} 1; set one of the two to null, or to another"
            )


def _advantage(recipe: Recipe) -> Iterator[str]:
    update = recipe.update
    name = update.advantage if isinstance(update.advantage, str) else update.advantage["name"]
    if name == "w-reinforce" and update.failure_reward != -1:
        yield "update.failure_reward: got 0, but update.advantage w-reinforce learns from failures; set it to -1"
    if update.failure_reward == -1 and name == "maxrl":
        yield "update.failure_reward: got -1, but update.advantage maxrl divides by the mean reward; set it to 0"
    if takes_surprisals(update.advantage) and recipe.engine != "embedded":
        yield (
            f"update.advantage: got {name!r}, which reads the completions' log-probabilities, and engine "
            f"{recipe.engine!r} does not give them; set engine to embedded, or another advantage"
        )
    if update.baseline != "none" and not takes_baseline(update.advantage):
        yield (
            f"update.baseline: got {update.baseline!r}, which update.advantage {update.advantage!r} does not subtract; "
            "set it to none, or update.advantage to reinforce"
        )
    if recipe.rollout.samples == 1 and not _teaches_alone(recipe):
        yield (
            f"rollout.samples: got 1, but update.advantage {update.advantage!r} compares a prompt's completions with "
            "each other and would learn nothing; raise it, or set update.advantage to reinforce with another baseline"
        )


def _teaches_alone(recipe: Recipe) -> bool:
    """Whether the only completion of a group can have an advantage other than 0."""
    baseline = "none" if recipe.update.baseline == "ema" else recipe.update.baseline
    if takes_surprisals(recipe.update.advantage):
        return False
    return bool(build_advantage(recipe.update.advantage, baseline)(torch.tensor([[1.0], [-1.0]])).any())


def _penalties(recipe: Recipe) -> Iterator[str]:
    update = recipe.update
    if update.kl_cov and update.objective["name"] != "reinforce":
        yield (
            f"update.kl_cov: given with update.objective {update.objective['name']!r}, but KL-Cov replaces the clip; "
            "set update.objective to reinforce, or kl_cov to null"
        )
    if update.kl_cov and recipe.control.strategy:
        yield (
            f"control.strategy: got {recipe.control.strategy['name']!r}, but update.kl_cov replaces the clip; set one "
            "of the two to null"
        )
    if update.kl_cov and update.kl_cov.coefficient == 0:
        yield "update.kl_cov.coefficient: got 0, which adds nothing; raise it, or set update.kl_cov to null"
    if update.kl and update.kl.kind == "fisher" and (update.kl.estimate, update.kl.place) != ("exact", "loss"):
        yield (
            f"update.kl.estimate: got {update.kl.estimate!r} in the {update.kl.place}, but update.kl.kind 'fisher' is "
            "a penalty on the weights; remove estimate and place, or set kind to fixed"
        )
    elif update.kl and update.kl.place == "reward" and update.kl.estimate == "exact":
        yield (
            "update.kl.place: got 'reward' with update.kl.estimate 'exact', and a reward has an estimate from the "
            "sampled tokens; set estimate to k1, k2 or k3, or place to loss"
        )
    if update.kl:
        for field, kind in (("target", "adaptive"), ("fisher_samples", "fisher")):
            if update.kl.kind != kind and getattr(update.kl, field) != _default(update.kl, field):
                yield (
                    f"update.kl.{field}: got {getattr(update.kl, field)}, which kind {update.kl.kind!r} does not use; "
                    f"remove it, or set update.kl.kind to {kind}"
                )


def _reweighting(recipe: Recipe) -> Iterator[str]:
    if recipe.control.reweighting is None:
        return
    weighting = build(REWEIGHTINGS, recipe.control.reweighting)
    if isinstance(weighting, Gepo) and weighting.group_size != recipe.rollout.samples:
        yield (
            f"control.reweighting.group_size: got {weighting.group_size}, but a group has rollout.samples = "
            f"{recipe.rollout.samples} completions; set one to the other"
        )
    name, steps = recipe.control.reweighting["name"], recipe.update.steps_per_batch
    if weighting.on_policy and steps > 1:
        yield (
            f"control.reweighting: got {name!r}, which is defined for one optimizer step per rollout batch, with "
            f"update.epochs x update.minibatches = {steps}; set both to 1, or its off_policy to true"
        )
    if weighting.needs_old_entropy and recipe.engine not in OWN:
        yield (
            f"control.reweighting: got {name!r}, which compares with the entropy of pi_old, and engine "
            f"{recipe.engine!r} does not give it; set engine to embedded, or another reweighting"
        )
    if isinstance(weighting, FixedWeights) and weighting.expanding == weighting.contracting == 1:
        yield "control.reweighting: got 'fixed' with both factors 1, which has no effect; set expanding or contracting"


def _own_terms(recipe: Recipe) -> Iterator[str]:
    """Parts that add a term of their own to the loss."""
    control = recipe.control
    found = [("control.reweighting", control.reweighting, REWEIGHTINGS)] if control.reweighting else []
    found += [(f"control.parts.{place}", choice, PARTS) for place, choice in enumerate(control.parts)]
    for field, choice, table in found:
        if build(table, choice).adds and recipe.engine not in OWN:
            yield (
                f"{field}: got {choice['name']!r}, which adds a term of its own to the loss, and engine "
                f"{recipe.engine!r} runs its own loss; set engine to embedded, or {field} to another, such as "
                "entropic-weights for entropic"
            )


def _corrections(recipe: Recipe) -> Iterator[str]:
    control = recipe.control
    found = (
        [("control.correction", control.correction, build(CORRECTIONS, control.correction))]
        if control.correction
        else []
    )
    for place, choice in enumerate(control.parts):
        part = build(PARTS, choice)
        if isinstance(part, Corrected):
            found.append((f"control.parts.{place}", choice, part.correction))
    for field, choice, correction in found:
        if correction.of_old and recipe.update.old_logp == "sampler":
            yield (
                f"{field}: got {choice['name']!r}, which weighs pi_old/mu, with update.old_logp 'sampler', where both "
                "are the same and every factor is 1; set update.old_logp to recomputed"
            )


def _engine(recipe: Recipe) -> Iterator[str]:
    update = recipe.update
    if recipe.watch and recipe.watch.restarting and recipe.engine not in OWN:
        yield (
            f"watch.action: got 'restart-from-traces', and engine {recipe.engine!r} keeps no traces; set it to "
            "roll-back or keep-peak, or set engine to embedded"
        )
    if recipe.control.information and recipe.engine == "tabular":
        yield (
            "control.information: given with engine 'tabular', whose completions fit their own prompts alone; remove it"
        )
    if recipe.table and recipe.engine != "tabular":
        yield f"table: given with engine {recipe.engine!r}, which has no table; remove it, or set engine to tabular"
    yield from _resampled(recipe)
    shaped = ("variance_top_p", "overlong_buffer", "overlong_penalty")
    followed = {"embedded": ("staleness", "dtype", "top_k", "top_p", *shaped), "tabular": ("staleness", "dtype")}
    for field in followed["embedded"]:
        value, usual = getattr(recipe.rollout, field), _default(recipe.rollout, field)
        if field not in followed.get(recipe.engine, ()) and value != usual:
            wanted = "null" if usual is None else usual
            yield f"rollout.{field}: got {value}, which engine {recipe.engine!r} cannot follow; set it to {wanted}"
    if recipe.rollout.overlong_buffer > recipe.rollout.max_new_tokens:
        yield (
            f"rollout.overlong_buffer: got {recipe.rollout.overlong_buffer}, more than rollout.max_new_tokens "
            f"{recipe.rollout.max_new_tokens}; lower it"
        )
    if not recipe.rollout.overlong_buffer and recipe.rollout.overlong_penalty != _default(
        recipe.rollout, "overlong_penalty"
    ):
        yield (
            f"rollout.overlong_penalty: got {recipe.rollout.overlong_penalty} with rollout.overlong_buffer 0, which "
            "has no penalty; set overlong_buffer, or remove it"
        )
    if update.kl and recipe.engine == "tabular" and (update.kl.estimate != "exact" or update.kl.place != "loss"):
        yield (
            f"update.kl.estimate: got {update.kl.estimate!r} in the {update.kl.place}, and engine 'tabular' has the "
            "exact KL in the loss; remove estimate and place, or set engine to embedded"
        )
    if update.optimizer == "sgd" and update.betas != _default(update, "betas"):
        yield f"update.betas: got {list(update.betas)} with optimizer sgd, which has no moments; remove it"


def _resampled(recipe: Recipe) -> Iterator[str]:
    batches = recipe.rollout.resample
    if batches is None and recipe.engine != "verl":
        yield f"rollout.resample: got null, and engine {recipe.engine!r} cannot draw without a limit; set it to 1"
    elif recipe.engine == "verl" and batches not in (1, None):
        yield (
            f"rollout.resample: got {batches}, and verl's algorithm.filter_groups draws until a batch is full; set it "
            "to null for that, or to 1"
        )
    elif recipe.engine not in ("embedded", "verl") and batches != 1:
        yield f"rollout.resample: got {batches}, which engine {recipe.engine!r} cannot follow; set it to 1"


def _default(section: KlRecipe | UpdateRecipe | RolloutRecipe, field: str) -> Any:
    return type(section).model_fields[field].default
