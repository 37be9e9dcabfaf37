"""Engine `tabular`: campaigns of a tabular policy, whose entropy and pass@k are known exactly.

Everything but the policy is the embedded engine's: `Trainer`, the learner with its controller, losses and records, and
the campaign loop. A completion is graded by looking it up, so no code is run. An evaluation is exact: it writes each
task's probability of success as c of 1 000 000 samples; `table.sampled_select` samples the select split instead, so
that decisions see the noise that they see elsewhere. Each step line has the field `exact`, of the training tasks after
the step: `token_entropy` in nats per token, `entropy` of a whole completion in nats, `success`, pass@1, and, where a
batch was sampled, `kl_sampler`, KL(mu, pi) in nats per token of the policy mu that sampled it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from entrostat.campaign.checkpoints import model_source
from entrostat.campaign.engine import Checkpoint, Listener, Plan
from entrostat.engine.evaluate import SHOWN, sample_lines
from entrostat.engine.local import LocalEngine, Trainer
from entrostat.engine.policy import EMBEDDED
from entrostat.engine.registry import engine
from entrostat.engine.rollout import GradedRollout, Rollout, derived_seed
from entrostat.engine.table import Prompts, TablePolicy
from entrostat.engine.traces import Imitation
from entrostat.engine.update import Experience
from entrostat.grading import Outcome, Verdict
from entrostat.recipe import Recipe, RecipeError
from entrostat.recipe.sections import TableRecipe
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run
from entrostat.tasks.sources import AnyTask
from entrostat.tasks.task import Task

SAMPLES = 1_000_000  # c of these passed, in the results of an evaluation


@engine("tabular")
class TabularEngine(LocalEngine):
    """Runs campaigns of a tabular policy in this process. Needs no grader.

    RecipeError: a setting that a table cannot follow.
    """

    def __init__(self, recipe: Recipe, tasks: TaskSplits, grader: Any = None, listener: Listener | None = None) -> None:
        super().__init__(recipe, tasks, grader, listener)
        self.settings = recipe.table or TableRecipe()
        splits = [tasks.train, tasks.select, tasks.report, tasks.ood]
        everything = [task for split in splits for task in split]
        if recipe.policy.device != "cpu" or recipe.policy.dtype != "float32":
            raise RecipeError("policy: engine tabular computes in float32 on the CPU; leave dtype and device out")
        try:
            self.prompts = Prompts.of(
                cast("list[Task]", everything), self.settings.choices, recipe.rollout.max_new_tokens, recipe.tasks.seed
            )
        except ValueError as error:
            raise RecipeError(str(error)) from error
        self.numbers = {task.id: number for number, task in enumerate(everything)}

    def trainer(self, start: Checkpoint, plan: Plan, record: Run, resume: Checkpoint | None) -> Trainer:
        """See `LocalEngine.trainer`."""
        return TabularTrainer(self, start, plan, record, resume)

    def policy(self, source: str | Path) -> TablePolicy:
        """The table that `source` names, a folder or `RUN@peak`; for `embedded` the recipe's first table."""
        own, seed = self.settings, self.recipe.tasks.seed
        policy = TablePolicy(self.prompts, own.states, own.start, own.spread, seed)
        return policy if str(source) == EMBEDDED else policy.load(model_source(source))


class TabularTrainer(Trainer):
    """The table and its learner, as the host of one campaign."""

    owner: TabularEngine
    policy: TablePolicy
    _sampled_by: TablePolicy  # the policy that drew the batch, as it was then

    def evaluate(self, split: str, part: slice, weights: Checkpoint | None) -> Mapping[str, Any]:
        """See `Host.evaluate`; exact, but for a select split that is to be sampled."""
        policy = self._load(weights.path) if weights else self.policy
        tasks = getattr(self.tasks, split)
        found = evaluate_exactly(self.owner, policy, tasks[part])
        if split == "select" and self.owner.settings.sampled_select:
            found["results"] = sampled_results(self.owner, policy, tasks)[part]
        return found

    def _load(self, source: str | Path) -> TablePolicy:
        return self.owner.policy(source)

    def _draw_singly(self, policy: Any, count: int) -> Rollout:
        own, tasks = self.recipe.rollout, self.tasks.train
        number = torch.tensor([self.owner.numbers[tasks[i % len(tasks)].id] for i in range(count)])
        seed = derived_seed(self.recipe.seed, "fisher")
        return cast(TablePolicy, policy).sample(number, own.max_new_tokens, seed, own.temperature)

    def _draw(self, tasks: Sequence[AnyTask], seed: int) -> GradedRollout:
        own, share = self.recipe.rollout, self.owner.settings.random_rewards
        number = torch.tensor([self.owner.numbers[task.id] for task in tasks]).repeat_interleave(own.samples)
        sampler = cast(TablePolicy, self.sampler.policy())
        self._sampled_by = sampler.with_model(copy.deepcopy(sampler.model))
        rollout = self._sampled_by.sample(number, own.max_new_tokens, seed, own.temperature)
        passed = self.policy.passes(rollout)
        random, coin = torch.rand((2, len(number)), generator=torch.Generator().manual_seed(derived_seed(seed, "coin")))
        rewarded = torch.where(random < share, coin < 0.5, passed)
        verdicts = [Verdict(Outcome.PASSED if each else Outcome.WRONG) for each in rewarded.tolist()]
        return GradedRollout(rollout, verdicts, waited=0.0)

    def _update(self, experience: Experience, place: dict[str, int], batch_fields: dict[str, Any]) -> dict[str, Any]:
        line = super()._update(experience, place, batch_fields)
        trained, temperature = slice(len(self.tasks.train)), self.recipe.rollout.temperature
        kl = float(self._sampled_by.divergence(self.policy, trained, temperature))
        return {**line, "exact": {**self._exact(), "kl_sampler": kl}}

    def _imitate(self, imitation: Imitation) -> dict[str, Any]:
        return {**super()._imitate(imitation), "exact": self._exact()}

    @torch.no_grad()
    def _exact(self) -> dict[str, float]:
        """What is known exactly of the training tasks."""
        exact = self.policy.exact(slice(len(self.tasks.train)), self.recipe.rollout.temperature)
        return {
            "token_entropy": float(exact.token_entropy),
            "entropy": float(exact.entropy.mean()),
            "success": float(exact.success.mean()),
        }


@torch.no_grad()
def sampled_results(owner: TabularEngine, policy: TablePolicy, tasks: Sequence[AnyTask]) -> list[list[Any]]:
    """[task id, n, passed] of n = `evaluation.samples` completions of each task, drawn by the same random numbers each
    time.
    """
    recipe, samples = owner.recipe, owner.recipe.evaluation.samples
    number = torch.tensor([owner.numbers[task.id] for task in tasks]).repeat_interleave(samples)
    seed = derived_seed(recipe.tasks.seed, "select")
    drawn = policy.sample(number, recipe.rollout.max_new_tokens, seed, recipe.evaluation.temperature)
    passed = policy.passes(drawn).view(-1, samples).sum(1).tolist()
    return [[task.id, samples, count] for task, count in zip(tasks, passed, strict=True)]


@torch.no_grad()
def evaluate_exactly(owner: TabularEngine, policy: TablePolicy, tasks: Sequence[AnyTask]) -> dict[str, Any]:
    """The fields of an evaluation line; see `entrostat.engine.evaluate.evaluate`.

    results: each task's probability of success, as c of `SAMPLES`. pass_at: exact, from it. distinct: the expected
    number of different right completions among `evaluation.samples` of a task. entropy: per token, of the policy at the
    evaluation's temperature.
    """
    started = time.perf_counter()
    settings, numbers = owner.recipe.evaluation, [owner.numbers[task.id] for task in tasks]
    exact = policy.exact(numbers, settings.temperature)
    chances = policy.chances(numbers, settings.temperature).double()
    levels = torch.tensor([getattr(task, "level", 0) for task in tasks])
    hard = exact.success[levels == levels.max()].mean() if levels.min() != levels.max() else None
    number = torch.tensor(numbers[:SHOWN])
    seed = derived_seed(owner.recipe.tasks.seed, "evaluation", tasks[0].id)
    shown = policy.sample(number, owner.recipe.rollout.max_new_tokens, seed, settings.temperature)
    verdicts = [Verdict(Outcome.PASSED if each else Outcome.WRONG) for each in policy.passes(shown).tolist()]
    return {
        "results": [
            [task.id, SAMPLES, round(SAMPLES * min(success, 1.0))]
            for task, success in zip(tasks, exact.success.tolist(), strict=True)
        ],
        "pass_at": {str(k): float(exact.pass_at(k).mean()) for k in settings.pass_at},
        "distinct": float((1 - (1 - chances) ** settings.samples).sum(1).mean()),
        "hard": None if hard is None else float(hard),
        "entropy": float(exact.token_entropy),
        "length": float(exact.length.mean()),
        "truncated": float(exact.truncated.mean()),
        "verdicts": {},
        "tokens": 0,
        "seconds": time.perf_counter() - started,
        "samples": sample_lines(tasks[:SHOWN], shown, verdicts, 1),
    }
