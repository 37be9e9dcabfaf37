"""The size of the package: python scripts/size.py [SRC]. Files, lines, the longest file, imports, and circles of these.

Imports inside functions, and those for type checkers alone, are counted too.
"""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def modules(source: Path) -> dict[str, Path]:
    """Every module's file, by its dotted name."""
    found = {}
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(files: dict[str, Path]) -> dict[str, set[str]]:
    """The modules of the package that each module imports."""
    edges: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                edges[name] |= {found if found in files else node.module for found in inner}
            elif isinstance(node, ast.Import):
                edges[name] |= {alias.name for alias in node.names}
        edges[name] &= files.keys() - {name}
    return edges


def between_packages(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The packages whose modules each package's modules import."""
    arrows: dict[str, set[str]] = {}
    for name, targets in edges.items():
        own = name.split(".")[1:2] or [name]
        others = {(target.split(".")[1:2] or [target])[0] for target in targets}
        arrows.setdefault(own[0], set()).update(others - {own[0]})
    return arrows


def circle(graph: dict[str, set[str]]) -> str:
    """One circle of a graph, in words."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return "none"


def main() -> None:
    """Print the figures."""
    files = modules(Path(sys.argv[1] if len(sys.argv) > 1 else "src/entrostat"))
    lines = {name: len(file.read_text().splitlines()) for name, file in files.items()}
    longest = max(lines, key=lambda name: lines[name])
    edges = imports(files)
    arrows = between_packages(edges)
    print(f"files: {len(files)}, lines: {sum(lines.values())}, longest: {longest} ({lines[longest]})")
    print(f"imports between modules: {sum(map(len, edges.values()))}, circles: {circle(edges)}")
    print(f"arrows between packages: {sum(map(len, arrows.values()))}, circles: {circle(arrows)}")


if __name__ == "__main__":
    main()
