"""Tasks: prompts with hidden tests, and where they come from."""

from entrostat.tasks.formats import AnswerTask, Exchange, ProgramTask, PuzzleTask, ScriptTask
from entrostat.tasks.task import Call, Task, TaskError

__all__ = ["AnswerTask", "Call", "Exchange", "ProgramTask", "PuzzleTask", "ScriptTask", "Task", "TaskError"]
