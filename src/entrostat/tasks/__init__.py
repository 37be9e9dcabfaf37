"""Tasks: prompts with hidden tests, and where they come from."""

from entrostat.tasks.formats import Exchange, ProgramTask, ScriptTask
from entrostat.tasks.task import Call, Task, TaskError

__all__ = ["Call", "Exchange", "ProgramTask", "ScriptTask", "Task", "TaskError"]
