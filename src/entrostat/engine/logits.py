"""Logits of completion tokens given their prompts: one row per completion, or many completions in one row.

In a packed row a common prefix of sequences is read once: the prompt of a group, and the tokens that completions share
until they differ. Every token keeps the position that it has in its own sequence and attends to the tokens before it
there, so the logits equal those of separate rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import embedding

ROW_TOKENS = 160  # the cost of attention is quadratic in the row
LONGEST = 2048  # tokens of a prompt and its completion, above which rows stay separate
TOLERANCE = {torch.float32: 1e-3}  # of the largest logit; other types round more


@dataclass(frozen=True, slots=True)
class Packing:
    """tokens, positions: (R, L). attention: (R, 1, L, L), added to the scores. before: (B, T), the place in R x L of
    the token that each completion token is predicted from; padding points to the prompt's last.
    """

    tokens: Tensor
    positions: Tensor
    attention: Tensor
    before: Tensor


class _Row:
    """One row: its sequences as a forest, each token after its predecessor."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.pieces: list[tuple[int, int, int]] = []  # of consecutive places: begin, end, the place before or -1
        self._after: dict[tuple[int, int], int] = {}

    def known(self, sequence: list[int]) -> list[int]:
        """Places of the longest prefix of `sequence` in the row."""
        places: list[int] = []
        place: int | None = -1
        for token in sequence:
            place = self._after.get((cast(int, place), token))
            if place is None:
                break
            places.append(place)
        return places

    def add(self, sequence: list[int], known: list[int]) -> list[int]:
        """Append the part of `sequence` that is not `known`; return the places of all its tokens."""
        begin, end = len(self.tokens), len(self.tokens) + len(sequence) - len(known)
        if begin < end:
            self.pieces.append((begin, end, known[-1] if known else -1))
        places = known + list(range(begin, end))
        for depth in range(len(known), len(sequence)):
            self._after[places[depth - 1] if depth else -1, sequence[depth]] = places[depth]
        self.tokens += sequence[len(known) :]
        self.positions += range(len(known), len(sequence))
        return places

    def read(self, width: int) -> Tensor:
        """Whether each place attends to each other place (width, width); padding attends to itself."""
        read = torch.eye(width, dtype=torch.bool)
        for begin, end, before in self.pieces:
            if before >= 0:
                read[begin:end] = read[before]
            read[begin:end, begin:end] = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
        return read


def pack(prompts: Tensor, prompt_mask: Tensor, completions: Tensor, mask: Tensor, dtype: torch.dtype) -> Packing:
    """Pack left-padded prompts (B, P) and right-padded completions (B, T) into rows in the given order; a row is closed
    when the next sequence does not fit. dtype: that of the model's scores.
    """
    rows, ends = [_Row()], []
    lengths = prompt_mask.sum(1).tolist()
    for prompt, completion, length in zip(_kept(prompts, prompt_mask), _kept(completions, mask), lengths, strict=True):
        sequence = prompt + completion[:-1]  # nothing is predicted from the last token
        known = rows[-1].known(sequence)
        if rows[-1].tokens and len(rows[-1].tokens) + len(sequence) - len(known) > ROW_TOKENS:
            rows.append(_Row())
            known = []
        ends.append((len(rows) - 1, rows[-1].add(sequence, known)[length - 1 :]))
    width = max(len(row.tokens) for row in rows)
    before = torch.tensor(
        [
            [number * width + place for place in places + places[:1] * (completions.shape[1] - len(places))]
            for number, places in ends
        ]
    )
    read = torch.stack([row.read(width) for row in rows]).unsqueeze(1)
    attention = torch.zeros(read.shape, dtype=dtype).masked_fill(~read, torch.finfo(dtype).min)
    tokens, positions = (
        torch.tensor([values + [0] * (width - len(values)) for values in kind])
        for kind in ([row.tokens for row in rows], [row.positions for row in rows])
    )
    return Packing(*(part.to(mask.device) for part in (tokens, positions, attention, before)))


def _kept(tokens: Tensor, mask: Tensor) -> list[list[int]]:
    """Each row's tokens without its padding."""
    whole = tokens[mask].tolist()
    ends = mask.sum(1).cumsum(0).tolist()
    return [whole[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def packed_logits(model: Any, packing: Packing) -> Tensor:
    """Logits (B, T, V) of the packed completion tokens; undefined at padding."""
    out = model.base_model(
        input_ids=packing.tokens,
        attention_mask=packing.attention,
        position_ids=packing.positions,
        use_cache=False,
    )
    states = embedding(packing.before, out.last_hidden_state.flatten(0, 1))
    return cast(Tensor, model.get_output_embeddings()(states))


def separate_logits(model: Any, prompts: Tensor, prompt_mask: Tensor, completions: Tensor, mask: Tensor) -> Tensor:
    """Logits (B, T, V) of every completion token, given left-padded prompts (B, P) and completions (B, T)."""
    whole = torch.cat([prompt_mask, mask], dim=1).long()
    out = model(
        input_ids=torch.cat([prompts, completions], dim=1),
        attention_mask=whole,
        position_ids=(whole.cumsum(1) - 1).clamp_min(0),
        use_cache=False,
        logits_to_keep=completions.shape[1] + 1,
    )
    return cast(Tensor, out.logits[:, :-1])


@torch.no_grad()
def reads_packed_rows(model: Any) -> bool:
    """Whether a model's packed logits equal those of separate rows, tested on a few tokens.

    False with a sliding window, which would count the completions in between, and if the model refuses such a mask.
    """
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if windowed or kinds != {"full_attention"}:
        return False
    draw = torch.randint(0, config.vocab_size, (4, 9), generator=torch.Generator().manual_seed(0)).to(model.device)
    prompts, completions = draw[[0, 0, 0, 1], :4], draw[:, 4:]
    lengths = torch.tensor([3, 5, 1, 4], device=model.device)
    mask = torch.arange(5, device=model.device) < lengths.unsqueeze(1)
    batch = (prompts, torch.ones_like(prompts, dtype=torch.bool), completions, mask)
    try:
        packed = packed_logits(model, pack(*batch, model.dtype))[mask].float()
    except Exception:  # a model may raise anything for a mask or an argument that it does not know
        return False
    apart = separate_logits(model, *batch)[mask].float()
    return bool((packed - apart).abs().max() <= TOLERANCE.get(model.dtype, 5e-2) * apart.abs().max())
