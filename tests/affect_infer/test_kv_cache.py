"""Keys and values: what is read back is what transformers' own cache holds, without copying it at every step."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from affect_infer.model.kv_cache import ROOM, RoomyLayer, roomy_cache

HEADS, WIDTH = 2, 4


def states(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, HEADS, tokens, WIDTH), torch.randn(rows, HEADS, tokens, WIDTH)


@pytest.mark.parametrize("leaves", [{}, {0: [0, 2]}, {ROOM - 1: [1], ROOM: [0]}, {5: [2, 1], 2 * ROOM: [1]}])
def test_it_holds_what_transformers_own_cache_holds(leaves: dict[int, list[int]]) -> None:
    torch.manual_seed(0)
    ours, theirs, rows = roomy_cache(), DynamicCache(), 3
    for step in range(2 * ROOM + 10):
        for layer in range(2):
            new = states(rows, 7 if step == 0 else 1)
            for found, expected in zip(ours.update(*new, layer), theirs.update(*new, layer), strict=True):
                assert torch.equal(found, expected)
        assert ours.get_seq_length() == theirs.get_seq_length() == 7 + step
        if step in leaves:
            kept = torch.tensor(leaves[step])
            ours.batch_select_indices(kept)
            theirs.batch_select_indices(kept)
            rows = len(kept)


def test_a_step_writes_behind_what_is_there() -> None:
    """One move for the first token after the prompt, and one for each `ROOM` after it."""
    layer, moves, place = RoomyLayer(), 0, 0
    layer.update(*states(2, 5))
    for _ in range(3 * ROOM):
        keys, _ = layer.update(*states(2, 1))
        moves += keys.data_ptr() != place
        place = keys.data_ptr()
    assert moves == 3
