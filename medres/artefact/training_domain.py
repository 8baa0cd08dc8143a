"""The training domain of a model, in numbers and codes without patient data, and the check whether
an image lies outside of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pandas as pd

    from data_pipelines.pixels.image import Image

MIN_PATIENTS = 2  # a code of a single patient is not learnt from, and might identify the patient
SIZE_FACTOR, SPACING_FACTOR = 2.0, 1.5

Range = tuple[float, float]


class Domain(BaseModel):
    """Properties of the training split.

    modalities, body_parts, views: number of images per DICOM code string; '' counts images without
    a code. Only codes of at least two patients are listed.
    rows, cols: smallest and largest size in pixels. spacing_mm: smallest and largest pixel spacing,
    None if no image has a PixelSpacing. formats: number of images per file format; None in models
    of earlier versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    patients: int
    modalities: dict[str, int]
    body_parts: dict[str, int]
    views: dict[str, int]
    rows: Range
    cols: Range
    spacing_mm: Range | None
    formats: dict[str, int] | None = None


class DomainViolation(NamedTuple):
    """Why an image lies outside the training domain. code: other_modality, other_body_part,
    other_view, polarity, other_size or other_spacing. message: one sentence.
    """

    code: str
    message: str


def domain_of(table: pd.DataFrame) -> Domain:
    """The domain of manifest rows: those of the training split on which the model was trained."""
    spacings = table[["row_spacing", "col_spacing"]].to_numpy(np.float64)
    spacings = spacings[np.isfinite(spacings).all(axis=1)]
    return Domain(
        images=len(table),
        patients=int(table["patient"].nunique()),
        modalities=_codes(table, "modality"),
        body_parts=_codes(table, "body_part"),
        views=_codes(table, "view"),
        rows=(float(table["rows"].min()), float(table["rows"].max())),
        cols=(float(table["cols"].min()), float(table["cols"].max())),
        spacing_mm=(float(spacings.min()), float(spacings.max())) if len(spacings) else None,
        formats=_formats(table),
    )


def domain_violation(image: Image, domain: Domain) -> DomainViolation | None:
    """Why an image lies outside the training domain, or None if it does not.

    Refused are: a modality, body part or view that no training image has (an image without a code
    passes); rows or columns below half of the smallest or above twice the largest; a pixel spacing
    beyond 1.5 times the range; header elements that contradict each other on the polarity.
    """
    header = image.header
    for value, counts, name in (
        (header.modality, domain.modalities, "modality"),
        (header.body_part, domain.body_parts, "body part"),
        (header.view_position, domain.views, "view"),
    ):
        codes = sorted(code for code in counts if code)
        if value and codes and value not in codes:
            return DomainViolation(
                f"other_{name.replace(' ', '_')}",
                f"another {name} than that of the training images ({', '.join(codes)})",
            )
    if "presentation_lut_shape_disagrees" in image.repairs:
        return DomainViolation(
            "polarity",
            "PhotometricInterpretation and PresentationLUTShape contradict each other: it is "
            "unclear whether bright means dense",
        )
    for size, limits, name in zip(
        image.pixels.shape, (domain.rows, domain.cols), ("rows", "columns"), strict=True
    ):
        if not limits[0] / SIZE_FACTOR <= size <= limits[1] * SIZE_FACTOR:
            return DomainViolation(
                "other_size",
                f"the image has {size} {name}; the training images had {limits[0]:g} to "
                f"{limits[1]:g}",
            )
    if image.spacing_mm is not None and domain.spacing_mm is not None:
        low, high = domain.spacing_mm[0] / SPACING_FACTOR, domain.spacing_mm[1] * SPACING_FACTOR
        if not all(low <= mm <= high for mm in image.spacing_mm):
            return DomainViolation(
                "other_spacing",
                f"the pixel spacing is {image.spacing_mm[0]:.3g} x {image.spacing_mm[1]:.3g} mm; "
                f"that of the training images was {domain.spacing_mm[0]:.3g} to "
                f"{domain.spacing_mm[1]:.3g} mm",
            )
    return None


def _formats(table: pd.DataFrame) -> dict[str, int] | None:
    """Number of images per file format."""
    if "form" not in table:
        return None
    counts = table["form"].value_counts().sort_index()
    return {str(name): int(count) for name, count in counts.items()}


def _codes(table: pd.DataFrame, column: str) -> dict[str, int]:
    """Number of images per code, of the codes that at least two patients have."""
    patients = table.groupby(column)["patient"].nunique()
    frequent = patients.index[patients >= MIN_PATIENTS]
    counts = table.loc[table[column].isin(frequent), column].value_counts()
    return {str(code): int(count) for code, count in sorted(counts.items())}
