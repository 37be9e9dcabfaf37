"""The entropy of what any trainer of Transformers trains, read from its forward passes; nothing is changed.

    trainer = SFTTrainer(model, args, train_dataset=data)
    MeasureCallback().attach(trainer)
    trainer.train()

Logged with the trainer's own numbers, over all tokens, micro-batches and ranks since the last log, in nats per token:
    entrostat/entropy      mean H
    entrostat/surprisal    mean -ln p of the trained tokens
    entrostat/collision    mean sum p^2
    entrostat/correction   mean C = sum p^2 (ln p + H)
and as eval_entrostat/... over the batches of an evaluation that give labels. TRL's fused output layer (1.16 and later)
gives no logits: there the correction is left out, and the others where TRL does not compute them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from entrostat.tokens import token_stats

NAMES = ("entropy", "surprisal", "collision", "correction")


class MeasureCallback(TrainerCallback):  # type: ignore[misc]
    """Measures the tokens that the model predicts in its training passes: those with a label where the trainer gives
    labels, else all that the attention mask keeps.

    temperature: logits are divided by it, as a trainer of RL does. Raises ValueError for one that is not positive, and
    at the first log if no pass gave logits, such as under a fused loss.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; give a number above 0")
        self.temperature = temperature
        self._hook: Any = None
        self._sums = {"train": _nothing(), "eval": _nothing()}

    def attach(self, trainer: Any) -> MeasureCallback:
        """Add the callback before those that report the log, so that they receive its numbers too."""
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Watch the model's forward passes."""
        self._hook = model.register_forward_hook(self._record, with_kwargs=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Leave the model as it was."""
        self._hook.remove()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Add the numbers to the log that the trainer has just written."""
        if not logs:
            return
        evaluated = any(name.startswith("eval_") for name in logs)
        if not evaluated and "loss" not in logs:
            return
        mode = "eval" if evaluated else "train"
        sums, self._sums[mode] = _over_ranks(self._sums[mode]), _nothing()
        if not evaluated and not sums[0, 1]:
            raise ValueError(
                "MeasureCallback: no training pass gave logits or entropies; switch off the loss that is fused with "
                "the output layer, such as use_liger_kernel, or remove the callback"
            )
        prefix = "eval_entrostat/" if evaluated else "entrostat/"
        numbers = {
            prefix + name: total / count for name, (total, count) in zip(NAMES, sums.tolist(), strict=True) if count
        }
        logs.update(numbers)
        state.log_history[-1].update(numbers)

    @torch.no_grad()
    def _record(self, model: Any, args: tuple[Any, ...], inputs: Mapping[str, Any], output: Any) -> None:
        columns = self._columns(inputs, inputs.get("input_ids", args[0] if args else None), output)
        if not columns:
            return
        scored = getattr(output, "log_probs", None)
        scored = output.logits if scored is None else scored
        training = model.training and scored.requires_grad
        if training or not (model.training or inputs.get("labels") is None):  # the rest samples, or scores old tokens
            sums = self._sums["train" if training else "eval"]
            for name, column in columns.items():
                sums[NAMES.index(name)] += torch.tensor([column.double().sum().item(), len(column)]).double()

    def _columns(self, inputs: Mapping[str, Any], ids: Tensor | None, output: Any) -> dict[str, Tensor]:
        """The statistics of the pass's tokens by name, each (N,); empty where it gives none."""
        mask = getattr(output, "label_mask", None)
        if mask is not None:  # TRL's fused output layer, which has divided by its trainer's temperature
            columns = {"entropy": output.entropy, "surprisal": -output.log_probs}
            squared = output.log_sum_sq_probs
            columns["collision"] = None if squared is None else squared.exp()
            return {name: column[mask] for name, column in columns.items() if column is not None}
        logits: Tensor | None = getattr(output, "logits", None)
        if logits is None or ids is None or logits.dim() != 3 or not 1 < logits.shape[1] <= ids.shape[1]:
            return {}
        kept = logits.shape[1] - 1
        labels, attention = inputs.get("labels"), inputs.get("attention_mask")
        mask = torch.ones_like(ids, dtype=torch.bool) if attention is None else attention.bool()
        mask = (mask if labels is None else labels != -100)[:, -kept:]
        stats = token_stats(logits[:, :-1][mask], ids[:, -kept:][mask], self.temperature)
        return {
            "entropy": stats.entropy,
            "surprisal": -stats.logp,
            "collision": stats.collision,
            "correction": stats.correction,
        }


def _nothing() -> Tensor:
    """Of each name the sum over tokens and the number of tokens, float64."""
    return torch.zeros(len(NAMES), 2, dtype=torch.float64)


def _over_ranks(sums: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return sums
    nccl = torch.distributed.get_backend() == "nccl"
    sums = sums.to(torch.device("cuda", torch.cuda.current_device()) if nccl else "cpu", copy=True)
    torch.distributed.all_reduce(sums)
    return sums.cpu()
