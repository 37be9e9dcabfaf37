"""Passing completions that are banked during a run, and the supervised steps by which a policy restarts from them.

The watchdog's action `restart-from-traces`: the run keeps a bank of completions that passed. When the watchdog acts,
the weights of the start (or of the peak) come back, learn from the bank for some steps by -mean ln pi per token, and
reinforcement learning goes on from there.

Source: the recovery of MAI-Thinking-1 (Microsoft, June 2026, section 3.1.4), which pauses reinforcement learning,
trains a clean checkpoint by supervision on completions that the run has collected, drawn uniformly, and resumes; we
have seen third-party notes of it, not the report. Departs: the watchdog decides when, where its authors do; a bank is
bounded, by a number of completions per task, each of those that passed with equal probability, and draws are uniform
over the bank; number of steps, size of a batch and rate are our choice; nothing is filtered but what did not pass.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entrostat.campaign.checkpoints import CheckpointError
from entrostat.control import EntropyController
from entrostat.engine.policy import Trainable
from entrostat.engine.rollout import Rollout, derived_seed
from entrostat.engine.update import Experience, Learner
from entrostat.recipe import Recipe, UpdateRecipe
from entrostat.recipe.sections import ControlRecipe, RestartRecipe

TRACES_FILE = "traces.json"  # in the resume points and checkpoints of a run that banks
Trace = tuple[list[int], list[int]]
"""The tokens of a prompt and of a completion that passed, the end token included."""


class TraceBank:
    """At most `most` different passing completions per task, by reservoir sampling (Vitter 1985, algorithm R).

    Of n different ones that came, each is kept with the probability min(1, most / n). One that was given up and comes
    again counts as a new one. Every random number follows from the seed, the task and n.
    """

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.seed = most, seed
        self.came: dict[str, int] = {}
        self.kept: dict[str, list[Trace]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.kept.values()))

    def add(self, task: str, prompt: Sequence[int], completion: Sequence[int]) -> None:
        """Offer a completion that passed."""
        trace, own = (list(prompt), list(completion)), self.kept.setdefault(task, [])
        if trace in own:
            return
        self.came[task] = count = self.came.get(task, 0) + 1
        if len(own) < self.most:
            own.append(trace)
        elif (place := derived_seed(self.seed, "bank", task, count) % count) < self.most:
            own[place] = trace

    def add_passing(self, tasks: Sequence[str], rollout: Rollout, passed: Sequence[bool]) -> None:
        """Offer the completions of a batch that passed; tasks, passed: one entry for each."""
        for row, task in enumerate(tasks):
            if passed[row]:
                prompt, completion = rollout.prompts[row], rollout.completions[row]
                self.add(task, prompt[rollout.prompt_mask[row]].tolist(), completion[rollout.mask[row]].tolist())

    def draw(self, rows: int, seed: int, pad_id: int = 0) -> Rollout:
        """`rows` completions, each drawn uniformly from the whole bank. ValueError: the bank is empty."""
        every = [trace for task in sorted(self.kept) for trace in self.kept[task]]
        if not every:
            raise ValueError("traces: no completion has passed yet; there is nothing to learn from")
        chosen = torch.randint(len(every), (rows,), generator=torch.Generator().manual_seed(seed))
        return rollout_of([every[place] for place in chosen.tolist()], pad_id)

    def save(self, folder: Path) -> None:
        """Write the bank into a folder that is there."""
        content = {"came": self.came, "kept": self.kept}
        (folder / TRACES_FILE).write_text(json.dumps(content), encoding="utf-8")

    def load(self, folder: Path) -> TraceBank:
        """Continue with what `save` wrote. CheckpointError: the folder has no bank, or it cannot be read."""
        file = folder / TRACES_FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self.came = {task: int(count) for task, count in content["came"].items()}
            self.kept = {
                task: [([*map(int, prompt)], [*map(int, completion)]) for prompt, completion in traces]
                for task, traces in content["kept"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{file}: no bank of traces ({error}); restore it or start in a new folder"
            ) from error
        return self


def rollout_of(traces: Sequence[Trace], pad_id: int = 0) -> Rollout:
    """Traces as a rollout: prompts padded on the left, completions on the right, with no log-probabilities."""
    before, after = (max(len(trace[side]) for trace in traces) for side in (0, 1))
    prompts, completions = (torch.full((len(traces), width), pad_id) for width in (before, after))
    prompt_mask, mask = (torch.zeros(tokens.shape, dtype=torch.bool) for tokens in (prompts, completions))
    for row, (prompt, completion) in enumerate(traces):
        prompts[row, before - len(prompt) :] = torch.tensor(prompt)
        prompt_mask[row, before - len(prompt) :] = True
        completions[row, : len(completion)] = torch.tensor(completion)
        mask[row, : len(completion)] = True
    unknown = torch.zeros(completions.shape)
    truncated = torch.zeros(len(traces), dtype=torch.bool)
    return Rollout(prompts, prompt_mask, completions, mask, unknown, unknown, truncated, ("",) * len(traces))


@dataclass(frozen=True)
class Restart:
    """How a campaign begins: with supervised steps on a bank, none if the bank is empty."""

    settings: RestartRecipe
    bank: TraceBank

    @classmethod
    def of(cls, settings: RestartRecipe, folder: Path, seed: int) -> Restart:
        """From the bank in a checkpoint. CheckpointError: it has none."""
        return cls(settings, TraceBank(settings.per_task, seed).load(folder))

    @property
    def steps(self) -> int:
        """Supervised steps."""
        return self.settings.steps if len(self.bank) else 0

    def __str__(self) -> str:
        if not self.steps:
            return "no completion has passed, so there are no supervised steps"
        return (
            f"{self.steps} supervised steps of {self.settings.rows} completions, drawn from {len(self.bank)} that "
            f"passed, of {len(self.bank.kept)} tasks, begin from the weights of the {self.settings.policy}"
        )


class Imitation:
    """The supervised steps of a policy on a bank: the loss is the mean of -ln pi over the tokens of `rows` traces.

    It has an optimizer of its own, so reinforcement learning begins with a new one. rate: factor on the learning rate.
    """

    def __init__(self, policy: Trainable, recipe: Recipe, restart: Restart, rate: float) -> None:
        self.bank, self.seed = restart.bank, recipe.seed
        self.settings = settings = restart.settings
        own = recipe.update
        kept = ("minibatches", "microbatch_rows", "optimizer", "warmup_steps", "weight_decay", "betas", "max_grad_norm")
        update = UpdateRecipe.model_validate(
            {name: getattr(own, name) for name in kept}
            | {"learning_rate": settings.learning_rate or own.learning_rate, "objective": "cispo"}
        )
        control = ControlRecipe(regions=recipe.control.regions)
        supervised = recipe.model_copy(update={"update": update, "control": control})
        self.learner = Learner(policy, supervised, EntropyController(total_steps=recipe.campaign.steps), rate=rate)

    def step(self, number: int) -> dict[str, Any]:
        """Take optimizer step `number`, the first of which is 1; its fields of the step line."""
        pad_id = getattr(self.learner.policy, "pad_id", 0)
        drawn = self.bank.draw(self.settings.rows, derived_seed(self.seed, "traces", number), pad_id)
        rollout = replace(drawn, old_logp=self.learner.recomputed(drawn))
        earned: Tensor = torch.ones(self.settings.rows)
        return {**self.learner.step(number, Experience(rollout, earned)), "traces": self.settings.rows}
