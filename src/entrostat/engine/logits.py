"""Logits of completion tokens given their prompts: a row each, or the completions of a prompt in one row.

In a packed row the prompt is read once and its completions follow one another. Every token keeps the position that it
has in its own sequence and attends to the prompt and to its own completion only, so the logits are those of rows apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

ROW_TOKENS = 256  # attention costs a row its square
LONGEST = 2048  # tokens of a prompt and its completion, above which they stay apart
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


def pack(prompts: Tensor, prompt_mask: Tensor, completions: Tensor, mask: Tensor, dtype: torch.dtype) -> Packing:
    """Lay left-padded prompts (B, P) and right-padded completions (B, T) out in rows; neighbours with one prompt share
    a copy of it. dtype: that of the model's scores.
    """
    row, prompt_start, start, fresh = _places(prompts, prompt_mask, mask)
    prompt_lengths = prompt_mask.sum(1)
    rows, width = int(row[-1]) + 1, int((start + mask.sum(1)).max())
    turn = prompt_mask.cumsum(1) - 1
    column = torch.arange(mask.shape[1], device=mask.device)
    prompt_places = (row * width + prompt_start).unsqueeze(1) + turn
    places = (row * width + start).unsqueeze(1) + column
    copied = prompt_mask & fresh.unsqueeze(1)
    number = torch.arange(1, len(row) + 1, device=mask.device).unsqueeze(1)
    copy = fresh.cumsum(0).unsqueeze(1)

    def laid_out(of_prompts: Tensor, of_completions: Tensor) -> Tensor:
        out = torch.zeros(rows * width, dtype=torch.long, device=mask.device)
        out[prompt_places[copied]] = of_prompts.expand_as(copied)[copied]
        out[places[mask]] = of_completions.expand_as(mask)[mask]
        return out.view(rows, width)

    prompt_end = prompt_places[:, -1:]
    return Packing(
        tokens=laid_out(prompts, completions),
        positions=laid_out(turn, prompt_lengths.unsqueeze(1) + column),
        attention=_attention(laid_out(copy, copy), laid_out(torch.zeros_like(copy), number), dtype),
        before=torch.where((column == 0) | ~mask, prompt_end, places - 1),
    )


def _places(prompts: Tensor, prompt_mask: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every completion (B,) each: its row, where its prompt and itself start, whether the prompt is copied for it.

    In the order that they come in: a row is closed when the next completion does not fit.
    """
    same = (prompts[1:].eq(prompts[:-1]) & prompt_mask[1:].eq(prompt_mask[:-1])).all(1).tolist()
    prompt_lengths, lengths = prompt_mask.sum(1).tolist(), mask.sum(1).tolist()
    found: list[tuple[int, int, int, bool]] = []
    row, end, prompt_start = 0, 0, 0
    for prompt_length, length, known in zip(prompt_lengths, lengths, [False, *same], strict=True):
        new_row = end + length + (0 if known else prompt_length) > ROW_TOKENS and end > 0
        fresh = new_row or not known
        if new_row:
            row, end = row + 1, 0
        if fresh:
            prompt_start, end = end, end + prompt_length
        found.append((row, prompt_start, end, fresh))
        end += length
    rows, prompt_starts, starts, copied = (torch.tensor(x, device=mask.device) for x in zip(*found, strict=True))
    return rows, prompt_starts, starts, copied


def _attention(copy: Tensor, number: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a place of a row attends to another, the lowest number elsewhere (R, 1, L, L).

    copy: (R, L) which prompt's copy a token belongs to. number: (R, L) which completion, 0 in a prompt.
    """
    causal = torch.ones(copy.shape[1:] * 2, dtype=torch.bool, device=copy.device).tril()
    own = copy.unsqueeze(1) == copy.unsqueeze(2)
    read = (number == 0).unsqueeze(1) | (number.unsqueeze(1) == number.unsqueeze(2))
    hidden = ~(causal & own & read).unsqueeze(1)
    return torch.zeros(hidden.shape, dtype=dtype, device=copy.device).masked_fill(hidden, torch.finfo(dtype).min)


def packed_logits(model: Any, packing: Packing) -> Tensor:
    """Logits (B, T, V) of the packed completion tokens; those of padding mean nothing."""
    out = model.base_model(
        input_ids=packing.tokens,
        attention_mask=packing.attention,
        position_ids=packing.positions,
        use_cache=False,
    )
    states = out.last_hidden_state.flatten(0, 1)
    return cast(Tensor, model.get_output_embeddings()(states[packing.before]))


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
    """Whether a model's packed logits are those of rows apart, tried on a few tokens.

    Not with a sliding window, which would count the completions in between, nor where the model refuses such a mask.
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
    except Exception:  # whatever a model says to a mask or an argument that it does not know
        return False
    apart = separate_logits(model, *batch)[mask].float()
    return bool((packed - apart).abs().max() <= TOLERANCE.get(model.dtype, 5e-2) * apart.abs().max())
