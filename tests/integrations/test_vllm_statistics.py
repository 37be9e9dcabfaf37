"""The logits processor for vLLM, on the interface that vLLM calls: that of the vLLM source (a checkout, or an unpacked
wheel) that VLLM_SOURCE names, else stand-ins with the same fields.
"""

import json
import os
import sys
from enum import Enum, auto
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from entrostat import token_stats

INTERFACE = "vllm.v1.sample.logits_processor"
SOURCE = os.environ.get("VLLM_SOURCE")


class Direction(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


def interface():
    """vLLM's module of the interface, without the rest of vLLM."""
    for name in ("vllm", "vllm.v1", "vllm.v1.sample", INTERFACE):
        sys.modules[name] = ModuleType(name)
    sys.modules["vllm"].SamplingParams = SimpleNamespace
    if SOURCE is None:
        return SimpleNamespace(LogitsProcessor=type("LogitsProcessor", (), {}), BatchUpdate=SimpleNamespace)
    file = Path(SOURCE, *INTERFACE.split("."), "interface.py")
    spec = spec_from_file_location(f"{INTERFACE}.interface", file)
    sys.modules[spec.name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Build the processor as vLLM does, of a class that is a vLLM LogitsProcessor."""
    held = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "vllm"}
    vllm = interface()
    sys.modules[INTERFACE].LogitsProcessor = vllm.LogitsProcessor
    sys.modules.pop("entrostat.integrations.vllm_statistics", None)
    monkeypatch.setenv("ENTROSTAT_TOKENS", str(tmp_path))
    kind = import_module("entrostat.integrations.vllm_statistics").TokenStatistics
    assert issubclass(kind, vllm.LogitsProcessor)

    def made(rank=0, replica=0):
        config = SimpleNamespace(parallel_config=SimpleNamespace(rank=rank, data_parallel_rank=replica))
        return kind(config, torch.device("cpu"), False)

    made.BatchUpdate, made.Direction = vllm.BatchUpdate, getattr(vllm, "MoveDirectionality", Direction)
    yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]
    sys.modules.pop("entrostat.integrations.vllm_statistics", None)
    sys.modules.update(held)


def params(name=None, temperature=1.0, n=1):
    return SimpleNamespace(extra_args=None if name is None else {"entrostat": name}, temperature=temperature, n=n)


def update(build, removed=(), added=(), moved=()):
    return build.BatchUpdate(batch_size=4, removed=removed, added=added, moved=moved)


def lines(tmp_path, replica=0):
    file = tmp_path / f"vllm-{replica}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_every_token_of_a_named_request_is_measured_wherever_its_row_goes(build, tmp_path):
    processor, outputs = build(), {name: [] for name in "abc"}
    draw = torch.Generator().manual_seed(0)
    expected = []

    def step(rows, batch_update):
        processor.update_state(batch_update)
        logits = 3 * torch.randn(len(rows), 31, generator=draw)
        before = logits.clone()
        assert processor.apply(logits) is logits
        assert torch.equal(logits, before)
        stats = token_stats(logits, torch.zeros(len(rows), dtype=torch.long))
        for row, name in enumerate(rows):
            if name in outputs:
                expected.append((name, len(outputs[name]), stats, row))
                outputs[name].append(row)

    added = [(row, params(name), [1], outputs[name]) for row, name in enumerate("abc")]
    step("abc", update(build, added=added))
    step("abc", None)
    step("bac", update(build, moved=[(0, 1, build.Direction.SWAP)]))
    step(
        "cax",
        update(build, removed=[0], added=[(3, params(), [1], [])], moved=[(2, 0, build.Direction.UNIDIRECTIONAL)]),
    )
    step("cab", update(build, added=[(2, params("b"), [1], outputs["b"])]))  # started again, with what it had
    found = lines(tmp_path)
    assert [(line["request"], line["position"]) for line in found] == [(name, at) for name, at, *_ in expected]
    for line, (_, _, stats, row) in zip(found, expected, strict=True):
        for field in ("entropy", "collision", "correction"):
            assert line[field] == pytest.approx(float(getattr(stats, field)[row]), rel=1e-6)


def test_an_unnamed_request_costs_nothing_and_nothing_is_argmax(build, tmp_path):
    processor = build()
    processor.update_state(update(build, added=[(0, params(), [1], [])]))
    processor.apply(torch.full((1, 3), torch.nan))  # not even looked at
    assert lines(tmp_path) == []
    assert processor.is_argmax_invariant()


def test_one_rank_writes_and_every_replica_has_its_file(build, tmp_path):
    for rank, replica in ((0, 0), (1, 0), (0, 1)):
        processor = build(rank, replica)
        processor.update_state(update(build, added=[(0, params("a"), [1], [])]))
        processor.apply(torch.randn(1, 5))
    assert len(lines(tmp_path, 0)) == len(lines(tmp_path, 1)) == 1


@pytest.mark.parametrize(
    ("request_params", "message"),
    [
        (params(3), "is 3"),
        (params(""), "is ''"),
        (params("a", 0.0), "temperature is 0.0"),
        (params("a", n=2), "n is 2"),
    ],
)
def test_requests_that_cannot_be_measured_are_refused(build, request_params, message):
    with pytest.raises(ValueError, match=message):
        build().validate_params(request_params)


def test_others_are_let_through(build):
    build().validate_params(params(temperature=0.0))
    build().validate_params(params(n=4))
    build().validate_params(params("a"))


def test_a_folder_must_be_named(build, monkeypatch):
    monkeypatch.delenv("ENTROSTAT_TOKENS")
    with pytest.raises(Exception, match="ENTROSTAT_TOKENS is not set"):
        build()


@pytest.mark.skipif(SOURCE is None, reason="VLLM_SOURCE names no vLLM")
def test_the_signatures_are_those_of_vllms_interface(build):
    made, base = type(build()), sys.modules[INTERFACE].LogitsProcessor
    assert not made.__abstractmethods__
    for name in (*base.__abstractmethods__, "validate_params"):
        assert list(signature(getattr(made, name)).parameters) == list(signature(getattr(base, name)).parameters)
