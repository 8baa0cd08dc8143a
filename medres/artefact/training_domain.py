"""The training domain of a model, in numbers and codes without patient data, and the check whether
an image lies outside of it.

The check reads the header only, so that it can come before decoding: `facts_of`, `check_domain`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data_pipelines.dicom.sop_classes import CT_CLASSES
from data_pipelines.dicom.standard_terms import STANDARD_TERMS, sop_class_name, standard_sop_class
from data_pipelines.kinds import ARRAY_FORMATS, ColorRule
from medres.artefact.card_fields import MAX_COUNT, Count
from medres.errors import RefusedInput

if TYPE_CHECKING:
    import pandas as pd

    from data_pipelines.dicom.header import Header
    from data_pipelines.kinds import FileFormat, KindName
    from data_pipelines.pixels.image import Image
    from data_pipelines.sources.acceptance import HeaderCheck

MIN_PATIENTS = 2  # a code of a single patient is not learnt from, and might identify the patient
FEW_PATIENTS, FEW_EXTENT = 20, 1.5  # with fewer training patients, the tolerance of the extent

Pair = tuple[float, float]


def _ordered(values: Pair) -> Pair:
    if not 0 < values[0] <= values[1] <= MAX_COUNT:
        raise ValueError("is not a range of positive numbers")
    return values


Range = Annotated[Pair, AfterValidator(_ordered)]
Counts = dict[str, Count]
Factor = Annotated[float, Field(ge=1.0, le=1000.0)]


class Tolerance(BaseModel):
    """The factors by which the range of the training images is widened on both sides.

    size: rows and columns in pixels. size_without_spacing: the same where no spacing can be
    compared, so that a crop would show in the number of pixels only. spacing: mm per pixel.
    extent: rows and columns in mm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Factor = 2.0
    size_without_spacing: Factor = 1.5
    spacing: Factor = 1.5
    extent: Factor = 1.25


class Scale(BaseModel):
    """Sizes of the training images in mm by one kind of spacing: the smallest and the largest pixel
    spacing, extent of the rows (rows times row spacing) and extent of the columns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_mm: Range
    row_extent_mm: Range
    col_extent_mm: Range


class Domain(BaseModel):
    """Properties of the training split.

    modalities, body_parts, views, sop_classes: number of images per DICOM code string or UID; ''
    counts images without one. Only those of at least two patients are listed. formats: number of
    images per file format.
    rows, cols: smallest and largest size in pixels. spacing_mm: smallest and largest pixel spacing,
    None if no image has a PixelSpacing.
    scale, detector_scale: sizes in mm by PixelSpacing (calibrated) and by ImagerPixelSpacing (at
    the detector), None where no image has that spacing.
    without_spacing: number of images that have neither, None in the card of an older model, which
    also has no formats, sop_classes and scales: these are not checked then.
    color: whether ingest took the luminance of images that are truly in color; prediction does the
    same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Count
    patients: Count
    modalities: Counts
    body_parts: Counts
    views: Counts
    rows: Range
    cols: Range
    spacing_mm: Range | None
    formats: Counts = {}
    sop_classes: Counts = {}
    scale: Scale | None = None
    detector_scale: Scale | None = None
    without_spacing: Count | None = None
    tolerance: Tolerance = Tolerance()
    color: ColorRule = "refuse"


class DomainViolation(NamedTuple):
    """Why an image lies outside the training domain. code: other_format, other_sop_class,
    other_modality, other_body_part, other_view, polarity, other_size, other_spacing_kind,
    other_spacing, other_detector_spacing or other_extent. message: one sentence.
    """

    code: str
    message: str


@dataclass(frozen=True)
class InputFacts:
    """What the check needs to know about an image. '' or None means absent.

    rows, cols: in pixels. spacing_mm: PixelSpacing; detector_spacing_mm: ImagerPixelSpacing, both
    (row, column).
    """

    file_format: FileFormat
    sop_class: str = ""
    modality: str = ""
    body_part: str = ""
    view: str = ""
    rows: int | None = None
    cols: int | None = None
    spacing_mm: Pair | None = None
    detector_spacing_mm: Pair | None = None


def facts_of(header: Header, file_format: FileFormat = "dicom") -> InputFacts:
    """The facts of a header, before the pixels are decoded."""
    return InputFacts(
        file_format=file_format,
        sop_class=header.sop_class_uid,
        modality=header.modality,
        body_part=header.body_part,
        view=header.view_position,
        rows=header.rows,
        cols=header.columns,
        spacing_mm=header.pixel_spacing,
        detector_spacing_mm=header.imager_pixel_spacing,
    )


def domain_of(table: pd.DataFrame, color: ColorRule = "refuse") -> Domain:
    """The domain of manifest rows: those of the training split on which the model was trained.
    color: as ingest.json records it.
    """
    scale, detector_scale = _scale(table, ""), _scale(table, "detector_")
    patients = int(table["patient"].nunique())
    spacings = [name for name in ("row_spacing", "detector_row_spacing") if name in table]
    return Domain(
        images=len(table),
        patients=patients,
        modalities=_codes(table, "modality"),
        body_parts=_codes(table, "body_part"),
        views=_codes(table, "view"),
        rows=_range(table["rows"].to_numpy()),
        cols=_range(table["cols"].to_numpy()),
        spacing_mm=None if scale is None else scale.spacing_mm,
        formats=_counts(table, "form"),
        sop_classes=_codes(table, "sop_class"),
        scale=scale,
        detector_scale=detector_scale,
        without_spacing=int(table[spacings].isna().all(axis=1).sum())
        if "detector_row_spacing" in spacings
        else None,
        tolerance=Tolerance() if patients >= FEW_PATIENTS else Tolerance(extent=FEW_EXTENT),
        color=color,
    )


def domain_violation(image: Image, domain: Domain) -> DomainViolation | None:
    """Why an image that was read lies outside the training domain, or None if it does not: as
    `check_domain`, and also header elements that contradict each other on the polarity.
    """
    rows, cols = image.pixels.shape[:2]
    facts = facts_of(image.header, image.file_format)
    facts = replace(facts, rows=rows, cols=cols, spacing_mm=image.spacing_mm)
    violation = check_domain(facts, domain)
    if violation is None and "presentation_lut_shape_disagrees" in image.repairs:
        return DomainViolation(
            "polarity",
            "PhotometricInterpretation and PresentationLUTShape contradict each other: it is "
            "unclear whether bright means dense",
        )
    return violation


def check_domain(facts: InputFacts, domain: Domain) -> DomainViolation | None:
    """Why an image with these facts lies outside the training domain, or None if it does not.

    Refused are: a file format that no training image has; a SOP class, modality, body part or view
    that no training image has (an image without a modality, body part or view passes); a size,
    spacing or extent in mm beyond the range of the training images, widened by `Tolerance`; and a
    spacing of another kind where every training image has one (PixelSpacing is calibrated,
    ImagerPixelSpacing holds at the detector, and one does not replace the other).
    """
    return (
        _other_format(facts, domain.formats)
        or _other_sop_class(facts, domain)
        or _other_code(facts, domain)
        or _other_size(facts, domain)
        or _other_scale(facts, domain)
    )


def header_check(domain: Domain | None, kind: str) -> HeaderCheck:
    """The check for `prepared_study` that raises RefusedInput, before anything is decoded, for an
    image of this kind outside the domain. The header of a PNG or JPEG is None: only its format is
    checked.
    """

    def check(file_format: FileFormat, of_kind: KindName, header: Header | None) -> None:
        if of_kind != kind and file_format == "dicom":
            return
        facts = InputFacts(file_format) if header is None else facts_of(header)
        violation = _other_format(facts, {}) if domain is None else check_domain(facts, domain)
        if violation is not None:
            raise RefusedInput(violation.message, code=violation.code)

    return check


def _other_format(facts: InputFacts, formats: dict[str, int]) -> DomainViolation | None:
    # an array of an .npz, or of CIFAR, has the exact values that a PNG has
    allowed = {*formats} | ({"png"} if {*formats} & {*ARRAY_FORMATS} else set())
    if facts.file_format in allowed:
        return None
    if facts.file_format == "nifti":  # its unit is not in the file
        return DomainViolation("other_format", "the file is NIfTI, and no training image was")
    if not allowed:
        return None
    return DomainViolation(
        "other_format",
        f"the file format is {facts.file_format}, and that of the training images was "
        f"{', '.join(sorted(allowed))}",
    )


def _other_sop_class(facts: InputFacts, domain: Domain) -> DomainViolation | None:
    allowed = {*domain.sop_classes}
    if allowed & CT_CLASSES:
        allowed |= CT_CLASSES  # the same slices, one or several in a file
    received = standard_sop_class(facts.sop_class)
    if not allowed or facts.file_format != "dicom" or received in allowed:
        return None
    names = ", ".join(sop_class_name(uid) for uid in sorted(domain.sop_classes))
    return DomainViolation(
        "other_sop_class",
        f"the SOP class is {sop_class_name(received)}, and that of the training images was {names}",
    )


def _other_code(facts: InputFacts, domain: Domain) -> DomainViolation | None:
    for value, counts, name in (
        (facts.modality, domain.modalities, "modality"),
        (facts.body_part, domain.body_parts, "body part"),
        (facts.view, domain.views, "view"),
    ):
        codes = sorted(code for code in counts if code)
        if value and codes and value not in codes:
            received = value if value in STANDARD_TERMS else "not a common DICOM term"
            return DomainViolation(
                f"other_{name.replace(' ', '_')}",
                f"the {name} is {received}, another than that of the training images "
                f"({', '.join(codes)})",
            )
    return None


def _other_size(facts: InputFacts, domain: Domain) -> DomainViolation | None:
    tolerance = domain.tolerance
    factor = tolerance.size if _comparable(facts, domain) else tolerance.size_without_spacing
    for size, trained, name in (
        (facts.rows, domain.rows, "rows"),
        (facts.cols, domain.cols, "columns"),
    ):
        low, high = trained[0] / factor, trained[1] * factor
        if size is not None and not low <= size <= high:
            return DomainViolation(
                "other_size",
                f"the image has {size} {name}; the training images had {trained[0]:g} to "
                f"{trained[1]:g}, and {math.ceil(low)} to {math.floor(high)} are accepted",
            )
    return None


def _other_scale(facts: InputFacts, domain: Domain) -> DomainViolation | None:
    comparable = _comparable(facts, domain)
    if comparable:
        violations = (_scale_violation(facts, domain, measure) for measure in comparable)
        return next((violation for violation in violations if violation), None)
    received = [element for element, _, spacing, _ in _measures(facts, domain) if spacing]
    if received and domain.without_spacing == 0:
        allowed = [element for element, _, _, scale in _measures(facts, domain) if scale]
        return DomainViolation(
            "other_spacing_kind",
            f"the image has {' and '.join(received)} only, and the training images had "
            f"{' and '.join(allowed)}: their millimeters cannot be compared",
        )
    return None


def _scale_violation(
    facts: InputFacts, domain: Domain, measure: _Comparable
) -> DomainViolation | None:
    (height, width), scale, tolerance = measure.spacing, measure.scale, domain.tolerance
    low, high = scale.spacing_mm
    accepted = low / tolerance.spacing, high * tolerance.spacing
    if not all(accepted[0] <= mm <= accepted[1] for mm in (height, width)):
        return DomainViolation(
            measure.code,
            f"{measure.element} is {height:.3g} x {width:.3g} mm; that of the training images was "
            f"{low:.3g} to {high:.3g} mm, and {accepted[0]:.3g} to {accepted[1]:.3g} mm is "
            f"accepted",
        )
    for count, mm, trained, name in (
        (facts.rows, height, scale.row_extent_mm, "rows"),
        (facts.cols, width, scale.col_extent_mm, "columns"),
    ):
        low, high = trained[0] / tolerance.extent, trained[1] * tolerance.extent
        if count is not None and not low <= count * mm <= high:
            return DomainViolation(
                "other_extent",
                f"the {name} of the image span {count * mm:.4g} mm ({measure.element}); those of "
                f"the training images spanned {trained[0]:.4g} to {trained[1]:.4g} mm, and "
                f"{low:.4g} to {high:.4g} mm is accepted: is it a part of an image, or another "
                f"field of view?",
            )
    return None


class _Comparable(NamedTuple):
    """One kind of spacing that both the image and the training images have."""

    element: str
    code: str
    spacing: Pair
    scale: Scale


def _measures(
    facts: InputFacts, domain: Domain
) -> list[tuple[str, str, Pair | None, Scale | None]]:
    """For each kind of spacing: its element, its code, that of the image, and the training images'
    sizes by it.
    """
    calibrated, at_detector = _calibrated_scale(domain), domain.detector_scale
    return [
        ("PixelSpacing", "other_spacing", facts.spacing_mm, calibrated),
        ("ImagerPixelSpacing", "other_detector_spacing", facts.detector_spacing_mm, at_detector),
    ]


def _comparable(facts: InputFacts, domain: Domain) -> list[_Comparable]:
    return [
        _Comparable(element, code, spacing, scale)
        for element, code, spacing, scale in _measures(facts, domain)
        if spacing is not None and scale is not None
    ]


def _calibrated_scale(domain: Domain) -> Scale | None:
    """The sizes by PixelSpacing. The card of an older model has the ranges of size and of spacing,
    which bound the extent.
    """
    if domain.scale is not None or domain.spacing_mm is None:
        return domain.scale
    low, high = domain.spacing_mm
    return Scale(
        spacing_mm=domain.spacing_mm,
        row_extent_mm=(domain.rows[0] * low, domain.rows[1] * high),
        col_extent_mm=(domain.cols[0] * low, domain.cols[1] * high),
    )


def _scale(table: pd.DataFrame, prefix: str) -> Scale | None:
    """The sizes in mm of the rows that have the spacing in the columns with this prefix."""
    names = [f"{prefix}row_spacing", f"{prefix}col_spacing"]
    if not {*names} <= {*table}:
        return None
    spacings = table[names].to_numpy(np.float64)
    valid = np.isfinite(spacings).all(axis=1)
    if not valid.any():
        return None
    spacings = spacings[valid]
    extents = spacings * table.loc[valid, ["rows", "cols"]].to_numpy(np.float64)
    return Scale(
        spacing_mm=_range(spacings),
        row_extent_mm=_range(extents[:, 0]),
        col_extent_mm=_range(extents[:, 1]),
    )


def _range(values: np.ndarray) -> Range:
    return float(values.min()), float(values.max())


def _counts(table: pd.DataFrame, column: str) -> dict[str, int]:
    """Number of images per value; {} for a manifest of an older version without this column."""
    if column not in table:
        return {}
    counts = table[column].value_counts()
    return {str(value): int(count) for value, count in sorted(counts.items())}


def _codes(table: pd.DataFrame, column: str) -> dict[str, int]:
    """As `_counts`, of the codes that at least two patients have."""
    if column not in table:
        return {}
    patients = table.groupby(column)["patient"].nunique()
    return _counts(table[table[column].isin(patients.index[patients >= MIN_PATIENTS])], column)
