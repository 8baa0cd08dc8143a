"""From a read image to the fixed-size integers that training and prediction both consume.

This is the one function (`prepare`) between a DICOM file and a model; what follows it (windows, scaling) is part of the saved
model. Both sides see the same rounded integers, so they cannot drift apart.

| kind       | dtype  | one unit is                      | fill outside the picture |
|------------|--------|----------------------------------|--------------------------|
| ct         | int16  | 1 HU                             | -1024 (air)              |
| radiograph | uint16 | 1/65535 of the display range 0-1 | 0 (dark)                 |
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_pipelines.errors import SpecError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from data_pipelines.images import Image

Kind = Literal["radiograph", "ct"]
UNITS: dict[str, Literal["HU", "display"]] = {"ct": "HU", "radiograph": "display"}
_DTYPE = {"ct": np.dtype("<i2"), "radiograph": np.dtype("<u2")}
_SCALE = {"ct": np.float32(1.0), "radiograph": np.float32(1.0 / 65535.0)}
_FILL = {"ct": -1024.0, "radiograph": 0.0}
_PRESET = re.compile(r"(xray|ct)-(\d+)")
_SIZE = Annotated[int, Field(ge=16, le=2048)]


class PreprocessSpec(BaseModel):
    """What `prepare` does, and nothing else. Two specs with equal fields have equal hashes.

    rows, cols: output size in pixels, 16 to 2048.
    fit: "pad" keeps the aspect ratio and fills the border; "stretch" does not keep it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    rows: _SIZE
    cols: _SIZE
    fit: Literal["pad", "stretch"] = "pad"
    version: Literal[1] = 1

    @property
    def name(self) -> str:
        prefix = "xray" if self.kind == "radiograph" else "ct"
        size = str(self.rows) if self.rows == self.cols else f"{self.rows}x{self.cols}"
        return f"{prefix}-{size}" + ("" if self.fit == "pad" else f"-{self.fit}")

    @property
    def dtype(self) -> np.dtype:
        """Little-endian dtype of the prepared integers."""
        return _DTYPE[self.kind]

    @property
    def scale(self) -> np.float32:
        """Model units per integer."""
        return _SCALE[self.kind]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input, channels last."""
        return (self.rows, self.cols, 1)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def spec_from(value: str | dict | PreprocessSpec) -> PreprocessSpec:
    """A spec from a preset name ("xray-224", "ct-128": kind and side in pixels), a mapping, or a spec itself.

    Raises SpecError where the name or a field is unknown or out of range.
    """
    if isinstance(value, PreprocessSpec):
        return value
    if isinstance(value, str):
        match = _PRESET.fullmatch(value)
        if match is None:
            raise SpecError(f"unknown preset {value!r}: write xray-SIZE or ct-SIZE, for instance xray-224 or ct-128")
        kind = "radiograph" if match[1] == "xray" else "ct"
        value = {"kind": kind, "rows": int(match[2]), "cols": int(match[2])}
    try:
        return PreprocessSpec.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec"
        raise SpecError(f"preprocessing spec, field {where}: {first['msg']}; received {first['input']!r}") from None


def prepare(image: Image, spec: PreprocessSpec) -> np.ndarray:
    """Resize (antialiased) and round one image to integers in model units.

    image: float32 (rows, cols), HU for kind "ct", display values 0..1 for "radiograph".
    Returns (spec.rows, spec.cols) of spec.dtype. Values beyond the dtype's range are clipped to it.
    Raises SpecError where the image is of another kind than the spec, or holds values that are not finite.
    """
    if image.units != UNITS[spec.kind]:
        raise SpecError(
            f"preset {spec.name} wants {UNITS[spec.kind]} values, received {image.units}: choose a preset for it"
        )
    if not np.isfinite(image.pixels).all():
        raise SpecError("the image holds values that are not finite after the grey-scale transform")
    resized = _fit(image.pixels, spec)
    info = np.iinfo(spec.dtype)
    return np.clip(np.rint(resized / float(spec.scale)), info.min, info.max).astype(spec.dtype)


def to_model_units(prepared: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Prepared integers (..., rows, cols) -> float32 (..., rows, cols, 1) in model units: HU, or display values 0..1."""
    return prepared.astype(np.float32)[..., np.newaxis] * spec.scale


def _fit(pixels: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    rows, cols = pixels.shape
    if spec.fit == "stretch":
        return _resize(pixels, spec.rows, spec.cols)
    ratio = min(spec.rows / rows, spec.cols / cols)
    inner_rows, inner_cols = max(1, round(rows * ratio)), max(1, round(cols * ratio))
    out = np.full((spec.rows, spec.cols), _FILL[spec.kind])
    top, left = (spec.rows - inner_rows) // 2, (spec.cols - inner_cols) // 2
    out[top : top + inner_rows, left : left + inner_cols] = _resize(pixels, inner_rows, inner_cols)
    return out


def _resize(pixels: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Separable triangle filter, half-pixel centres, widened when shrinking; float64, independent of thread counts."""
    vertical = _triangle(pixels.shape[0], rows) @ pixels.astype(np.float64)
    return np.ascontiguousarray((_triangle(pixels.shape[1], cols) @ vertical.T).T)


@functools.lru_cache(maxsize=64)
def _triangle(size_in: int, size_out: int) -> csr_array:
    """(size_out, size_in) interpolation matrix; each row sums to one."""
    from scipy.sparse import csr_array

    step = size_in / size_out
    support = max(step, 1.0)
    centre = (np.arange(size_out) + 0.5) * step
    reach = np.arange(int(np.ceil(2 * support)) + 1)
    columns = np.floor(centre - support).astype(int)[:, np.newaxis] + reach
    weights = np.maximum(0.0, 1.0 - np.abs(columns + 0.5 - centre[:, np.newaxis]) / support)
    weights[(columns < 0) | (columns >= size_in)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    lines = np.broadcast_to(np.arange(size_out)[:, np.newaxis], columns.shape)
    kept = weights > 0
    return csr_array((weights[kept], (lines[kept], columns[kept])), shape=(size_out, size_in))
