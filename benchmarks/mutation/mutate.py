"""Change one operator, number, comparison or branch at a time and see whether the package's own tests fail.

python benchmarks/mutation/mutate.py run --seed 1 --out benchmarks/mutation/seed-1.csv
python benchmarks/mutation/mutate.py read benchmarks/mutation/*.csv

The changes are cosmic-ray's operators. A sample draws places first and then one change per place, because an arithmetic
operator alone has eleven changes and most of them are type errors. Annotations and `@override` are left out: nothing
reads them at run time. Each mutant runs in a process forked from one that has torch and pytest loaded, and in those
that its tests start; the source itself is never changed. The tests that reach the changed line run a file at a time,
the quickest file first, and end at the first failure. A mutant outside functions runs against all tests of its package,
those that reach its file first.

Which tests reach which line is measured once per test file and kept in build/mutation until that file or the source
changes. `run` continues a table that it did not finish.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "entrostat"
MEASURED = ROOT / "build" / "mutation"
PACKAGES = {
    "tokens": ["tokens"],
    "objective": ["objective"],
    "control": ["control"],
    "campaign": ["campaign"],
    "detectors": ["diagnosis/detectors", "diagnosis/falls.py", "diagnosis/watchdog.py"],
}
TESTS = {  # where they are not the package's folder: those of reading, exporting and telling are about other files
    "detectors": ["diagnosis/test_[dfstw]*.py", "diagnosis/detectors/test_*.py"],
}
LIBRARIES = ("torch", "numpy", "scipy.stats", "pytest", "hypothesis", "transformers", "matplotlib", "pydantic", "yaml")
COLUMNS = ["package", "seed", "commit", "file", "operator", "occurrence", "line", "where", "before", "after"]
COLUMNS += ["tests", "outcome", "by"]
WITHOUT_ARGUMENTS = ("VariableInserter", "VariableReplacer")  # they need a name to insert; a site has none by itself

HOOK = """
import importlib.machinery, linecache, os
given = importlib.machinery.SourceFileLoader.get_code
def get_code(loader, name):
    if loader.path != os.environ["MUTANT_OF"]:
        return given(loader, name)
    code = open(os.environ["MUTANT"]).read()
    linecache.cache[loader.path] = len(code), None, code.splitlines(True), loader.path  # Triton reads a kernel's source
    return compile(code, loader.path, "exec", dont_inherit=True)
importlib.machinery.SourceFileLoader.get_code = get_code
"""  # run in the process of the tests, and as its sitecustomize in every Python that they start


class Mutant(NamedTuple):
    """One change: the operator's occurrence in a file, where it is, and the line before and after."""

    file: str
    operator: str
    occurrence: int
    line: int
    where: str
    before: str
    after: str


def sites(path: Path) -> Iterator[list[tuple[str, int, int, bool]]]:
    """Per place in the file, the changes possible there: (operator, occurrence, line, whether a function holds it)."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import Visitor, get_ast

    tree = get_ast(path.read_text())
    places: dict[tuple, list[tuple[str, int, int, bool]]] = {}
    for name in sorted(cosmic_ray.plugins.operator_names()):
        if name.endswith(WITHOUT_ARGUMENTS):
            continue
        operator = cosmic_ray.plugins.get_operator(name)()
        counted = 0

        class Places(Visitor):
            def visit(self, node):
                nonlocal counted
                for (line, column), end in operator.mutation_positions(node):  # noqa: B023
                    if not in_annotation(node) and node.get_code(include_prefix=False).strip() != "@override":
                        inside = in_function(node)
                        places.setdefault((line, column, end), []).append((name, counted, line, inside))  # noqa: B023
                    counted += 1
                return node

        Places().walk(tree)
    yield from (places[key] for key in sorted(places))


def ancestors(node) -> Iterator[tuple]:
    while node.parent is not None:
        yield node, node.parent
        node = node.parent


def in_annotation(node) -> bool:
    for child, parent in ancestors(node):
        if parent.type == "annassign" and child is parent.children[1]:
            return True
        if parent.type == "tfpdef" and len(parent.children) == 3 and child is parent.children[2]:
            return True
        if parent.type == "funcdef" and child is parent.annotation:
            return True
    return False


def in_function(node) -> bool:
    return any(
        parent.type in ("funcdef", "lambdef") and child is parent.children[-1] for child, parent in ancestors(node)
    )


def enclosing(path: Path, line: int) -> str:
    import parso

    leaf = parso.parse(path.read_text()).get_leaf_for_position((line, 999), include_prefixes=True)
    names = [p.name.value for _, p in ancestors(leaf) if p.type in ("funcdef", "classdef") and p.start_pos[0] <= line]
    return ".".join(reversed(names))


def statement(path: Path, line: int) -> range:
    """The lines of the innermost statement that holds a line; of one with a body, its head alone."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno
            if node.lineno <= line <= last:
                found = range(node.lineno, last + 1)
    return found


def mutated(path: Path, operator: str, occurrence: int) -> str:
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    code = mutate_code(path.read_text(), cosmic_ray.plugins.get_operator(operator)(), occurrence)
    if code is None:
        raise ValueError(f"{path} has no occurrence {occurrence} of {operator}")
    return code


def draw(package: str, size: int, seed: int) -> list[tuple[Mutant, bool]]:
    """`size` mutants of a package at random places, without replacement."""
    chance = random.Random(f"{package}-{seed}")
    parts = [SOURCE / part for part in PACKAGES[package]]
    files = sorted(file for part in parts for file in ([part] if part.suffix else part.glob("*.py")))
    places = [(path, changes) for path in files for changes in sites(path)]
    drawn = []
    for path, changes in chance.sample(places, min(size, len(places))):
        operator, occurrence, line, inside = chance.choice(changes)
        drawn.append((described(path, operator, occurrence, line), inside))
    return drawn


def described(path: Path, operator: str, occurrence: int, line: int) -> Mutant:
    old, new = path.read_text().splitlines(), mutated(path, operator, occurrence).splitlines()
    changed = next((n for n, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), line - 1)
    before, after = old[changed].strip(), new[changed].strip()
    if operator == "core/RemoveDecorator":
        before, after = old[line - 1].strip(), ""
    name, where = str(path.relative_to(SOURCE)), enclosing(path, line)
    return Mutant(name, operator.removeprefix("core/"), occurrence, line, where, before, after)


class Chosen:
    """pytest's plugin: keep the chosen tests, fastest first; note how each ended and how long it took."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds, self.taken, self.failed, self.bad = seconds, {}, "", []

    def pytest_collection_modifyitems(self, items: list) -> None:
        if self.seconds is not None:
            items[:] = sorted((i for i in items if i.nodeid in self.seconds), key=lambda i: self.seconds[i.nodeid])

    def pytest_runtest_logreport(self, report) -> None:
        self.taken[report.nodeid] = self.taken.get(report.nodeid, 0.0) + report.duration
        if report.failed or report.skipped:
            self.bad.append(report.nodeid)
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.failed = self.failed or f"import of {report.nodeid}"


def pytest_run(arguments: list[str], *plugins: object) -> int:
    import hypothesis
    import pytest

    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    os.chdir(ROOT)
    return pytest.main([*arguments, "-q", "-p", "no:cacheprovider"], plugins=plugins)


def quiet() -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1), os.dup2(nothing, 2)


def reach(file: Path, answer) -> None:
    """Child process: run a file of tests once; answer with each test's seconds and the lines that it reaches."""
    quiet()
    import coverage

    with tempfile.TemporaryDirectory() as scratch:
        cover = coverage.Coverage(data_file=f"{scratch}/data", source=[str(SOURCE)], config_file=False)
        plugin = Chosen()

        class Contexts:
            def pytest_runtest_setup(self, item) -> None:
                cover.switch_context(item.nodeid)

        cover.start()
        pytest_run([str(file)], plugin, Contexts())
        cover.stop()
        data = cover.get_data()
        lines = {
            f"{Path(name).relative_to(SOURCE)}:{line}": [test for test in tests if test]
            for name in data.measured_files()
            for line, tests in data.contexts_by_lineno(name).items()
        }
    good = {test: seconds for test, seconds in plugin.taken.items() if test not in plugin.bad}
    answer.send({"seconds": good, "lines": lines, "bad": sorted(set(plugin.bad))})


def content(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(str(file).encode() + file.read_bytes() for file in sorted(files))).hexdigest()[:24]


def reached(package: str) -> dict[str, dict]:
    """What the tests of a package reach. A file is measured anew only if it, its helpers or the source changed."""
    patterns = TESTS.get(package, [f"{package}/test_*.py"])
    tests = sorted(file for pattern in patterns for file in (ROOT / "tests").glob(pattern))
    folders = {file.parent for file in tests}
    helpers = [file for folder in folders for file in folder.glob("*.py") if not file.name.startswith("test_")]
    common = [*SOURCE.rglob("*.py"), *helpers]
    MEASURED.mkdir(parents=True, exist_ok=True)
    whole: dict[str, dict] = {"seconds": {}, "lines": {}, "bad": {}}
    for file in tests:
        kept = MEASURED / f"{package}-{file.stem}-{content([*common, file])}.json"
        if not kept.exists():
            kept.write_text(json.dumps(in_child(reach, file, limit=3600)))
        one = json.loads(kept.read_text())
        whole["seconds"] |= one["seconds"]
        whole["bad"] |= dict.fromkeys(one["bad"])
        for line, names in one["lines"].items():
            whole["lines"].setdefault(line, []).extend(names)
    return whole


def attempt(mutant: Mutant, tests: dict[str, float], scratch: str, answer) -> None:
    """Child process: import the mutant in place of its file, run the tests, answer with the first that failed."""
    quiet()
    path, code = SOURCE / mutant.file, Path(scratch, "mutant.py")
    code.write_text(mutated(path, f"core/{mutant.operator}", mutant.occurrence))
    Path(scratch, "sitecustomize.py").write_text(HOOK)
    os.environ.update(MUTANT_OF=str(path), MUTANT=str(code))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [scratch, os.environ.get("PYTHONPATH")]))
    sys.dont_write_bytecode = True
    seconds = int(10 + 3 * sum(tests.values()))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    exec(HOOK, {})
    answer.send(tried(tests))


def tried(tests: dict[str, float]) -> tuple[str, str]:
    files: dict[str, float] = {}
    for test, seconds in tests.items():
        file = test.partition("::")[0]
        files[file] = files.get(file, 0.5) + seconds  # half a second to collect it
    for file in sorted(files, key=files.__getitem__):
        plugin = Chosen(tests)
        try:
            status = pytest_run(["-x", file], plugin)
        except BaseException:
            return "caught", traceback.format_exc().splitlines()[-1]
        if status not in (0, 5):  # 5: none of the tests is left, as where the mutant gives them other names
            return "caught", plugin.failed or f"pytest ends with {status}"
    return "survived", ""


def in_child(function, *arguments, limit: float):
    """What `function` answers from a forked process; None where it takes more than `limit` seconds."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    child = fork.Process(target=function, args=(*arguments, there))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else None
    except EOFError:
        return "caught", "the process died or used up its time"
    finally:
        child.kill()
        child.join()


def load_libraries() -> None:
    """Import what the tests need, so that every forked process has it; nothing of entrostat, which is to be changed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for module in LIBRARIES:
        __import__(module)
    sys.modules["torch"].set_num_threads(1)


def outcomes(package: str, mutants: list[tuple[Mutant, bool]]) -> Iterator[dict]:
    """A row per mutant: how many tests reach it, whether one fails, and which."""
    known = reached(package)
    print(f"{package}: {len(known['seconds'])} tests; left out, for they fail or are skipped: {list(known['bad'])}")
    with tempfile.TemporaryDirectory() as scratch:
        for mutant, inside in mutants:
            path, start = SOURCE / mutant.file, time.monotonic()
            lines = {line: names for line, names in known["lines"].items() if line.startswith(f"{mutant.file}:")}
            if inside:
                lines = {at: lines.get(at, []) for at in (f"{mutant.file}:{n}" for n in statement(path, mutant.line))}
            here = {test for names in lines.values() for test in names}
            tests = {test: seconds for test, seconds in known["seconds"].items() if test in here}
            rest = {} if inside else {test: s for test, s in known["seconds"].items() if test not in here}
            outcome, by = ("survived", "no test reaches it")
            for some in filter(None, (tests, rest)):
                limit = 120 + 20 * sum(some.values())
                outcome, by = in_child(attempt, mutant, some, scratch, limit=limit) or ("caught", "time limit")
                if outcome == "caught":
                    break
            seconds, change = time.monotonic() - start, f"{mutant.before}  ->  {mutant.after}"
            print(f"{outcome:9}{seconds:6.1f} s {mutant.file}:{mutant.line} {change}", flush=True)
            yield {
                "package": package,
                **mutant._asdict(),
                "tests": len(tests) + len(rest),
                "outcome": outcome,
                "by": by,
            }


def write(path: Path, rows: Iterator[dict], seed: int) -> None:
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    new = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            table.writeheader()
        for row in rows:
            table.writerow({"seed": seed, "commit": commit, **row})
            file.flush()


def run(arguments: argparse.Namespace) -> None:
    """Draw a sample from each package and try it, except what the table has."""
    load_libraries()
    rows = list(csv.DictReader(arguments.out.open())) if arguments.out.exists() else []
    done = {(row["file"], row["operator"], int(row["occurrence"])) for row in rows}
    for package in arguments.packages:
        drawn = draw(package, arguments.sample, arguments.seed)
        left = [(mutant, inside) for mutant, inside in drawn if mutant[:3] not in done]
        if left:
            write(arguments.out, outcomes(package, left), arguments.seed)


def again(arguments: argparse.Namespace) -> None:
    """Try the survivors of a table again, where the source still has their line."""
    load_libraries()
    rows = list(csv.DictReader(arguments.table.open()))
    for package in PACKAGES:
        left = [row for row in rows if row["package"] == package and row["outcome"] == "survived"]
        mutants = [mutant for mutant in map(relocated, left) if mutant]
        if mutants:
            write(arguments.out, outcomes(package, mutants), int(left[0]["seed"]))


def relocated(row: dict[str, str]) -> tuple[Mutant, bool] | None:
    """The mutant of a table's row in the current source, or None if its line has gone."""
    path = SOURCE / row["file"]
    for changes in sites(path) if path.exists() else ():
        for operator, occurrence, line, inside in changes:
            if operator == f"core/{row['operator']}":
                mutant = described(path, operator, occurrence, line)
                if (mutant.before, mutant.after) == (row["before"], row["after"]):
                    return mutant, inside
    print(f"gone: {row['file']} {row['before']}  ->  {row['after']}")
    return None


def read(arguments: argparse.Namespace) -> None:
    """Print, per table and package, how many mutants were caught, with Wilson's interval of 95 %."""
    from scipy.stats import binomtest

    reasons = {
        (row["file"], row["before"], row["after"]): row["reason"]
        for row in csv.DictReader(Path(__file__).with_name("equivalent.csv").open())
    }
    print("| sample | package | mutants | equivalent | caught | survived | caught of the others |")
    print("|---|---|---|---|---|---|---|")
    for table in arguments.tables:
        rows = list(csv.DictReader(table.open()))
        for package in [*PACKAGES, "all"]:
            chosen = [row for row in rows if package in (row["package"], "all")]
            left = [row for row in chosen if row["outcome"] == "survived"]
            same = [row for row in left if (row["file"], row["before"], row["after"]) in reasons]
            caught, n = len(chosen) - len(left), len(chosen) - len(same)
            if n:
                low, high = binomtest(caught, n).proportion_ci(method="wilson")
                counts = f"{len(chosen)} | {len(same)} | {caught} | {len(left) - len(same)}"
                print(f"| {table.stem} | {package} | {counts} | {caught / n:.0%} [{low:.0%}, {high:.0%}] |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function in (run, again, read):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if function is read:
            command.add_argument("tables", type=Path, nargs="+")
            continue
        command.add_argument("--out", type=Path, required=True)
        if function is again:
            command.add_argument("table", type=Path)
        else:
            command.add_argument("--seed", type=int, default=1)
            command.add_argument("--sample", type=int, default=30)
            command.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    arguments = parser.parse_args()
    arguments.function(arguments)
