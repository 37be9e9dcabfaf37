"""The grader as a reward function of TRL: completions as text and as messages, none without a reward of their own."""

from __future__ import annotations

import pytest

from entrostat.integrations.trl.tasks import graded_reward

RIGHT = "def solve(numbers):\n    return [2 * n for n in numbers if n % 2 == 0]\n"


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (RIGHT, 1.0),
        ([{"role": "assistant", "content": f"```python\n{RIGHT}```"}], 1.0),
        ([{"role": "user", "content": RIGHT}, {"role": "assistant", "content": "I cannot."}], 0.0),
        ([{"role": "assistant", "content": None, "tool_calls": []}], 0.0),
        ([{"role": "assistant", "content": [{"type": "text", "text": RIGHT}]}], 0.0),
        ([{"role": "assistant"}], 0.0),
        ([], 0.0),
        (None, 0.0),
        (b"def solve(): pass", 0.0),
    ],
)
def test_a_completion_is_text_or_messages_of_which_the_last_one_counts(grader, task, completion, reward):
    assert graded_reward([task], grader)(prompts=["p"], completions=[completion], task=[task.id], extra=[1]) == [reward]
