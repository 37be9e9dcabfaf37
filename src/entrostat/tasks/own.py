"""Your own tasks: JSON records of three kinds, each checked field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from entrostat.tasks.records import Record, checked, records
from entrostat.tasks.task import Call, Equality, Exchange, ProgramTask, ScriptTask, Spaces, Task, TaskError

Identity = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
Tolerance = Annotated[float | None, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class CallRecord(_Strict):
    """One call of the function and what it must return."""

    args: list[Any] = Field(description="Arguments by position.")
    expected: Any = Field(description="What the function must return.")
    kwargs: dict[str, Any] = Field({}, description="Arguments by name.")
    also: list[Any] = Field([], description="Other answers that are as right.")


class ExchangeRecord(_Strict):
    """One run of the program: what it reads and what it must print."""

    stdin: str = Field(description="The text on standard input.")
    stdout: str = Field(description="What the program must print.")
    also: list[str] = Field([], description="Other outputs that are as right.")


class _TaskRecord(_Strict):
    id: Identity = Field(
        validation_alias=AliasChoices("id", "task_id"), description="Unique in its file; task_id is read too."
    )
    prompt: str = Field("", description="What the model reads.")
    level: int = Field(0, description="Difficulty, for your own use.")
    preamble: str = Field("", description="Source that runs before the code, such as imports.")
    solution: str = Field("", description="A solution that should pass; `entrostat tasks check` runs it.")


class FunctionRecord(_TaskRecord):
    """A function, judged by calls."""

    entry_point: str = Field(description="The function's name.")
    tests: list[CallRecord] = Field(min_length=1, description="Hidden calls.")
    equality: Equality = Field(
        "json",
        description='"exact": types count; "python": what == accepts; "json": in addition tuples are lists.',
    )
    atol: Tolerance = Field(None, description="Floats may differ by atol + rtol * |expected|.")
    rtol: Tolerance = Field(None, description="See atol.")
    setup: str = Field("", description="Source that runs after the code and before the tests.")

    def task(self) -> Task:
        """The task of this record."""
        calls = tuple(Call(tuple(test.args), test.expected, test.kwargs, tuple(test.also)) for test in self.tests)
        return Task(
            self.id, self.prompt, self.entry_point, calls, self.level, self.atol, self.equality, self.preamble,
            self.setup, self.rtol, self.solution,
        )  # fmt: skip


class ScriptRecord(_TaskRecord):
    """A function, judged by a script of assertions."""

    entry_point: str = Field(description="The function's name.")
    script: str = Field(description="Python source that calls the function and raises if an answer is wrong.")

    def task(self) -> ScriptTask:
        """The task of this record."""
        return ScriptTask(self.id, self.prompt, self.entry_point, self.script, self.preamble, self.level, self.solution)


class ProgramRecord(_TaskRecord):
    """A program, judged by what it prints."""

    tests: list[ExchangeRecord] = Field(min_length=1, description="Hidden inputs and outputs.")
    spaces: Spaces = Field(
        "trailing",
        description='"trailing": white space counts except at ends of lines; "ends": nor at their beginnings; '
        '"words": nor do blank lines and the width of spaces.',
    )
    atol: Tolerance = Field(None, description="Numbers may differ by atol + rtol * |expected|; whole ones may not.")
    rtol: Tolerance = Field(None, description="See atol.")
    checker: str = Field("", description="Source of check(stdin, printed, stdout), True for a right output.")

    def task(self) -> ProgramTask:
        """The task of this record."""
        exchanges = tuple(Exchange(test.stdin, test.stdout, tuple(test.also)) for test in self.tests)
        return ProgramTask(
            self.id, self.prompt, exchanges, self.level, self.atol, self.preamble, self.rtol, self.spaces,
            self.checker, self.solution,
        )  # fmt: skip


def tasks_from_jsonl(path: str | Path) -> list[Task | ScriptTask | ProgramTask]:
    """Your own tasks: a JSON list, or a JSON record per line, plain or gzipped.

    A record with "script" is a ScriptTask, another one with "entry_point" a Task, any other a ProgramTask; `schema`
    lists the fields. TaskError names the file, the line, the record and the field: one that is missing, unknown or of
    another type, and an id that two records have.
    """
    found: dict[str, Task | ScriptTask | ProgramTask] = {}
    for where, record in records(path):
        task = checked(_model(record), record, where).task()
        if task.id in found:
            raise TaskError(f"{where}: id is {task.id!r}, which an earlier record has; give each its own")
        found[task.id] = task
    return list(found.values())


def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    adapter: TypeAdapter[Any] = TypeAdapter(FunctionRecord | ScriptRecord | ProgramRecord)
    return adapter.json_schema(by_alias=False)


def _model(record: Record) -> type[FunctionRecord | ScriptRecord | ProgramRecord]:
    if "script" in record:
        return ScriptRecord
    return FunctionRecord if "entry_point" in record else ProgramRecord
