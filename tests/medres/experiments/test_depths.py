from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import TrainingError
from medres.experiments.depths import DepthExperiment, Images, depth_study, shifted_and_flipped
from medres.progress import ProgressReporter

RNG = np.random.default_rng(0)


def squares(n: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 2
    pixels = RNG.integers(0, 80, (n, 12, 12))
    pixels[labels == 1, 4:8, 4:8] += 120
    return pixels.astype("uint8"), labels


IMAGES = Images(*squares(32), *squares(20))
PLAN = DepthExperiment(depths=(8,), epochs=2, batch_size=16, learning_rate=0.05, width=4)


class Stop(ProgressReporter):
    """Ctrl-C when a network has finished its first epoch."""

    def line(self, text: str) -> None:
        if "epoch 1:" in text:
            raise KeyboardInterrupt


@pytest.mark.long
def test_an_interrupted_experiment_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    whole = depth_study(IMAGES, tmp_path / "whole", PLAN)
    for _ in range(2):  # once in each network
        with pytest.raises(KeyboardInterrupt):
            depth_study(IMAGES, tmp_path / "broken", PLAN, progress=Stop())
    broken = depth_study(IMAGES, tmp_path / "broken", PLAN)
    columns = [
        "depth",
        "residual",
        "seed",
        "epoch",
        "rate",
        "train_loss",
        "train_error",
        "test_error",
    ]
    pd.testing.assert_frame_equal(whole[columns], broken[columns], check_exact=False, rtol=1e-5)
    assert whole["residual"].to_list() == [False] * 2 + [True] * 2
    assert whole["epoch"].to_list() == [1, 2] * 2
    assert whole["train_loss"].iloc[-1] < whole["train_loss"].iloc[2]
    again = pd.read_csv(tmp_path / "whole" / "depths.csv")
    pd.testing.assert_frame_equal(again[columns], whole[columns], check_exact=False, rtol=1e-12)
    gradients = pd.read_csv(tmp_path / "broken" / "plain8-seed0" / "gradients.csv")
    assert sorted(gradients["epoch"].unique()) == [0, 1, 2]
    assert len(gradients) == 3 * 8
    with raises_code(TrainingError, "other_run"):
        depth_study(IMAGES, tmp_path / "whole", DepthExperiment(depths=(8,), epochs=9, width=4))


def test_the_papers_schedule() -> None:
    plan = DepthExperiment(depths=(20, 110), epochs=8)
    assert [plan.rate(epoch, 20) for epoch in range(1, 9)] == pytest.approx(
        [0.1] * 4 + [0.01] * 2 + [0.001] * 2
    )
    assert plan.rate(1, 110) == pytest.approx(0.01)
    assert plan.rate(2, 110) == pytest.approx(0.1)


def test_images_are_shifted_by_up_to_four_pixels_and_flipped() -> None:
    image = RNG.random((1, 9, 7, 2)).astype("float32")
    out = shifted_and_flipped(np.repeat(image, 300, axis=0), np.random.default_rng(0))
    padded = np.pad(image[0], ((4, 4), (4, 4), (0, 0)))
    allowed = {}
    for down in range(9):
        for right in range(9):
            crop = padded[down : down + 9, right : right + 7]
            allowed[crop.tobytes()] = (down, right, False)
            allowed[np.ascontiguousarray(crop[:, ::-1]).tobytes()] = (down, right, True)
    changes = [allowed[np.ascontiguousarray(changed).tobytes()] for changed in out]
    assert {d for d, _, _ in changes} == {r for _, r, _ in changes} == set(range(9))
    assert 100 < sum(flipped for _, _, flipped in changes) < 200


def test_a_loss_that_is_not_finite_stops_the_experiment(tmp_path: Path) -> None:
    with raises_code(TrainingError, "loss_not_finite"):
        depth_study(
            IMAGES,
            tmp_path,
            DepthExperiment(
                depths=(8,), epochs=1, batch_size=16, width=4, learning_rate=float("nan")
            ),
        )


def test_images_and_plans_that_cannot_be_used_are_named() -> None:
    pixels, labels = squares(10)
    with raises_code(TrainingError, "shapes", "train:", "9 labels"):
        Images(pixels, labels[:9], pixels, labels)
    with raises_code(TrainingError, "shapes", "test:"):
        Images(pixels, labels, pixels[:0], labels[:0])
    with raises_code(TrainingError, "settings", "epochs"):
        DepthExperiment(epochs=0)
    assert Images(pixels, labels, pixels / 255, labels).train.max() == pytest.approx(
        pixels.max() / 255
    )
