"""Tasks: prompts with hidden tests, and where they come from."""

from entrostat.tasks.formats import AnswerTask, Exchange, ProgramTask, PuzzleTask, ScriptTask, Spaces
from entrostat.tasks.task import Call, Expression, Task, TaskError

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
