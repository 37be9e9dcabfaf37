"""The README's example does what it says, and importing the package stays light."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_library_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    exec(compile(code, "README.md", "exec"), {})
    assert "tensor(" in capsys.readouterr().out


def test_importing_the_package_imports_torch_and_nothing_else_of_its_dependencies():
    heavy = {"scipy", "transformers", "matplotlib", "pydantic", "yaml", "typer", "rich", "jinja2", "safetensors"}
    code = f"import torch, sys; old = set(sys.modules); import entrostat; print({heavy} & (set(sys.modules) - old))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
