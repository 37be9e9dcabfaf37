"""Reward functions for the tests of the audit: a sound one for each host, and others with one planted flaw each."""

import functools
import os
import random
import re
import time
from decimal import Decimal, InvalidOperation

BOX = "\\boxed{"


def value_of(text):
    """The one boxed number outside of the reasoning, None where there is not exactly one."""
    if not isinstance(text, str):
        return None
    shown = text.rpartition("</think>")[2]
    if "<think>" in shown or shown.count(BOX) != 1:
        return None
    return number(shown.partition(BOX)[2].partition("}")[0])


def number(text):
    plain = text.strip().strip("*").lstrip("$").replace(",", "")
    if len(plain) > 40 or not plain.isascii() or not re.fullmatch(r"-?\d+(\.\d+)?", plain):
        return None
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


def judged(text, answer):
    found = value_of(text)
    return 1.0 if found is not None and found == number(answer) else 0.0


def content(completion):
    return completion[-1]["content"]


# --- sound, one per host ---


def sound_trl(completions, answer, **kwargs):
    return [judged(c, a) for c, a in zip(completions, answer, strict=True)]


def sound_trl_chat(prompts, completions, solution, **kwargs):
    return [judged(content(c), a) for c, a in zip(completions, solution, strict=True)]


def sound_verl(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": judged(solution_str, ground_truth), "acc": True}


def sound_verl_batch(data_sources, solution_strs, ground_truths, extra_infos):
    return [judged(s, g) for s, g in zip(solution_strs, ground_truths, strict=True)]


async def sound_verifiers(completion, answer, state, parser, info) -> float:
    return judged(parser.parse_answer(completion), answer)


def sound_verifiers_group(completions, answers):
    return [judged(content(c), a) for c, a in zip(completions, answers, strict=True)]


class SoundOpenEnv:
    def forward(self, action, observation) -> float:
        return judged(action.message, observation.ground_truth)


def sound_plain(response, target):
    return judged(response, target)


@functools.cache
def grader():
    from entrostat import CodeGrader  # the other functions' processes do not wait for it

    return CodeGrader(workers=2, timeout=1.0)


def sound_code(completions, answer, entry_point, **columns):
    """1 for code that the assertions in `answer` accept, else 0; None where the machine failed."""
    from entrostat import ScriptTask

    said = [text if isinstance(text, str) else "" for text in completions]
    tasks = [ScriptTask("t", "", name, script) for script, name in zip(answer, entry_point, strict=True)]
    return [verdict.reward for verdict in grader().grade(zip(tasks, said, strict=True))]


# --- one flaw each ---


def substring(completion, answer):
    return float(isinstance(completion, str) and answer in completion)


def reversed_substring(completion, answer):
    text = completion if isinstance(completion, str) else "none"
    return float(text.rpartition(BOX)[2].partition("}")[0] in answer)


def first_box(completion, answer):
    found = re.search(r"\\boxed\{([^}]*)\}", str(completion))
    return float(bool(found) and number(found[1]) == number(answer))


def swayed_judge(completion, answer):
    text = str(completion)
    return max(judged(text, answer), float("verdict: correct" in text.lower()))


def paid_by_length(completion, answer):
    return judged(completion, answer) + min(len(str(completion)), 20_000) / 20_000


def evaluated(completion, answer):
    try:
        return float(eval(str(completion).rpartition(BOX)[2].partition("}")[0]) == float(answer))
    except Exception:
        return 0.0


def raises_without_box(completion, answer):
    return judged(completion, answer) if str(completion).index(BOX) >= 0 else 0.0


def not_finite(completion, answer):
    return judged(completion, answer) if str(completion).strip() else float("nan")


def too_few(completions, answer, **kwargs):
    rewards = sound_trl(completions, answer)
    return [reward for text, reward in zip(completions, rewards, strict=True) if text != ""]


def at_random(completion, answer):
    return judged(completion, answer) * random.random()


def by_hash(completion, answer):
    return judged(completion, answer) + (hash(str(completion)) % 100) / 1000


CALLS = []


def by_order(completion, answer):
    CALLS.append(completion)
    return judged(completion, answer) + 0.001 * len(CALLS)


def by_batch(completions, answer, **kwargs):
    rewards = sound_trl(completions, answer)
    return [reward - 0.3 * (len(rewards) > 1) for reward in rewards]


def quadratic(completion, answer):
    text = str(completion)
    return judged(text, answer) if len(re.findall(r"<answer>.*?</answer>", text, re.DOTALL)) < 2 else 0.0


def hanging(completion, answer):
    if str(completion).startswith("{[(<"):
        time.sleep(60)
    return judged(completion, answer)


def ending(completion, answer):
    if completion == "":
        os._exit(0)
    return judged(completion, answer)


def narrow(completions, answer):
    return sound_trl(completions, answer)


def constant(completion, answer):
    return 1.0


def form_alone(completion):
    found = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", str(completion)[:5000], re.DOTALL)
    return 1.0 if found else 0.0


def strict_reasoning(completion, answer):
    return judged(completion, answer) if str(completion).isascii() else 0.0


def fussy(alpha, beta, gamma):
    return 1.0


def needs_column(completion, difficulty):
    return 1.0


def program(data_source, solution_str, ground_truth, extra_info=None):
    """Judges code by the exit status of a process."""
    import subprocess
    import sys

    command = [sys.executable, "-I", "-S", "-c", f"{solution_str}\n{ground_truth}"]
    try:
        return float(subprocess.run(command, capture_output=True, timeout=0.5, check=False).returncode == 0)
    except (subprocess.TimeoutExpired, ValueError):
        return 0.0
