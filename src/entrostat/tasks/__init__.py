"""Tasks: prompts with hidden tests, and where they come from."""

from entrostat.tasks.task import (
    AnswerTask,
    Call,
    Exchange,
    Expression,
    ProgramTask,
    PuzzleTask,
    ScriptTask,
    Spaces,
    Task,
    TaskError,
)

__all__ = [
    "AnswerTask",
    "Call",
    "Exchange",
    "Expression",
    "ProgramTask",
    "PuzzleTask",
    "ScriptTask",
    "Spaces",
    "Task",
    "TaskError",
]
