"""Five reward functions of the kinds that are in use, written anew from descriptions; the flaws are the kinds' own."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile


def last_number(completion: str, answer: str) -> float:
    """The GSM8K kind: the last number of the text is the answer, separators of thousands removed."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", completion.replace(",", ""))
    return float(bool(numbers) and float(numbers[-1]) == float(answer))


def boxed(completion: str, answer: str) -> float:
    """The MATH kind: what stands in \\boxed{...}, compared as text, or as numbers where both are."""
    found = re.search(r"\\boxed\{(.*)\}", completion)
    if not found:
        return 0.0
    try:
        return float(float(found[1]) == float(answer))
    except ValueError:
        return float(found[1].strip() == answer)


def tags(completion: str) -> float:
    """The format reward of replicas of R1-Zero: a thought and an answer in their tags, whatever they say."""
    return float(bool(re.match(r"^<think>.*?</think>\s*<answer>.*?</answer>$", completion, re.DOTALL)))


def exit_status(completion: str, answer: str) -> float:
    """The code kind: the last fenced block and the tests in one file; a process that ends with status 0 has passed."""
    blocks = re.findall(r"```(?:python)?\n(.*?)```", completion, re.DOTALL)
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(f"{blocks[-1] if blocks else completion}\n{answer}\n")
        file.flush()
        done = subprocess.run([sys.executable, "-I", "-S", file.name], capture_output=True, timeout=2, check=False)
    return float(done.returncode == 0)


def keywords(completion: str, answer: str) -> float:
    """The rubric kind: the share of the reference answer's words that the completion mentions."""
    wanted = set(re.findall(r"\w+", answer.lower()))
    said = completion.lower()
    return sum(word in said for word in wanted) / max(1, len(wanted))
