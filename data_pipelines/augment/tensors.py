"""What tensors are called in this room."""

from __future__ import annotations

from typing import Any

from keras import ops

#: A tensor of Keras' backend or anything that it accepts as one: a TensorFlow tensor (eager, in a
#: graph or under XLA) or a numpy array. Keras has no common type for them; the docstrings give
#: shape and dtype.
Tensor = Any
#: Name of a parameter -> its values, one row per image: (batch, n). Made by `draw`.
Parameters = dict[str, Tensor]


def per_image(value: Tensor, rank: int) -> Tensor:
    """(batch,) or (batch, 1) -> (batch, 1, ..., 1) of this rank, to broadcast over images."""
    return ops.reshape(value, (-1,) + (1,) * (rank - 1))
