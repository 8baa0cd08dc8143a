from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import keras
import numpy as np
import pandas as pd
import pytest

from medres.artefact.masks import ComponentRule, postprocessed
from medres.training.data import CompiledModel
from medres.training.segmentation.finalize import CANDIDATES, _best_rule, _sizes, volume_error
from medres.training.segmentation.tuning import DiceTable, dice_row, windowed_output


def test_dice_by_patient_then_over_patients() -> None:
    truth = np.array([[1, 1, 2, -1]])
    table = DiceTable(3)
    table.add(truth, np.array([[1, 0, 2, 2]]))  # 2/3 and 1: the last pixel is left out
    table.add(truth, np.array([[0, 0, 0, 0]]))  # 0 and 0
    table.add(np.array([[0, 0, 0, 0]]), np.array([[1, 0, 0, 0]]))  # no reference: no Dice
    np.testing.assert_allclose(table.values, [[2 / 3, 1], [0, 0], [np.nan, np.nan]])
    data: Any = SimpleNamespace(
        table=lambda split: pd.DataFrame({"patient": ["a", "a", "b"]}),
        targets=SimpleNamespace(names=("background", "one", "two")),
    )
    row = dice_row(table, data)
    assert row["tune_dice"] == pytest.approx((5 / 6 + 0) / 2)
    assert row["tune_dice_one"] == pytest.approx(1 / 3)
    assert row["tune_dice_low"] is None  # two patients


def test_windows_of_a_constant_model_give_its_constant() -> None:
    image = keras.Input((8, 8, 1))
    model = CompiledModel(keras.Model(image, keras.layers.Conv2D(2, 1)(image)))
    x = np.random.default_rng(0).random((20, 13, 1)).astype(np.float32)
    whole = np.asarray(keras.layers.Lambda(lambda v: v)(x)) @ np.asarray(
        model.model.weights[0]
    ).reshape(1, 2)
    np.testing.assert_allclose(windowed_output(model, x), whole, atol=1e-5)


def test_small_components_are_removed_where_that_gains() -> None:
    truth = np.zeros((40, 40), bool)
    truth[5:20, 5:20] = True
    answer = truth.copy()
    answer[30:33, 30:33] = True  # nine pixels of noise
    trials = [ComponentRule(name="trial", **one) for one in CANDIDATES]
    sizes = np.array([_sizes(truth, answer, trials)] * 6, float)
    rule = _best_rule("lung", sizes, trials, np.arange(6), 0.1)
    assert (rule.name, rule.min_voxels, rule.largest) == ("lung", 32, False)
    assert rule.dice_after == 1.0
    assert rule.dice_before == pytest.approx(2 * 225 / (225 + 234))
    np.testing.assert_array_equal(postprocessed(answer.astype(np.uint8), [rule]), truth)
    same = np.array([_sizes(truth, truth, trials)] * 6, float)
    assert _best_rule("lung", same, trials, np.arange(6), 0.1).keeps_all


def test_the_error_of_the_volume_is_a_conformal_quantile() -> None:
    truth = np.array([110.0, 90, 100, 105, 95, 100, 100, 120, 100])
    predicted = np.full(9, 100.0)
    assert volume_error(truth, predicted, np.arange(9), 0.1) == pytest.approx(0.2)
    assert volume_error(truth[:8], predicted[:8], np.arange(8), 0.1) is None
    missed = np.where(np.arange(9) == 0, 0.0, predicted)
    assert volume_error(truth, missed, np.arange(9), 0.1) is None
    assert cast(float, volume_error(truth * 0, predicted, np.arange(9), 0.1)) == 1.0
