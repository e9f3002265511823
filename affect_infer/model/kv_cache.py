"""Keys and values of the tokens so far, with room behind them.

transformers' DynamicCache copies all of them for each new token, which grows with the batch; its StaticCache has a
fixed batch and length, and attends to all of it at every step.  This one copies once in `ROOM` tokens, and rows may
leave it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # tokens


def roomy_cache() -> Cache:
    """An empty cache for any number of layers."""
    return Cache(layer_class_to_replicate=RoomyLayer)


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer; `keys` and `values` are (rows, heads, tokens, width), views of larger tensors."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self._wide: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take in the states of new tokens; returns those of all."""
        before = self.get_seq_length()
        if before == 0:  # nothing to put them behind, and often nothing follows
            return super().update(key_states, value_states, *args, **kwargs)
        end = before + key_states.shape[-2]
        if not self._wide or end > self._wide[0].shape[-2]:
            self._wide = [_widened(held, end + ROOM) for held in (self.keys, self.values) if held is not None]
        for wide, new in zip(self._wide, (key_states, value_states), strict=True):
            wide[..., before:end, :] = new
        self.keys, self.values = (wide[..., :end, :] for wide in self._wide)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows alone."""
        super().batch_select_indices(indices)
        self._wide = []  # the selected ones are a copy without room


def _widened(held: Tensor, tokens: int) -> Tensor:
    wide = held.new_empty((*held.shape[:-2], tokens, held.shape[-1]))
    wide[..., : held.shape[-2], :] = held
    return wide
