"""What the site makes of docstrings: equations with every sign, and tables of parameters."""

import html
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


equations, parameters = script("equations"), script("parameters")


def plain(typeset: str) -> str:
    """The words and signs of what was set, without blanks, scripts' marks and brackets around them."""
    return re.sub(r"[\s_^{}]", "", html.unescape(re.sub(r"<[^>]+>", "", typeset)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("p_x² (ln p_x + H)", "<i>p</i><sub><i>x</i></sub><sup>2</sup> (ln <i>p</i><sub><i>x</i></sub> + <i>H</i>)"),
        ("e^-2d_i k", "<i>e</i><sup>\u22122<i>d</i><sub><i>i</i></sub></sup> <i>k</i>"),
        ("E_{k-lag} <= 1", "<i>E</i><sub><i>k</i>\u2212lag</sub> \u2264 1"),
        ("1 / (1 + e^(-d)) x", "1 / (1 + <i>e</i><sup>(\u2212<i>d</i>)</sup>) <i>x</i>"),
        ("r < clip(r, 1 - a)", "<i>r</i> &lt; clip(<i>r</i>, 1 \u2212 <i>a</i>)"),
    ],
)
def test_scripts_and_signs(text, wanted):
    assert f"<span>{wanted}</span>" in equations.typeset(text)


def blocks():
    from entrostat.recipe import methods

    tables = (methods.STRATEGIES, methods.OBJECTIVES, methods.REWEIGHTINGS, methods.CORRECTIONS, methods.BONUSES)
    texts = [path.read_text() for path in (ROOT / "docs").rglob("*.md")]
    texts += [inspect.cleandoc(method.__doc__ or "") for table in tables for method in table.values()]
    return [
        block[0] for text in texts for block in equations.BLOCK.finditer(re.sub(r"```.*?```", "", text, flags=re.S))
    ]


def test_no_sign_of_any_equation_is_lost():
    found = [block for block in blocks() if equations.is_equation(block)]
    assert len(found) > 15
    swapped = {
        "-": "\u2212",
        "*": "·",
        "<=": "\u2264",
        ">=": "\u2265",
        "~": "\u223c",
        "²": "2",
        "³": "3",
        "⁻": "\u2212",
    }
    for block in found:
        text = block
        for sign in sorted(swapped, key=len, reverse=True):
            text = text.replace(sign, swapped[sign])
        assert plain(equations.typeset(block)) == re.sub(r"[\s_^{}]", "", text)


@pytest.mark.parametrize(
    "text",
    [
        "    entrostat train my.yaml --set update.learning_rate=1e-4\n",
        "    campaign-00/   the first part\n",
        '    name = "grpo"\n',
        "    controller.observe(1, x)\n    loss = f(x)\n",
    ],
)
def test_code_commands_and_folders_are_no_equations(text):
    assert not equations.is_equation(text)
    assert equations.set_in_markdown(f"a\n\n{text}\nb\n") == f"a\n\n{text}\nb\n"


def test_fenced_code_stays():
    page = "a\n\n```\n\n    x = 1\n```\n\n    y = x²\n"
    assert equations.set_in_markdown(page).startswith("a\n\n```\n\n    x = 1\n```\n\n<div")


def test_a_parameter_is_explained_by_its_name_and_a_colon():
    text = """One line.

    logp, old_logp: ln pi, nats; old_logp gets no gradient. mask: (...), true where
    a token counts. rule: "clip" or: another. Raises ValueError for an empty mask.
    """
    found = parameters.meanings(inspect.cleandoc(text), ["logp", "old_logp", "mask", "rule", "other"])
    assert found == {
        "logp": "ln pi, nats; old_logp gets no gradient",
        "old_logp": "ln pi, nats; old_logp gets no gradient",
        "mask": "(...), true where a token counts",
        "rule": '"clip" or: another',
    }


def test_tables_name_every_parameter_of_a_function_and_escape_what_they_show():
    import entrostat

    heading = '<h2 id="entrostat.policy_loss" class="doc doc-heading">x</h2>'
    heading += '<div class="doc doc-contents "><p>text</p></div>'
    page = parameters.add_tables(heading)
    names = re.findall(r"<tr><td><code>([*\w]+)</code>", page)
    assert names == list(inspect.signature(entrostat.policy_loss).parameters)
    assert "ln pi and ln pi_old of the sampled tokens, nats, shape (...)" in page
    assert "<p>text</p>" in page
