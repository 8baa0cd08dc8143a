from __future__ import annotations

import pytest

from medres.cli.train_commands import _fold_lines, tune_lines

NO_BETTER = "no better than chance, because the interval includes 0.5"


@pytest.mark.parametrize(
    ("auc", "low", "high", "lines"),
    [
        (0.56, 0.41, 0.70, [f"tune AUC 0.560: {NO_BETTER}"]),
        (0.56, 0.50, 0.62, [f"tune AUC 0.560: {NO_BETTER}"]),
        (0.56, 0.51, 0.61, []),
        (0.20, 0.11, 0.31, ["tune AUC 0.200: ranks the wrong way round"]),
        (0.56, None, None, []),
        (None, None, None, []),
    ],
)
def test_training_says_whether_the_model_is_better_than_chance(auc, low, high, lines) -> None:
    assert tune_lines({"tune_auc": auc, "tune_auc_low": low, "tune_auc_high": high}) == lines


def test_cross_validation_says_whether_the_model_is_better_than_chance() -> None:
    summary = {"auc": 0.58, "unit": "patient", "seed_sd": None, "sampling_se": 0.06}
    assert _fold_lines(summary)[-1] == f"out-of-fold AUC: {NO_BETTER}"
    assert not any("chance" in line for line in _fold_lines(summary | {"sampling_se": 0.03}))
