"""The preallocated layer holds what the library's own layer holds, whatever is appended, dropped and repeated."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from entrostat.engine.branches import PreallocatedLayer


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_preallocated_layer_holds_what_the_librarys_own_does(data):
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    ours, theirs = PreallocatedLayer(data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))), DynamicLayer()
    rows, tokens = data.draw(st.integers(1, 4)), 3
    for _ in range(data.draw(st.integers(1, 6))):
        states = [torch.rand(rows, 2, tokens, 5, generator=draw) for _ in range(2)]
        for held, wanted in zip(ours.update(*states), theirs.update(*states), strict=True):
            assert held.equal(wanted)
        kept = list(range(rows)) if data.draw(st.booleans()) else []
        chosen = kept + data.draw(st.lists(st.integers(0, rows - 1), min_size=not kept, max_size=3))
        for layer in (ours, theirs):
            layer.reorder_cache(torch.tensor(chosen))
        assert ours.keys.equal(theirs.keys)
        assert ours.values.equal(theirs.values)
        rows, tokens = len(chosen), 1
