"""Tasks: prompts with hidden tests, and where they come from."""

from entrostat.tasks.formats import AnswerTask, Exchange, ProgramTask, PuzzleTask, ScriptTask
from entrostat.tasks.task import Call, Expression, Task, TaskError

__all__ = [
    "AnswerTask",
    "Call",
    "Exchange",
    "Expression",
    "ProgramTask",
    "PuzzleTask",
    "ScriptTask",
    "Task",
    "TaskError",
]
