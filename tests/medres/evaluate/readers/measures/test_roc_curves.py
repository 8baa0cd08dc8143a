from __future__ import annotations

import numpy as np
import pytest

from medres.evaluate.readers.figures import PAIRS
from medres.evaluate.readers.measures.roc_curves import mean_curve, roc_curves
from medres.evaluate.readers.table import load_ratings


@pytest.mark.parametrize("steps", [0, 6])
def test_the_area_under_a_curve_is_the_auc_and_that_of_the_mean_their_mean(
    rated, steps: int
) -> None:
    study = load_ratings(rated(steps=steps))
    curves = roc_curves(study, 2.0)
    areas = {(c.modality, c.reader): np.trapezoid(c.tpr, c.fpr) for c in curves}
    for i, modality in enumerate(study.modalities):
        values = [PAIRS["auc"].value(study.cell(i, j)) for j in range(4)]
        assert [areas[modality, r] for r in study.readers] == pytest.approx(values)
        assert areas[modality, None] == pytest.approx(np.mean(values))


def test_points_are_false_positive_rate_and_sensitivity(rated) -> None:
    study = load_ratings(rated())
    first, *others = roc_curves(study, 2.0)
    positive = study.rating[0, 0] >= 2
    assert first.at == (positive[~study.truth].mean(), positive[study.truth].mean())
    points = zip(first.fpr, first.tpr, strict=True)
    assert any(np.allclose(point, first.at) for point in points)
    mean = next(c for c in others if c.reader is None)
    readers = [c.at for c in (first, *others) if c.modality == "M1" and c.reader]
    assert mean.at == pytest.approx(np.mean(readers, axis=0))
    assert roc_curves(study, None)[0].at is None


def test_a_mean_curve_by_hand() -> None:
    """A perfect curve and chance."""
    perfect, chance = np.array([[0.0, 0, 1], [0, 1, 1]]), np.array([[0.0, 1], [0, 1]])
    x, y = mean_curve([perfect, chance])
    assert list(zip(x, y, strict=True)) == [(0, 0), (0, 0.5), (1, 1), (1, 1)]
