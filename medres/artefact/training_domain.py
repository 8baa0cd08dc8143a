"""What a model was trained on, in numbers and codes without patient data, and why an image lies
outside of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pandas as pd

    from data_pipelines.pixels.image import Image

MIN_PATIENTS = (
    2  # a code that fewer training patients have is not learnt from, and might point at one
)
SIZE_FACTOR, SPACING_FACTOR = 2.0, 1.5

Range = tuple[float, float]


class Domain(BaseModel):
    """The training split. Codes (DICOM code strings) with their number of images; sizes in pixels
    and mm, smallest and largest.

    A code is listed where at least two patients have it; '' counts images that do not say.
    spacing_mm: None where no image has a PixelSpacing.
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


def domain_of(table: pd.DataFrame) -> Domain:
    """The domain of manifest rows (those of the training split that the model saw)."""
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
    )


def domain_violation(image: Image, domain: Domain) -> str | None:
    """One sentence on why the model was not trained on such an image, or None.

    Refused: a modality, body part or view that training did not have (an image that does not say
    passes); rows or columns under half of the smallest or over twice the largest; a pixel spacing
    beyond 1.5 times the range; a polarity that two elements of the header contradict.
    """
    header = image.header
    for value, known, what in (
        (header.modality, domain.modalities, "modality"),
        (header.body_part, domain.body_parts, "body part"),
        (header.view_position, domain.views, "view"),
    ):
        codes = sorted(code for code in known if code)
        if value and codes and value not in codes:
            return f"another {what} than the model was trained on ({', '.join(codes)})"
    if "presentation_lut_shape_disagrees" in image.repairs:
        return (
            "PhotometricInterpretation and PresentationLUTShape contradict each other: bright "
            "may mean thin"
        )
    for size, known_range, what in zip(
        image.pixels.shape, (domain.rows, domain.cols), ("rows", "columns"), strict=True
    ):
        if not known_range[0] / SIZE_FACTOR <= size <= known_range[1] * SIZE_FACTOR:
            return (
                f"{size} {what}, where the training images had {known_range[0]:g} to "
                f"{known_range[1]:g}"
            )
    if image.spacing_mm is not None and domain.spacing_mm is not None:
        low, high = domain.spacing_mm[0] / SPACING_FACTOR, domain.spacing_mm[1] * SPACING_FACTOR
        if not all(low <= mm <= high for mm in image.spacing_mm):
            return (
                f"a pixel spacing of {image.spacing_mm[0]:.3g} x {image.spacing_mm[1]:.3g} mm, "
                f"where the training images had "
                f"{domain.spacing_mm[0]:.3g} to {domain.spacing_mm[1]:.3g} mm"
            )
    return None


def _codes(table: pd.DataFrame, column: str) -> dict[str, int]:
    patients = table.groupby(column)["patient"].nunique()
    known = patients.index[patients >= MIN_PATIENTS]
    counts = table.loc[table[column].isin(known), column].value_counts()
    return {str(code): int(count) for code, count in sorted(counts.items())}
