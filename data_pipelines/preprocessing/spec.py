"""What becomes of an image before a model sees it: one frozen object, with presets and a hash.

`prepare` (one image) and `prepare_samples` (images, stacks and volumes) are all that lies between a
DICOM file and a model; what follows (windows, scaling) is part of the saved model. Training and
prediction both see the same rounded integers, so they cannot drift apart. Dtype, scale and fill
of each kind of image: `data_pipelines.kinds`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_pipelines.errors import SpecError
from data_pipelines.kinds import KINDS, ImageKind, KindName, Layout, image_kind
from data_pipelines.runtime.field_errors import first_field_error
from data_pipelines.volumes.slice_grid import Resampling, Step

DEFAULT_RESAMPLING = Resampling()
#: Prefix of a preset name -> the kind of image and the layout.
_PRESETS: dict[str, tuple[KindName, Layout]] = {
    defaults.preset: (kind.name, layout)
    for kind in KINDS.values()
    for layout, defaults in kind.layouts.items()
}
_PRESET_PATTERN = re.compile(rf"({'|'.join(_PRESETS)})-([0-9]{{1,4}})")
_MIN_SLICES: dict[Layout, int] = {"image": 1, "stack": 3, "volume": 2}
#: field of Resampling -> how `PreprocessSpec.name` shows a value that is not the default
_RESAMPLING_NAMES = {
    "step": "",
    "max_gap_mm": "gapmm",
    "max_gap_slices": "gapslices",
    "max_interpolated": "interpolated",
}
_SIZE = Annotated[int, Field(ge=16, le=2048)]
_SPACING = Annotated[float, Field(gt=0.01, lt=100)]


class PreprocessSpec(BaseModel):
    """What becomes of an image or a series. Two specs with equal fields have equal hashes.

    rows, cols: output size in pixels, 16 to 2048.
    fit: "pad" keeps the proportions (in mm if the pixel spacing is known, otherwise of the pixels)
        and fills the border; "stretch" does not keep them.
    form: the layout of a sample. "image": each image alone; "stack": a CT slice in the middle of
        `slices` neighbors as channels (2.5D); "volume": a CT series resampled to
        `slices` x rows x cols.
    slices: 1 for images, odd for stacks.
    spacing_mm: for volumes, (slice, row, column): the series is resampled to this spacing, then
        cropped or padded about its middle. None: the whole series is fitted into the volume.
    policy: for volumes, which series are accepted, as in `read_volume`.
    step, max_gap_mm, max_gap_slices, max_interpolated: for volumes that are resampled, the step of
        the grid and the limits beyond which a series is left out; see `Resampling`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: KindName
    rows: _SIZE
    cols: _SIZE
    fit: Literal["pad", "stretch"] = "pad"
    form: Layout = "image"
    slices: Annotated[int, Field(ge=1, le=512)] = 1
    spacing_mm: tuple[_SPACING, _SPACING, _SPACING] | None = None
    policy: Literal["reject", "shear", "resample"] = "resample"
    step: Step = DEFAULT_RESAMPLING.step
    max_gap_mm: Annotated[float, Field(gt=0, le=1000)] = DEFAULT_RESAMPLING.max_gap_mm
    max_gap_slices: Annotated[int, Field(ge=0, le=512)] = DEFAULT_RESAMPLING.max_gap_slices
    max_interpolated: Annotated[float, Field(ge=0, le=1)] = DEFAULT_RESAMPLING.max_interpolated
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _check_fields_agree(self) -> PreprocessSpec:
        minimum = _MIN_SLICES[self.layout]
        if self.layout not in self.image_kind.layouts:
            raise ValueError(
                f"form {self.form} is not available for {self.kind} images: write "
                f"{' or '.join(self.image_kind.layouts)}"
            )
        if self.slices < minimum or (self.layout == "image" and self.slices > 1):
            count = "exactly 1 slice" if minimum == 1 else f"{minimum} slices or more"
            raise ValueError(f"form {self.form} needs {count}")
        if self.layout == "stack" and self.slices % 2 == 0:
            raise ValueError("a stack has a slice in its middle: slices must be odd")
        if self.layout != "volume" and (self.spacing_mm is not None or self.policy != "resample"):
            raise ValueError("spacing_mm and policy are for volumes only")
        if self.policy != "resample" or self.layout != "volume":
            changed = self.resampling != DEFAULT_RESAMPLING
            if changed:
                raise ValueError("step and its limits are for resampled volumes only")
        if self.spacing_mm is not None and self.fit != "pad":
            raise ValueError('with spacing_mm, fit must be "pad"')
        return self

    @property
    def layout(self) -> Layout:
        """What one sample is made of; saved as the field `form`."""
        return self.form

    @property
    def resampling(self) -> Resampling:
        """How series with gaps become volumes."""
        return Resampling(self.step, self.max_gap_mm, self.max_gap_slices, self.max_interpolated)

    @property
    def image_kind(self) -> ImageKind:
        """The kind of image, with its units and defaults."""
        return image_kind(self.kind)

    @property
    def name(self) -> str:
        """A short name that tells specs apart, for instance "ct25d-256-5slices"."""
        sides = [self.rows, self.cols]
        if self.layout == "volume":
            sides.insert(0, self.slices)
        size = str(sides[0]) if len({*sides}) == 1 else "x".join(map(str, sides))
        parts = [self.image_kind.layouts[self.layout].preset, size]
        if self.layout == "stack" and self.slices != 3:
            parts.append(f"{self.slices}slices")
        if self.spacing_mm is not None:
            parts.append(f"at{'x'.join(f'{mm:g}' for mm in self.spacing_mm)}mm")
        if self.policy != "resample":
            parts.append(self.policy)
        parts += [
            f"{name}{getattr(self.resampling, field)}"
            for field, name in _RESAMPLING_NAMES.items()
            if getattr(self.resampling, field) != getattr(DEFAULT_RESAMPLING, field)
        ]
        if self.fit != "pad":
            parts.append(self.fit)
        return "-".join(parts)

    @property
    def dtype(self) -> np.dtype:
        """Little-endian dtype of the prepared integers."""
        return self.image_kind.dtype

    @property
    def scale(self) -> np.float32:
        """Model units per integer."""
        return self.image_kind.scale

    @property
    def fill(self) -> float:
        """The value outside the image, in model units: air for CT, dark for radiographs."""
        return self.image_kind.fill

    @property
    def default_augmentation(self) -> str:
        """Name of the augmentation preset that training uses by default."""
        return self.image_kind.layouts[self.layout].augmentation

    @property
    def prepared_shape(self) -> tuple[int, ...]:
        """Shape of one prepared sample: (rows, columns) of an image, (rows, columns, 3) in color,
        (rows, columns, slices) of a stack, (slices, rows, columns) of a volume.
        """
        plane: tuple[int, ...] = (self.rows, self.cols)
        if self.image_kind.channels > 1:
            plane = (*plane, self.image_kind.channels)
        if self.layout == "stack":
            return (*plane, self.slices)
        return (self.slices, *plane) if self.layout == "volume" else plane

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input: the prepared shape, with a channel axis at the end."""
        has_channels = self.layout == "stack" or self.image_kind.channels > 1
        return self.prepared_shape if has_channels else (*self.prepared_shape, 1)

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """Shape of a prepared label map: (rows, columns), of a volume (slices, rows, columns).

        >>> spec_from("ct25d-64").mask_shape, spec_from("rgb-32").mask_shape
        ((64, 64), (32, 32))
        """
        plane = (self.rows, self.cols)
        return (self.slices, *plane) if self.layout == "volume" else plane

    @property
    def sha256(self) -> str:
        """SHA-256 of all fields, in hex: part of the key of a cache. How volumes are resampled is
        part of it for volumes only.
        """
        unused = None if self.layout == "volume" else {*_RESAMPLING_NAMES}
        return hashlib.sha256(self.model_dump_json(exclude=unused).encode()).hexdigest()


def spec_from(value: str | dict | PreprocessSpec) -> PreprocessSpec:
    """A spec from a preset name, a mapping of fields, or a spec itself.

    A preset name is a kind and a side in pixels: "xray-224", "ct-128"; "ct25d-256" (a CT slice
    between its two neighbors); "ctvol-64" (a CT series as a cube); "mr-256", "mr25d-256" and
    "mrvol-64" likewise; "rgb-224" (a color picture). Raises SpecError with code
    unknown_preset or preset_size, or with code spec if a field is unknown or out of range.

    >>> spec_from("xray-224").shape
    (224, 224, 1)
    >>> spec_from("ct25d-256").shape
    (256, 256, 3)
    """
    if isinstance(value, PreprocessSpec):
        return value
    try:
        return PreprocessSpec.model_validate(
            _preset_fields(value) if isinstance(value, str) else value
        )
    except ValidationError as error:
        problem = first_field_error(error)
        if isinstance(value, str):
            raise SpecError(
                f"preset {value!r}: the size (field {problem.field}) {problem.reason}; write for "
                f"instance {value.rpartition('-')[0]}-128",
                code="preset_size",
            ) from None
        raise SpecError(problem.sentence("preprocessing spec: field")) from None


def _preset_fields(name: str) -> dict[str, str | int]:
    match = _PRESET_PATTERN.fullmatch(name)
    if match is None:
        raise SpecError(
            f"unknown preset {name!r}: write {', '.join(f'{prefix}-SIZE' for prefix in _PRESETS)}, "
            f"for instance xray-224",
            code="unknown_preset",
        )
    kind, layout = _PRESETS[match[1]]
    side = int(match[2])
    slices = side if layout == "volume" else _MIN_SLICES[layout]
    return {"kind": kind, "form": layout, "rows": side, "cols": side, "slices": slices}
