"""Off-policy on purpose: completions by a policy that is some updates old, or whose numbers are rounded.

What asynchronous trainers and inference engines do to the sampler, made exact, deterministic and resumable, so that its
effect and its corrections can be studied. Corrections and metrics: `entrostat.objective.corrections`.
"""

from __future__ import annotations

import copy
from collections import deque
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from entrostat.engine.policy import Trainable
from entrostat.recipe.sections import RolloutRecipe

SAMPLER_FILE = "sampler.safetensors"
LARGEST_INT8 = 127


class Sampler:
    """The policy that samples: the trained one, or a copy of how it was `staleness` optimizer steps ago, rounded.

    Before so many steps are done, it is the start. Past weights are kept as copies: `staleness` times the memory of the
    weights.
    """

    def __init__(self, trained: Trainable, settings: RolloutRecipe) -> None:
        self.trained, self.settings = trained, settings
        self._past: deque[dict[str, Tensor]] = deque(maxlen=settings.staleness)
        self._copy: Trainable | None = None

    @property
    def lag(self) -> int:
        """Optimizer steps between the weights that sample now and the trained ones."""
        return len(self._past)

    def remember(self) -> None:
        """Keep the weights as they are before an optimizer step."""
        if self.settings.staleness:
            self._past.append({name: each.detach().clone() for name, each in self.trained.model.named_parameters()})

    def policy(self) -> Trainable:
        """The policy that samples now."""
        if not self._past and self.settings.dtype is None:
            return self.trained
        if self._copy is None:
            self._copy = self.trained.with_model(copy.deepcopy(self.trained.model).requires_grad_(False))
            if self.settings.dtype == "bfloat16":
                self._copy.model.to(torch.bfloat16)
        weights = self._past[0] if self._past else dict(self.trained.model.named_parameters())
        with torch.no_grad():
            for name, own in self._copy.model.named_parameters():
                own.copy_(rounded_to_int8(weights[name]) if self.settings.dtype == "int8" else weights[name])
        return self._copy

    def save(self, folder: Path) -> None:
        """Write the past weights into an existing folder."""
        tensors = {f"{age}.{name}": each for age, past in enumerate(self._past) for name, each in past.items()}
        if tensors:
            save_file(tensors, folder / SAMPLER_FILE)

    def load(self, folder: Path) -> None:
        """Continue with the past weights that `save` wrote."""
        file = folder / SAMPLER_FILE
        found: dict[int, dict[str, Tensor]] = {}
        for key, tensor in load_file(file, device=str(self.trained.device)).items() if file.exists() else ():
            age, _, name = key.partition(".")
            found.setdefault(int(age), {})[name] = tensor
        self._past.clear()
        self._past.extend(found[age] for age in sorted(found))


def rounded_to_int8(weight: Tensor) -> Tensor:
    """Each row of a matrix rounded to 255 levels, symmetric about 0: s round(w / s), s = max abs(w) / 127 of the row.

    What quantised weights compute with; vectors, such as norms and biases, stay as they are.
    """
    if weight.dim() < 2:
        return weight
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / LARGEST_INT8
    return (weight / scale).round() * scale
