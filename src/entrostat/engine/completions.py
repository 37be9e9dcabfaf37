"""Completions that any engine wrote, as tokens: vLLM's RequestOutput, OpenAI's choices, SGLang's output, plain records.

A record holds a prompt and one or several completions (`outputs`, `choices`, or the record itself):

    prompt      prompt_token_ids, prompt_ids or input_ids; else messages (written by the chat template) or prompt, a
                text as the engine read it, after its chat template
    completion  token_ids, output_ids, completion_ids, completion_token_ids or output_token_ids; else the ids beside the
                log-probabilities; else text, completion or message.content, which the tokenizer cuts
    logprobs    optional: the sampler's log-probability of every token, in nats, as a list of numbers or as the engine
                wrote it (logprobs, sampler_logprobs, or SGLang's meta_info), with the top k where it wrote them
    advantage   optional: a number, or a list with one per token; in a record with several completions one for each
    reward      optional: a number per completion; the advantage is then reward - mean of the rewards of that prompt
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrostat.engine.policy import Policy
from entrostat.engine.rollout import Sampling, derived_seed, sample
from entrostat.engine.sampler_logprobs import Sampled, ScoreError, finite_number, integers, objects, sampled
from entrostat.runs import RunError
from entrostat.runs.files import append_line, atomic_write, read_lines
from entrostat.tasks.records import records
from entrostat.tasks.sources import AnyTask

PROMPT_IDS = ("prompt_token_ids", "prompt_ids", "input_ids")
TOKEN_IDS = ("token_ids", "output_ids", "completion_ids", "completion_token_ids", "output_token_ids")
TEXTS = ("text", "completion")
IDENTITIES = ("id", "request_id", "custom_id", "task_id")
ADVANTAGES, REWARDS = ("advantage", "advantages"), ("reward", "rewards")


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion of a file.

    record: its record's number, from 1; sample: its number within the record, from 0. where: its place, for errors.
    prompt, tokens: ids. sampler_logp: nats, one per token. entropy_bounds: lowest and highest entropy of the sampler's
    distribution at each token, nats, or None where its top k is not known. advantage: one per token. reward: a number.
    """

    record: int
    sample: int
    identity: str | None
    where: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    sampler_logp: tuple[float, ...] | None = None
    entropy_bounds: tuple[tuple[float, float] | None, ...] | None = None
    advantage: tuple[float, ...] | None = None
    reward: float | None = None


def read_completions(path: str | Path, policy: Policy) -> Iterator[Completion]:
    """The completions of a file of JSON lines or a JSON list, plain or gzipped, in order.

    Raises ScoreError or TaskError, naming file, line, field, value and remedy.
    """
    for number, (where, record) in enumerate(records(path), 1):
        yield from _completions(number, where, _unwrapped(record), policy)


def _unwrapped(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with the body of the response that a batch run of an OpenAI-style server put into it."""
    response = record.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    return {**body, **record} if isinstance(body, dict) else record


def _completions(number: int, where: str, record: Mapping[str, Any], policy: Policy) -> Iterator[Completion]:
    name = next((name for name in ("outputs", "choices") if name in record), None)
    outputs = objects(record[name], where, name) if name else [record]
    identity = next((str(record[name]) for name in IDENTITIES if record.get(name) is not None), None)
    for place, output in enumerate(outputs):
        here = f"{where}, {name}[{place}]" if name else where
        both = {**record, **output}
        prompt = _prompt(both, here, policy)
        found = sampled(output, here)
        tokens = _tokens(output, found, here, policy)
        if found and len(found.values) != len(tokens):
            raise ScoreError(
                f"{here}: {found.field} has {len(found.values)} entries and the completion {len(tokens)} tokens; "
                "allowed: one per token. Record the completion's token ids beside them"
            )
        _refuse_too_long(prompt, tokens, here, policy)
        yield Completion(
            number,
            place,
            identity,
            here,
            tuple(prompt),
            tuple(tokens),
            tuple(found.values) if found else None,
            found.entropy_bounds(policy.model.config.get_text_config().vocab_size, here) if found else None,
            _advantage(record, output, place, len(outputs), len(tokens), here),
            _reward(record, output, place, len(outputs), here),
        )


def _prompt(record: Mapping[str, Any], where: str, policy: Policy) -> list[int]:
    for name in PROMPT_IDS:
        if record.get(name) is not None:
            return _ids(record[name], where, name, policy)
    name = next((name for name in ("messages", "prompt") if record.get(name) is not None), "")
    if not name:
        raise ScoreError(f"{where}: no prompt; add one of {', '.join((*PROMPT_IDS, 'prompt', 'messages'))}")
    value = record[name]
    if isinstance(value, str):
        ids = policy.tokenizer.encode(value)
    elif isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        ids = _written(value, where, name, policy)
    else:
        ids = integers(value, where, name)
    if not ids:
        raise ScoreError(f"{where}: {name} has no tokens; the first token of a completion needs one before it")
    return _ids(ids, where, name, policy)


def _written(messages: list[dict[str, Any]], where: str, name: str, policy: Policy) -> list[int]:
    if not getattr(policy.tokenizer, "chat_template", None):
        raise ScoreError(f"{where}: {name} are turns, but the tokenizer has no chat template; give prompt_token_ids")
    try:
        text = policy.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever a template says to turns that it does not know
        raise ScoreError(f"{where}: {name}: the chat template refuses them ({error}); give prompt_token_ids") from error
    return list(policy.tokenizer.encode(text, add_special_tokens=False))


def _tokens(output: Mapping[str, Any], found: Sampled | None, where: str, policy: Policy) -> list[int]:
    for name in TOKEN_IDS:
        if output.get(name) is not None:
            return _ids(output[name], where, name, policy, empty=True)
    if found and found.ids is not None:
        return _ids(found.ids, where, found.field, policy, empty=True)
    name, text = _text(output, where)
    ids = list(policy.tokenizer.encode(text, add_special_tokens=False))
    if found and found.pieces is not None:
        ids = _aligned(ids, found, where, policy)
    return _ids(ids, where, name, policy, empty=True)


def _text(output: Mapping[str, Any], where: str) -> tuple[str, str]:
    message = output.get("message")
    texts = {name: output[name] for name in TEXTS if output.get(name) is not None}
    if isinstance(message, dict) and message.get("content") is not None:
        texts["message.content"] = message["content"]
    if not texts:
        raise ScoreError(f"{where}: no completion; add one of {', '.join((*TOKEN_IDS, *TEXTS))}")
    name, text = next(iter(texts.items()))
    if not isinstance(text, str):
        raise ScoreError(f"{where}: {name} is {str(text)[:60]!r}; allowed: text. Give token_ids for anything else")
    return name, text


def _aligned(ids: list[int], found: Sampled, where: str, policy: Policy) -> list[int]:
    """The ids of the text, with the end token where the engine counted it, if they are the tokens that it named."""
    pieces = found.pieces or []
    ends = [
        end for end in policy.stop_ids if len(pieces) == len(ids) + 1 and policy.tokenizer.decode([end]) == pieces[-1]
    ]
    whole = ids + ends[:1]
    if [policy.tokenizer.decode([token]) for token in whole] != pieces:
        raise ScoreError(
            f"{where}: {found.field} names other tokens than the tokenizer cuts the text into; allowed: the same. "
            "Record the token ids (vLLM: return_token_ids or --return-tokens-as-token-ids), or give the sampler's model"
        )
    return whole


def _ids(value: Any, where: str, name: str, policy: Policy, *, empty: bool = False) -> list[int]:
    ids, rows = integers(value, where, name), int(policy.model.get_input_embeddings().weight.shape[0])
    if not ids and not empty:
        raise ScoreError(f"{where}: {name} is empty; the first token of a completion needs one before it")
    wrong = next((place for place, token in enumerate(ids) if not 0 <= token < rows), None)
    if wrong is not None:
        raise ScoreError(
            f"{where}: {name}[{wrong}] is {ids[wrong]}; allowed: 0 to {rows - 1}, the rows of the embedding of "
            f"{policy.source}. Give the model that the tokens are of"
        )
    return ids


def _refuse_too_long(prompt: list[int], tokens: list[int], where: str, policy: Policy) -> None:
    positions = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    if positions and len(prompt) + len(tokens) > positions:
        raise ScoreError(
            f"{where}: prompt and completion have {len(prompt)} + {len(tokens)} tokens; allowed: {positions}, the "
            f"positions of {policy.source}. Drop the record, or raise max_position_embeddings as the engine did"
        )


def _advantage(
    record: Mapping[str, Any], output: Mapping[str, Any], place: int, outputs: int, tokens: int, where: str
) -> tuple[float, ...] | None:
    name, value = _of_output(ADVANTAGES, record, output, place, outputs, where)
    if value is None:
        return None
    if not isinstance(value, list):
        return (finite_number(value, where, name),) * tokens
    if len(value) != tokens:
        raise ScoreError(
            f"{where}: {name} has {len(value)} entries and the completion {tokens} tokens; allowed: a number, or one "
            "per token. Cut off the padding"
        )
    return tuple(finite_number(each, where, f"{name}[{i}]") for i, each in enumerate(value))


def _reward(record: Mapping[str, Any], output: Mapping[str, Any], place: int, outputs: int, where: str) -> float | None:
    name, value = _of_output(REWARDS, record, output, place, outputs, where)
    return None if value is None else finite_number(value, where, name)


def _of_output(
    names: Sequence[str], record: Mapping[str, Any], output: Mapping[str, Any], place: int, outputs: int, where: str
) -> tuple[str, Any]:
    """A field of the completion, or its share of a list that the record has for all its completions."""
    for name in names:
        if output.get(name) is not None:
            return name, output[name]
        value = record.get(name)
        if isinstance(value, list):
            if len(value) != outputs:
                raise ScoreError(
                    f"{where}: {name} has {len(value)} entries and the record {outputs} completions; allowed: one for "
                    "each. Put it beside each completion"
                )
            return f"{name}[{place}]", value[place]
        if value is not None:
            return name, value
    return names[0], None


def generate(
    policy: Policy,
    tasks: Sequence[AnyTask],
    out: str | Path,
    sampling: Sampling,
    seed: int = 0,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Append to `out`, JSON lines of "task_id", "sample" and "completion", until every task has samples 0 to n - 1,
    where n is `sampling.samples`.

    A sample depends on the seed, its task and n, not on the other tasks, so an interrupted run can be resumed and ends
    with the same file. The sampling settings are in a second file with the suffix .settings.json.
    progress is called with (tasks done, all tasks). Raises RunError if `out` has samples with other settings.
    """
    n, file = sampling.samples, Path(out)
    settings = {
        "model": policy.source,
        "n": n,
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "seed": seed,
    }
    refuse_other_settings(file, settings, "samples drawn")
    written = Counter(line["task_id"] for line in read_lines(file))
    waiting = [task for task in tasks if written[task.id] < n]
    size = max(1, sampling.batch_rows // n)
    for start in range(0, len(waiting), size):
        batch = waiting[start : start + size]
        seeds = [derived_seed(seed, "samples", task.id) for task in batch]
        rollout = sample(policy, [task.prompt for task in batch], sampling, seeds)
        for row, text in enumerate(rollout.texts):
            task, number = batch[row // n], row % n
            if number >= written[task.id]:
                append_line(file, {"task_id": task.id, "sample": number, "completion": text})
        if progress:
            progress(len(tasks) - len(waiting) + start + len(batch), len(tasks))
    return file


def refuse_other_settings(out: Path, settings: dict[str, Any], what: str) -> None:
    """Write the settings beside a new `out`, with the suffix .settings.json; compare them if `out` exists.

    what: the results and the verb, as in "samples drawn". Raises RunError, naming the first setting that differs, or
    the settings file if it is damaged.
    """
    beside = out.with_suffix(".settings.json")
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(beside, json.dumps(settings, indent=1).encode() + b"\n")
        return
    known = _read(beside) if beside.exists() else {}
    for field, value in settings.items():
        if known.get(field) != value:
            raise RunError(
                f"{out}: holds {what} with {field} {known.get(field, 'unknown')}, not {value}; choose another file "
                "with --out, or delete this one"
            )


def _read(file: Path) -> dict[str, Any]:
    """The settings. RunError: their file is damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: damaged ({error}); restore it, or choose another file with --out") from error
    if not isinstance(content, dict):
        raise RunError(f"{file}: holds no settings; restore it, or choose another file with --out")
    return content
