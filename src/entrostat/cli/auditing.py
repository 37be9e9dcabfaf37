"""`audit`: a user's own reward function under attack."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from entrostat.cli.findings import COLOURS
from entrostat.cli.progress import progress
from entrostat.cli.screen import AsJson, console, print_table, visible

FOUND = 3


class AuditKind(str, Enum):
    """What a reward judges."""

    answer = "answer"
    code = "code"
    form = "form"


class AuditSignature(str, Enum):
    """Whose call a reward takes."""

    trl = "trl"
    verl = "verl"
    verl_batch = "verl-batch"
    verifiers = "verifiers"
    verifiers_group = "verifiers-group"
    openenv = "openenv"
    plain = "plain"


class Least(str, Enum):
    """Severity of a finding that fails a build."""

    critical = "critical"
    warning = "warning"
    note = "note"


def audit(
    function: Annotated[str, typer.Argument(help="The reward function, as MODULE:NAME or FILE.py:NAME.")],
    examples: Annotated[
        Path | None,
        typer.Option(help="JSON lines with prompt and answer, and reference, right, wrong if you have them."),
    ] = None,
    right: Annotated[
        list[Path] | None, typer.Option(help="A completion that must be rewarded, or .jsonl of several.")
    ] = None,
    wrong: Annotated[
        list[Path] | None, typer.Option(help="A completion that must not be rewarded, or .jsonl of several.")
    ] = None,
    kind: Annotated[AuditKind | None, typer.Option(help="What it judges; by default found out.")] = None,
    signature: Annotated[
        AuditSignature | None, typer.Option(help="How the function is called; by default read off its parameters.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The least reward that counts; by default half way from wrong to right.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a call may take.", min=0.1)] = 10.0,
    most: Annotated[int, typer.Option(help="Examples to use at most.", min=1)] = 8,
    fail_on: Annotated[
        Least, typer.Option(help="End with status 3 at a finding of this severity, for CI.")
    ] = Least.warning,
    html: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Attack a reward function of yours: what it rewards that is wrong, refuses that is right, and how it behaves.

    The function may have any signature that TRL, verl, verifiers, prime-rl or OpenEnv call. It runs in a process of its
    own, without isolation: audit code that you would run. --right and --wrong belong to the first example.

    The status is 3 for a finding of the severity of --fail-on, 0 for none, 1 for a function that cannot be audited, 2
    for wrong usage.

    Example: entrostat audit rewards.py:accuracy_reward --examples tasks.jsonl --html audit.html
    """
    if not all(function.rpartition(":")[::2]):
        raise typer.BadParameter(f"{function!r}: give MODULE:NAME or FILE.py:NAME", param_hint="FUNCTION")
    if (right or wrong) and examples is None:
        raise typer.BadParameter("belong to an example; give --examples, too", param_hint="--right and --wrong")
    with progress("auditing") as tell:
        from entrostat.auditing import audit as run_audit
        from entrostat.auditing import write_page

        found = run_audit(
            function,
            _examples(examples, right or [], wrong or []),
            kind=kind.value if kind else None,
            signature=signature.value if signature else None,
            threshold=threshold,
            timeout=timeout,
            most=most,
            progress=tell,
        )
        if html:
            write_page(found, html)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), allow_nan=False))
    else:
        _show(found)
        if html:
            console.print(visible(f"page: {html}"), style="bold", markup=False, soft_wrap=True)
    if found.at_least(fail_on.value):
        raise typer.Exit(FOUND)


def _examples(path: Path | None, right: list[Path], wrong: list[Path]) -> list[Any] | None:
    from entrostat.auditing import read_completions, read_examples

    if path is None:
        return None
    examples = read_examples(path)
    first = dataclasses.replace(
        examples[0],
        right=examples[0].right + tuple(text for file in right for text in read_completions(file)),
        wrong=examples[0].wrong + tuple(text for file in wrong for text in read_completions(file)),
    )
    return [first, *examples[1:]]


def _show(found: Any) -> None:
    from entrostat.auditing.findings import interval, rates, share
    from entrostat.runs.html import figure

    console.print(
        f"called as {found.signature} with {found.completions} completions, {found.calls} times on {found.examples} "
        f"examples; judges {found.kind}; right earns {figure(found.high)}, wrong {figure(found.low)}, rewarded from "
        f"{figure(found.threshold)} on; forms: {', '.join(found.forms)}",
        style="dim",
        markup=False,
    )
    table = Table(box=box.SIMPLE_HEAD, caption="exact 95 % intervals over the attempts tried", caption_justify="left")
    table.add_column("")
    for heading in ("judged wrongly", "attempts", "share", "interval"):
        table.add_column(heading, justify="right")
    for name, rate in rates(found):
        table.add_row(name, str(rate.count), str(rate.n), share(rate), escape(interval(rate)))
    print_table(table)
    for finding in found.findings:
        console.print(f"{finding.severity} {finding.kind}", style=COLOURS[finding.severity], markup=False)
        console.print(f"  {visible(finding.summary)}", markup=False)
        for one in finding.evidence[:1]:
            detail = f" ({one.detail})" if one.detail else ""
            line = f"  {one.attempt}, answer {one.answer}, reward {figure(one.reward)}{detail}: {one.completion}"
            console.print(visible(line), style="dim", markup=False)
        console.print(f"  remedy: {finding.remedy}", markup=False)
    for remark in found.remarks:
        console.print(f"note: {remark}", style="yellow", markup=False)
    if not found.findings:
        console.print("nothing found", style="bold")
