"""Rollouts: groups of completions, the probabilities they were sampled with, and their verdicts.

Random numbers have no state: the seed of every draw follows from the run's seed and the place where it is used
(`derived_seed`), and row i's token t is drawn by a uniform number of its own. A resumed run therefore needs no
generator from its checkpoint, and no draw depends on how many came before it.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from entrostat.engine.branches import Branches
from entrostat.engine.policy import Policy, PolicyError
from entrostat.grading import CodeGrader, Verdict
from entrostat.recipe import Recipe
from entrostat.tasks.sources import AnyTask

Ended = Callable[[Sequence[int], Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn: `samples` of every prompt, each of at most `max_new_tokens` tokens.

    Temperature 0 takes the most likely token. About `batch_rows` completions are drawn at a time. top_k, top_p: only
    tokens are drawn that `truncated_logp` keeps.
    """

    samples: int
    max_new_tokens: int
    temperature: float = 1.0
    batch_rows: int = 512
    top_k: int | None = None
    top_p: float = 1.0

    @classmethod
    def training(cls, recipe: Recipe) -> Sampling:
        """That of a recipe's rollout batches."""
        own = recipe.rollout
        return cls(own.samples, own.max_new_tokens, own.temperature, own.batch_rows, own.top_k, own.top_p)

    @classmethod
    def evaluation(cls, recipe: Recipe) -> Sampling:
        """That of a recipe's evaluations."""
        own, rollout = recipe.evaluation, recipe.rollout
        return cls(own.samples, rollout.max_new_tokens, own.temperature, rollout.batch_rows)


def derived_seed(seed: int, *place: str | int) -> int:
    """A seed in [0, 2^63) for one use, such as `derived_seed(run_seed, "rollout", batch)`."""
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Rollout:
    """Completions of a batch of prompts, B = prompts x samples rows in prompt order.

    prompts, prompt_mask: (B, P), padded on the left. completions, mask: (B, T), padded on the right, the end token
    included. old_logp: (B, T) float32, log-probability of each token under the distribution it was drawn from.
    entropy: (B, T) float32, entropy of that distribution in nats. truncated: (B,) no end token within the limit.
    """

    prompts: Tensor
    prompt_mask: Tensor
    completions: Tensor
    mask: Tensor
    old_logp: Tensor
    entropy: Tensor
    truncated: Tensor
    texts: tuple[str, ...]

    @property
    def lengths(self) -> Tensor:
        """Completion lengths in tokens (B,)."""
        return self.mask.sum(1)

    @property
    def token_count(self) -> int:
        """Completion tokens in all."""
        return int(self.mask.sum())

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """prompts, prompt_mask, completions and mask on a device: the arguments of a policy's `logits`."""
        whole = (self.prompts, self.prompt_mask, self.completions, self.mask)
        prompts, prompt_mask, completions, mask = (part.to(device) for part in whole)
        return prompts, prompt_mask, completions, mask

    def rows(self, index: Tensor) -> Rollout:
        """The rows of `index` (K,), cut to their longest completion."""
        width = max(1, int(self.lengths[index].max()))
        return Rollout(
            self.prompts[index],
            self.prompt_mask[index],
            self.completions[index, :width],
            self.mask[index, :width],
            self.old_logp[index, :width],
            self.entropy[index, :width],
            self.truncated[index],
            tuple(self.texts[i] for i in index.tolist()),
        )


def _left_padded(policy: Policy, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    encoded = [policy.encode(prompt) for prompt in prompts]
    width = max(len(ids) for ids in encoded)
    tokens = torch.full((len(encoded), width), policy.pad_id)
    mask = torch.zeros((len(encoded), width), dtype=torch.bool)
    for i, ids in enumerate(encoded):
        tokens[i, width - len(ids) :] = torch.tensor(ids)
        mask[i, width - len(ids) :] = True
    return tokens, mask


def _draw(logp: Tensor, place: Tensor, uniform: Tensor) -> Tensor:
    """Invert the cumulative distributions logp (U, V) at `place` (K,): tokens (K,) from uniforms (K,) in [0, 1)."""
    cumulative = logp.double().exp().cumsum(-1)[place]
    threshold = uniform.double().unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp_max(logp.shape[-1] - 1)


def truncated_logp(logp: Tensor, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """ln p (..., V) of the distribution without its improbable tokens, renormalised; -inf for those.

    Kept are the top_k likeliest tokens and, of these, the fewest whose probability reaches top_p (nucleus sampling,
    arXiv 1904.09751, section 3.1); at least one. Tokens as probable as the last one are kept with it.
    """
    if top_k is not None and top_k < logp.shape[-1]:
        least = logp.topk(top_k).values[..., -1:]
        logp = logp.masked_fill(logp < least, -torch.inf).log_softmax(-1)
    if top_p < 1:
        ordered = logp.sort(-1, descending=True).values
        before = ordered.exp().cumsum(-1) - ordered.exp()
        least = ordered.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
        logp = logp.masked_fill(logp < least, -torch.inf).log_softmax(-1)
    return logp


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Sequence[str],
    sampling: Sampling,
    seed: int | Sequence[int],
    ended: Ended = lambda rows, texts: None,  # noqa: ARG005
) -> Rollout:
    """Draw the completions of every prompt.

    Row i's token t is drawn by the uniform number u[i, t] of a generator seeded with `seed`: two policies sampled with
    one seed differ only by their probabilities (common random numbers), whichever rows end early. With a seed for
    each prompt, its completions do not depend on the other prompts either. At temperature 0 the statistics are those
    of temperature 1. `ended` is called with the rows and texts of completions that have ended, once for each, while
    others are still being drawn.
    Raises ValueError without prompts, PolicyError for a model that keeps no key-value cache or whose logits are not
    finite.
    """
    if not prompts:
        raise ValueError("prompts: the list is empty; give at least one prompt")
    tokens, mask = _left_padded(policy, prompts)
    samples, limit = sampling.samples, sampling.max_new_tokens
    _refuse_too_long(policy, tokens.shape[1], limit)
    if isinstance(seed, int):
        uniform = _uniform((len(tokens), samples, limit), seed)
    else:
        uniform = torch.stack([_uniform((samples, limit), own) for own in seed])
    size = max(1, sampling.batch_rows // samples)
    parts = []
    for start in range(0, len(tokens), size):
        chunk = slice(start, start + size)
        from_here = _from_row(start * samples, ended)
        parts.append(_complete(policy, tokens[chunk], mask[chunk], uniform[chunk], sampling, from_here))
    return concatenate(parts, policy.pad_id)


def _from_row(first: int, ended: Ended) -> Ended:
    """`ended` for a part of a batch, whose rows begin with `first`."""
    return lambda rows, texts: ended([first + row for row in rows], texts)


def _refuse_too_long(policy: Policy, prompt_tokens: int, max_new_tokens: int) -> None:
    """Raise PolicyError if a completion could exceed the model's number of positions."""
    positions = getattr(policy.model.config, "max_position_embeddings", None)
    if positions and prompt_tokens + max_new_tokens > positions:
        left = positions - prompt_tokens
        remedy = f"lower it to {left} or less" if left > 0 else "give shorter prompts"
        raise PolicyError(
            f"max_new_tokens: got {max_new_tokens} after a prompt of {prompt_tokens} tokens, but {policy.source} "
            f"has {positions} positions; {remedy}"
        )


def _uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _complete(
    policy: Policy, prompts: Tensor, prompt_mask: Tensor, uniform: Tensor, sampling: Sampling, ended: Ended
) -> Rollout:
    """Complete left-padded prompts (P, W) with the uniform numbers (P, samples, T)."""
    temperature = sampling.temperature
    (groups, samples, limit), device = uniform.shape, policy.device
    numbers = uniform.flatten(0, 1).to(device)
    stops = torch.tensor(policy.stop_ids, device=device)
    rows = len(numbers)
    completions = torch.full((rows, limit), policy.pad_id, device=device)
    old_logp = torch.zeros((rows, limit), device=device)
    entropy = torch.zeros((rows, limit), device=device)
    mask = torch.zeros((rows, limit), dtype=torch.bool, device=device)
    texts = [""] * rows

    def finish(those: Tensor) -> None:
        """Decode the rows that have ended and report them."""
        done = those.tolist()
        for row, ids, keep in zip(done, completions[those].cpu(), mask[those].cpu(), strict=True):
            texts[row] = policy.decode(ids[keep].tolist())
        ended(done, [texts[row] for row in done])

    branches = Branches(policy, prompts.to(device), prompt_mask.to(device), rows, limit)
    row = torch.arange(rows, device=device)  # those without an end token yet
    place = torch.arange(groups, device=device).repeat_interleave(samples)  # the branch of each
    for t in range(limit):
        logp = torch.log_softmax(branches.logits.float() / (temperature or 1.0), dim=-1)
        logp = truncated_logp(logp, sampling.top_k, sampling.top_p)
        token = _draw(logp, place, numbers[row, t]) if temperature else logp.argmax(-1)[place]
        completions[row, t] = token
        old_logp[row, t] = logp[place, token]
        entropy[row, t] = torch.special.entr(logp.exp()).sum(-1)[place]
        mask[row, t] = True
        over = torch.isin(token, stops)
        if bool(over.any()):
            finish(row[over])
            row, place, token = row[~over], place[~over], token[~over]
        if t == limit - 1 or not len(row):
            break
        place = branches.grow(place, token)

    if not bool(old_logp.isfinite().all()):
        raise PolicyError(
            f"policy: the logits of {policy.source} are not finite; in training lower update.learning_rate and start "
            "in a new folder, the checkpoints in this one are intact"
        )
    if len(row):
        finish(row)
    truncated = torch.zeros(rows, dtype=torch.bool)
    truncated[row.cpu()] = True
    whole = Rollout(
        prompts.repeat_interleave(samples, 0),
        prompt_mask.repeat_interleave(samples, 0),
        completions.cpu(),
        mask.cpu(),
        old_logp.cpu(),
        entropy.cpu(),
        truncated,
        tuple(texts),
    )
    return whole.rows(torch.arange(rows))


def concatenate(parts: Sequence[Rollout], pad_id: int) -> Rollout:
    """Several rollouts as one, padded to the widest."""
    prompt_width = max(part.prompts.shape[1] for part in parts)
    width = max(part.completions.shape[1] for part in parts)

    def left(x: Tensor, fill: int | bool) -> Tensor:
        return pad(x, (prompt_width - x.shape[1], 0), value=fill)

    def right(x: Tensor, fill: float | bool) -> Tensor:
        return pad(x, (0, width - x.shape[1]), value=fill)

    return Rollout(
        torch.cat([left(part.prompts, pad_id) for part in parts]),
        torch.cat([left(part.prompt_mask, False) for part in parts]),
        torch.cat([right(part.completions, pad_id) for part in parts]),
        torch.cat([right(part.mask, False) for part in parts]),
        torch.cat([right(part.old_logp, 0.0) for part in parts]),
        torch.cat([right(part.entropy, 0.0) for part in parts]),
        torch.cat([part.truncated for part in parts]),
        tuple(text for part in parts for text in part.texts),
    )


@dataclass(frozen=True, slots=True)
class GradedRollout:
    """Completions and their verdicts, in prompt order. waited: seconds from the last token to the last verdict."""

    rollout: Rollout
    verdicts: list[Verdict]
    waited: float


def sample_graded(
    policy: Policy, grader: CodeGrader, tasks: Sequence[AnyTask], sampling: Sampling, seed: int | Sequence[int]
) -> GradedRollout:
    """Draw the completions of every task, and grade each as soon as it has ended, while longer ones are being drawn.

    Raises what `sample` and `CodeGrader.grade` raise, after ending the gradings in progress.
    """
    waiting: deque[tuple[int, str]] = deque()
    verdicts: dict[int, Verdict] = {}
    executor, futures = ThreadPoolExecutor(1), []

    def judge() -> None:
        """Grade all waiting completions in one batch."""
        batch = [waiting.popleft() for _ in range(len(waiting))]
        if batch:
            graded = grader.grade([(tasks[row // sampling.samples], text) for row, text in batch])
            verdicts.update(zip((row for row, _ in batch), graded, strict=True))

    def ended(rows: Sequence[int], texts: Sequence[str]) -> None:
        waiting.extend(zip(rows, texts, strict=True))
        futures.append(executor.submit(judge))

    try:
        rollout = sample(policy, [task.prompt for task in tasks], sampling, seed, ended)
        sampled = time.perf_counter()
        for future in futures:
            future.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)  # first, or the next grading starts when this one ends
        grader.interrupt()
        raise
    finally:
        executor.shutdown()
    return GradedRollout(rollout, [verdicts[row] for row in range(len(verdicts))], time.perf_counter() - sampled)
