from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data_pipelines import read_image
from data_pipelines.pixels.image import Image
from medres.artefact.training_domain import (
    Domain,
    InputFacts,
    check_domain,
    domain_of,
    domain_violation,
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    from conftest import write_cr

    path = tmp_path_factory.mktemp("domain") / "a.dcm"
    write_cr(path, np.arange(1600).reshape(40, 40), patient="P", study="1")
    image = read_image(path)
    return replace(image, spacing_mm=(0.2, 0.2), header=replace(image.header, view_position="PA"))


DOMAIN = Domain(
    images=9,
    patients=4,
    modalities={"CR": 5, "DX": 4},
    body_parts={"": 2, "CHEST": 7},
    views={"AP": 4, "PA": 5},
    rows=(40, 60),
    cols=(40, 60),
    spacing_mm=(0.15, 0.3),
)


def test_an_image_like_the_training_images_is_inside(image: Image) -> None:
    assert domain_violation(image, DOMAIN) is None
    unsaid = replace(
        image, spacing_mm=None, header=replace(image.header, view_position="", body_part="")
    )
    assert domain_violation(unsaid, DOMAIN) is None
    nothing_known = DOMAIN.model_copy(
        update={"body_parts": {"": 9}, "views": {}, "spacing_mm": None}
    )
    assert domain_violation(replace(image, spacing_mm=(9, 9)), nothing_known) is None


@pytest.mark.parametrize(
    ("header", "rest", "code", "value"),
    [
        ({"modality": "MG"}, {}, "other_modality", "(CR, DX)"),
        ({"body_part": "SMITH"}, {}, "other_body_part", "(CHEST)"),
        ({"view_position": "LL"}, {}, "other_view", "(AP, PA)"),
        ({}, {"spacing_mm": (0.2, 0.46)}, "other_spacing", "0.2 x 0.46 mm"),
        ({}, {"spacing_mm": (0.2, 0.46)}, "other_spacing", "0.15 to 0.3 mm"),
        ({}, {"spacing_mm": (0.09, 0.2)}, "other_spacing", "0.09"),
        ({}, {"pixels": np.zeros((19, 40), np.float32)}, "other_size", "19 rows"),
        ({}, {"pixels": np.zeros((40, 121), np.float32)}, "other_size", "121 columns"),
        ({}, {"repairs": ("presentation_lut_shape_disagrees",)}, "polarity", "LUTShape"),
    ],
)
def test_another_image_is_named_by_what_is_other(
    image: Image, header: dict, rest: dict, code: str, value: str
) -> None:
    other = replace(image, header=replace(image.header, **header), **rest)
    violation = domain_violation(other, DOMAIN)
    assert violation is not None
    assert violation.code == code
    assert value in violation.message
    assert "SMITH" not in violation.message


CR_CLASS, DX_CLASS = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
SC_CLASS = "1.2.840.10008.5.1.4.1.1.7"


def trained_on(**columns: object) -> Domain:
    """The domain of 40 patients with one PA radiograph of 2048 x 2500 pixels and 0.17 mm each."""
    table = pd.DataFrame(
        {
            "patient": [f"p{n}" for n in range(40)],
            "modality": "CR",
            "body_part": "CHEST",
            "view": "PA",
            "rows": 2048,
            "cols": 2500,
            "row_spacing": 0.17,
            "col_spacing": 0.17,
            "detector_row_spacing": np.nan,
            "detector_col_spacing": np.nan,
            "form": "dicom",
            "sop_class": CR_CLASS,
        }
    )
    return domain_of(table.assign(**columns))


def like_them(**facts: object) -> InputFacts:
    """An image like those of `trained_on`."""
    usual = InputFacts("dicom", CR_CLASS, "CR", "CHEST", "PA", 2048, 2500, (0.17, 0.17), None)
    return replace(usual, **facts)


AT_DETECTOR: dict = {
    "row_spacing": np.nan,
    "col_spacing": np.nan,
    "detector_row_spacing": 0.17,
    "detector_col_spacing": 0.17,
}
WITHOUT_SPACING: dict = dict.fromkeys(AT_DETECTOR, np.nan)
DETECTOR_ONLY: dict = {"spacing_mm": None, "detector_spacing_mm": (0.17, 0.17)}


@pytest.mark.parametrize(
    ("trained", "facts", "code", "values"),
    [
        ({}, {}, None, []),
        ({}, {"file_format": "png"}, "other_format", ["png", "dicom"]),
        ({"form": "png"}, {}, "other_format", ["dicom", "png"]),
        ({"form": "png"}, {"file_format": "jpeg"}, "other_format", ["jpeg", "png"]),
        ({"form": "npz"}, {"file_format": "png"}, None, []),
        ({}, {"sop_class": SC_CLASS}, "other_sop_class", ["Secondary Capture", "Computed"]),
        ({}, {"sop_class": DX_CLASS}, "other_sop_class", ["Digital X-Ray", "Computed"]),
        ({}, {"sop_class": ""}, "other_sop_class", ["not stated"]),
        ({}, {"sop_class": "1.2.3.SMITH"}, "other_sop_class", ["private"]),
        ({"sop_class": ""}, {"sop_class": ""}, None, []),
        ({}, {"modality": "MG"}, "other_modality", ["MG", "(CR)"]),
        ({}, {"body_part": "HAND"}, "other_body_part", ["HAND", "(CHEST)"]),
        # a quarter crop, half of each side, in each way of knowing the scale
        ({}, {"rows": 1024, "cols": 1250}, "other_extent", ["174.1 mm", "348.2 mm", "278.5"]),
        (AT_DETECTOR, {"rows": 1024, "cols": 1250, **DETECTOR_ONLY}, "other_extent", ["Imager"]),
        (WITHOUT_SPACING, {"rows": 1024, "cols": 1250}, "other_size", ["1024", "2048", "1366"]),
        ({}, {"rows": 1024, "cols": 1250, "spacing_mm": None}, "other_size", ["1024"]),
        # the same scene with fewer pixels is no crop
        ({}, {"rows": 1400, "cols": 1700, "spacing_mm": (0.25, 0.25)}, None, []),
        ({}, {"spacing_mm": (0.1, 0.1)}, "other_spacing", ["0.1 x 0.1", "0.17", "0.113"]),
        (
            AT_DETECTOR,
            DETECTOR_ONLY | {"detector_spacing_mm": (0.3, 0.3)},
            "other_detector_spacing",
            ["0.3 x 0.3", "0.255"],
        ),
        (AT_DETECTOR, DETECTOR_ONLY, None, []),
        (AT_DETECTOR, {}, "other_spacing_kind", ["PixelSpacing", "ImagerPixelSpacing"]),
        ({}, DETECTOR_ONLY, "other_spacing_kind", ["PixelSpacing", "ImagerPixelSpacing"]),
        (WITHOUT_SPACING, DETECTOR_ONLY, None, []),
        ({}, {"spacing_mm": None}, None, []),
        ({}, {"detector_spacing_mm": (9, 9)}, None, []),
        ({}, {"rows": 1700, "cols": 2100}, None, []),
    ],
)
def test_facts_of_a_header_are_compared_with_the_training_images(
    trained: dict, facts: dict, code: str | None, values: list[str]
) -> None:
    violation = check_domain(like_them(**facts), trained_on(**trained))
    assert (violation and violation.code) == code, violation
    for value in values:
        assert value in violation.message
    assert violation is None or "SMITH" not in violation.message


def test_the_card_of_an_older_model_is_checked_as_far_as_it_goes() -> None:
    fields = trained_on().model_dump()
    newer = ("formats", "sop_classes", "scale", "detector_scale", "without_spacing", "tolerance")
    older = Domain.model_validate({k: v for k, v in fields.items() if k not in newer})
    assert check_domain(like_them(), older) is None
    assert check_domain(like_them(file_format="png", sop_class=SC_CLASS), older) is None
    assert check_domain(like_them(**DETECTOR_ONLY), older) is None
    crop = check_domain(like_them(rows=1024, cols=1250), older)
    assert crop.code == "other_extent"


def test_few_patients_give_wider_limits_and_no_image_of_theirs_is_refused() -> None:
    few = trained_on(patient=[f"p{n % 19}" for n in range(40)])
    many = trained_on(patient=[f"p{n % 20}" for n in range(40)])
    smaller = like_them(rows=1450, cols=1800)
    assert (few.tolerance.extent, many.tolerance.extent) == (1.5, 1.25)
    assert check_domain(smaller, few) is None
    assert check_domain(smaller, many).code == "other_extent"
    one = trained_on(patient="p")
    assert one.sop_classes == one.modalities == {}  # not learnt from a single patient
    assert check_domain(like_them(sop_class=SC_CLASS), one) is None
    rng = np.random.default_rng(0)
    sizes = rng.integers(100, 3000, (40, 2))
    spacing = rng.uniform(0.1, 0.3, 40)
    varied = trained_on(
        rows=sizes[:, 0], cols=sizes[:, 1], row_spacing=spacing, col_spacing=spacing
    )
    for (rows, cols), mm in zip(sizes.tolist(), spacing.tolist(), strict=True):
        assert check_domain(like_them(rows=rows, cols=cols, spacing_mm=(mm, mm)), varied) is None


def test_a_ct_is_compared_by_class_of_its_family() -> None:
    ct = trained_on(sop_class="1.2.840.10008.5.1.4.1.1.2", modality="CT", body_part="", view="")
    enhanced = like_them(sop_class="1.2.840.10008.5.1.4.1.1.2.1", modality="CT")
    assert check_domain(enhanced, ct) is None
    assert check_domain(replace(enhanced, sop_class=SC_CLASS), ct).code == "other_sop_class"


def test_the_domain_of_a_table_names_no_code_of_a_single_patient() -> None:
    table = pd.DataFrame(
        {
            "patient": ["a", "a", "b", "c"],
            "modality": ["CR", "CR", "CR", "DX"],
            "body_part": ["CHEST", "CHEST", "CHEST", "SMITH"],
            "view": ["PA", "AP", "PA", ""],
            "rows": [10, 20, 30, 40],
            "cols": [1, 2, 3, 4],
            "row_spacing": [0.1, 0.2, np.nan, 0.4],
            "col_spacing": [0.1, 0.3, np.nan, np.nan],
        }
    )
    domain = domain_of(table)
    assert (domain.images, domain.patients) == (4, 3)
    assert domain.modalities == {"CR": 3}
    assert domain.body_parts == {"CHEST": 3}
    assert domain.views == {"PA": 2}
    assert (domain.rows, domain.cols, domain.spacing_mm) == ((10, 40), (1, 4), (0.1, 0.3))
    assert domain_of(table, "luminance").color == "luminance"
    saved = domain.model_dump(exclude={"color"})  # as earlier versions wrote it
    assert type(domain).model_validate(saved).color == "refuse"
