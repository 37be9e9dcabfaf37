"""The policy: a Hugging Face causal language model and its tokenizer, from a folder, a hub id or the package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from logging import CRITICAL
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from typing_extensions import Self

from entrostat.campaign.checkpoints import model_source
from entrostat.engine.logits import LONGEST, pack, packed_logits, reads_packed_rows, separate_logits
from entrostat.errors import EntrostatError

EMBEDDED = "embedded"
SHOWN = 3  # names that an error lists
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")
WEIGHTS = (".safetensors", ".bin", ".index.json")
REMEDIES = {
    "configuration": "give a folder in Hugging Face format, or a hub id",
    "tokenizer": "save the model's tokenizer beside its weights",
    "causal model": "give a whole checkpoint of a decoder-only model",
}


class PolicyError(EntrostatError, ValueError):
    """A model that cannot be loaded or used; the message names what is missing and the remedy."""


class Trainable(Protocol):
    """A policy as the trainer sees it: weights, and the logits of completions."""

    @property
    def model(self) -> Any:
        """The module whose `parameters()` are trained."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def logits(self, prompts: Tensor, prompt_mask: Tensor, completions: Tensor, completion_mask: Tensor) -> Tensor:
        """See `Policy.logits`."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of a completion."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write it so that the engine can load it again."""
        ...

    def with_model(self, model: Any) -> Self:
        """The same policy with other weights."""
        ...


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
        """The padding token, or an end token if the tokenizer has none; masks distinguish the two."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self.stop_ids[0]

    def with_model(self, model: Any) -> Policy:
        """See `Trainable.with_model`."""
        return replace(self, model=model)

    def encode(self, prompt: str) -> list[int]:
        """The prompt's tokens. With a chat template, the prompt is written as a user's turn.

        PolicyError: there are none, or the model has no embedding for one.
        """
        templated = bool(getattr(self.tokenizer, "chat_template", None))  # which writes the special tokens itself
        text = written_out(prompt, self.tokenizer)
        ids = cast("list[int]", self.tokenizer.encode(text, add_special_tokens=not templated))
        if not ids:
            raise PolicyError(f"a prompt has no tokens ({prompt[:40]!r}); give every task a prompt")
        rows = self.model.get_input_embeddings().weight.shape[0]
        if max(ids) >= rows:
            raise PolicyError(
                f"the prompt {prompt[:40]!r} has token {max(ids)}, beyond the model's embedding of {rows}; "
                "take the text of that special token out of the prompt"
            )
        return ids

    def decode(self, ids: list[int]) -> str:
        """The completion's text, without special tokens."""
        return cast(str, self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def logits(self, prompts: Tensor, prompt_mask: Tensor, completions: Tensor, completion_mask: Tensor) -> Tensor:
        """Logits (B, T, V) of every completion token, given left-padded prompts (B, P) and completions (B, T).

        Completions of one prompt are packed into one row if the model allows it; the logits of padding mean nothing.
        """
        if self.packs and prompts.shape[1] + completions.shape[1] <= LONGEST:
            packing = pack(prompts, prompt_mask, completions, completion_mask, self.model.dtype)
            return packed_logits(self.model, packing)
        return separate_logits(self.model, prompts, prompt_mask, completions, completion_mask)

    def save(self, folder: str | Path) -> None:
        """Write weights, configuration and tokenizer in a form that `load_policy` and transformers can read."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def written_out(prompt: str, tokenizer: Any) -> str:
    """The prompt as a user's turn in the tokenizer's chat template; unchanged if there is none."""
    if not getattr(tokenizer, "chat_template", None):
        return prompt
    turn = [{"role": "user", "content": prompt}]
    return cast(str, tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def embedded_folder() -> Path:
    """The folder of the package's own policy."""
    return Path(str(resources.files("entrostat.assets") / "listcraft"))


def load_policy(source: str | Path = EMBEDDED, dtype: str = "float32", device: str = "cpu") -> Policy:
    """Load a causal language model and its tokenizer. Code that comes with a model is never run.

    source: `embedded` (the package's own), a folder in Hugging Face format, a hub id, or what a run keeps: `RUN@peak`.
    Raises CheckpointError for a run that does not keep it, and PolicyError, naming what is wrong and the remedy: an
    unknown dtype; an absent device; a folder that is missing or lacks configuration, weights or tokenizer; an
    adapter; quantised weights; custom code; an encoder-decoder, or a model that sees later tokens; tensors that are
    missing, left over, of another shape or not finite (tied embeddings may be stored once); a tokenizer that does not
    fit the embedding; no end token.
    """
    source = model_source(source)
    refuse_unusable(source, dtype, device)
    folder = embedded_folder() if str(source) == EMBEDDED else Path(source)
    name = str(folder) if folder.exists() else str(source)
    refuse_untrainable(_read(name, "configuration", "AutoConfig"), name)
    tokenizer = _read(name, "tokenizer", "AutoTokenizer")
    model = _read_model(name, DTYPES[dtype]).to(device)
    model.eval()
    policy = Policy(model, tokenizer, name, reads_packed_rows(model))
    refuse_misfit(policy)
    return policy


def _read(name: str, what: str, reader: str, **settings: Any) -> Any:
    """What transformers reads from `name`, without output or prompts. PolicyError: it cannot."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)  # our error says in one line what it would report at length
    try:
        return getattr(transformers, reader).from_pretrained(name, trust_remote_code=False, **settings)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise PolicyError(
                f"policy.path: {name} comes with code of its own, which is not run; choose a model whose architecture "
                "is part of transformers"
            ) from error
        raise PolicyError(
            f"policy.path: no {what} can be read from {name} ({_first_line(error)}); {REMEDIES[what]}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def _read_model(name: str, dtype: torch.dtype) -> Any:
    """The model with exactly the tensors of its checkpoint. PolicyError: some are missing, left over or misshapen."""
    model, report = _read(
        name,
        "causal model",
        "AutoModelForCausalLM",
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are reported
    )
    faults = {
        "are missing, and would be random": report["missing_keys"],
        "belong to no part of the model": report["unexpected_keys"],
        "have another shape than config.json says": {key[0] for key in report["mismatched_keys"]},
    }
    for fault, names in faults.items():
        if names:
            raise PolicyError(
                f"policy.path: {len(names)} tensors of {name} {fault} ({_some(names)}); "
                "give the model's own checkpoint, whole, with its own config.json"
            )
    broken = [key for key, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise PolicyError(
            f"policy.path: {len(broken)} tensors of {name} hold NaN or infinity ({_some(broken)}); "
            "give an earlier checkpoint, or one in another dtype"
        )
    return model


def refuse_untrainable(config: Any, name: str) -> None:
    """Raise PolicyError if the configuration is not that of a causal model with plain weights."""
    if getattr(config, "is_encoder_decoder", False):
        raise PolicyError(f"policy.path: {name} is an encoder-decoder ({config.model_type}); give a decoder-only model")
    if getattr(config, "quantization_config", None):
        raise PolicyError(f"policy.path: {name} holds quantised weights, which cannot be trained; give the full model")


@torch.no_grad()
def refuse_misfit(policy: Policy) -> None:
    """Raise PolicyError if model and tokenizer do not fit, no token ends a completion, or tokens see later ones."""
    rows = int(policy.model.get_input_embeddings().weight.shape[0])
    beyond = _beyond(policy.tokenizer, rows)
    if beyond:
        raise PolicyError(
            f"policy.path: the tokenizer of {policy.source} has {len(beyond)} tokens beyond the model's embedding of "
            f"{rows} ({_some(beyond)}); give the model's own tokenizer, or resize the embedding and save the model"
        )
    if not policy.stop_ids:
        raise PolicyError(f"policy.path: {policy.source} names no end token; set eos_token in its tokenizer")
    for stop in policy.stop_ids:
        if type(stop) is not int or not 0 <= stop < rows:
            raise PolicyError(
                f"policy.path: {policy.source} ends at token {stop!r}, which the model's embedding of {rows} does not "
                "have; set eos_token in its tokenizer and eos_token_id in its generation_config.json"
            )
    if sees_later_tokens(policy.model, rows):
        raise PolicyError(
            f"policy.path: {policy.source} ({type(policy.model).__name__}) lets tokens see later ones, so it is no "
            "causal model; give a decoder, or set is_decoder in its config.json if it was trained as one"
        )


@torch.no_grad()
def sees_later_tokens(model: Any, rows: int) -> bool:
    """Whether the logits of a position change with the token after it, by more than rounding explains.

    Rounding changes them a little in any model, because rows of a batch may use different kernels; in a model that
    attends to later tokens they change about as much as the logits of that token's own position.
    """
    ids = torch.tensor([[0, 1, 2], [0, 1, 3]], device=model.device) % rows
    first, second = model(input_ids=ids).logits.float()
    before, own = (first - second).abs().split([2, 1])
    scale = max(float(own.max()), float(first.std()))
    return float(before.max()) > (1e-4 if model.dtype == torch.float32 else 5e-2) * scale


def _beyond(tokenizer: Any, rows: int) -> list[str]:
    """Tokens without a row in the embedding, except placeholders for images, sound and video, which no text has."""
    named = getattr(tokenizer, "special_tokens_map", {})
    media = {str(named[kind]) for kind in ("image_token", "audio_token", "video_token") if kind in named}
    return [token for token, number in tokenizer.get_vocab().items() if number >= rows and token not in media]


def refuse_unusable(source: str | Path, dtype: str, device: str) -> None:
    """Raise PolicyError for faults that are visible without loading: an unknown dtype, an absent device, a folder that
    lacks its configuration, its tokenizer or its weights, and an adapter.
    """
    if dtype not in DTYPES:
        raise PolicyError(f"policy.dtype: got {dtype!r}; choose one of {', '.join(DTYPES)}")
    if not DEVICE.fullmatch(str(device)):
        raise PolicyError(f"policy.device: got {device!r}; choose cpu, cuda or cuda:N")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise PolicyError(f"policy.device: got {device!r}, but torch sees no CUDA device; set policy.device to cpu")
    if str(device).startswith("cuda:") and int(str(device)[5:]) >= torch.cuda.device_count():
        raise PolicyError(f"policy.device: got {device!r}, but torch sees {torch.cuda.device_count()} CUDA devices")
    if str(source) == EMBEDDED:
        return
    folder = Path(source)
    if not folder.exists():
        if str(source).startswith((".", "/", "~")) or str(source).count("/") > 1:
            raise PolicyError(f"policy.path: {source} does not exist; give a model folder, a hub id or {EMBEDDED!r}")
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "adapter_config.json" in names:
        raise PolicyError(f"policy.path: {folder} holds an adapter (LoRA); merge it into its base model and save that")
    if "config.json" not in names:
        raise PolicyError(f"policy.path: {folder} holds no config.json; give a folder in Hugging Face format")
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json"}:
        raise PolicyError(f"policy.path: {folder} holds no tokenizer; save the model's tokenizer beside its weights")
    if not any(name.endswith(WEIGHTS) for name in names):
        raise PolicyError(f"policy.path: {folder} holds no weights (*.safetensors); save the whole model there")


def _some(names: Iterable[str]) -> str:
    """The first few of many names, in order."""
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
