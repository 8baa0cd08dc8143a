"""Named ranges, each with its source or reason (see `augmentation`). No preset of medical images
flips: on which side a finding lies is part of the finding.

Where a reason is given and no source, the range is a choice of this package: small compared with
what a reader would notice.
"""

from __future__ import annotations

from pydantic import ValidationError

from data_pipelines.augment.spec import AugmentSpec
from data_pipelines.errors import SpecError
from data_pipelines.kinds import CT, KINDS, MR, RADIOGRAPH, RGB_PICTURE, UnitName
from data_pipelines.runtime.field_errors import first_field_error

_CHEST_XRAY = AugmentSpec(
    units="display",
    rotation=7,
    zoom=0.1,
    shear=0.03,
    shift=0.06,
    contrast=0.15,
    offset=0.05,
    gamma=0.2,
    blur=0.7,
    noise=0.01,
    quantum=0.02,
    share=0.5,
    fill=RADIOGRAPH.fill,
)
_CT_SLICE = AugmentSpec(
    units="HU",
    rotation=7,
    zoom=0.1,
    shift=0.05,
    offset=8,
    scale=0.02,
    window=(-160, 240),
    window_centre=5,
    window_width=0.05,
    blur=0.7,
    noise=15,
    bias=5,
    share=0.5,
    fill=CT.fill,
)
_CT_VOLUME = _CT_SLICE.model_copy(update={"tilt": 5.0, "elastic": 0.1, "elastic_cells": 4})
_NATURAL = AugmentSpec(
    units="rgb",
    rotation=5,
    zoom=0.2,
    shift=0.08,
    flip_left_right=True,
    contrast=0.2,
    offset=0.1,
    saturation=0.3,
    fill=RGB_PICTURE.fill,
)
_CIFAR = AugmentSpec(units="rgb", pad=4, flip_left_right=True, fill=RGB_PICTURE.fill)
_MR_SLICE = AugmentSpec(
    units="zscore",
    rotation=7,
    zoom=0.1,
    shift=0.05,
    offset=0.1,
    scale=0.1,
    window=(-2.0, 3.0),
    gamma=0.2,
    blur=0.7,
    noise=0.1,
    bias=0.3,
    share=0.5,
    fill=MR.fill,
)
_MR_VOLUME = _MR_SLICE.model_copy(update={"tilt": 5.0, "elastic": 0.1, "elastic_cells": 4})
_STRONG = {
    "rotation": 20.0,
    "zoom": 0.25,
    "shear": 0.1,
    "shift": 0.1,
    "elastic": 0.25,
    "elastic_cells": 4,
    "blur": 1.5,
    "low_resolution": 2.5,
    "cutout": 0.3,
}
_STRONG_CHEST_XRAY = _STRONG | {
    "contrast": 0.3,
    "gamma": 0.5,
    "noise": 0.03,
    "quantum": 0.05,
    "bias": 0.1,
}
_STRONG_MR = _STRONG | {"scale": 0.2, "gamma": 0.4, "noise": 0.2, "bias": 0.5}
_STRONG_NATURAL = _STRONG | {"contrast": 0.4, "offset": 0.2, "saturation": 0.5}
_STRONG_CT = _STRONG | {"offset": 20.0, "window_width": 0.15, "noise": 40.0, "bias": 20.0}

# A turned, sheared or bent box becomes the larger box around it, and boxes of many sizes are to be
# found: objects are scaled and shifted further, and not turned.
_OF_BOXES = {"rotation": 0.0, "shear": 0.0, "zoom": 0.25, "shift": 0.1}

#: Name -> units -> ranges.
PRESETS: dict[str, dict[UnitName, AugmentSpec]] = {
    "none": {
        kind.units.name: AugmentSpec.model_validate({"units": kind.units.name, "fill": kind.fill})
        for kind in KINDS.values()
    },
    "chest_xray": {"display": _CHEST_XRAY},
    "ct_slice": {"HU": _CT_SLICE},
    "ct_volume": {"HU": _CT_VOLUME},
    "natural": {"rgb": _NATURAL},
    "cifar": {"rgb": _CIFAR},
    "mr_slice": {"zscore": _MR_SLICE},
    "mr_volume": {"zscore": _MR_VOLUME},
    "detection": {
        spec.units: spec.model_copy(update=_OF_BOXES)
        for spec in (_CHEST_XRAY, _CT_SLICE, _NATURAL, _MR_SLICE)
    },
    "strong": {
        "display": _CHEST_XRAY.model_copy(update=_STRONG_CHEST_XRAY),
        "HU": _CT_SLICE.model_copy(update=_STRONG_CT),
        "rgb": _NATURAL.model_copy(update=_STRONG_NATURAL),
        "zscore": _MR_SLICE.model_copy(update=_STRONG_MR),
    },
}


def augmentation(value: str | dict | AugmentSpec, units: UnitName | None = None) -> AugmentSpec:
    """A spec from a preset's name, a mapping of fields, or a spec itself.

    units: of the data, for instance "HU" or "display" (see `data_pipelines.kinds`). Required for
        `none`, `detection` and `strong`, which exist for all; for the other presets they are only
        checked.

    - chest_xray (display values). rotation 7 degrees, zoom 10 %, shift 6 % of the side: patients
      stand freely and collimation follows the body, but a film turned further would be taken again
      (torchxrayvision trains with 45 degrees, 15 % and 15 %). shear 3 %: an oblique beam. contrast,
      offset, gamma: exposure and look-up tables differ between makers even after the VOI transform.
      noise, quantum: halving the dose raises quantum noise by 1.4. blur 0.7 pixel: focal spot and
      motion.
    - ct_slice (HU). rotation 7 degrees, shift 5 %: positioning on the table. zoom 10 %: bodies and
      fields of view differ. offset 8 HU: water of an accredited scanner lies within 7 HU of 0 (ACR
      CT phantom test). scale 2 %: soft tissue between scanners and kV. The window's jitter, 5 HU
      and 5 % about 40/400: readers set windows by hand. noise 15 HU: the range of body CT in slices
      of 1 to 5 mm. bias 5 HU: the uniformity that the same test prefers. fill: air.
    - ct_volume (HU). ct_slice, with the trunk tilted by 5 degrees and a smooth deformation of up to
      a tenth of a quarter of the side (2.5 %), as by breathing.
    - mr_slice, mr_volume (zscore). The geometry of ct_slice and ct_volume. scale and offset 10 %:
      what else lies in the field of view moves mean and deviation of a volume. bias .3 deviations:
      receive coils. gamma: contrast differs between sequences of one weighting. window -2..3.
    - natural (rgb). Left and right may be exchanged. zoom 20 %, shift 8 %, rotation 5 degrees:
      framing. contrast, offset, saturation: exposure and white balance, less than the 40 % of
      torchvision's ColorJitter recipes.
    - cifar (rgb). The augmentation of He et al. 2016, section 4.2: four pixels of padding, a random
      crop of the size of the image, and a mirror image for half of them.
    - detection (all): chest_xray, ct_slice, mr_slice or natural for images with boxes. A turned
      box becomes the larger box around it, so nothing is turned or sheared; zoom 25 % and shift
      10 %, since objects come in many sizes, at all places.
    - strong (all), for small data sets: about half of nnU-Net's ranges (Isensee 2021: scale 0.7 to
      1.4, low resolution down to 0.5, gamma 0.7 to 1.5, blur up to 1 pixel), whose segmentations
      have more pixels to learn from, with elastic deformation and cutout.
    - none (all).

    Raises SpecError with code unknown_augmentation, units_required, wrong_units, or spec (a field
    is unknown or out of range).

    >>> augmentation("chest_xray").rotation
    7.0
    >>> augmentation({"rotation": 5}, "HU").units
    'HU'
    """
    if isinstance(value, dict):
        value = _from_fields({"units": units} | value if units else value)
    if isinstance(value, AugmentSpec):
        if units not in (None, value.units):
            raise SpecError(
                f"the augmentation is for {value.units} values, but the data holds {units}",
                code="wrong_units",
            )
        return value
    if value not in PRESETS:
        raise SpecError(
            f"unknown augmentation {value!r}: choose one of {', '.join(PRESETS)}",
            code="unknown_augmentation",
        )
    by_units = PRESETS[value]
    if units is None:
        if len(by_units) > 1:
            raise SpecError(
                f"augmentation {value!r} exists for {' and '.join(by_units)} values: give units",
                code="units_required",
            )
        return next(iter(by_units.values()))
    if units not in by_units:
        alternatives = ", ".join(name for name, specs in PRESETS.items() if units in specs)
        raise SpecError(
            f"augmentation {value!r} is for {next(iter(by_units))} values, but the data holds "
            f"{units}: choose one of {alternatives}",
            code="wrong_units",
        )
    return by_units[units]


def _from_fields(fields: dict) -> AugmentSpec:
    try:
        return AugmentSpec.model_validate(fields)
    except ValidationError as error:
        raise SpecError(first_field_error(error).sentence("augmentation: field")) from None
