"""`init`, `recipe` and `methods`: recipes that explain themselves."""

from __future__ import annotations

import json
import textwrap
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entrostat.cli.screen import AsJson, console
from entrostat.errors import EntrostatError

if TYPE_CHECKING:
    from entrostat.recipe.reference import Purpose

PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}


class PurposeName(str, Enum):
    """What a first recipe is for; recipe/reference.py has one recipe for each."""

    GRPO = "grpo"
    HOLD_ENTROPY = "hold-entropy"
    FLEXIBLE_CLIPPING = "flexible-clipping"
    KEEP_THE_PEAK = "keep-the-peak"
    OWN_MODEL = "own-model"
    STUDY = "study"


def init(
    purpose: Annotated[PurposeName, typer.Argument(help="What the recipe is for.")] = PurposeName.GRPO,
    out: Annotated[
        Path | None, typer.Option(help="The file to write, which must not exist; printed if left out.")
    ] = None,
    published: Annotated[
        str | None, typer.Option(help="A published method's recipe with its authors' settings; `methods` lists them.")
    ] = None,
) -> None:
    """Write a commented recipe to begin with.

    Example: entrostat init hold-entropy --out hold.yaml
    """
    from entrostat.recipe.reference import PURPOSES, commented

    chosen, name = (_published(published), published) if published else (PURPOSES[purpose.value], purpose.value)
    file = out or Path(f"{name}.yaml")
    head = f"{chosen.about} Run it: entrostat {chosen.command} {file}. Every key: entrostat recipe."
    text = commented(chosen.settings, head, chosen.kind)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise EntrostatError(f"{out}: exists already; give another name, or remove it first") from error
    typer.echo(f"wrote {out}; run it with: entrostat {chosen.command} {out}")


def _published(name: str) -> Purpose:
    """The recipe of a published method. Raises EntrostatError, naming all, if there is none."""
    from entrostat.recipe.published import PUBLISHED
    from entrostat.recipe.reference import Purpose

    if name not in PUBLISHED:
        raise EntrostatError(f"--published: got {name!r}; give one of {', '.join(sorted(PUBLISHED))}")
    found = PUBLISHED[name]
    ours = f" Ours, because the source leaves it open: {found.chosen}." if found.chosen else ""
    return Purpose(f"{found.about} The authors' settings (docs/papers.md).{ours}", found.settings)


def recipe(
    key: Annotated[str | None, typer.Argument(help="A key or a section, as in update.learning_rate.")] = None,
    study: Annotated[bool, typer.Option("--study", help="The keys of a study, which `chain` takes.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema, with which editors check a recipe.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain the keys of a recipe: what each takes, its default, and what it means.

    Example: entrostat recipe update.kl
    """
    from entrostat.recipe import Recipe, reference
    from entrostat.recipe.loading import StudyRecipe

    kind = StudyRecipe if study else Recipe
    if schema:
        typer.echo(json.dumps(reference.schema(kind), indent=1))
        return
    found = reference.find_keys(key) if key else reference.keys(kind)
    if as_json:
        typer.echo(reference.as_json(found))
        return
    for each in found:
        if key is None:
            console.print(f"{each.path:<26} {each.default}", markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(wrapped(f"{each.path}: {each.takes}; {each.default}", ""), style="bold", **PLAIN)
            console.print(wrapped(each.meaning, "    "), **PLAIN)
    if key is None:
        typer.echo("\nentrostat recipe KEY explains one, or all of a section; --set takes the whole path.")


def wrapped(text: str, indent: str) -> str:
    """`text` in lines that fit the terminal, all of them indented."""
    lines = textwrap.wrap(text, max(console.width, 40), initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def methods(
    name: Annotated[str | None, typer.Argument(help="A method, or a key that names one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every method by the key that names it; for one of them, its equation, source and settings.

    Example: entrostat methods target-weights
    """
    import inspect

    from entrostat.recipe import reference

    found = reference.find_methods(name)
    if as_json:
        entries = [
            {
                "key": key,
                "name": each,
                "object": f"{source.__module__}.{source.__qualname__}",
                "docstring": inspect.cleandoc(source.__doc__ or ""),
            }
            for key, each, source in found
        ]
        typer.echo(json.dumps(entries, indent=1))
        return
    last = None
    for key, each, source in found:
        if key != last:
            console.print(f"{'' if last is None else chr(10)}{key}", style="bold", markup=False, highlight=False)
            last = key
        if name is None:
            lines = textwrap.wrap(reference.summary(source), max(console.width - 20, 40))
            console.print(f"  {each:<17} " + ("\n" + 20 * " ").join(lines), **PLAIN)
        else:
            console.print(
                f"  {each}: {source.__module__}.{source.__qualname__}\n"
                + textwrap.indent(inspect.cleandoc(source.__doc__ or ""), "    "),
                **PLAIN,
            )
    if name is None:
        from entrostat.recipe.published import PUBLISHED

        console.print("\nrecipes with their authors' settings: entrostat init --published NAME", style="bold", **PLAIN)
        console.print(wrapped(", ".join(sorted(PUBLISHED)), "  "), **PLAIN)
        typer.echo("\nentrostat methods NAME shows the equation, the source and the settings of one.")
