"""Augmentation on the device: one affine resample and one intensity map for the whole batch, in keras.ops.

Every drawn number is a function of the image's key (hash of seed and epoch, image number), so an epoch can be repeated exactly,
in eager mode, in a graph or under XLA. Nothing is flipped: the side of a finding matters in medicine.
"""

from __future__ import annotations

import keras
from keras import ops
from pydantic import BaseModel, ConfigDict, Field

from data_pipelines.errors import SpecError


class AugmentSpec(BaseModel):
    """Ranges are symmetric: a parameter p is drawn uniformly from -p..p, each image on its own.

    rotation: degrees. zoom: relative, 0.1 is a scale of 0.9 to 1.1. shift: fraction of the image side.
    contrast: relative, around the middle of the display range (display values only).
    offset: additive, in model units (HU, or display values). gamma: exponent exp(-g)..exp(g) (display values only).
    fill: model units outside the picture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation: float = Field(0.0, ge=0, le=180)
    zoom: float = Field(0.0, ge=0, lt=1)
    shift: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    offset: float = Field(0.0, ge=0)
    gamma: float = Field(0.0, ge=0, le=2)
    fill: float = 0.0


# Positioning varies by a few degrees and centimetres between radiographs; exposure and processing change gamma and contrast.
# CT numbers of a calibrated scanner agree within a few HU for water and some tens between kernels and kV (AAPM TG-66, TG-233).
PRESETS: dict[str, AugmentSpec] = {
    "none": AugmentSpec(),
    "chest_xray": AugmentSpec(rotation=7, zoom=0.1, shift=0.06, contrast=0.15, offset=0.05, gamma=0.2, fill=0.0),
    "ct_slice": AugmentSpec(rotation=7, zoom=0.1, shift=0.05, offset=20, fill=-1024.0),
}


def augmentation(name: str) -> AugmentSpec:
    """The named preset. Raises SpecError naming the presets that exist."""
    if name not in PRESETS:
        raise SpecError(f"unknown augmentation {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


class Augment(keras.layers.Layer):
    """Applies an AugmentSpec while training, and nothing otherwise.

    Call with (image float32 (batch, rows, cols, channels) in model units, key int32 (batch, 2)); returns the image's shape and dtype.
    display: True where model units are display values 0..1, which stay in that range.
    """

    def __init__(self, spec: AugmentSpec, *, display: bool, **options) -> None:
        super().__init__(dtype="float32", **options)
        self.spec, self.display = spec, display

    def call(self, image, key, training=False):
        if not training or self.spec == PRESETS["none"]:
            return image
        drawn = draw(key, self.spec)
        return intensity(affine(image, drawn, self.spec.fill), drawn, display=self.display)

    def compute_output_shape(self, image_shape, key_shape=None):
        return image_shape


def draw(key, spec: AugmentSpec) -> dict:
    """Parameters for each image: name -> float32 (batch,). key: int32 (batch, 2)."""
    ranges = {name: getattr(spec, name) for name in ("rotation", "zoom", "shift", "contrast", "offset", "gamma")}
    ranges = {"shift_rows": ranges.pop("shift"), "shift_cols": spec.shift} | ranges
    uniform = uniforms(key, len(ranges))
    return {name: (2.0 * uniform[:, i] - 1.0) * limit for i, (name, limit) in enumerate(ranges.items())}


def affine(image, drawn: dict, fill: float):
    """Rotate, zoom and shift about the centre with one bilinear resample; `fill` outside the picture.

    image: float32 (batch, rows, cols, channels). drawn: rotation (degrees), zoom (relative), shift_rows, shift_cols (fraction
    of the side), each (batch,). With all of them 0 the image comes back unchanged.
    """
    rows, cols = image.shape[1], image.shape[2]
    angle = drawn["rotation"] * (3.141592653589793 / 180.0)
    inverse = 1.0 / (1.0 + drawn["zoom"])
    cos, sin = (_column(ops.cos(angle) * inverse), _column(ops.sin(angle) * inverse))
    y = ops.reshape(ops.arange(rows, dtype="float32") - (rows - 1) / 2, (1, rows, 1))
    x = ops.reshape(ops.arange(cols, dtype="float32") - (cols - 1) / 2, (1, 1, cols))
    source_y = cos * y - sin * x + (rows - 1) / 2 - _column(drawn["shift_rows"]) * rows
    source_x = sin * y + cos * x + (cols - 1) / 2 - _column(drawn["shift_cols"]) * cols
    return bilinear(image, source_y, source_x, fill)


def bilinear(image, y, x, fill: float):
    """Values of image (batch, rows, cols, channels) at pixel coordinates y, x (batch, rows', cols'); `fill` outside."""
    rows, cols, channels = image.shape[1:]
    flat = ops.reshape(image, (-1, channels))
    first = ops.reshape(ops.arange(ops.shape(image)[0], dtype="int32") * (rows * cols), (-1, 1, 1))
    top, left = ops.floor(y), ops.floor(x)
    total = 0.0
    for corner_y, weight_y in ((top, 1.0 - (y - top)), (top + 1.0, y - top)):
        for corner_x, weight_x in ((left, 1.0 - (x - left)), (left + 1.0, x - left)):
            inside = (corner_y >= 0) & (corner_y <= rows - 1) & (corner_x >= 0) & (corner_x <= cols - 1)
            place = ops.clip(corner_y, 0, rows - 1) * cols + ops.clip(corner_x, 0, cols - 1)
            value = ops.take(flat, first + ops.cast(place, "int32"), axis=0)
            value = ops.where(ops.expand_dims(inside, -1), value, fill)
            total = total + value * ops.expand_dims(weight_y * weight_x, -1)
    return total


def intensity(image, drawn: dict, *, display: bool):
    """Offset for HU; gamma, contrast and offset, clipped to 0..1, for display values."""
    offset = _column(drawn["offset"], 4)
    if not display:
        return image + offset
    # The small floor keeps the power's gradient and value finite at 0.
    curved = ops.power(ops.clip(image, 1e-6, 1.0), ops.exp(_column(drawn["gamma"], 4)))
    return ops.clip((curved - 0.5) * (1.0 + _column(drawn["contrast"], 4)) + 0.5 + offset, 0.0, 1.0)


def uniforms(key, count: int):
    """(batch, count) float32 in [0, 1) from int32 keys (batch, 2) by a counter hash, equal on every backend and device.

    The mixer is the 32-bit finaliser "lowbias32" (C. Wellons, hash-prospector), applied to each word of the key and the counter.
    """
    words = ops.cast(key, "uint32")
    state = _mix(_mix(words[:, :1]) ^ words[:, 1:2])
    counter = ops.cast(ops.reshape(ops.arange(1, count + 1, dtype="int32"), (1, count)), "uint32")
    bits = _mix(state ^ _mix(counter))
    return ops.cast(ops.cast(ops.right_shift(bits, 8), "int32"), "float32") * (1.0 / (1 << 24))


def _mix(x):
    x = (x ^ ops.right_shift(x, 16)) * ops.cast(0x7FEB352D, "uint32")
    x = (x ^ ops.right_shift(x, 15)) * ops.cast(0x846CA68B, "uint32")
    return x ^ ops.right_shift(x, 16)


def _column(values, rank: int = 3):
    """(batch,) -> (batch, 1, 1[, 1])."""
    return ops.reshape(values, (-1,) + (1,) * (rank - 1))
