"""Recall against severity, and against false alarms, on logs made to order.

Ours and the one-line rules: `each` logs of each failure at each of ten severities, and 20 x `each` sound logs. The
rivals, and ours at other strictnesses: the same at three severities, and 8 x `each` sound ones. Failing logs tell
whether the failure is found (what other findings they bring is not counted), sound ones whether anything is. Nothing
was set by these logs: take a seed that nobody has looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import rivals
from real import findings
from synthetic import FAILURES, Made, make
from tools import Report, Tool, entrostat, rules

SEVERITIES = tuple(round(0.1 * i, 1) for i in range(1, 11))
SHARED = (0.4, 0.7, 1.0)  # severities at which every tool and every strictness is tried
STRICTNESS = (0.5, 0.7, 1.0, 1.4, 2.0)
SOUND, SOUND_SHARED = 20, 8  # sound logs for each log of a failure and severity

Row = dict[str, Any]
made = lru_cache(maxsize=None)(make)


def ours(seed: int, each: int) -> Iterator[list[Row]]:
    """The rows of our detectors and of the rules, at one strictness after the other, the default first."""
    for strictness in sorted(STRICTNESS, key=lambda m: abs(m - 1)):
        plain = strictness == 1
        for name, maker in (("entrostat", entrostat), ("one-line rules", rules)):
            tools = {kind: maker(strictness, findings(failure.right)) for kind, failure in FAILURES.items()}
            sizes = (SEVERITIES if plain else SHARED, each, each * (SOUND if plain else SOUND_SHARED))
            yield _measured(name, f"strictness {strictness:g}", maker(strictness), tools, seed, *sizes)


def others(seed: int, each: int) -> Iterator[list[Row]]:
    """The rows of the rivals that are installed, one setting after the other."""
    for name, setting, tool in rivals.tools():
        yield _measured(name, setting, tool, dict.fromkeys(FAILURES, tool), seed, SHARED, each, each * SOUND_SHARED)


def _measured(
    name: str,
    setting: str,
    whole: Tool,
    tools: dict[str, Tool],
    seed: int,
    severities: Sequence[float],
    each: int,
    sound: int,
) -> list[Row]:
    """One tool in one setting. tools: what is asked about each failure, the part of it that looks for that one."""
    began, rows = time.process_time(), []
    for kind, tool in tools.items():
        for severity in severities:
            rows += _failing(name, setting, tool, kind, severity, seed, each)
    rows += _sound(name, setting, whole, seed, sound)
    print(f"{name}, {setting}: {time.process_time() - began:.0f} s of CPU", flush=True)
    return rows


def _failing(name: str, setting: str, tool: Tool, kind: str, severity: float, seed: int, count: int) -> Iterator[Row]:
    for number in range(count):
        log = made(kind, severity, seed, number)
        reports = tool(log.rows, log.end)
        if "plateau" in log.truth.kinds:  # a remark is all that it is to be
            reports = [
                report._replace(severity="warning") if "plateau" in report.kinds else report for report in reports
            ]
        yield _row(name, setting, log, reports, {"kind": kind, "severity": severity, "seed": seed, "number": number})


def _sound(name: str, setting: str, tool: Tool, seed: int, count: int) -> Iterator[Row]:
    for number in range(count):
        log = made(None, 0.0, seed, number)
        about = {"kind": "sound", "severity": 0.0, "seed": seed, "number": number}
        yield _row(name, setting, log, tool(log.rows, log.end), about)


def _row(name: str, setting: str, log: Made, reports: list[Report], about: Row) -> Row:
    """The verdict on one log.

    found: the failure stands at the last row and was not reported before its onset; found_critical: as a critical one.
    live: it was reported at some time from its onset on. alarmed, alarmed_critical, alarmed_live: of a sound log, the
    kinds that stand at its end, those that are critical, and those reported at some time.
    """
    onset, right = log.truth.onset or 0, log.truth.right
    hits = [r for r in reports if r.severity != "note" and right & set(r.kinds) and r.step >= onset]
    standing = [r for r in hits if r.over is None]
    alarms = [r for r in reports if r.severity != "note" and "plateau" not in r.kinds]
    row = {"tool": name, "setting": setting} | about | log.about
    if about["kind"] == "sound":
        return (
            row
            | dict.fromkeys(("found", "found_critical", "live", "delay_rows"))
            | {
                "alarmed": _kinds([r for r in alarms if r.over is None]),
                "alarmed_critical": _kinds([r for r in alarms if r.over is None and r.severity == "critical"]),
                "alarmed_live": _kinds(alarms),
            }
        )
    first = min((r.step for r in standing), default=None)
    return (
        row
        | {
            "found": int(bool(standing)),
            "found_critical": int(any(r.severity == "critical" for r in standing)),
            "live": int(bool(hits)),
            "delay_rows": None if first is None else sum(onset < step <= first for step, _ in log.rows),
        }
        | dict.fromkeys(("alarmed", "alarmed_critical", "alarmed_live"))
    )


def _kinds(reports: list[Report]) -> str:
    return " ".join(sorted({report.kinds[0] for report in reports}))
