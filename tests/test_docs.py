"""The documentation does what it says: its examples run, and what is made from the code lacks nothing of it."""

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from entrostat.integrations.losses.steering import parse as parse_control
from entrostat.recipe.loading import StudyRecipe, parse_as, parse_recipe
from entrostat.report import PANELS
from entrostat.runs.metrics import METRICS
from entrostat.runs.schema import EVALUATION, EVALUATION_FIELDS, STEP, STEP_FIELDS, under_new_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STEERED = [page for page in sorted((ROOT / "docs" / "hosts").glob("*.md")) if page.stem not in ("trl", "verl")]


def script(name: str):
    """A script as a module; what lies beside it can be imported, as mkdocs lets its hooks."""
    if str(ROOT / "scripts") not in sys.path:
        sys.path.append(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site, runner = script("docs_site"), script("run_examples")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.name
)
def test_the_examples_of_a_page_run(page: Path):
    assert runner.run(page) == page.read_text().count("```python")


def test_an_example_that_fails_names_its_page_and_line(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as fault:
        runner.run(page)
    assert (fault.traceback[-1].path.name, fault.traceback[-1].lineno + 1) == ("page.md", 8)


@pytest.mark.parametrize("page", [*PAGES, *STEERED], ids=lambda page: page.name)
def test_recipes_in_the_pages_are_recipes(page: Path):
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        content = yaml.safe_load(block)
        if "actor_train" in content:  # ROLL's own configuration
            continue
        if "total_steps" in content:  # the control.yaml of another trainer
            assert parse_control(content, page.name, "C", "the host's coefficient").controller.total_steps
            continue
        assert (parse_as(StudyRecipe, content) if "methods" in content else parse_recipe(content)).name


@pytest.mark.parametrize("name", site.TABLES)
def test_every_method_has_its_recipe_its_source_and_its_explanation(name: str):
    title, key, table, about = site.TABLES[name]
    page = site.methods_page(name, title, key, table, about)
    sections = dict(zip(*[iter(re.split(r"^## (.*)\n", page, flags=re.MULTILINE)[1:])] * 2, strict=True))
    assert list(sections) == list(table)
    section, field = key.split(".")
    for method, text in sections.items():
        settings = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL).group(1))
        recipe = parse_recipe({"name": "x", **settings})
        assert getattr(getattr(recipe, section), field) == settings[section][field]
        assert settings[section][field]["name"] == method
        assert len(text.split()) > 15, method


def test_the_page_of_metrics_is_made_from_the_schema():
    page = site.METRICS_PAGE.read_text()
    assert page == site.metrics_page(), "run `python scripts/docs_site.py`"
    headings = " ".join(re.findall(r"^### (.*)$", page, re.MULTILINE))
    assert [name for name in {**STEP.fields, **EVALUATION.fields} if f"`{name}`" not in headings] == []


def test_a_field_has_one_meaning_and_its_metrics():
    for fields in (STEP_FIELDS, EVALUATION_FIELDS):
        names = [name for field in fields for name in field.holds]
        assert len(names) == len(set(names))
    told = [metric for field in STEP_FIELDS for metric in field.metrics]
    assert {metric.record for metric in told} == {
        metric.record for metric in METRICS.values() if metric.record and metric.record.partition(".")[0] in STEP.fields
    }
    assert under_new_names({"step": 1, "kl": 0.5}) == {"step": 1, "kl_old": 0.5}
    assert under_new_names({"step": 1, "kl": 0.5, "kl_old": 0.25}) == {"step": 1, "kl": 0.5, "kl_old": 0.25}


def test_the_names_of_metrics_in_a_run_folder_are_fields_of_its_lines():
    read = {"select", "select_error"}  # from the results of an evaluation
    names = {metric.record.partition(".")[0] for metric in METRICS.values() if metric.record}
    assert names - read <= {*STEP.fields, *EVALUATION.fields}
    assert {metric.panel for metric in METRICS.values() if metric.panel} <= {panel.title for panel in PANELS}


def test_every_quantity_is_on_the_page_of_columns_with_its_names():
    page = site.columns_page()
    for quantity, metric in METRICS.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{quantity}` |"))
        assert metric.meaning in row
        assert all(f"`{site._cell(name)}`" in row for name in metric.names)


def test_every_command_is_on_the_page_of_commands_with_its_options():
    page = site.commands_page()
    for command in site.typer.main.get_command(site.app).commands.values():
        for parameter in command.params:
            name = parameter.name.upper() if parameter.param_type_name == "argument" else parameter.opts[0]
            assert f"`{name}" in page


def test_no_page_needs_the_network():
    config = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in config
    assert "http" not in (ROOT / "docs" / "site.css").read_text()


EVERY_PAGE = [*PAGES, *sorted((ROOT / "docs" / "hosts").glob("*.md"))]
COMMANDS = [
    line.strip()
    for page in EVERY_PAGE
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"\s*entrostat [a-z]", line)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_a_page_shows_is_one_and_kills_nothing_by_a_pattern(line):
    _, name, *arguments = shlex.split(line, comments=True)
    command = site.typer.main.get_command(site.app).commands[name]
    command.make_context(name, arguments)  # an option that is not there is an error
    assert not {"||", ";", "pkill", "killall"} & set(arguments)


def test_what_a_page_imports_from_us_is_there():
    """Also in blocks that need a host and so do not run."""
    shown = [
        node
        for page in EVERY_PAGE
        for block in re.findall(r"^```py(?:thon)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "entrostat"
    ]
    assert sum(len(node.names) for node in shown) > 20
    for node in shown:
        source = ROOT / "src" / Path(*node.module.split("."))
        source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        for name in node.names:
            module = source.parent / f"{name.name}.py"  # of a package
            assert module.exists() or re.search(rf"\b{name.name}\b", source.read_text()), (node.module, name.name)


def test_what_an_example_sums_over_tokens_takes_the_mask():
    sums = [
        ast.unparse(node.func.value)
        for page in EVERY_PAGE
        for block in re.findall(r"^```py(?:thon)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "mean")
    ]
    over_tokens = [summed for summed in sums if re.search(r"stats\.|flow|polarity\(", summed)]
    assert len(over_tokens) >= 5
    assert all(summed.endswith("[mask]") for summed in over_tokens), over_tokens


def test_no_page_or_help_kills_by_a_pattern_or_on_any_status():
    help_texts = [command.help for command in site.typer.main.get_command(site.app).commands.values()]
    for text in [
        *help_texts,
        *(page.read_text() for page in PAGES),
        *(p.read_text() for p in (ROOT / "docs" / "hosts").glob("*.md")),
    ]:
        assert "pkill" not in text
        assert not re.search(r"watch [^\n`]*\|\| kill -", text)


def test_every_failure_that_diagnose_finds_has_a_page_of_its_symptom():
    from entrostat.diagnosis.detectors.detector import registry

    symptoms = script("symptoms")
    told = {kind for symptom in symptoms.SYMPTOMS.values() for kind in symptom.findings}
    assert told <= set(registry)
    assert set(registry) - told == {"slow-steps", "clip-saturation", "kl-runaway"}
    for symptom in symptoms.SYMPTOMS.values():
        page = symptoms.symptom_page(symptom)
        for remedies in symptom.remedies.values():
            for remedy in remedies:
                assert remedy.action[1:] in page
                assert remedy.evidence in page
