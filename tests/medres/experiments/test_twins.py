from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from typer.testing import CliRunner

from medres.cli.app import app
from medres.errors import ModelError, TrainingError
from medres.experiments.gradients import gradient_flow
from medres.experiments.twins import block_norms, cifar_net, twin_gradients

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 12, 12, 1)).astype("float32")
LABELS = np.array([0, 1, 2, 0, 1, 2])


def test_the_norm_of_a_block_is_that_of_its_kernels_as_one_vector() -> None:
    names = [
        "stem_conv",
        "stage1_block1_conv1",
        "stage1_block1_conv2",
        "stage2_block1_conv1",
        "logits",
    ]
    table = block_norms(pd.DataFrame({"layer": names, "gradient_norm": [9.0, 3.0, 4.0, 2.0, 7.0]}))
    assert table["block"].to_list() == ["stage1_block1", "stage2_block1"]
    assert table["place"].to_list() == [1, 2]
    assert table["gradient_norm"].to_list() == pytest.approx([5.0, 2.0])


def test_twins_start_from_the_same_weights() -> None:
    plain, residual, other = (
        cifar_net(8, (12, 12, 1), 3, residual=kind, seed=seed, width=4)
        for kind, seed in ((False, 1), (True, 1), (True, 2))
    )
    for one, same, another in zip(plain.weights, residual.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(same))
        assert "kernel" not in one.name or (np.asarray(one) != np.asarray(another)).all()


def test_the_tables_hold_what_gradient_flow_measures() -> None:
    measured = twin_gradients(IMAGES, LABELS, depths=(8, 14), seeds=(3,), width=4)
    assert len(measured.norms) == 2 * (3 + 6)
    assert len(measured.shares) == 3 + 6
    assert measured.shares["residual"].all()
    flow = gradient_flow(
        cifar_net(14, (12, 12, 1), 3, residual=True, seed=3, width=4), IMAGES, LABELS
    )
    shares = measured.shares[measured.shares["depth"] == 14]
    np.testing.assert_allclose(shares["shortcut_share"], flow.blocks["shortcut_share"], rtol=1e-4)
    assert shares["block"].to_list()[0] == "stage1_block1"
    norms = measured.norms[(measured.norms["depth"] == 14) & measured.norms["residual"]]
    np.testing.assert_allclose(
        norms["gradient_norm"], block_norms(flow.layers)["gradient_norm"], rtol=1e-4
    )
    row = measured.summary().query("depth == 14 and residual").iloc[0]
    assert row["first_to_last"] == pytest.approx(
        norms["gradient_norm"].iloc[0] / norms["gradient_norm"].iloc[-1]
    )
    assert row["shortcut_share"] == pytest.approx(shares["shortcut_share"].median())


def test_images_and_depths_that_cannot_be_measured_are_named() -> None:
    with raises_code(TrainingError, "shapes", "5 labels"):
        twin_gradients(IMAGES, LABELS[:5])
    with raises_code(TrainingError, "shapes", "(6, 12, 12)"):
        twin_gradients(IMAGES[..., 0], LABELS)
    with raises_code(ModelError, "unknown_variant", "20 or 26"):
        twin_gradients(IMAGES, LABELS, depths=(21,))


def test_the_command_writes_tables_and_a_figure(tmp_path: Path) -> None:
    pixels, labels = (255 * IMAGES).astype("uint8"), LABELS[:, None]
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "p.npz", **dict(zip(names, (pixels, labels, pixels, labels), strict=True)))
    arguments = [
        str(tmp_path / "p.npz"),
        "--depths",
        "8",
        "--width",
        "4",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    result = CliRunner().invoke(app, ["study", "gradients", *arguments])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["depth"], row["residual"]) for row in rows] == [(8, False), (8, True)]
    assert rows[0]["shortcut_share"] is None
    assert 0 < rows[1]["shortcut_share"] < 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "norms.csv",
        "shares.csv",
        "summary.csv",
        "twins.png",
    }
    assert len(pd.read_csv(tmp_path / "out" / "norms.csv")) == 6
