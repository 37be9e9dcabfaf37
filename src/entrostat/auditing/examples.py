"""What a reward function is audited on: prompts with their answers, of the user's or, for plain answers, ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from entrostat.auditing.signatures import ANSWER_NAMES
from entrostat.errors import EntrostatError


class AuditError(EntrostatError, ValueError):
    """An audit that cannot be made; the message names the function or field and the remedy."""


@dataclass(frozen=True)
class Example:
    """A prompt and what the reward function knows about it.

    prompt: text or chat messages. answer: as the function gets it. reference: a completion that earns the reward.
    right, wrong: completions that must and must not earn it. columns: all other fields of the record, for the
    function. entry_point: the function that code must define. built_in: the example is ours, and its answer fills
    whatever column the function asks for.
    """

    prompt: Any
    answer: Any
    reference: str | None = None
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict)
    entry_point: str | None = None
    built_in: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """What `signatures.call` needs of it."""
        return {"prompt": self.prompt, "answer": self.answer, "columns": self.columns, "built_in": self.built_in}

    @property
    def question(self) -> str:
        """The prompt as text."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(str(message.get("content", "")) for message in self.prompt)


BUILT_IN = tuple(
    Example(prompt, answer, built_in=True)
    for prompt, answer in (
        ("A crate holds six rows of seven bottles. How many bottles are in it?", "42"),
        ("At dawn it is 4 degrees above zero and falls by 7 degrees. What is the temperature?", "-3"),
        ("Ten shelves carry 125 books each. How many books are there?", "1250"),
        ("Ann is 11, her brother twice as old less 4. How old is the brother?", "18"),
        ("What is the product of 15 and 7?", "105"),
        ("Half a dozen eggs are shared by 2 people. How many does each get?", "3"),
    )
)


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    prompt: str | list[dict[str, Any]]
    answer: Any
    reference: str | None = None
    right: list[str] = []
    wrong: list[str] = []
    entry_point: str | None = None


def read_examples(path: str | Path) -> list[Example]:
    """The examples in a file of JSON lines.

    Fields: prompt (or question, problem), answer (or ground_truth, solution, target, label, gold, reference_answer,
    expected), and if wanted reference, right, wrong, entry_point; every other field goes to the function by its name.
    AuditError names the file, the line and the field.
    """
    examples = [_example(f"{path}, line {number}", line) for number, line in _lines(path)]
    if not examples:
        raise AuditError(f"{path}: holds no record; give at least one JSON line with prompt and answer")
    return examples


def read_completions(path: str | Path) -> list[str]:
    """Completions in a file: of .jsonl one per line (a text, or a record with `completion`), else the whole file.

    AuditError names the file, the line and the field.
    """
    if Path(path).suffix != ".jsonl":
        return [_text(path)]
    found = []
    for number, line in _lines(path):
        value = _parsed(f"{path}, line {number}", line)
        value = value.get("completion") if isinstance(value, dict) else value
        if not isinstance(value, str):
            raise AuditError(f"{path}, line {number}: completion is {value!r}; give a text")
        found.append(value)
    return found


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield number, line


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AuditError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AuditError(f"{path}: is not UTF-8: {error}") from error


def _parsed(where: str, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{where}: is not JSON: {error}") from error


def _example(where: str, line: str) -> Example:
    raw = _parsed(where, line)
    if not isinstance(raw, dict):
        raise AuditError(f"{where}: is a {type(raw).__name__}; give a record with prompt and answer")
    record = dict(raw)
    for name, others in (("prompt", ("question", "problem")), ("answer", ANSWER_NAMES)):
        record.setdefault(name, next((raw[other] for other in others if other in raw), None))
        if record[name] is None:
            raise AuditError(f"{where}: lacks the field {name} (or {', '.join(o for o in others if o != name)})")
    try:
        known = _Record.model_validate(record)
    except ValidationError as error:
        fault = error.errors()[0]
        raise AuditError(
            f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; got {fault['input']!r}"
        ) from None
    columns = {name: value for name, value in raw.items() if name not in ("prompt", "reference", "right", "wrong")}
    right, wrong = tuple(known.right), tuple(known.wrong)
    return Example(known.prompt, known.answer, known.reference, right, wrong, columns, known.entry_point)
