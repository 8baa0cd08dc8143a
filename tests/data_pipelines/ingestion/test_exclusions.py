from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data_pipelines.ingestion.exclusions import find_duplicates
from data_pipelines.volumes.plane import Plane

PLANE = Plane(
    source_index=0,
    frame=0,
    series="",
    frame_of_reference="",
    modality="CT",
    rows=2,
    columns=2,
    spacing=None,
    orientation=None,
    position=None,
    image_type=(),
    kernel="",
    stack="",
    dimensions=(),
    temporal=None,
    acquisition=None,
    non_slice_reason="",
)


def judge(*rows: tuple[str, str, object], **columns: list) -> list[str]:
    """Rows of (pixels, patient, label), the label None where there is no row in the table."""
    table = pd.DataFrame(rows, columns=["pixel_sha256", "patient", "label:x"])
    table["labeled"] = table["label:x"].notna()
    table["label:x"] = table["label:x"].astype(np.float32)
    extra = {
        "sop_uid": [str(n) for n in range(len(rows))],
        "frame": 0,
        "plane": [PLANE] * len(rows),
    }
    return find_duplicates(table.assign(**(extra | columns))).tolist()


def test_different_pixels_stay() -> None:
    assert judge(("1", "a", 1), ("2", "a", 1), ("3", "b", 0)) == ["", "", ""]


def test_the_first_copy_of_a_patient_stays() -> None:
    assert judge(("1", "a", 1), ("2", "a", 0), ("1", "a", 1), ("1", "a", 1)) == [
        "",
        "",
        "duplicate",
        "duplicate",
    ]


def test_a_labeled_copy_stays_before_an_unlabeled_one() -> None:
    assert judge(("1", "a", None), ("1", "a", 1)) == ["duplicate", ""]


def test_copies_under_two_patients() -> None:
    assert judge(("1", "a", 1), ("1", "b", 1), ("1", "b", 1)) == [
        "",
        "duplicate_pixels",
        "duplicate",
    ]


@pytest.mark.parametrize("other", ["a", "b"])
@pytest.mark.parametrize("labels", [(1, 0), (1, -1)])
def test_copies_with_different_labels_all_go(other: str, labels: tuple[int, int]) -> None:
    rows = [("1", "a", labels[0]), ("1", other, labels[1]), ("1", "a", None), ("2", "a", 1)]
    assert judge(*rows) == ["duplicate_conflict"] * 3 + [""]


def test_one_uid_on_two_pictures() -> None:
    rows = [("1", "a", 1), ("2", "a", 1), ("3", "a", 1), ("4", "a", 1)]
    assert judge(*rows, sop_uid=["5", "5", "", ""]) == ["duplicate_uid", "duplicate_uid", "", ""]


def test_one_uid_on_copies_and_on_frames() -> None:
    assert judge(("1", "a", 1), ("1", "a", 1), sop_uid=["5", "5"]) == ["", "duplicate"]
    assert judge(("1", "a", 1), ("2", "a", 1), sop_uid=["5", "5"], frame=[0, 1]) == ["", ""]


def test_equal_slices_at_two_places_of_one_patient_are_two_slices() -> None:
    low, high = replace(PLANE, position=(0.0, 0.0, 1.0)), replace(PLANE, position=(0.0, 0.0, 2.0))
    assert judge(("1", "a", 1), ("1", "a", 0), plane=[low, high]) == ["", ""]
    assert judge(("1", "a", 1), ("1", "a", 1), plane=[low, low]) == ["", "duplicate"]
    assert judge(("1", "a", 1), ("1", "b", 1), plane=[low, high]) == ["", "duplicate_pixels"]
    assert (
        judge(("1", "a", 1), ("1", "a", 1), plane=[low, high], sop_uid=["5", "5"])
        == ["duplicate_uid"] * 2
    )


def test_frames_without_a_place_are_apart() -> None:
    frames = [replace(PLANE, frame=0), replace(PLANE, frame=1)]
    assert judge(("1", "a", 1), ("1", "a", 1), plane=frames, frame=[0, 1], sop_uid=["5", "5"]) == [
        "",
        "",
    ]


def test_multi_class_statements() -> None:
    table = pd.DataFrame(
        {
            "pixel_sha256": ["1", "1"],
            "patient": ["a", "a"],
            "class": ["cat", "dog"],
            "labeled": True,
        }
    )
    table = table.assign(sop_uid=["1", "2"], frame=0, plane=[PLANE, PLANE])
    assert find_duplicates(table).tolist() == ["duplicate_conflict"] * 2
