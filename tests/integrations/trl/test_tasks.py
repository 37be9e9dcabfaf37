"""The library's tasks for TRL."""

from types import SimpleNamespace

import pytest

from entrostat.tasks import listcraft

pytest.importorskip("datasets")
from entrostat.integrations.trl.tasks import task_dataset


def test_prompts_are_written_out_by_the_chat_template_where_there_is_one():
    tasks = listcraft.tasks("train", 2)
    templated = SimpleNamespace(
        chat_template="given", apply_chat_template=lambda turns, **_: f"<user>{turns[0]['content']}<assistant>"
    )
    plain = SimpleNamespace(chat_template=None)
    assert task_dataset(tasks, templated)["prompt"][:] == [f"<user>{task.prompt}<assistant>" for task in tasks]
    for tokenizer in (None, plain):
        assert task_dataset(tasks, tokenizer)["prompt"][:] == [task.prompt for task in tasks]
