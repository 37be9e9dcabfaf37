"""Sample lines: the completions that a run folder keeps for a person to read, the training ones token by token.

A sample line of the training split carries, beside its text,
    "advantage": A,  "tokens": {"text": [...], "logp": [...], "entropy": [...], "sensitivity": [...]}
with one list entry per token of the completion, the end token included: its piece of the text, ln p_a, H and
T = C - p_a (ln p_a + H) under the policy that wrote it, in nats to four significant digits. The pieces join to the
completion's text. They give the surprisal -ln p_a and the polarity A T, before any reweighting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from entrostat.engine.policy import Trainable
from entrostat.engine.rollout import Rollout
from entrostat.entropy import sensitivity
from entrostat.grading import Verdict
from entrostat.tasks.sources import AnyTask
from entrostat.tokens import token_stats

UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are no character yet


def sample_lines(
    tasks: Sequence[AnyTask], rollout: Rollout, verdicts: Sequence[Verdict], samples: int
) -> list[dict[str, Any]]:
    """The first completion of each task, for a person to read."""
    return [
        {
            "task": task.id,
            "prompt": task.prompt,
            "completion": rollout.texts[i * samples],
            "outcome": verdicts[i * samples].outcome.value,
        }
        for i, task in enumerate(tasks)
    ]


@torch.no_grad()
def token_records(
    policy: Trainable, rollout: Rollout, rows: Sequence[int], temperature: float
) -> list[dict[str, list[Any]]]:
    """The fields "tokens" of the completions `rows`, from a forward pass; call it before the policy is updated."""
    some, device = rollout.rows(torch.tensor(rows)), policy.device
    ids = some.completions.to(device)
    logits = policy.logits(some.prompts.to(device), some.prompt_mask.to(device), ids, some.mask.to(device))
    stats = token_stats(logits, ids, temperature)
    columns = {"logp": stats.logp, "entropy": stats.entropy, "sensitivity": sensitivity(stats)}
    return [
        {
            "text": text_pieces(policy.decode, ids[i, :length].tolist(), some.texts[i]),
            **{name: _rounded(values[i, :length]) for name, values in columns.items()},
        }
        for i, length in enumerate(some.lengths.tolist())
    ]


def text_pieces(decode: Callable[[list[int]], str], ids: Sequence[int], text: str) -> list[str]:
    """The piece of `text`, which is `decode(ids)`, that each token adds; the pieces join to it.

    A token that adds nothing visible (an end token, the first bytes of a character that the next token completes) has
    an empty piece. A token is decoded after those of the last piece, as some decoders drop a leading space. The text
    is cut by the pieces' lengths, so the pieces are the text's even where a later token changes how bytes are read.
    """
    cuts = [0]
    start = read = 0
    for end in range(1, len(ids) + 1):
        known, grown = decode(list(ids[start:read])), decode(list(ids[start:end]))
        whole = len(grown) > len(known) and not grown.endswith(UNFINISHED)
        cuts.append(cuts[-1] + (len(grown) - len(known) if whole else 0))
        if whole:
            start, read = read, end
    return [text[cut:after] for cut, after in pairwise([*cuts[:-1], len(text)])] if ids else []


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]
