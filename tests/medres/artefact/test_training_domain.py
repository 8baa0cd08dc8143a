from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data_pipelines import read_image
from data_pipelines.pixels.image import Image
from medres.artefact.training_domain import Domain, domain_of, domain_violation


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
