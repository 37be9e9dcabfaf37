"""How each host calls a reward function, and what it takes back.

A `Signature` is found from the names of the parameters, or named by the user:

    trl             f(prompts, completions, completion_ids, trainer_state, **columns) -> list of numbers or None
    verl            f(data_source, solution_str, ground_truth, extra_info) -> number, or a dictionary with "score"
    verl-batch      f(data_sources, solution_strs, ground_truths, extra_infos) -> list of these
    verifiers       f(any of prompt, completion, answer, state, info, task, parser, columns) -> number (also prime-rl)
    verifiers-group f(any of these in the plural) -> list of numbers
    openenv         f(action, observation), or a class with forward(action, observation) -> number
    plain           f(completion, answer) by position -> number

Coroutine functions are run to their end. Completions are texts or lists of chat messages (`Form`).
Sources: TRL 1.x, "Reward functions"; verl 0.9, NaiveRewardManager and BatchRewardManager; verifiers, RewardFunc and
GroupRewardFunc; OpenEnv, Rubric. Departure: there is no tokenizer here, so completion_ids are the UTF-8 bytes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal, get_args

from entrostat.errors import EntrostatError

Signature = Literal["trl", "verl", "verl-batch", "verifiers", "verifiers-group", "openenv", "plain"]
Form = Literal["plain", "chat"]
SIGNATURES: tuple[str, ...] = get_args(Signature)
MARK = "ENTROSTAT_AUDIT_RAN"  # an environment variable that only a completion that runs as code can set
BATCHED = ("trl", "verl-batch", "verifiers-group")

ANSWER_NAMES = ("answer", "ground_truth", "solution", "target", "label", "gold", "reference_answer", "expected")
COMPLETION_NAMES = (
    "response",
    "output",
    "prediction",
    "text",
    "generation",
    "generated",
    "model_output",
    "solution_str",
)
_TRL = ("prompts", "completions", "completion_ids", "trainer_state")
_TRL_OPTIONAL = ("log_extra", "log_metric")
_VERL = ("data_source", "solution_str", "ground_truth", "extra_info")
_VERIFIERS = ("prompt", "completion", "answer", "state", "info", "task", "parser")
_GROUP = ("answers", "states", "infos", "tasks")


class SignatureError(EntrostatError, ValueError):
    """A function that no host could call, or that several could; the message names the remedy."""


def prepared(found: Any) -> Callable[..., Any]:
    """The function to call: of a class an instance, of an object with `forward` that method.

    Raises SignatureError for what cannot be called, and for a class that needs arguments.
    """
    if inspect.isclass(found):
        try:
            found = found()
        except TypeError as error:
            raise SignatureError(f"the class {found.__name__} needs arguments ({error}); name a function") from error
    function = getattr(found, "forward", None) or found
    if not callable(function):
        raise SignatureError(f"it is a {type(found).__name__}, which cannot be called; name a function")
    return function  # type: ignore[no-any-return]


def detect(function: Callable[..., Any]) -> Signature:
    """The host whose names the parameters have. Raises SignatureError where they are not those of a host."""
    names = list(_parameters(function))
    named = set(names)
    if {"action", "observation"} <= named:
        return "openenv"
    if named & {"solution_strs", "ground_truths"}:
        return "verl-batch"
    if "completions" in named:
        return "verifiers-group" if named & set(_GROUP) else "trl"
    if "solution_str" in named and named & {"ground_truth", "data_source"}:
        return "verl"
    if "completion" in named:
        return "verifiers"
    if len(_required(function)) == 2 and names[0] in COMPLETION_NAMES:
        return "plain"
    raise SignatureError(
        f"its parameters ({', '.join(names)}) are those of no host; choose --signature {', '.join(SIGNATURES)}"
    )


def faults(function: Callable[..., Any], signature: Signature) -> list[str]:
    """What the host would pass and the function does not take: the host's own call would raise TypeError."""
    passed = {"trl": _TRL, "verl": _VERL}.get(signature, ())
    if _takes_any(function):
        return []
    missing = [name for name in passed if name not in _parameters(function)]
    return [f"{signature} also passes {', '.join(missing)}; take **kwargs"] if missing else []


def call(
    function: Callable[..., Any],
    signature: Signature,
    form: Form,
    batch: Sequence[tuple[Mapping[str, Any], Any]],
) -> list[Any]:
    """What the function gives for (fields of an example, completion) pairs, one value per pair.

    Fields are those of `Example.fields`. A batched function is called once, any other once per pair.
    Raises SignatureError for a parameter that no field fills or a result of the wrong length, and whatever it raises.
    """
    if signature not in BATCHED:
        return [_single(function, signature, form, fields, completion) for fields, completion in batch]
    many = [_arguments(signature, form, fields, completion) for fields, completion in batch]
    names = dict.fromkeys(name for one in many for name in one)
    arguments: dict[str, Any] = {name: [one.get(name) for one in many] for name in names}
    if signature == "trl":
        arguments |= {"trainer_state": SimpleNamespace(global_step=0, max_steps=1, epoch=0.0)}
        arguments |= {name: (lambda *_: None) for name in _TRL_OPTIONAL}
    result = _finished(function(**_taken(function, arguments)))
    if isinstance(result, (str, bytes, Mapping)) or not hasattr(result, "__len__"):
        raise SignatureError(f"a batch of {len(batch)} gave a {type(result).__name__}; give a list with a number each")
    values = list(result)
    if len(values) != len(batch):
        raise SignatureError(f"a batch of {len(batch)} gave {len(values)} rewards; give one per completion")
    return [_score(value, signature) for value in values]


def number(value: Any) -> float | None:
    """A reward as a number, None for what is none (TRL takes None for "does not apply").

    Raises SignatureError for anything else.
    """
    if value is None:
        return None
    if isinstance(value, (str, bytes)):
        raise SignatureError(f"a reward is the text {value!r}; give a number")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise SignatureError(f"a reward is a {type(value).__name__} ({error}); give a number") from error


def _single(function: Callable[..., Any], signature: Signature, form: Form, fields: Any, completion: Any) -> Any:
    arguments = _arguments(signature, form, fields, completion)
    if signature in ("plain", "openenv"):
        return _score(_finished(function(*arguments.values())), signature)
    return _score(_finished(function(**_taken(function, arguments))), signature)


def _arguments(signature: Signature, form: Form, fields: Mapping[str, Any], completion: Any) -> dict[str, Any]:
    """All that the host has for one completion, by name."""
    prompt, answer, columns = fields["prompt"], fields["answer"], dict(fields["columns"])
    said = [{"role": "assistant", "content": completion}] if form == "chat" else completion
    asked = [{"role": "user", "content": prompt}] if form == "chat" and isinstance(prompt, str) else prompt
    named = {**dict.fromkeys(ANSWER_NAMES, answer), **columns} if fields["built_in"] else {"answer": answer, **columns}
    info = {"answer": answer, **columns}
    source = columns.get("data_source", "audit")
    match signature:
        case "plain":
            return {"completion": said, "answer": answer}
        case "openenv":
            text = dict.fromkeys(("message", "content", "text", "response", "answer", "code", "action"), said)
            observed = {"prompt": prompt, "ground_truth": answer, "done": True, "reward": None, **named}
            return {
                "action": SimpleNamespace(**text, metadata=columns),
                "observation": SimpleNamespace(**observed, metadata=info),
            }
        case "verl":
            truth = columns.get("ground_truth", answer)
            return dict(zip(_VERL, (source, said, truth, info), strict=True))
        case "verl-batch":
            truth = columns.get("ground_truth", answer)
            names = ("data_sources", "solution_strs", "ground_truths", "extra_infos")
            return dict(zip(names, (source, said, truth, info), strict=True))
        case "trl":
            ids = list(completion.encode("utf-8", "surrogatepass")) if isinstance(completion, str) else []
            return {**named, "prompts": asked, "completions": said, "completion_ids": ids}
    parser = SimpleNamespace(parse=_last_text, parse_answer=_last_text)
    state = {"prompt": asked, "completion": said, "answer": answer, "info": info, "task": source, "trajectory": []}
    one = dict(zip(_VERIFIERS, (asked, said, answer, state, info, source, parser), strict=True))
    if signature == "verifiers":
        return {**named, **one}
    return {**named, **{("answers" if name == "answer" else f"{name}s"): value for name, value in one.items()}}


def _last_text(completion: Any) -> Any:
    if isinstance(completion, list) and completion and isinstance(completion[-1], Mapping):
        return completion[-1].get("content")
    return completion


def _taken(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that the function takes; an answer's column under another usual name is the answer."""
    answer = next((arguments[name] for name in ("answer", "answers") if name in arguments), None)
    taken = dict(arguments) if _takes_any(function) else {}
    for name, parameter in _parameters(function).items():
        if name in arguments:
            taken[name] = arguments[name]
        elif name in ANSWER_NAMES:
            taken[name] = answer
        elif parameter.default is inspect.Parameter.empty:
            raise SignatureError(f"it needs {name!r}, which no example has; add the field {name!r} to --examples")
    return taken


def _score(value: Any, signature: Signature) -> Any:
    if isinstance(value, Mapping) and signature in ("verl", "verl-batch"):
        if "score" not in value:
            raise SignatureError(f'a reward is a dictionary with {", ".join(map(str, value))}; verl reads "score"')
        return value["score"]
    return value


def _finished(value: Any) -> Any:
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: Any) -> Any:
    return await value


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(function).parameters
    return {name: parameter for name, parameter in found.items() if parameter.kind not in kinds}


def _required(function: Callable[..., Any]) -> list[str]:
    return [name for name, one in _parameters(function).items() if one.default is inspect.Parameter.empty]


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in inspect.signature(function).parameters.values())
