"""Random numbers that are arithmetic on (key, stream, counter): equal on every backend and device,
eager, in a graph and under XLA.

`philox_words` is Philox4x32-10 (Salmon et al. 2011), the generator of tf.random.stateless_* with
alg="philox", for a batch of keys at once. `normals` fills whole images, for which a cheaper counter
hash is sufficient.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from data_pipelines.augment.tensors import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox_words(key: Tensor, counters: np.ndarray) -> Tensor:
    """uint32 (batch, n, 4) from keys int32 (batch, 2) and counters (n, 2), the two low words of
    each four-word counter.
    """
    key = ops.cast(key, "uint32")
    k0, k1 = key[:, :1], key[:, 1:2]
    counters = counters.astype(np.uint32)
    zero = ops.zeros_like(k0 + ops.convert_to_tensor(counters[None, :, 0]))
    x0, x1, x2, x3 = zero + counters[None, :, 0], zero + counters[None, :, 1], zero, zero
    for round_number in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], x0)
        high1, low1 = _multiply(_MULTIPLIERS[1], x2)
        step0, step1 = (_word(round_number * weyl & 0xFFFFFFFF) for weyl in _WEYL)
        x0, x1, x2, x3 = high1 ^ x1 ^ (k0 + step0), low1, high0 ^ x3 ^ (k1 + step1), low0
    return ops.stack([x0, x1, x2, x3], axis=-1)


def uniforms(key: Tensor, streams: list[tuple[int, int]]) -> list[Tensor]:
    """float32 in [0, 1): an array (batch, count) for each (stream, count). Streams do not depend on
    each other. key: int32 (batch, 2).
    """
    blocks = [(block, stream) for stream, count in streams for block in range(-(-count // 4))]
    bits = philox_words(key, np.array(blocks))
    values = ops.cast(ops.cast(ops.right_shift(bits, _word(8)), "int32"), "float32") * (
        1.0 / (1 << 24)
    )
    arrays, first = [], 0
    for _, count in streams:
        used = -(-count // 4)
        arrays.append(ops.reshape(values[:, first : first + used], (-1, 4 * used))[:, :count])
        first += used
    return arrays


def normals(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 (batch, *shape) from keys int32 (batch, 2): one hash per value,
    through the inverse error function.

    The hash is the 32-bit finalizer "lowbias32" (C. Wellons, hash-prospector) of the key and the
    number of the value.
    """
    key = ops.cast(key, "uint32")
    state = _mix(_mix(key[:, :1]) ^ key[:, 1:2])
    counter = ops.cast(
        ops.reshape(ops.arange(int(np.prod(shape)), dtype="int32"), (1, -1)), "uint32"
    )
    bits = _mix(state ^ _mix(counter + _word(1)))
    # below 2**24, so exact in float32
    odd = 2 * ops.cast(ops.right_shift(bits, _word(9)), "int32") + 1
    unit = ops.cast(odd, "float32") * (1.0 / (1 << 23)) - 1.0
    return ops.reshape(2.0**0.5 * ops.erfinv(unit), (-1, *shape))


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of the 64-bit product of a constant and uint32 values, by halves."""
    half, mask = _word(16), _word(0xFFFF)
    a_low, a_high = _word(a & 0xFFFF), _word(a >> 16)
    b_low, b_high = b & mask, ops.right_shift(b, half)
    first = a_high * b_low + ops.right_shift(a_low * b_low, half)
    second = a_low * b_high + (first & mask)
    high = a_high * b_high + ops.right_shift(first, half) + ops.right_shift(second, half)
    return high, b * _word(a)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ ops.right_shift(x, _word(16))) * _word(0x7FEB352D)
    x = (x ^ ops.right_shift(x, _word(15))) * _word(0x846CA68B)
    return x ^ ops.right_shift(x, _word(16))


def _word(value: int) -> Tensor:
    return ops.cast(np.uint32(value), "uint32")
