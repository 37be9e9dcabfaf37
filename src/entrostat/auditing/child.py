"""The process that runs the user's function: requests in on one descriptor, replies out on another, as JSON lines.

    python -m entrostat.auditing.child MODULE:FUNCTION IN OUT SIGNATURE|auto

The first reply says how the function is called, or why it cannot be. Then each request {"batch": [[fields, completion],
...], "form": "plain"} is answered by {"rewards": [...]} or {"error": text, "kind": "raised" | "contract"}, with
`seconds` (of this process and its children on the processor) and `ran` (whether the completion ran in this process: it
can set an environment variable that only code in here can set).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import sys
from typing import Any

from entrostat.auditing.signatures import MARK, SignatureError, call, detect, faults, number, prepared


def load(reference: str) -> Any:
    """The object that MODULE:NAME or FILE.py:NAME names, with the current folder on the path.

    Raises SignatureError for one that is not there; whatever its module raises when imported is raised.
    """
    place, _, name = reference.rpartition(":")
    sys.path.insert(0, os.getcwd())
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location(os.path.basename(place)[:-3], place)
        if spec is None or spec.loader is None or not os.path.isfile(place):
            raise SignatureError(f"{place} is not a file")
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise SignatureError(f"{place} has no {name}")
        found = getattr(found, part)
    return found


def main() -> None:
    """Load, say how it is called, then answer requests until the other side closes."""
    reference, requests, replies, wanted = sys.argv[1:]
    source, target = os.fdopen(int(requests), encoding="ascii"), os.fdopen(int(replies), "w", encoding="ascii")
    for end in (source, target):
        os.set_inheritable(end.fileno(), False)

    def reply(**said: Any) -> None:
        target.write(json.dumps(said) + "\n")
        target.flush()

    try:
        function = prepared(load(reference))
        signature = detect(function) if wanted == "auto" else wanted
        reply(signature=signature, faults=faults(function, signature))  # type: ignore[arg-type]
    except BaseException as error:
        reply(error=_described(error))
        return
    for line in source:
        request = json.loads(line)
        begun = _processor_seconds()
        os.environ.pop(MARK, None)
        try:
            values = call(function, signature, request["form"], request["batch"])  # type: ignore[arg-type]
            said: dict[str, Any] = {"rewards": [number(value) for value in values]}
        except SignatureError as error:
            said = {"error": str(error), "kind": "contract"}
        except BaseException as error:  # SystemExit would end a trainer, too
            said = {"error": _described(error), "kind": "raised"}
        reply(**said, seconds=_processor_seconds() - begun, ran=MARK in os.environ)


def _described(error: BaseException) -> str:
    if isinstance(error, SignatureError):
        return str(error)
    return f"{type(error).__name__}: {error}"[:300].encode("ascii", "backslashreplace").decode()


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
