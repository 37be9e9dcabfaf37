# ruff: noqa: E501  (a shape on one line can be compared with the next)
"""Right answers in the shapes in which chat models give them: the code is found and computes the right thing."""

from __future__ import annotations

import contextlib
import io
import sys
import unicodedata

import pytest

from entrostat.grading.extraction import code_candidates, continuation, defines

CODE = "def solve(x):\n    return x + 1\n"
WRONG = "def solve(x):\n    return x - 1\n"
DOCSTRING = 'def solve(x):\n    """Add one.\n\n{fence}\nsolve(1)\n{fence}\n    """\n    return x + 1\n'

SHAPES = {
    "bare": CODE,
    "bare, Windows line ends": CODE.replace("\n", "\r\n"),
    "bare, old Mac line ends": CODE.replace("\n", "\r"),
    "byte order mark": "\ufeff" + CODE,
    "byte order mark in a fence": f"```python\n\ufeff{CODE}```",
    "no-break spaces": f"```python\n{CODE.replace(' ', chr(0xA0))}```",
    "bare, no-break spaces and a narrow one": "def solve(x):\n\u00a0\u00a0\u00a0\u00a0return\u202fx\u2009+ 1\n",
    "zero-width spaces": f"```python\n\u200b{CODE}```",
    "a fence": f"```python\n{CODE}```",
    "a fence without a language": f"```\n{CODE}```",
    "a fence named Python3": f"``` Python3\n{CODE}```",
    "tildes": f"~~~~ py\n{CODE}~~~~",
    "tildes around backticks": f"~~~python\n{DOCSTRING.format(fence='```')}~~~",
    "code on the fence's line": "```python def solve(x): return x + 1\n```",
    "code begins on the fence's line": f"```python {CODE}```",
    "code on a nameless fence's line": f"```{CODE}```",
    "an import on the fence's line": "```python import operator\ndef solve(x):\n    return operator.add(x, 1)\n```",
    "a fence that opens and closes in one line": "The answer: ```python def solve(x): return x + 1```",
    "in a line of prose": "Take `solve = lambda x: x + 1`, which adds one.",
    "attributes on the fence's line": f'```python title="solution.py" linenos=true\n{CODE}```',
    "braces on the fence's line": f"```{{.python .numberLines}}\n{CODE}```",
    "a file's name on the fence's line": f"```python:solution.py\n{CODE}```",
    "closing fence on the last line": f"```python\n{CODE.rstrip()}```",
    "closing fence on the last line, then prose": f"```python\n{CODE.rstrip()} ```\n\nIt adds one (really).\n",
    "closing fence on the last line, then another block": f"```python\n{CODE.rstrip()}```\nUse:\n```python\nsolve(1)\n```",
    "a longer closing fence": f"```python\n{CODE}`````\nThat is all.",
    "a shorter closing fence": f"````python\n{CODE}```\nThat is all, and it is right.",
    "no closing fence": f"So:\n```python\n{CODE}",
    "only a closing fence": f"{CODE}```\nThis adds one.",
    "only the fence's name": f"python\n{CODE}```",
    "a fence in a docstring": f"```python\n{DOCSTRING.format(fence='    ```')}```",
    "a fence in a docstring, at the margin": f"```python\n{DOCSTRING.format(fence='```')}```\nThat is all.",
    "a fence in a docstring, by two": f"```python\n{DOCSTRING.format(fence='  ```')}```",
    "a fence in a docstring, bare": DOCSTRING.format(fence="    ```"),
    "a fence in a docstring, bare, named": DOCSTRING.replace("{fence}", "    ```python", 1).format(fence="    ```"),
    "a fence in a string": "```python\ndef solve(x):\n    mark = '```'\n    return x + len(mark) - 2\n```",
    "a fence in a docstring of four": f"````python\n{DOCSTRING.format(fence='```')}````",
    "a fence in a fence of Markdown": f"````markdown\n# Answer\n```python\n{CODE}```\nDone.\n````",
    "a fence in a nameless fence": f"````\n```python\n{CODE}```\n````",
    "after thoughts": f"<think>\nI would subtract.\n</think>\n{CODE}",
    "after thoughts with code": f"<think>\n```python\n{WRONG}```\n</think>\n```python\n{CODE}```",
    "after thoughts with a stray fence": f"<think>\nWrite ```python and then\n```\n{WRONG}\n</think>\n```python\n{CODE}```",
    "after thoughts that began in the prompt": f"It is x - 1: ```\n{WRONG}\nWait.\n</think>\n\nSo:\n\n{CODE}",
    "after thoughts with an odd fence, bare": f"<think>\n```\nno\n</think>\n{CODE}",
    "in thoughts alone": f"<think>\nSo it is\n```python\n{CODE}```\n</think>\nThe function above is my answer.",
    "thoughts that never end": f"<think>\nLet me write it:\n```python\n{CODE}```\n",
    "code that splits at a thought's end": "def solve(x):\n    end = '</think>'\n    return x + len(end) - 7\n",
    "a helper in an earlier block": "```python\ndef one():\n    return 1\n```\nthen\n```python\ndef solve(x):\n    return x + one()\n```",
    "helpers in two earlier blocks": (
        "```python\nONE = 1\n```\n```python\ndef one():\n    return ONE\n```\n"
        "```python\ndef solve(x):\n    return x + one()\n```"
    ),
    "an import in an earlier block": (
        "```python\nimport operator as op\n```\n```python\ndef solve(x):\n    return op.add(x, 1)\n```"
    ),
    "a helper in a later block": (
        "```python\ndef solve(x):\n    return x + one()\n```\nwith\n```python\ndef one():\n    return 1\n```"
    ),
    "a later block that uses it": f"```python\n{CODE}```\n```python\nprint(solve(1))\n```",
    "a later block that imports it": f"```python\n{CODE}```\n```python\nfrom solution import solve\nassert solve(1) == 2\n```",
    "a later block that recaps it": f"```python\n{CODE}```\nThe signature:\n```python\ndef solve(x):\n    ...\n```",
    "a later block that recaps it by a comment": (
        f'```python\n{CODE}```\n```python\ndef solve(x: int) -> int:\n    """Add."""\n    # as above\n    pass\n```'
    ),
    "a later block in another language": f"```python\n{CODE}```\n```javascript\nfunction solve(x) {{ return x + 1 }}\n```",
    "a later block of tests": f"```python\n{CODE}```\n```python\nimport pytest\ndef test_solve():\n    assert solve(1) == 2\n```",
    "a later attempt": f"```python\n{WRONG}```\nNo:\n```python\n{CODE}```",
    "a block quote": "> ```python\n" + "".join(f"> {line}\n" for line in CODE.splitlines()) + "> ```\n",
    "a block quote without spaces": ">```python\n>def solve(x):\n>    return x + 1\n>```\n",
    "a block quote without a fence": "> def solve(x):\n>     return x + 1\n",
    "a block quote in a list": "* > ```python\n  > def solve(x):\n  >     return x + 1\n  > ```\n",
    "a list": "1. Read.\n2. Write:\n   ```python\n   def solve(x):\n       return x + 1\n   ```\n3. Done.",
    "a list whose code is at the margin": f"1. Write:\n   ```python\n{CODE}   ```\n2. Done.",
    "an indented fence": "    ```python\n    def solve(x):\n        return x + 1\n    ```\n",
    "indented code": "Here it is:\n\n    def solve(x):\n        return x + 1\n\nIt adds.",
    "tabs": "```python\ndef solve(x):\n\treturn x + 1\n```",
    "a REPL transcript": ">>> def solve(x):\n...     return x + 1\n...\n>>> solve(1)\n2\n",
    "a REPL transcript in a fence": "```pycon\n>>> def solve(x):\n...     return x + 1\n... \n>>> solve(1)\n2\n```",
    "a REPL transcript with an error": (
        "```python\n>>> def solve(x):\n...     return x + 1\n...\n>>> solve('a')\nTraceback (most recent call last):\n"
        '  File "<stdin>", line 1\nTypeError: no\n>>> solve(1)\n2\n```'
    ),
    "an IPython transcript": "In [1]: def solve(x):\n   ...:     return x + 1\n   ...: \n\nIn [2]: solve(1)\nOut[2]: 2\n",
    "a docstring with a REPL transcript": '```python\ndef solve(x):\n    """\n    >>> solve(1)\n    2\n    """\n    return x + 1\n```',
    "prose around": f"The function (see below) adds one.\n\n{CODE}\nNote: it adds, (if need be) to floats.\nThat's all.\n",
    "prose with brackets around": f"(First, a thought.)\n\n{CODE}\n(Note: it adds.)\n# The end\n",
    "a heading": f"# Solution\n\n## Code\n```python\n{CODE}```\n### Explanation\nIt adds.",
    "a chat token": f"{CODE}<|im_end|>",
    "a chat token on the last line": f"{CODE.rstrip()}<|eot_id|>",
    "chat tokens after a fence": f"```python\n{CODE}```<|im_end|>\n<|endoftext|>\n</s>",
    "tags": f"<answer>\n{CODE}</answer>",
    "tags on the code's lines": f"<code>{CODE.rstrip()}</code>",
    "tags around a fence": f"<answer>```python\n{CODE}```</answer>",
    "brackets of CodeLlama": f"[PYTHON]\n{CODE}[/PYTHON]\n",
    "a class in a fence": "```python\nclass solve:\n    def __new__(cls, x):\n        return x + 1\n```",
    "a method of a class": "```python\nclass Solution:\n    def solve(self, x):\n        return x + 1\n```",
    "an assignment": "```python\nhelp = solve = lambda x: x + 1\n```",
    "a decorated definition": "```python\nimport functools\n\n@functools.cache\ndef solve(x):\n    return x + 1\n```",
    "a definition in a condition": "```python\nif True:\n    def solve(x):\n        return x + 1\n```",
    "a signature of many lines": "```python\ndef solve(\n    x: 'int',  # (\n    y={':': 1},\n) -> int:\n    return x + 1\n```",
    "prose that quotes the fence": f"Begin with ``` and then:\n```python\n{CODE}```\n",
    "pre and code of HTML": f'<pre><code class="language-python">{CODE}</code></pre>',
    "HTML with entities": '<pre><code class="language-python">def solve(x):\n    return x + 1 if x &lt; 10**9 else x + 1\n</code></pre>',
    "JSON": '{"code": "def solve(x):\\n    return x + 1\\n"}',
    "JSON in a fence": '```json\n{"language": "python", "code": "def solve(x):\\n    return x + 1\\n"}\n```',
    "lstlisting": f"\\begin{{lstlisting}}[language=Python]\n{CODE}\\end{{lstlisting}}",
    "minted": f"\\begin{{minted}}{{python}}\n{CODE}\\end{{minted}}",
    "verbatim": f"Answer:\n\\begin{{verbatim}}\n{CODE}\\end{{verbatim}}\nDone.",
    "a diff": "```diff\n+def solve(x):\n+    return x + 1\n```",
    "line numbers": "```python\n1  def solve(x):\n2      return x + 1\n```",
    "line numbers with bars": "1 | def solve(x):\n2 |     return x + 1\n",
    "future import in a later block": "```python\nimport operator\n```\n```python\nfrom __future__ import annotations\ndef solve(x):\n    return operator.add(x, 1)\n```",
    "future import after helper": "```python\ndef one(): return 1\n```\n```python\nfrom __future__ import annotations\ndef solve(x):\n    return x + one()\n```",
    "bold heading then code": f"**Solution:**\n\n```python\n{CODE}```\n\n**Complexity:** O(1)",
    "details": f"<details>\n<summary>Code</summary>\n\n```python\n{CODE}```\n\n</details>",
    "table then code": f"| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\n{CODE}```",
    "maths around": f"Let $f(x) = x + 1$. Then $$\\int f$$\n\n```python\n{CODE}```\n\\boxed{{x+1}}",
    "boxed fence": f"\\boxed{{\n```python\n{CODE}```\n}}",
    "fence after text in the line": f"Here is the code:```python\n{CODE}```",
    "fence after a bullet in the line": f"- Code: ```python\n{CODE}```\n",
    "four backticks closing by three, more text": f"````python\n{CODE}````\nText ```code``` here.",
    "a class split by text": "```python\nclass Solution:\n    def solve(self, x):\n        return self.one() + x\n    def one(self):\n        return 1\n```\nUse `Solution().solve(1)`.",
    "typed out with a file name": f"`solution.py`:\n\n```python\n# solution.py\n{CODE}```\n\n`test_solution.py`:\n\n```python\nfrom solution import solve\n\ndef test(): assert solve(1) == 2\n```",
    "shell block then code": f"```bash\npip install x\n```\n\n```python\n{CODE}```\n\n```bash\npython solution.py\n```",
    "output block after": f"```python\n{CODE}print(solve(1))\n```\n\nOutput:\n\n```\n2\n```",
    "old and new version, named": f"Before:\n```python\n{WRONG}```\nAfter:\n```python\n{CODE}```",
    "harmony channels": f"<|channel|>analysis<|message|>think ```python\n{WRONG}```<|end|><|start|>assistant<|channel|>final<|message|>```python\n{CODE}```<|return|>",
    "tool call": '<tool_call>\n{"name": "submit", "arguments": {"code": "def solve(x):\\n    return x + 1\\n"}}\n</tool_call>',
    "cdata": f"<solution><![CDATA[\n{CODE}]]></solution>",
    "smart quotes in prose": f"\u201cHere\u201d it\u2019s:\n\n{CODE}\nThat\u2019s \u201call\u201d \u2013 done\u2026\n",
    "emoji": f"\U0001f680 Solution \u2705\n```python\n{CODE}# \U0001f389 done\n```\n\U0001f44d",
    "indent mark lost in first line": "```python\n  def solve(x):\n      return x + 1\n```",
    "trailing spaces on fence": f"```python   \n{CODE}```   \n",
    "uppercase": f"```PYTHON\n{CODE}```",
    "python with version": f"```python3.11\n{CODE}```",
    "py with runner": f"```{{python}}\n#| echo: false\n{CODE}```",
    "magics": f"```python\n%matplotlib inline\n!pip install x\n{CODE}```",
    "xml tags with attributes": f'<file path="solution.py">\n{CODE}</file>',
    "artifact": f'<antArtifact identifier="s" type="application/vnd.ant.code" language="python" title="S">\n{CODE}</antArtifact>',
    "begin solution tags": f"<|begin_of_solution|>\n```python\n{CODE}```\n<|end_of_solution|>",
    "comment fence": f"'''python\n{CODE}'''",
    "double fence": f"```\n```python\n{CODE}```\n```",
    "french quotes": f"«\n```python\n{CODE}```\n»",
    "numbered steps": "1. Import:\n\n   ```python\n   import operator\n   ```\n\n2. Define:\n\n   ```python\n   def solve(x):\n       return operator.add(x, 1)\n   ```\n",
    "thinking tag variants": f"<thinking>\n```python\n{WRONG}```\n</thinking>\n\n```python\n{CODE}```",
    "reflection": f"◁think▷ ```python\n{WRONG}``` ◁/think▷\n```python\n{CODE}```",
    "seed think": f"<seed:think>\n```python\n{WRONG}```\n</seed:think>\n{CODE}",
}  # fmt: skip


def computed(sources, name="solve"):
    """What `name` of the first source that compiles answers to 1."""
    for source in sources:
        try:
            program = compile(source, "<answer>", "exec")
        except SyntaxError:
            continue
        scope = {"__name__": "solution"}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(program, scope)
        found = scope[name] if name in scope else getattr(scope["Solution"](), name)
        return found(1)
    return "nothing that compiles"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_code_is_found_in_every_shape(shape):
    assert computed(code_candidates(SHAPES[shape], "solve")) == 2


@pytest.mark.parametrize("name", ["größe", "решить", "解く", "हल", "ﬁnd", "A\u030a", "réponse"])
def test_a_name_may_have_any_alphabet(name):
    code = f"def {name}(x):\n    return x + 1\n"
    for text in (code, f"```python\n{code}```", f"Also:\n\n{name} = lambda x: x + 1\n\nFertig.\n"):
        assert computed(code_candidates(text, name), unicodedata.normalize("NFKC", name)) == 2


PROGRAM = "n = int(input())\nprint(n + 1)\n"


@pytest.mark.parametrize(
    "text",
    [
        PROGRAM,
        f"```python\n{PROGRAM}```\nFor example:\n```\n1\n```\ngives\n```text\n2\n```",
        f"```python\n{PROGRAM}```\nRun it:\n```bash\npython main.py\n```",
        f"```python\n{PROGRAM.rstrip()}```",
        f"<think>```python\nprint(input())\n```</think>{PROGRAM}",
        f'"""\n```\n1\n```\n"""\n{PROGRAM}',
        "```python\ndef plus(n):\n    return n + 1\n```\n```python\nprint(plus(int(input())))\n```",
        f"```python\n{PROGRAM}```\nor, to test it,\n```python\nprint(1 + 1)\n```",
        f"{PROGRAM}```\nThis reads a number.\n",
    ],
)
def test_a_program_is_found_too(text, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    for source in code_candidates(text, None):
        try:
            program = compile(source, "<answer>", "exec")
        except SyntaxError:
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(program, {"__name__": "__main__"})
        assert printed.getvalue() == "2\n"
        return
    pytest.fail("nothing that compiles")


@pytest.mark.parametrize(
    "completion",
    ["    return x + 1\n", "    y = x\n    return y + 1", "```python\n    return x + 1\n```", "return x + 1\n", "```\nreturn x + 1\n```"],
)  # fmt: skip
def test_a_body_continues_its_prompt(completion):
    assert not defines(completion, "solve")
    assert computed([continuation('def solve(x):\n    """Add one."""\n', completion)]) == 2


@pytest.mark.parametrize("text", ["", "I cannot.", "def other(x): return x\n", "solve: adds one.\n"])
def test_where_nothing_is_defined_nothing_is_found(text):
    assert not code_candidates(text, "solve")


@pytest.mark.parametrize(
    "unit", ["1 | def solve(x):\n", "+def solve(x):\n", '{"a": "def solve\\n', "'''python\n", "&lt;pre&gt;", "]]>", "{" * 50, "[" * 50]
)  # fmt: skip
def test_hostile_text_of_the_odd_shapes_is_answered(unit):
    for text in (
        unit * 2000,
        unit * 2000 + "\ndef solve(x): return 1\n",
        '{"a": ' * 5000 + '"def solve(x):\\n 1"' + "}" * 5000,
    ):
        assert isinstance(code_candidates(text, "solve"), tuple)
