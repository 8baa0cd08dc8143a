"""From a read image to the fixed-size integers that training and prediction both consume.

`prepare` (one image) and `data_pipelines.stacks.prepare_record` (several slices) are all that lies between a DICOM file and a
model; what follows (windows, scaling) is part of the saved model. Both sides see the same rounded integers, so they cannot drift
apart.

| kind       | dtype  | one unit is                      | fill outside the picture |
|------------|--------|----------------------------------|--------------------------|
| ct         | int16  | 1 HU                             | -1024 (air)              |
| radiograph | uint16 | 1/65535 of the display range 0-1 | 0 (dark)                 |
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_pipelines.errors import SpecError
from data_pipelines.fitting import AxisFit, fit_picture, inside, stretched

if TYPE_CHECKING:
    from data_pipelines.images import Image

Kind = Literal["radiograph", "ct"]
UNITS: dict[str, Literal["HU", "display"]] = {"ct": "HU", "radiograph": "display"}
_DTYPE = {"ct": np.dtype("<i2"), "radiograph": np.dtype("<u2")}
_SCALE = {"ct": np.float32(1.0), "radiograph": np.float32(1.0 / 65535.0)}
_FILL = {"ct": -1024.0, "radiograph": 0.0}
_PRESETS: dict[str, dict[str, str | int]] = {
    "xray": {"kind": "radiograph"},
    "ct": {"kind": "ct"},
    "ct25d": {"kind": "ct", "form": "stack", "slices": 3},
    "ctvol": {"kind": "ct", "form": "volume"},
}
_PRESET = re.compile(rf"({'|'.join(_PRESETS)})-([0-9]{{1,4}})")
_SIZE = Annotated[int, Field(ge=16, le=2048)]
_SPACING = Annotated[float, Field(gt=0.01, lt=100)]


class PreprocessSpec(BaseModel):
    """What becomes of an image or a series, and nothing else. Two specs with equal fields have equal hashes.

    rows, cols: output size in pixels, 16 to 2048.
    fit: "pad" keeps the proportions (in mm, or of the pixels where nothing else is known) and fills the border; "stretch" does not.
    form: "image", each image alone; "stack", a CT slice in the middle of `slices` neighbours as channels (2.5D); "volume", a
        CT series resampled to `slices` x rows x cols.
    slices: 1 for images, odd for stacks.
    spacing_mm: of volumes, (slice, row, column): resample to it, then crop or pad about the middle; None: the whole series fits.
    policy: of volumes, which series are accepted, as in `read_volume`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    rows: _SIZE
    cols: _SIZE
    fit: Literal["pad", "stretch"] = "pad"
    form: Literal["image", "stack", "volume"] = "image"
    slices: Annotated[int, Field(ge=1, le=512)] = 1
    spacing_mm: tuple[_SPACING, _SPACING, _SPACING] | None = None
    policy: Literal["reject", "shear", "resample"] = "resample"
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _agree(self) -> PreprocessSpec:
        fewest = {"image": 1, "stack": 3, "volume": 2}[self.form]
        if self.form != "image" and self.kind != "ct":
            raise ValueError("only CT slices make stacks and volumes")
        if self.slices < fewest or (self.form == "image" and self.slices > 1):
            raise ValueError(f"form {self.form} takes {'1 slice' if fewest == 1 else f'{fewest} slices or more'}")
        if self.form == "stack" and self.slices % 2 == 0:
            raise ValueError("a stack has a slice in its middle: slices must be odd")
        if self.form != "volume" and (self.spacing_mm is not None or self.policy != "resample"):
            raise ValueError("spacing_mm and policy are for volumes")
        if self.spacing_mm is not None and self.fit != "pad":
            raise ValueError('with spacing_mm, fit must be "pad"')
        return self

    @property
    def name(self) -> str:
        prefix = {"image": "xray" if self.kind == "radiograph" else "ct", "stack": "ct25d", "volume": "ctvol"}[
            self.form
        ]
        sides = [self.slices, self.rows, self.cols] if self.form == "volume" else [self.rows, self.cols]
        size = str(sides[0]) if len({*sides}) == 1 else "x".join(map(str, sides))
        count = f"-{self.slices}slices" if self.form == "stack" and self.slices != 3 else ""
        at = "" if self.spacing_mm is None else f"-at{'x'.join(f'{mm:g}' for mm in self.spacing_mm)}mm"
        kept = "" if self.policy == "resample" else f"-{self.policy}"
        return f"{prefix}-{size}{count}{at}{kept}" + ("" if self.fit == "pad" else f"-{self.fit}")

    @property
    def dtype(self) -> np.dtype:
        """Little-endian dtype of the prepared integers."""
        return _DTYPE[self.kind]

    @property
    def scale(self) -> np.float32:
        """Model units per integer."""
        return _SCALE[self.kind]

    @property
    def fill(self) -> float:
        """What lies outside the picture, in model units: air, or dark."""
        return _FILL[self.kind]

    @property
    def prepared_shape(self) -> tuple[int, ...]:
        """Shape of one prepared record: (rows, cols), of a stack (rows, cols, slices), of a volume (slices, rows, cols)."""
        plane = (self.rows, self.cols)
        return {"image": plane, "stack": (*plane, self.slices), "volume": (self.slices, *plane)}[self.form]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input: the prepared shape, with a channel axis at the end."""
        return self.prepared_shape if self.form == "stack" else (*self.prepared_shape, 1)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def spec_from(value: str | dict | PreprocessSpec) -> PreprocessSpec:
    """A spec from a preset name, a mapping, or a spec itself.

    Presets: kind and side in pixels, "xray-224", "ct-128"; "ct25d-256" (a CT slice between its two neighbours); "ctvol-64" (a CT
    series as a cube). Raises SpecError where the name or a field is unknown or out of range.
    """
    if isinstance(value, PreprocessSpec):
        return value
    if isinstance(value, str):
        match = _PRESET.fullmatch(value)
        if match is None:
            raise SpecError(
                f"unknown preset {value!r}: write {', '.join(f'{name}-SIZE' for name in _PRESETS)}, for instance xray-224"
            )
        side = int(match[2])
        value = {**_PRESETS[match[1]], "rows": side, "cols": side}
        value |= {"slices": side} if match[1] == "ctvol" else {}
    try:
        return PreprocessSpec.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "form"
        raise SpecError(f"preprocessing spec, field {where}: {first['msg']}; received {first['input']!r}") from None


def prepare(image: Image, spec: PreprocessSpec) -> np.ndarray:
    """Resize (antialiased) and round one image to integers in model units.

    image: float32 (rows, cols), HU for kind "ct", display values 0..1 for "radiograph"; where its pixels are not square, "pad"
    keeps the proportions of what they show.
    Returns (spec.rows, spec.cols) of spec.dtype. Values beyond the dtype's range are clipped to it.
    Raises SpecError where the image is of another kind than the spec, or holds values that are not finite.
    """
    check_units(image, spec)
    return to_integers(fit_picture(image.pixels, axes_of(image, spec), spec.fill), spec)


def axes_of(image: Image, spec: PreprocessSpec) -> list[AxisFit]:
    """How `prepare` puts the rows and columns of an image onto the spec's grid."""
    sizes, outs = image.pixels.shape, (spec.rows, spec.cols)
    return stretched(sizes, outs) if spec.fit == "stretch" else inside(sizes, (image.aspect, 1.0), outs)


def check_units(image: Image, spec: PreprocessSpec) -> None:
    """Raise SpecError unless the image holds finite values in the spec's unit."""
    if image.units != UNITS[spec.kind]:
        raise SpecError(
            f"preset {spec.name} wants {UNITS[spec.kind]} values, received {image.units}: choose a preset for it"
        )
    if not (np.isfinite(image.pixels.min()) and np.isfinite(image.pixels.max())):
        raise SpecError("the image holds values that are not finite after the grey-scale transform")


def to_integers(values: NDArray[np.floating], spec: PreprocessSpec) -> np.ndarray:
    """Model units -> prepared integers: rounded, and clipped to the dtype."""
    info, steps = np.iinfo(spec.dtype), values / float(spec.scale)
    np.rint(steps, out=steps)
    return np.clip(steps, info.min, info.max, out=steps).astype(spec.dtype)


def to_model_units(prepared: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Prepared integers (..., *prepared_shape) -> float32 (..., *shape) in model units: HU, or display values 0..1."""
    values = prepared.astype(np.float32) * spec.scale
    return values if spec.form == "stack" else values[..., np.newaxis]
