"""A completion for the terminal: coloured tokens where there is colour, marks under them where there is none.

Completions are hostile text: only printable characters of theirs reach the terminal (see `visible`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from entrostat.cli.screen import visible
from entrostat.report.samples import TokenView, token_view
from entrostat.runs import RunError

SHOWN = 8  # tokens of the table
MARKED = 0.5  # shade from which a token is marked where there is no colour: a quarter of the scale
UNITS = {"polarity": "advantage times sensitivity", "sensitivity": "nats per unit of logit step", "surprisal": "nats"}

Colour = tuple[int, int, int]
GROUND, INK = (0x23, 0x27, 0x2D), "#f2f4f6"
CONTRACTS, EXPANDS, SURPRISES = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xA4, 0x46, 0x8C)  # Okabe and Ito's

Cells = tuple[str, float]  # a character as it is shown, and the shade of its token


def render(
    sample: Mapping[str, Any], by: str, others: Sequence[str], width: int, coloured: bool
) -> Iterator[RenderableType]:
    """The parts to print of a sample with a token record: heading, completion, legend, strongest tokens.

    A token's shade is sign(x) sqrt(abs(x) / scale) of its value x, the scale being the largest abs(x) of the
    completion: most polarities are near 0 and a linear scale would show a token or two.
    others: tasks of the other samples of the step. Raises RunError where the sample has no such values.
    """
    view = token_view(sample)
    values: list[float] | None = getattr(view, by, None)
    if view is None or values is None:
        raise RunError(f"--by: got {by}, but this sample was kept without it; choose surprisal or sensitivity")
    scale = max(map(abs, values))
    shades = [math.copysign(math.sqrt(abs(value) / scale), value) if scale else 0.0 for value in values]
    yield _heading(sample, view)
    for line in _lines(view.text, shades, max(width, 20)):
        yield _coloured(line, by) if coloured else Text("".join(characters for characters, _ in line))
        if not coloured and (marks := _marks(line, by)):
            yield Text(marks)
    yield _legend(by, scale, coloured)
    if scale:
        yield _strongest(view, values)
    if others:
        yield Text(f"other tasks of this step: {', '.join(visible(str(task)) for task in others)}", style="dim")


def _heading(sample: Mapping[str, Any], view: TokenView) -> Text:
    count = len(view.text)
    advantage = sample.get("advantage")
    parts = [
        f"step {sample['step']}",
        visible(str(sample["task"])),
        visible(str(sample["outcome"])),
        "advantage " + ("-" if advantage is None else f"{advantage:+.3g}"),
        f"{count} tokens",
        f"H {sum(view.entropy) / count:.3g} nats per token",
    ]
    return Text("\n" + ", ".join(parts) + "\n", style="bold")


def _lines(pieces: Sequence[str], shades: Sequence[float], width: int) -> list[list[Cells]]:
    """The tokens laid out in lines of at most `width` cells; a token without text of its own shows as ◦."""
    lines: list[list[Cells]] = [[]]
    free = width
    for piece, shade in zip(pieces, shades, strict=True):
        for character in piece or "◦":
            shown = visible(character)
            if cell_len(shown) > free:
                lines.append([])
                free = width
            lines[-1].append((shown, shade))
            free -= cell_len(shown)
            if character == "\n":
                lines.append([])
                free = width
    return [line for line in lines if line]


def _coloured(line: Sequence[Cells], by: str) -> Text:
    text = Text()
    for shade, characters in groupby(line, key=lambda cells: cells[1]):
        text.append("".join(character for character, _ in characters), _style(shade, by))
    return text


def _style(shade: float, by: str) -> Style:
    """Light ink on the ground colour, mixed with the measure's by the size of the shade."""
    full = SURPRISES if by == "surprisal" else EXPANDS if shade > 0 else CONTRACTS
    red, green, blue = (round(ground + abs(shade) * (end - ground)) for ground, end in zip(GROUND, full, strict=True))
    return Style(color=INK, bgcolor=f"rgb({red},{green},{blue})")


def _marks(line: Sequence[Cells], by: str) -> str:
    """Under each strong token its mark: + expands, - contracts, ^ surprises."""

    def mark(shade: float) -> str:
        if abs(shade) < MARKED:
            return " "
        return "^" if by == "surprisal" else "+" if shade > 0 else "-"

    return "".join(mark(shade) * cell_len(characters) for characters, shade in line).rstrip()


def _legend(by: str, scale: float, coloured: bool) -> Text:
    if scale == 0:
        return Text(f"\n{by} is 0 at every token: this completion moves nothing")
    unit = UNITS[by]
    if not coloured:
        meaning = "^ surprises" if by == "surprisal" else "+ expands, - contracts the entropy"
        return Text(f"\n{meaning}: at least a quarter of the largest {by}, {scale:.3g}\n{by}: {unit}")
    text = Text("\n0 " if by == "surprisal" else f"\ncontracts {-scale:.3g} ")
    for step in range(0 if by == "surprisal" else -10, 11):
        mark = "|" if abs(step) == 5 else " "
        text.append(mark, _style(step / 10, by))
    end = "surprises" if by == "surprisal" else "expands"
    text.append(f" {scale:.3g} {end}\n{by}: {unit}; at | a quarter of that at the end")
    return text


def _strongest(view: TokenView, values: Sequence[float]) -> Table:
    """The tokens with the largest values, in the order of their size."""
    table = Table(box=box.SIMPLE_HEAD, caption="the strongest tokens; #: place in the completion")
    table.caption_justify = "left"
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("token", min_width=8)
    for heading in ("p", "H", "sensitivity", "polarity"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place in sorted(range(len(values)), key=lambda i: -abs(values[i]))[:SHOWN]:
        table.add_row(
            str(place + 1),
            Text(visible(view.text[place]) or "◦", overflow="fold"),
            f"{math.exp(-view.surprisal[place]):.3g}",
            f"{view.entropy[place]:.3g}",
            f"{view.sensitivity[place]:+.3g}",
            "-" if view.polarity is None else f"{view.polarity[place]:+.3g}",
        )
    return table
