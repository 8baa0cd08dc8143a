from __future__ import annotations

from itertools import product

import pandas as pd
import pytest

from data_pipelines.labels.embedded import folder_labels
from data_pipelines.labels.folder_levels import FolderLevels, folder_levels

PATIENTS = [f"P{n:02d}" for n in range(20)]
GRADES = [str(n) for n in range(5)]


@pytest.mark.parametrize(
    ("parents", "levels"),
    [
        ([("cat",), ("dog",)], (0, None, None)),
        (list(product(["train", "val"], ["cat", "dog"])), (1, 0, None)),
        (list(product(["cat", "dog"], ["train", "test"])), (0, 1, None)),
        ([(("sick", "well")[n % 2], p) for n, p in enumerate(PATIENTS)], (0, None, 1)),
        ([("train", ("sick", "well")[n % 2], p) for n, p in enumerate(PATIENTS)], (1, 0, 2)),
        ([(p, ("sick", "well")[n % 2]) for n, p in enumerate(PATIENTS[:6])], (1, None, 0)),
        (list(product(PATIENTS, ["sick", "well"])), (1, None, 0)),
        (list(product(["sick", "well"], ["ap", "lateral"])), (0, None, None)),
        (
            list(product(["sick", "well", "other"], ["ap", "pa", "lateral", "oblique"])),
            (0, None, None),
        ),
        ([(g,) for g in GRADES], (0, None, None)),
        ([("data", g) for g in GRADES], (1, None, None)),
        (list(product(GRADES, PATIENTS)), (0, None, 1)),
        ([("a", "b", "cat"), ("a", "b", "dog")], (2, None, None)),
        ([("sick", p) for p in PATIENTS], (0, None, 1)),
        (
            [("sick", p, s) for p in PATIENTS for s in ("s1", "s2")] + [("well", "P99", "s1")],
            (0, None, 1),
        ),
        ([("cat",), ("dog", "more")], (0, None, None)),
    ],
)
def test_the_level_of_the_classes(
    parents: list[tuple[str, ...]], levels: tuple[int, int | None, int | None]
) -> None:
    assert folder_levels(parents) == FolderLevels(*levels)


def test_folders_give_classes_splits_and_patients() -> None:
    paths = [f"train/{'sick' if n % 2 else 'well'}/P{n // 2}/{n}.png" for n in range(12)]
    labels = folder_labels(pd.DataFrame({"path": paths}))
    assert labels.classes == ("sick", "well")
    assert labels.rows["patient_id"].tolist() == [f"P{n // 2}" for n in range(12)]
    assert set(labels.rows["split"]) == {"train"}
    assert "level 2" in labels.notes[0]
    assert "level 3" in labels.notes[1]
