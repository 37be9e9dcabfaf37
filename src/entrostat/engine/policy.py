"""The policy: a Hugging Face causal language model and its tokenizer, from a folder, a hub id or the package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from entrostat.engine.logits import LONGEST, pack, packed_logits, reads_packed_rows, separate_logits

EMBEDDED = "embedded"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class PolicyError(ValueError):
    """A model that cannot be loaded or used; the message names what is missing and the remedy."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A causal language model and the tokenizer that it was trained with.

    source: the folder or hub id it was loaded from. packs: the model reads several completions in one row.
    """

    model: Any
    tokenizer: Any
    source: str
    packs: bool = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(torch.device, self.model.device)

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end a completion: the generation settings' end tokens and the tokenizer's."""
        settings = getattr(self.model, "generation_config", None)
        ids = getattr(settings, "eos_token_id", None)
        named = [ids] if isinstance(ids, int) else list(ids or ())
        own = self.tokenizer.eos_token_id
        return list(dict.fromkeys([*named, *([own] if own is not None else [])]))

    @property
    def pad_id(self) -> int:
        """The padding token, or an end token where the tokenizer has none; masks keep the two apart."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self.stop_ids[0]

    def encode(self, prompt: str) -> list[int]:
        """The prompt's tokens. A tokenizer with a chat template gets the prompt as a user's turn."""
        templated = bool(getattr(self.tokenizer, "chat_template", None))  # it writes the special tokens itself
        text = written_out(prompt, self.tokenizer)
        return cast("list[int]", self.tokenizer.encode(text, add_special_tokens=not templated))

    def decode(self, ids: list[int]) -> str:
        """The completion's text, without special tokens."""
        return cast(str, self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def logits(self, prompts: Tensor, prompt_mask: Tensor, completions: Tensor, completion_mask: Tensor) -> Tensor:
        """Logits (B, T, V) of every completion token, given left-padded prompts (B, P) and completions (B, T).

        Neighbours with one prompt are read in one row where the model can; the logits of padding mean nothing.
        """
        if self.packs and prompts.shape[1] + completions.shape[1] <= LONGEST:
            packing = pack(prompts, prompt_mask, completions, completion_mask, self.model.dtype)
            return packed_logits(self.model, packing)
        return separate_logits(self.model, prompts, prompt_mask, completions, completion_mask)

    def save(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer so that `load_policy` and transformers can read them back."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def written_out(prompt: str, tokenizer: Any) -> str:
    """The prompt as a user's turn by the tokenizer's chat template; as it is where there is none."""
    if not getattr(tokenizer, "chat_template", None):
        return prompt
    turn = [{"role": "user", "content": prompt}]
    return cast(str, tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def embedded_folder() -> Path:
    """The folder of the policy that the package carries."""
    return Path(str(resources.files("entrostat.assets") / "listcraft"))


def load_policy(source: str | Path = EMBEDDED, dtype: str = "float32", device: str = "cpu") -> Policy:
    """Load a causal language model and its tokenizer.

    source: `embedded` (the package's own), a folder in Hugging Face format, or a hub id.
    Raises PolicyError when the folder is missing, holds no model or no tokenizer, or the device is not there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    refuse_unusable(source, dtype, device)
    folder = embedded_folder() if str(source) == EMBEDDED else Path(source)
    name = str(folder) if folder.exists() else str(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        raise PolicyError(
            f"policy.path: no tokenizer can be read from {name} ({_first_line(error)}); "
            "save the model's tokenizer beside its weights"
        ) from error
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=DTYPES[dtype]).to(device)
    except Exception as error:
        raise PolicyError(f"policy.path: no causal model can be read from {name} ({_first_line(error)})") from error
    model.eval()
    policy = Policy(model, tokenizer, name, reads_packed_rows(model))
    if not policy.stop_ids:
        raise PolicyError(f"policy.path: {name} names no end token; set eos_token in its tokenizer")
    return policy


def refuse_unusable(source: str | Path, dtype: str, device: str) -> None:
    """Raise PolicyError for what can be told without loading: an unknown dtype, an absent device, a folder that lacks
    its configuration or its tokenizer. Says in a line what transformers says at length.
    """
    if dtype not in DTYPES:
        raise PolicyError(f"policy.dtype: got {dtype!r}; choose one of {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise PolicyError(f"policy.device: got {device!r}, but torch sees no CUDA device; set policy.device to cpu")
    if str(source) == EMBEDDED:
        return
    folder = Path(source)
    if not folder.exists():
        if str(source).startswith((".", "/", "~")) or str(source).count("/") > 1:
            raise PolicyError(f"policy.path: {source} does not exist; give a model folder, a hub id or {EMBEDDED!r}")
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "config.json" not in names:
        raise PolicyError(f"policy.path: {folder} holds no config.json; give a folder in Hugging Face format")
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json"}:
        raise PolicyError(f"policy.path: {folder} holds no tokenizer; save the model's tokenizer beside its weights")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
