"""Run the Python examples of Markdown pages, those of one page in one namespace, as a reader would type them.

python scripts/run_examples.py README.md docs/*.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType


def examples(page: Path) -> Iterator[CodeType]:
    """The page's Python blocks, compiled so that an error names the page and the line."""
    text = page.read_text()
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines_before = text.count("\n", 0, block.start(1))
        yield compile("\n" * lines_before + block[1], str(page), "exec")


def run(page: Path) -> int:
    """Run the page's examples one after the other; how many there were."""
    namespace: dict[str, object] = {"__name__": "example"}
    found = list(examples(page))
    for code in found:
        exec(code, namespace)
    return len(found)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {run(Path(name))} examples ran", flush=True)
