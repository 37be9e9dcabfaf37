"""A tabular autoregressive softmax policy, for which everything is computed exactly by enumeration.

A prompt asks for a chain of operations, in one phrase per operation. A completion is a chain of operations and an end
token. Each prompt offers K operations, so its completions of at most T tokens form a tree: a node per prefix of d < T
operations, numbered breadth first, and at each node a distribution over K operations and the end token. The logits of a
node are a row of one table of parameters, and the whole distribution over completions is known:

    reach(node)  = prod of the probabilities on the way to it       probability that a completion comes through the node
    length       = sum_node reach                                   expected tokens of a completion
    H(y)         = sum_node reach H(node)                           entropy of the whole completion (chain rule)
    H per token  = H(y) / length                                    what a mean over many sampled tokens tends to
    success      = sum_node reach p(end) [the chain is right]       pass@1
    pass@k       = 1 - (1 - success)^k

Two kinds of rows (`states`). "prefix": a row per prompt and prefix, so that all logits are independent. "phrase": a row
per phrase, that of the operation that is due; prompts share rows, so what is learned carries over to other tasks.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.stats import binom
from torch import Tensor, nn

from entrostat.engine.policy import PolicyError
from entrostat.engine.rollout import Rollout, derived_seed
from entrostat.objective.advantages import reward_tensor
from entrostat.tasks.listcraft import OPERATIONS, Operation, program_named
from entrostat.tasks.task import Call, Task

TABLE_FILE = "table.safetensors"
END = len(OPERATIONS)  # the end token; the others are the operations' numbers
PREFIX = "listcraft/"
States = Literal["prefix", "phrase"]
_NUMBER = {operation.name: number for number, operation in enumerate(OPERATIONS)}


@dataclass(frozen=True, slots=True)
class Prompts:
    """The trees of N prompts with K operations each and M nodes, in the order of `ids`.

    tokens: (N, K + 1), the operations that a prompt offers and the end token, as numbers of the vocabulary. asked:
    (N, T), for each depth the place in `tokens` of what the prompt asks for. phrases: its phrases, in order. right:
    (N, M), whether the chain of operations of a node passes the task's tests.
    """

    ids: tuple[str, ...]
    tokens: Tensor
    asked: Tensor
    phrases: tuple[tuple[str, ...], ...]
    right: Tensor

    @property
    def depth(self) -> int:
        """T, the most tokens of a completion."""
        return self.asked.shape[1]

    @property
    def choices(self) -> int:
        """K, the operations that a prompt offers."""
        return self.tokens.shape[1] - 1

    @classmethod
    def of(cls, tasks: Sequence[Task], choices: int, limit: int, seed: int) -> Prompts:
        """The trees of listcraft's tasks. Operations that a task does not ask for are drawn by the seed and its id.

        limit: the most tokens of a completion; the longest chain and its end token, if that is less.
        Raises ValueError for a task of another family, and if a task asks for more operations than `choices`.
        """
        programs = [_program(task) for task in tasks]
        depth = min(limit, 1 + max(len(program) for program in programs))
        tokens, asked, right = [], [], []
        for task, program in zip(tasks, programs, strict=True):
            own = list(dict.fromkeys(_NUMBER[operation.name] for operation in program))
            if len(own) > choices:
                raise ValueError(f"table.choices: got {choices}, but task {task.id!r} needs {len(own)}; raise it")
            others = random.Random(f"table {seed} {task.id}").sample(range(len(OPERATIONS)), choices + len(own))
            offered = (own + [number for number in others if number not in own])[:choices]
            offered.sort()
            tokens.append([*offered, END])
            places = [offered.index(_NUMBER[operation.name]) for operation in program]
            asked.append((places + [choices] * depth)[:depth])
            right.append(_right(task, [OPERATIONS[number] for number in offered], depth))
        phrases = tuple(tuple(task.prompt.removeprefix("# ").rstrip("\n").split(", then ")) for task in tasks)
        ids = tuple(task.id for task in tasks)
        return cls(ids, torch.tensor(tokens), torch.tensor(asked), phrases, torch.tensor(right))


def _program(task: Task) -> tuple[Operation, ...]:
    if not task.id.startswith(PREFIX):
        raise ValueError(f"tasks.family: {task.id!r} is not of listcraft, whose operations the table chooses among")
    return program_named(task.id.removeprefix(PREFIX)).operations


def _right(task: Task, operations: Sequence[Operation], depth: int) -> list[bool]:
    """For each node of the tree, breadth first, whether its chain of operations passes all the task's tests."""
    calls = [test for test in task.tests if isinstance(test, Call)]
    level: list[Any] = [[call.args[0] for call in calls]]  # per node the chain's values; None if it has none
    right = []
    for d in range(depth):
        right += [values is not None and _all_equal(values, calls) for values in level]
        if d < depth - 1:
            level = [_applied(operation, values) for values in level for operation in operations]
    return right


def _applied(operation: Operation, values: list[Any] | None) -> list[Any] | None:
    """The values after one more operation; None if they are no longer lists."""
    if values is None or not all(isinstance(value, list) for value in values):
        return None
    return [operation.apply(value) for value in values]


def _all_equal(values: Sequence[Any], calls: Sequence[Call]) -> bool:
    return all(
        type(value) is type(call.expected) and value == call.expected for value, call in zip(values, calls, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Exact:
    """The exact distribution over the completions of n prompts, each field (n,), with its gradient.

    entropy: of a whole completion, nats. length: expected tokens. success: probability that it is right. truncated:
    probability that it has no end token.
    """

    entropy: Tensor
    length: Tensor
    success: Tensor
    truncated: Tensor

    @property
    def token_entropy(self) -> Tensor:
        """Entropy per token in nats, a scalar: the limit of the mean over sampled tokens, sum H / sum length."""
        return self.entropy.sum() / self.length.sum()

    def pass_at(self, k: int) -> Tensor:
        """pass@k of each prompt (n,)."""
        return 1 - (1 - self.success) ** k


class TablePolicy:
    """The policy: one table of logits, and which row of it is the distribution of which node.

    states, start, spread: see `TableRecipe`. seed: of the first logits, which are
        start x [the token that the prompt asks for] + spread x standard normal.
    Each row is drawn by its own name, so it is the same whatever the other prompts are.
    """

    def __init__(self, prompts: Prompts, states: States, start: float, spread: float, seed: int) -> None:
        self.prompts, self.states = prompts, states
        self._offsets = torch.tensor([_nodes(prompts.choices, d) for d in range(prompts.depth + 1)])
        made = self._by_prefix(start, spread, seed) if states == "prefix" else self._by_phrase(start, spread, seed)
        self.rows, table, names = made
        self.model = _Table(table, names)

    @property
    def nodes(self) -> int:
        """M, the nodes of each prompt's tree."""
        return int(self._offsets[-1])

    @property
    def device(self) -> torch.device:
        """Where the table is."""
        return self.model.table.device

    def with_model(self, model: nn.Module) -> TablePolicy:
        """The same prompts and rows with another table."""
        other = copy.copy(self)
        other.model = cast(_Table, model)
        return other

    def logits(self, prompts: Tensor, prompt_mask: Tensor, completions: Tensor, completion_mask: Tensor) -> Tensor:  # noqa: ARG002
        """Logits (B, T, V) of completion tokens over all operations and the end; -inf for those not offered.

        prompts: (B, 1), the prompts' numbers. Raises PolicyError for a token that the prompt does not offer.
        """
        number = prompts[:, 0]
        offered = self.prompts.tokens[number]  # (B, K + 1)
        places = self._places(offered, completions, completion_mask)
        logits = self._logits(number.unsqueeze(1), self._path(places))
        whole = logits.new_full((*logits.shape[:2], END + 1), -torch.inf)
        return whole.scatter(2, offered.unsqueeze(1).expand(logits.shape), logits)

    def log_probabilities(self, which: Sequence[int] | slice = slice(None), temperature: float = 1.0) -> Tensor:
        """ln p (n, M, K + 1) at every node of the prompts `which`, over the offered operations and the end."""
        number = torch.arange(len(self.prompts.ids))[which]
        logits = self._logits(number.unsqueeze(1), torch.arange(self.nodes).unsqueeze(0))
        return (logits / temperature).log_softmax(-1)

    def exact(self, which: Sequence[int] | slice = slice(None), temperature: float = 1.0) -> Exact:
        """Exact quantities of the prompts `which`, with their gradients."""
        logp = self.log_probabilities(which, temperature)
        p = logp.exp()
        reach = self._reach(p)
        ends = reach * p[..., -1]
        return Exact(
            entropy=-(reach.unsqueeze(-1) * p * logp).sum((1, 2)),
            length=reach.sum(1),
            success=(ends * self.prompts.right[which]).sum(1),
            truncated=1 - ends.sum(1),
        )

    @torch.no_grad()
    def divergence(
        self, other: TablePolicy, which: Sequence[int] | slice = slice(None), temperature: float = 1.0
    ) -> Tensor:
        """KL(self, other) in nats per token, a scalar: that of whole completions, by the expected tokens of `self`.

        sum_node reach(node) KL(p(node), p_other(node)) / sum_node reach(node)      over all prompts `which`
        """
        logp, theirs = (policy.log_probabilities(which, temperature) for policy in (self, other))
        p = logp.exp()
        reach = self._reach(p)
        return (reach * (p * (logp - theirs)).sum(-1)).sum() / reach.sum()

    def chances(self, which: Sequence[int] | slice = slice(None), temperature: float = 1.0) -> Tensor:
        """The probability (n, M) of each right completion; 0 at nodes whose chain is wrong."""
        p = self.log_probabilities(which, temperature).exp()
        return self._reach(p) * p[..., -1] * self.prompts.right[which]

    @torch.no_grad()
    def sample(self, number: Tensor, limit: int, seed: int, temperature: float = 1.0) -> Rollout:
        """One completion for each of the prompts `number` (B,), of at most `limit` tokens.

        Token t of row i is drawn by a uniform number of its own, so two policies sampled with one seed differ only by
        their probabilities. Temperature 0 takes the most likely token.
        """
        rows, length = len(number), min(limit, self.prompts.depth)
        uniform = torch.rand((rows, length), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        choices, offered = self.prompts.choices, self.prompts.tokens[number]
        completions = torch.full((rows, length), END)
        old_logp, entropy = torch.zeros(rows, length), torch.zeros(rows, length)
        mask = torch.zeros((rows, length), dtype=torch.bool)
        node, going = torch.zeros(rows, dtype=torch.long), torch.ones(rows, dtype=torch.bool)
        for t in range(length):
            logp = (self._logits(number, node) / (temperature or 1.0)).log_softmax(-1)
            p = logp.exp()
            cumulative = p.double().cumsum(-1)
            place = torch.searchsorted(cumulative, uniform[:, t : t + 1] * cumulative[:, -1:], right=True).squeeze(-1)
            place = place.clamp_max(choices) if temperature else logp.argmax(-1)
            completions[:, t] = offered.gather(1, place.unsqueeze(1)).squeeze(1).where(going, END)
            old_logp[:, t] = logp.gather(1, place.unsqueeze(1)).squeeze(1).where(going, 0)
            entropy[:, t] = torch.special.entr(p).sum(-1).where(going, 0)
            mask[:, t] = going
            going = going & (place != choices)
            if t < length - 1:
                node = self._child(node, place.clamp_max(choices - 1), t)
        texts = tuple(self.decode(ids[keep].tolist()) for ids, keep in zip(completions, mask, strict=True))
        prompts = number.unsqueeze(1)
        whole = Rollout(
            prompts, torch.ones_like(prompts, dtype=torch.bool), completions, mask, old_logp, entropy, going, texts
        )
        return whole.rows(torch.arange(rows))

    @torch.no_grad()
    def passes(self, rollout: Rollout) -> Tensor:
        """Whether each completion (B,) has an end token and a right chain of operations."""
        number = rollout.prompts[:, 0]
        places = self._places(self.prompts.tokens[number], rollout.completions, rollout.mask)
        last = rollout.lengths - 1
        node = self._path(places).gather(1, last.unsqueeze(1)).squeeze(1)
        return self.prompts.right[number, node] & ~rollout.truncated

    def decode(self, ids: Sequence[int]) -> str:
        """The operations' names joined by +, without the end token."""
        return "+".join(OPERATIONS[token].name for token in ids if token != END)

    def save(self, folder: str | Path) -> None:
        """Write the table and the names of its rows, in a form that `load` reads."""
        names = {"names": json.dumps(self.model.names), "states": self.states}
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({"table": self.model.table.detach().contiguous()}, Path(folder) / TABLE_FILE, metadata=names)

    @torch.no_grad()
    def load(self, folder: str | Path) -> TablePolicy:
        """Take the rows of the same names from a saved table; the others keep their values.

        Raises PolicyError if the folder holds no table, or one with rows of another kind.
        """
        file = Path(folder) / TABLE_FILE
        if not file.exists():
            raise PolicyError(f"policy.path: {folder} holds no {TABLE_FILE}; give a checkpoint of engine tabular")
        try:
            with safe_open(file, "pt") as saved:
                metadata, table = saved.metadata() or {}, saved.get_tensor("table")
            names, states = json.loads(metadata["names"]), metadata["states"]
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise PolicyError(f"policy.path: {file} cannot be read ({error}); give a whole checkpoint") from error
        rows = {name: place for place, name in enumerate(names)}
        places = [rows.get(name) for name in self.model.names]
        ours = self.model.table
        if states != self.states or table.shape[1:] != ours.shape[1:] or len(names) != len(table):
            raise PolicyError(
                f"policy.path: {file} has rows by {states} of {tuple(table.shape[1:])} logits, but the recipe's have "
                f"{tuple(ours.shape[1:])} by {self.states}; give the settings in `table` that it was made with"
            )
        for place, old in enumerate(places):
            if old is not None:
                ours[place] = table[old]
        return self

    @property
    def _depths(self) -> Tensor:
        """The depth of each node (M,)."""
        return torch.searchsorted(self._offsets, torch.arange(self.nodes), right=True) - 1

    def _by_prefix(self, start: float, spread: float, seed: int) -> tuple[Tensor, Tensor, list[str]]:
        """Row numbers (N, M), the table (N, M, K + 1), and the prompts' ids."""
        prompts, own, depth = self.prompts, [], self._depths
        for number, name in enumerate(prompts.ids):
            noise = torch.randn(self.nodes, prompts.choices + 1, generator=_generator(seed, name))
            asked = torch.nn.functional.one_hot(prompts.asked[number, depth], prompts.choices + 1)
            own.append(start * asked + spread * noise)
        rows = torch.arange(len(prompts.ids) * self.nodes).view(len(prompts.ids), self.nodes)
        return rows, torch.stack(own), list(prompts.ids)

    def _by_phrase(self, start: float, spread: float, seed: int) -> tuple[Tensor, Tensor, list[str]]:
        """Row numbers (N, M), the table (R, V), and the phrases, of which "" is the end of the prompt."""
        prompts = self.prompts
        asked: dict[str, int] = {"": END}
        for phrases, tokens, places in zip(prompts.phrases, prompts.tokens, prompts.asked, strict=True):
            for phrase, place in zip(phrases, places.tolist(), strict=False):
                asked[phrase] = int(tokens[place])
        names = sorted(asked)
        table = torch.stack([spread * torch.randn(END + 1, generator=_generator(seed, name)) for name in names])
        table[range(len(names)), [asked[name] for name in names]] += start
        number = {name: place for place, name in enumerate(names)}
        by_depth = torch.tensor(
            [
                [number[phrases[d]] if d < len(phrases) else number[""] for d in range(prompts.depth)]
                for phrases in prompts.phrases
            ]
        )
        return by_depth[:, self._depths], table, names

    def _logits(self, number: Tensor, node: Tensor) -> Tensor:
        """Logits (..., K + 1) over what prompts `number` offer, at nodes `node`; the two broadcast to (...)."""
        rows = self.rows[number, node]
        if self.states == "prefix":
            return self.model.table.flatten(0, 1)[rows]
        return self.model.table[rows.unsqueeze(-1), self.prompts.tokens[number]]

    def _places(self, offered: Tensor, completions: Tensor, mask: Tensor) -> Tensor:
        """The places (B, T) of tokens among those offered (B, K + 1); padding counts as the first."""
        equal = completions.unsqueeze(-1) == offered.unsqueeze(1)
        if not bool(equal.any(-1)[mask].all()):
            raise PolicyError("completions: a token is none that its prompt offers; score completions of this policy")
        return equal.long().argmax(-1)

    def _path(self, places: Tensor) -> Tensor:
        """The nodes (B, T) at which the tokens were drawn."""
        nodes = [torch.zeros(len(places), dtype=torch.long)]
        for t in range(places.shape[1] - 1):
            nodes.append(self._child(nodes[-1], places[:, t].clamp_max(self.prompts.choices - 1), t))
        return torch.stack(nodes, 1)

    def _child(self, node: Tensor, place: Tensor, depth: int) -> Tensor:
        """The nodes (B,) after the operations at `place` (B,) from nodes of this depth."""
        return self._offsets[depth + 1] + (node - self._offsets[depth]) * self.prompts.choices + place

    def _reach(self, p: Tensor) -> Tensor:
        """The probability (n, M) of each node, from the probabilities p (n, M, K + 1)."""
        level = p.new_ones(len(p), 1)
        levels = [level]
        for d in range(self.prompts.depth - 1):
            here = p[:, self._offsets[d] : self._offsets[d + 1], :-1]
            level = (level.unsqueeze(-1) * here).flatten(1)
            levels.append(level)
        return torch.cat(levels, 1)


class _Table(nn.Module):
    """The parameters; names: of the table's first dimension."""

    def __init__(self, table: Tensor, names: list[str]) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.names = names


def expected_gap(judge: Callable[[Tensor], Tensor], chance: Tensor, samples: int) -> Tensor:
    """E[A | right] - E[A | wrong] of a completion in a group of `samples`, for each prompt (n,).

    judge: an advantage that looks at one group only; chance (n,): the probability that a completion is rewarded. With
    c of the other completions rewarded, c ~ Binomial(samples - 1, chance), the advantage is judge's on such a group.
    The expected policy gradient of a prompt, E[A d ln pi(y)], is then exactly expected_gap x d chance.
    """
    others = samples - 1
    groups = [[first] + [1.0] * c + [0.0] * (others - c) for first in (1.0, 0.0) for c in range(others + 1)]
    values = judge(reward_tensor(groups))[:, 0].double().view(2, samples)
    shares = binom.pmf(np.arange(samples), others, chance.detach().double().numpy()[..., None])
    return (torch.from_numpy(shares) * (values[0] - values[1])).sum(-1)


def _nodes(choices: int, depth: int) -> int:
    """The nodes of a tree above `depth`."""
    return sum(choices**d for d in range(depth))


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(seed, "table", name))
