"""The pages of the documentation site that are made and not written, as a hook of mkdocs.

Methods come from the recipe's tables and the docstrings behind them, the API from the packages' `__all__`, studies and
benchmarks from their folders: none of it is written down a second time.
"""

from __future__ import annotations

import inspect
import pkgutil
import posixpath
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer
import yaml
from equations import set_in_html, set_in_markdown
from parameters import add_tables
from symptoms import SYMPTOMS, symptom_page

import entrostat
from entrostat.cli import app
from entrostat.recipe import Recipe, methods
from entrostat.recipe.loading import StudyRecipe
from entrostat.recipe.reference import keys
from entrostat.runs.metrics import METRICS, Metric
from entrostat.runs.schema import EVALUATION_FIELDS, STEP_FIELDS, Field

ROOT = Path(__file__).resolve().parents[1]
ASSETS = (".png", ".csv", ".json", ".yaml")
PROJECT_PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
OTHER_PACKAGES = ("assets", "cli")
METRICS_PAGE = ROOT / "docs" / "metrics.md"

TABLES: Mapping[str, tuple[str, str, Mapping[str, Callable[..., Any]], str]] = {
    "strategies": (
        "Strategies",
        "control.strategy",
        methods.STRATEGIES,
        "A strategy moves the bounds within which a token keeps its gradient, step by step.",
    ),
    "objectives": (
        "Objectives",
        "update.objective",
        methods.OBJECTIVES,
        "An objective turns a token's ratio r = pi/pi_old and its advantage A into a loss -A f and a gradient.",
    ),
    "reweightings": (
        "Reweightings and masks",
        "control.reweighting",
        methods.REWEIGHTINGS,
        "A reweighting multiplies each token's advantage by a factor of at least 0; a mask's factors are 0 and 1.",
    ),
    "corrections": (
        "Corrections",
        "control.correction",
        methods.CORRECTIONS,
        "A correction multiplies each token's advantage by a factor that makes up for the policy that sampled it.",
    ),
    "bonuses": (
        "Entropy bonuses",
        "control.bonus",
        methods.BONUSES,
        "A bonus puts the entropy itself into the loss, times a coefficient.",
    ),
}

# For settings without a default; everything else of a recipe is read off the method.
EXAMPLES: Mapping[tuple[str, str], dict[str, Any]] = {
    ("strategies", "piecewise"): {"stages": [{"until": 0.5, "phase": "increase"}, {"until": 1.0, "phase": "decrease"}]},
    ("strategies", "target-entropy"): {"curve": {"points": [[0.0, 0.3], [1.0, 0.1]]}},
    ("strategies", "free-region"): {"region": "E4"},
    ("reweightings", "skip-region"): {"region": "E4"},
    ("reweightings", "target-weights"): {"curve": {"points": [[0.0, 0.3], [1.0, 0.1]]}},
    ("reweightings", "entropic"): {"target": 0.3},
    ("reweightings", "entropic-weights"): {"target": 0.3},
    ("reweightings", "repo-r"): {"target": 0.3},
    ("reweightings", "aepo"): {"low": 0.2, "high": 0.4},
    ("strategies", "adapo"): {"target": 0.3},
    ("reweightings", "gepo"): {"group_size": 8},
    ("reweightings", "fixed"): {"expanding": 1.2, "contracting": 0.8},
    ("bonuses", "constant"): {"value": 0.001},
    ("bonuses", "adaptive"): {"target": 0.3},
}

# What an objective needs of the rest of a recipe.
BESIDE: Mapping[str, dict[str, dict[str, Any]]] = {
    **{name: {"update": {"aggregate": "sequence-mean"}} for name in ("gspo", "gmpo", "sapo")},
    "luspo": {"update": {"aggregate": "sequence-sum"}},
    "opefo": {"update": {"epochs": 1}},
    "clip-undetached": {"control": {"strategy": "id"}},
    **{name: {"update": {"old_logp": "recomputed"}} for name in methods.CORRECTIONS if name not in ("opsm", "estr")},
}


# --- what mkdocs calls ---


def on_config(config: Any) -> Any:
    """Fill the sections of the navigation whose pages are made."""
    made = {
        "Symptoms": [{symptom.title: f"symptoms/{name}.md"} for name, symptom in SYMPTOMS.items()],
        "Methods": [{title: f"methods/{name}.md"} for name, (title, *_) in TABLES.items()],
        "Studies": [*_titled("studies"), *_titled("benchmarks")],
        "Project": [{path.stem.capitalize(): str(path)} for path in map(Path, [*PROJECT_PAGES, "development.md"])],
    }
    for section in config.nav:
        ((title, pages),) = section.items()
        pages += made.get(title, [])
        if title == "Reference":
            pages += [{"API": [{name: f"api/{name}.md"} for name in packages()]}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the made pages, and the pictures and tables that they show."""
    from mkdocs.structure.files import File

    for path, content in pages():
        files.append(File.generated(config, path, content=content))
    for path in assets():
        files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links from docs/ to the repository lead to the page made of their target; set equations as mathematics."""
    for page, file in PROJECT_PAGES.items():
        markdown = markdown.replace(f"](../{file}", f"]({page}")
    return set_in_markdown(re.sub(r"\]\(\.\./(?=studies/|benchmarks/)", "](", markdown))


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """In the API: set the equations of docstrings as mathematics, and put the parameters into tables."""
    return add_tables(set_in_html(content)) if page.file.src_uri.startswith("api/") else content


# --- pages ---


def pages() -> Iterator[tuple[str, str]]:
    """Paths in the site and Markdown of the made pages."""
    for name, (title, key, table, about) in TABLES.items():
        yield f"methods/{name}.md", methods_page(name, title, key, table, about)
    for name, symptom in SYMPTOMS.items():
        yield f"symptoms/{name}.md", symptom_page(symptom)
    yield "cli.md", commands_page()
    yield "columns.md", columns_page()
    yield "recipe.md", recipe_page()
    for name in packages():
        yield f"api/{name}.md", f"# {name}\n\n::: {name}\n"
    for path, source in {"index.md": "README.md", **PROJECT_PAGES}.items():
        yield path, relinked((ROOT / source).read_text())
    for readme in readmes():
        yield str(readme.relative_to(ROOT)), readme.read_text()


def relinked(text: str) -> str:
    """A page of the repository's root whose links lead to the site's own pages."""
    moved = {"docs/": "", **{source: page for page, source in PROJECT_PAGES.items()}}
    return re.sub(rf"\]\(({'|'.join(map(re.escape, moved))})", lambda link: f"]({moved[link[1]]}", text)


def methods_page(page: str, title: str, key: str, table: Mapping[str, Callable[..., Any]], about: str) -> str:
    """One table of methods: for each its docstring with the equation, and its recipe with every default."""
    told = [_method(name, key, table, EXAMPLES.get((page, name), {})) for name in table]
    return "\n\n".join([f"# {title}", about, *told]) + "\n"


def _method(name: str, key: str, table: Mapping[str, Callable[..., Any]], example: dict[str, Any]) -> str:
    section, field = key.split(".")
    choice = methods.resolved(table, {"name": name, **example})
    settings = {section: {field: choice}}
    for key, needed in BESIDE.get(name, {}).items():
        settings[key] = {**settings.get(key, {}), **needed}
    recipe = yaml.safe_dump(settings, sort_keys=False)
    source = described(table[name])
    parts = [f"## {name}", _linked(inspect.cleandoc(source.__doc__ or "")), f"```yaml\n{recipe}```"]
    if example:
        parts.append(f"Without a default, here an example: {', '.join(f'`{setting}`' for setting in example)}.")
    if not source.__name__.startswith("_"):
        parts.append(f"Defined by `{source.__module__}.{source.__qualname__}`.")
    return "\n\n".join(parts)


def described(method: Callable[..., Any]) -> Any:
    """The class or function whose docstring says what a method is."""
    return method.func if isinstance(method, partial) else method


def _linked(text: str) -> str:
    """arXiv numbers as links, outside of equations."""
    return re.sub(
        r"^(?! {4}).*$", lambda line: _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", line[0]), text, flags=re.M
    )


_ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")


def commands_page() -> str:
    """The commands with their arguments, options and defaults, as the command line itself knows them."""
    intro = (
        "# Commands\n\nEach command has `--help` with an example, `--json` where a script would read its result, a "
        "plain error with the remedy, and a non-zero exit status on bad input."
    )
    commands = typer.main.get_command(app).commands
    return "\n\n".join([intro, *(_command(name, command) for name, command in commands.items())]) + "\n"


def recipe_page() -> str:
    """Every key of a recipe and of a study."""
    intro = (
        "# Keys of a recipe\n\n`entrostat recipe KEY` prints the same; `entrostat init` writes a commented recipe to "
        "begin with; `entrostat recipe --schema` prints a JSON schema, with which an editor checks a recipe that "
        "begins with `# yaml-language-server: $schema=recipe.schema.json`."
    )
    tables = []
    for title, kind in {"A run, for `train`": Recipe, "A study, for `chain`": StudyRecipe}.items():
        rows = [
            f"| `{key.path}` | {_cell(key.takes)} | {_cell(key.default)} | {_cell(key.meaning)} |" for key in keys(kind)
        ]
        tables.append("\n".join([f"## {title}", "", "| key | takes | | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join([intro, *tables]) + "\n"


def metrics_page() -> str:
    """docs/metrics.md: what a run folder holds, from the schema, between the hand-written parts of the page."""
    page = METRICS_PAGE.read_text()
    before, after = (
        page.partition("## Optimizer steps")[0],
        "## In the report" + page.partition("## In the report")[2],
    )
    sections = [
        ("Optimizer steps", "`steps.jsonl`, one line per optimizer step.", STEP_FIELDS),
        (
            "Evaluations",
            "`evals.jsonl`, one line per evaluation of a split, on fixed seeds, so that two steps differ by the policy "
            "alone.",
            EVALUATION_FIELDS,
        ),
    ]
    told = [
        "\n\n".join([f"## {title}", _wrapped(about), *(_field(field) for field in fields)])
        for title, about, fields in sections
    ]
    return before + "\n\n".join([*told, after])


def _field(field: Field) -> str:
    notes = {"Healthy": field.healthy, "Warning": field.warning, "Seen": field.seen}
    old = f" Earlier versions called it `{field.was}`." if field.was else ""
    bounds = [
        f"{metric.record} {_healthy(metric)}" if len(field.holds) > 1 or len(field.metrics) > 1 else _healthy(metric)
        for metric in field.metrics
        if metric.healthy
    ]
    notes["Sound runs"] = "; ".join(bounds)
    lines = [_wrapped(f"* **{name}:** {text}", "  ") for name, text in notes.items() if text]
    heading = ", ".join(f"`{name}`" for name in field.holds)
    return "\n\n".join([f"### {heading}", _wrapped(field.text + old), *(["\n".join(lines)] if lines else [])])


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 128, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def columns_page() -> str:
    """What is read from a log: each quantity with its unit, its names in hosts' logs, and where sound runs lie."""
    intro = (
        "# Columns of logs\n\nWhat `diagnose` and `watch` read, and the names that hosts log it under. "
        "The first that a log has is read. `train/`, `rollout/` and the like before a name are ignored, and so are "
        "capitals and blanks around a slash. `/.../` is a regular expression. Other names are found by their words."
    )
    rows = []
    for quantity, metric in METRICS.items():
        names = ", ".join(f"`{_cell(name)}`" for name in metric.names)
        rows.append(f"| `{quantity}` | {metric.meaning} | {names} | {_healthy(metric)} |")
    return "\n".join([intro, "", "| quantity | what it is | names | sound runs |", "|---|---|---|---|", *rows]) + "\n"


def _healthy(metric: Metric) -> str:
    if metric.healthy is None:
        return ""
    return f"at most {metric.healthy.greatest:g}: {metric.healthy.evidence}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _command(name: str, command: Any) -> str:
    about, _, example = inspect.cleandoc(command.help).partition("Example: ")
    rows = [_parameter(each) for each in command.params]
    usage = " ".join(
        [
            "entrostat",
            name,
            *(f"{each.name.upper()}" for each in command.params if each.param_type_name == "argument"),
            "[OPTIONS]",
        ]
    )
    table = ["| | | default |", "|---|---|---|", *rows]
    return f"## {name}\n\n{about.strip()}\n\n```\n{usage}\n{example}\n```\n\n" + "\n".join(table)


def _parameter(parameter: Any) -> str:
    argument = parameter.param_type_name == "argument"
    name = parameter.name.upper() if argument else " / ".join(parameter.opts)
    default = (
        "required" if parameter.required else "" if parameter.default in (None, False) else f"`{parameter.default}`"
    )
    about = (parameter.help or "").replace("|", "\\|")
    return f"| `{name}` | {about} | {default} |"


def packages() -> list[str]:
    """Names of the public packages, the top level first."""
    names = [f"entrostat.{each.name}" for each in pkgutil.iter_modules(entrostat.__path__) if each.ispkg]
    return [
        "entrostat",
        *(name for name in names if name.rpartition(".")[2] not in OTHER_PACKAGES),
    ]


def readmes() -> list[Path]:
    """The READMEs of studies and benchmarks."""
    return [*sorted((ROOT / "studies").glob("*/README.md")), *sorted((ROOT / "benchmarks").glob("*/README.md"))]


def assets() -> list[Path]:
    """The files beside these READMEs that they link to."""
    found = []
    for readme in readmes():
        links = re.findall(r"\]\(([^)#:]+)\)", readme.read_text())
        found += [readme.parent / link for link in links if posixpath.splitext(link)[1] in ASSETS]
    return sorted(set(found))


def _titled(folder: str) -> list[dict[str, str]]:
    own = [readme for readme in readmes() if readme.parts[len(ROOT.parts)] == folder]
    return [{readme.read_text().partition("\n")[0].lstrip("# "): str(readme.relative_to(ROOT))} for readme in own]


if __name__ == "__main__":
    METRICS_PAGE.write_text(metrics_page())
