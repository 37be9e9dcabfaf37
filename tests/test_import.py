"""Importing the package stays light."""

import subprocess
import sys


def test_importing_the_package_imports_torch_and_nothing_else_of_its_dependencies():
    heavy = {"scipy", "transformers", "matplotlib", "pydantic", "yaml", "typer", "rich", "jinja2", "safetensors"}
    code = f"import torch, sys; old = set(sys.modules); import entrostat; print({heavy} & (set(sys.modules) - old))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
