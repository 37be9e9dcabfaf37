"""Finding code in completions as chat models write them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.grading import extract_code
from entrostat.grading.lexing import open_quote

CODE = "def solve(x):\n    return x + 1\n"
OTHER = "def helper(x):\n    return x\n"


@pytest.mark.parametrize(
    "bare",
    [
        CODE,
        CODE.strip(),
        "\n\n" + CODE,
        "# a comment\n" + CODE,
        "import math\nfrom os import path\n\nLIMITS = [\n1, 2,\n3]\nA, B = 1, 2\nx: int = 3\n\n" + CODE,
        '"""A docstring\nHere is prose at the margin.\n"""\n' + CODE,
        CODE + '\nTEXT = """\nprose at the margin\n"""\n',
        "@decorate\nasync " + CODE,
        "solve = lambda x: x + 1",
        CODE + "if __name__ == '__main__':\n    print(solve(1))\n",
        "class solve:\n    pass\n",
        "from operator import neg as solve",
        "def solve(x):\n    return (\nx\n)\n",
        "while True: break\n" + CODE,
        "for n in range(3): print(n, 'all is well')\n" + CODE,
        "if True: LIMIT = 3\nelse: LIMIT = 4\n" + CODE,
        "try: import numpy as np\nexcept ImportError: np = None\n" + CODE,
        CODE + "while not solve(-1): pass\n",
        CODE + "with open('/dev/null') as file: file.read()  # the end is near\n",
        'def solve(x):\n    """Add.\n\n    ```\n    solve(1)\n    ```\n    """\n    return x + 1\n',
    ],
)
def test_bare_code_comes_back_as_it_stands(bare):
    assert extract_code(bare, "solve").strip() == bare.strip()


@pytest.mark.parametrize(
    "completion",
    [
        f"```python\n{CODE}```",
        f"```\n{CODE}```",
        f"```py\n{CODE}```\n",
        f"~~~python\n{CODE}~~~",
        f"````python\n{CODE}````",
        f"Here it is:\n\n```python\n{CODE}```\n\nIt adds one.",
        f"First try:\n```python\n{CODE.replace('1', '2')}```\nNo, better:\n```python\n{CODE}```",
        f"```python\n{CODE}```\nUse it so:\n```python\nprint(solve(1))\n```",
        f"```bash\npip install x\n```\n```python\n{CODE}```\n```text\n2\n```",
        "1. Do this:\n   ```python\n   def solve(x):\n       return x + 1\n   ```\n2. Done.",
        f"```python\n{CODE}",
        f"Here is the function:\n\n{CODE}\nThis adds one to its argument.",
        f"Note: simple.\n{CODE}Explanation: it adds, and if the list is empty, nothing happens.\nThe end.",
        f"If all is well: this works.\nFor example: try it.\n{CODE}While it runs: it adds.\nFor lists: not at all.\n",
        f"<think>\nLet me see.\n```python\n{CODE.replace('1', '9')}```\n</think>\n```python\n{CODE}```",
    ],
)
def test_prose_and_fences_fall_away(completion):
    assert extract_code(completion, "solve").strip() == CODE.strip()


@pytest.mark.parametrize(
    "completion", ["", "   ", "No.", "The function solve is hard.", OTHER, "def solver(x): return 1"]
)
def test_no_definition_is_no_code(completion):
    assert extract_code(completion, "solve") is None


def test_a_truncated_definition_is_still_the_code():
    assert (
        extract_code("```python\ndef solve(x):\n    return (x +", "solve").strip() == "def solve(x):\n    return (x +"
    )


def test_without_the_definition_the_last_block_is_taken():
    assert extract_code(f"```python\n{OTHER}```\n```python\ny = 1\n```", "solve") == "y = 1\n"


@given(st.text(alphabet="`~ \n\t'\"():=[]#@,abcdefsolv", max_size=300))
def test_any_text_is_answered(text):
    found = extract_code(text, "solve")
    assert found is None or isinstance(found, str)


@pytest.mark.parametrize(
    "piece",
    [
        "```\n",
        "def solve(",
        "a,",
        "'''\n",
        "x[",
        "x[a]",
        "((((",
        "\t```python\n",
        "if a:\n",
        "~" * 50,
        "x",
        "x.",
        " ",
        "\n",
        "def ",
        "from ",
        "if :",
        "-",
        "if " + "'\\" * 240 + ": x\n",
        "if '\\",
        "> ",
        "- a\n",
        "  - a\n",
        "1. ",
        "`a",
        "```x``` ",
        "x```\n",
        "</think>\n",
        "<answer>",
        "<|a|>",
        ">>> ",
        '\\"""\n```\n',
        '```\n\\"""\n',
        "def solve(\n",
        "def solve(x):\n #\n",
        "solve=",
        "import a,",
        "\u00a0",
        "1 | def solve(x):\n",
        '{"a": "def solve(x):\\n 1"}, ',
        "from __future__ import a\n",
        "&lt;]]>",
    ],
)
def test_the_cost_of_hostile_text_does_not_grow_with_the_square_of_its_length(piece):
    def cost(size):
        before = time.thread_time()
        flood = piece * (size // len(piece))
        for entry_point in ("solve", None):
            extract_code("def solve(x): return x\n" + flood, entry_point)
            extract_code(flood, entry_point)
        return time.thread_time() - before

    small, large = (min(cost(size) for _ in range(3)) for size in (10_000, 40_000))
    assert large < 10 * small + 0.3  # of the square it would be 16 times


@pytest.mark.parametrize(
    ("source", "open_at_the_end"),
    [
        ('"""' + "some words " * 500 + '"""', ""),
        ("'''" + "x" * 5000 + "''' + " + '"""y', '"""'),
        ('"""' + "x" * 5000 + '""', '"""'),
        ("x = 'it' 's'  # it's " + '"""', ""),
        ("a = 'open\n" + '"""', '"""'),
        ('"""escaped \\""" still open', '"""'),
        ('x = ""', ""),
    ],
)
def test_the_quotes_that_are_open_at_the_end_of_a_text(source, open_at_the_end):
    assert open_quote(source) == open_at_the_end
    assert open_quote("closes it" + open_at_the_end, open_at_the_end) == ""
