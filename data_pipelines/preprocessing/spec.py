"""From a read image to the fixed-size integers that training and prediction both consume.

`prepare` (one image) and `data_pipelines.preprocessing.samples.prepare_record` (several slices) are
all that lies between a DICOM file and a model; what follows (windows, scaling) is part of the saved
model. Both sides see the same rounded integers, so they cannot drift apart.

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
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_pipelines.errors import SpecError
from data_pipelines.kinds import KindName, image_kind

if TYPE_CHECKING:
    pass

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
    """What becomes of an image or a series, and nothing else. Two specs with equal fields have
    equal hashes.

    rows, cols: output size in pixels, 16 to 2048.
    fit: "pad" keeps the proportions (in mm, or of the pixels where nothing else is known) and fills
        the border; "stretch" does not.
    form: "image", each image alone; "stack", a CT slice in the middle of `slices` neighbours as
        channels (2.5D); "volume", a CT series resampled to `slices` x rows x cols.
    slices: 1 for images, odd for stacks.
    spacing_mm: of volumes, (slice, row, column): resample to it, then crop or pad about the middle;
        None: the whole series fits.
    policy: of volumes, which series are accepted, as in `read_volume`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: KindName
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
            raise ValueError(
                f"form {self.form} takes {'1 slice' if fewest == 1 else f'{fewest} slices or more'}"
            )
        if self.form == "stack" and self.slices % 2 == 0:
            raise ValueError("a stack has a slice in its middle: slices must be odd")
        if self.form != "volume" and (self.spacing_mm is not None or self.policy != "resample"):
            raise ValueError("spacing_mm and policy are for volumes")
        if self.spacing_mm is not None and self.fit != "pad":
            raise ValueError('with spacing_mm, fit must be "pad"')
        return self

    @property
    def name(self) -> str:
        prefix = {
            "image": "xray" if self.kind == "radiograph" else "ct",
            "stack": "ct25d",
            "volume": "ctvol",
        }[self.form]
        sides = (
            [self.slices, self.rows, self.cols] if self.form == "volume" else [self.rows, self.cols]
        )
        size = str(sides[0]) if len({*sides}) == 1 else "x".join(map(str, sides))
        count = f"-{self.slices}slices" if self.form == "stack" and self.slices != 3 else ""
        at = (
            ""
            if self.spacing_mm is None
            else f"-at{'x'.join(f'{mm:g}' for mm in self.spacing_mm)}mm"
        )
        kept = "" if self.policy == "resample" else f"-{self.policy}"
        return f"{prefix}-{size}{count}{at}{kept}" + ("" if self.fit == "pad" else f"-{self.fit}")

    @property
    def dtype(self) -> np.dtype:
        """Little-endian dtype of the prepared integers."""
        return image_kind(self.kind).dtype

    @property
    def scale(self) -> np.float32:
        """Model units per integer."""
        return image_kind(self.kind).scale

    @property
    def fill(self) -> float:
        """What lies outside the picture, in model units: air, or dark."""
        return image_kind(self.kind).fill

    @property
    def prepared_shape(self) -> tuple[int, ...]:
        """Shape of one prepared record: (rows, cols), of a stack (rows, cols, slices), of a volume
        (slices, rows, cols).
        """
        plane = (self.rows, self.cols)
        return {"image": plane, "stack": (*plane, self.slices), "volume": (self.slices, *plane)}[
            self.form
        ]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input: the prepared shape, with a channel axis at the end."""
        return self.prepared_shape if self.form == "stack" else (*self.prepared_shape, 1)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def spec_from(value: str | dict | PreprocessSpec) -> PreprocessSpec:
    """A spec from a preset name, a mapping, or a spec itself.

    Presets: kind and side in pixels, "xray-224", "ct-128"; "ct25d-256" (a CT slice between its two
    neighbours); "ctvol-64" (a CT series as a cube). Raises SpecError where the name or a field is
    unknown or out of range.
    """
    if isinstance(value, PreprocessSpec):
        return value
    if isinstance(value, str):
        match = _PRESET.fullmatch(value)
        if match is None:
            raise SpecError(
                f"unknown preset {value!r}: write "
                f"{', '.join(f'{name}-SIZE' for name in _PRESETS)}, for instance xray-224"
            )
        side = int(match[2])
        value = {**_PRESETS[match[1]], "rows": side, "cols": side}
        value |= {"slices": side} if match[1] == "ctvol" else {}
    try:
        return PreprocessSpec.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "form"
        raise SpecError(
            f"preprocessing spec, field {where}: {first['msg']}; received {first['input']!r}"
        ) from None
