"""The sampler's log-probabilities of a completion, in the forms that engines write, and checks of a record's fields."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from entrostat.errors import EntrostatError
from entrostat.tokens import topk_entropy_bounds

ROUNDING = 1e-3  # nats above 0 that a rounded log-probability may show


class ScoreError(EntrostatError, ValueError):
    """Completions that cannot be scored; the message names file, line, field, value and remedy."""


def finite_number(value: Any, where: str, name: str) -> float:
    """The value as a float. ScoreError: it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise ScoreError(f"{where}: {name} is {str(value)[:60]!r}; allowed: a finite number")
    return float(value)


def log_probability(value: Any, where: str, name: str) -> float:
    """The value as a natural log-probability. ScoreError: it is not a finite number <= 0."""
    number = finite_number(value, where, name)
    if number > ROUNDING:
        raise ScoreError(f"{where}: {name} is {number}; allowed: <= 0. Record natural log-probabilities")
    return number


def integers(value: Any, where: str, name: str) -> list[int]:
    """The value as a list of whole numbers. ScoreError: it is none."""
    if not isinstance(value, list):
        raise ScoreError(f"{where}: {name} is {str(value)[:60]!r}; allowed: a list of token ids")
    for place, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int):
            raise ScoreError(f"{where}: {name}[{place}] is {str(item)[:60]!r}; allowed: a token id, a whole number")
    return value


def objects(value: Any, where: str, name: str) -> list[dict[str, Any]]:
    """The value as a list of JSON objects. ScoreError: it is none."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ScoreError(f"{where}: {name} is {str(value)[:60]!r}; allowed: a list of objects {{...}}")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


LOGPROBS = ("sampler_logprobs", "logprobs")
TOKEN_ID = re.compile(r"token_id:([0-9]{1,9})")  # vLLM's --return-tokens-as-token-ids

UNFINISHED = "\ufffd"  # several tokens may have this text, and a table by text keeps one of them


@dataclass(frozen=True, slots=True)
class Sampled:
    """What an engine recorded of the tokens that it drew: values in nats, and ids, texts and the k highest if it did.

    tops: the k highest log-probabilities of each token's distribution, none of them where they are not known.
    """

    field: str
    values: list[float]
    ids: list[int] | None = None
    pieces: list[str] | None = None
    tops: list[list[float]] | None = None

    def entropy_bounds(self, vocabulary: int, where: str) -> tuple[tuple[float, float] | None, ...] | None:
        """Lowest and highest entropy at each token, as its top k allow. ScoreError: they are not a distribution's."""
        if self.tops is None or not any(self.tops):
            return None
        bounds: list[tuple[float, float] | None] = [None] * len(self.values)
        for places in self._alike():
            top = torch.tensor([self.tops[place] for place in places], dtype=torch.float64)
            own = torch.tensor([self.values[place] for place in places], dtype=torch.float64)
            try:
                low, high = topk_entropy_bounds(top, own, vocabulary)
            except ValueError as error:
                raise ScoreError(f"{where}: {self.field}, tokens {places[0]} to {places[-1]}: {error}") from error
            for place, least, most in zip(places, low.tolist(), high.tolist(), strict=True):
                bounds[place] = (least, most)
        return tuple(bounds)

    def _alike(self) -> list[list[int]]:
        """The places whose distributions show the same number k >= 1 of tokens."""
        places = defaultdict(list)
        for place, top in enumerate(self.tops or []):
            if top:
                places[len(top)].append(place)
        return list(places.values())


def sampled(output: Mapping[str, Any], where: str) -> Sampled | None:
    """What the completion's engine recorded; None where it recorded nothing. ScoreError names the field."""
    meta = output.get("meta_info")
    if isinstance(meta, dict) and meta.get("output_token_logprobs") is not None:
        return _sglang(meta, where)
    for name in LOGPROBS:
        value = output.get(name)
        if value is not None:
            return _read(value, output, name, where)
    return None


def _read(value: Any, output: Mapping[str, Any], name: str, where: str) -> Sampled:
    if isinstance(value, dict) and value.get("content") is not None:
        return _entries(objects(value["content"], where, f"{name}.content"), f"{name}.content", where)
    if isinstance(value, dict) and value.get("token_logprobs") is not None:
        return _columns(value, name, where)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        if all("logprob" in item for item in value):
            return _entries(value, name, where)
        return _vllm(value, output, name, where)
    if isinstance(value, list):
        return Sampled(name, [log_probability(each, where, f"{name}[{i}]") for i, each in enumerate(value)])
    raise ScoreError(
        f"{where}: {name} is {str(value)[:60]!r}; allowed: one log-probability per token, or the form that vLLM, "
        "SGLang or an OpenAI-style server writes"
    )


def _entries(entries: list[dict[str, Any]], name: str, where: str) -> Sampled:
    values = [log_probability(entry.get("logprob"), where, f"{name}[{i}].logprob") for i, entry in enumerate(entries)]
    tops = [
        [
            log_probability(top.get("logprob"), where, f"{name}[{i}].top_logprobs[{j}].logprob")
            for j, top in enumerate(objects(entry.get("top_logprobs") or [], where, f"{name}[{i}].top_logprobs"))
        ]
        for i, entry in enumerate(entries)
    ]
    return _named([entry.get("token") for entry in entries], name, values, _highest(tops, values), where)


def _columns(value: Mapping[str, Any], name: str, where: str) -> Sampled:
    numbers, tops = value["token_logprobs"], value.get("top_logprobs") or []
    if not isinstance(numbers, list):
        raise ScoreError(f"{where}: {name}.token_logprobs is {str(numbers)[:60]!r}; allowed: a list of numbers")
    values = [log_probability(each, where, f"{name}.token_logprobs[{i}]") for i, each in enumerate(numbers)]
    found = [
        [log_probability(each, where, f"{name}.top_logprobs[{i}].{token}") for token, each in top.items()]
        if all(token and UNFINISHED not in token for token in top)
        else []
        for i, top in enumerate(objects([top or {} for top in _list(tops)], where, f"{name}.top_logprobs"))
    ]
    if tops:
        _same_length(found, values, f"{name}.top_logprobs", where)
    return _named(_list(value.get("tokens")), name, values, _highest(found or [[] for _ in values], values), where)


def _highest(tops: list[list[float]], values: list[float]) -> list[list[float]]:
    """The tokens that are the highest for sure: a server may list the sampled token with them, whatever its rank."""
    return [
        top if top and own > min(top) else [each for each in top if each > own]
        for top, own in zip(tops, values, strict=True)
    ]


def _named(tokens: list[Any], name: str, values: list[float], tops: list[list[float]], where: str) -> Sampled:
    """The tokens by their ids where the server wrote those, else by their texts, where it wrote them."""
    if not tokens or not all(isinstance(token, str) for token in tokens):
        return Sampled(name, values, tops=tops)
    _same_length(tokens, values, f"{name}: tokens", where)
    ids = [TOKEN_ID.fullmatch(token) for token in tokens]
    if all(ids):
        return Sampled(name, values, [int(found[1]) for found in ids if found], None, tops)
    return Sampled(name, values, None, tokens, tops)


def _vllm(entries: list[dict[str, Any]], output: Mapping[str, Any], name: str, where: str) -> Sampled:
    """Of each entry, the sampled token's value, and the k highest: all, but the sampled token where it ranks lower."""
    ids = output.get("token_ids")
    if not isinstance(ids, list) or len(ids) != len(entries):
        raise ScoreError(
            f"{where}: {name} is keyed by token ids, but token_ids is missing or of another length; allowed: one id "
            "per entry. Record token_ids beside it"
        )
    values, tops = [], []
    for i, (token, entry) in enumerate(zip(ids, entries, strict=True)):
        found = {key: _value(each, where, f"{name}[{i}].{key}") for key, each in entry.items()}
        if str(token) not in found:
            raise ScoreError(f"{where}: {name}[{i}] lacks the sampled token {token}; allowed: entries that have it")
        own, own_rank = found.pop(str(token))
        others = [value for value, _ in found.values()]
        within = own_rank <= len(entry) if own_rank is not None else bool(others) and own >= min(others)
        values.append(own)
        tops.append([*others, own] if within else others)
    return Sampled(name, values, tops=tops)


def _value(entry: Any, where: str, name: str) -> tuple[float, int | None]:
    """Log-probability and rank, from 1, of an entry."""
    if not isinstance(entry, dict):
        return log_probability(entry, where, name), None
    rank = entry.get("rank")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise ScoreError(f"{where}: {name}.rank is {str(rank)[:60]!r}; allowed: a whole number >= 1")
    return log_probability(entry.get("logprob"), where, f"{name}.logprob"), rank


def _sglang(meta: Mapping[str, Any], where: str) -> Sampled:
    name = "meta_info.output_token_logprobs"
    triples = _triples(meta["output_token_logprobs"], name, where)
    values = [log_probability(triple[0], where, f"{name}[{i}][0]") for i, triple in enumerate(triples)]
    tops: list[list[float]] = [[] for _ in values]
    if meta.get("output_top_logprobs"):
        name_top = "meta_info.output_top_logprobs"
        tops = [
            [log_probability(triple[0], where, f"{name_top}[{i}]") for triple in _triples(top or [], name_top, where)]
            for i, top in enumerate(_list(meta["output_top_logprobs"]))
        ]
        _same_length(tops, values, name_top, where)
    return Sampled(name, values, [triple[1] for triple in triples], None, tops)


def _triples(value: Any, name: str, where: str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, list) and len(item) >= 2 for item in value):
        raise ScoreError(f"{where}: {name} is {str(value)[:60]!r}; allowed: lists of [log-probability, token id, text]")
    return value


def _same_length(found: list[Any], values: list[float], name: str, where: str) -> None:
    if len(found) != len(values):
        raise ScoreError(f"{where}: {name} has {len(found)} entries for {len(values)} tokens; allowed: one per token")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
