"""Tasks: prompts with hidden tests, and where they come from."""

from entrostat.tasks.task import Call, Task, TaskError

__all__ = ["Call", "Task", "TaskError"]
