"""Pairs of a plain and a residual network before training: the gradient of every block, and the
share of it through the shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from medres.errors import TrainingError
from medres.experiments.gradients import gradient_flow
from medres.models.classification import classifier
from medres.progress import ProgressReporter

KEYS = ["depth", "residual", "seed"]


@dataclass(frozen=True)
class TwinGradients:
    """Two tables, both with `depth` (layers), `residual` and `seed` of the network, and the name of
    the `block`.

    norms: one row per block of each network: `place` (1, 2, ... from the input) and
        `gradient_norm`, the norm of the gradients of all its kernels as one vector.
    shares: one row per block of each residual network: `place`, and `shortcut_share` in 0..1 (see
        GradientFlow).
    """

    norms: pd.DataFrame
    shares: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """One row per network: the gradient norms of its first and last block, their ratio, and the
        median share through the shortcut.
        """
        norms = self.norms.groupby(KEYS)["gradient_norm"]
        table = pd.DataFrame({"first_block": norms.first(), "last_block": norms.last()})
        table["first_to_last"] = table["first_block"] / table["last_block"]
        return table.join(self.shares.groupby(KEYS)["shortcut_share"].median()).reset_index()


def cifar_net(
    depth: int, shape: Sequence[int], classes: int, *, residual: bool, seed: int, width: int = 16
) -> keras.Model:
    """The CIFAR network of the paper with shortcuts of option A, so that a plain and a residual
    network have the same parameters. `seed` sets the initial weights.
    """
    keras.utils.set_random_seed(seed)
    return classifier(
        depth,
        shape,
        classes,
        task="multiclass",
        stem="cifar",
        shortcut="A",
        residual=residual,
        width=width,
    )


def twin_gradients(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    depths: Sequence[int] = (20, 56, 110),
    seeds: Sequence[int] = (0,),
    width: int = 16,
    progress: ProgressReporter | None = None,
) -> TwinGradients:
    """Measure untrained plain and residual networks of each depth (6n+2) and seed on one batch, in
    training mode.

    images: (n, rows, columns, channels), float32 in 0..1; labels: class numbers (n,). Raises
    TrainingError for other shapes, and ModelError for an invalid depth.
    """
    if np.ndim(images) != 4 or len(images) != len(labels) or not len(labels):
        raise TrainingError(
            f"{len(labels)} labels for images of shape {np.shape(images)}: give images (n, rows, "
            f"columns, channels) and n labels",
            code="shapes",
        )
    progress, norms, shares = progress or ProgressReporter(), [], []
    for seed in seeds:
        for depth in depths:
            for residual in (False, True):
                network = cifar_net(
                    depth,
                    images.shape[1:],
                    int(max(labels)) + 1,
                    residual=residual,
                    seed=seed,
                    width=width,
                )
                flow = gradient_flow(network, images, labels)
                key = {"depth": depth, "residual": residual, "seed": seed}
                norms.append(block_norms(flow.layers).assign(**key))
                names = flow.blocks["block"].str.removesuffix("_add")
                shares.append(
                    pd.DataFrame(
                        {
                            "block": names,
                            "place": flow.blocks["depth"],
                            "shortcut_share": flow.blocks["shortcut_share"],
                        }
                    ).assign(**key)
                )
                progress.line(
                    f"{'residual' if residual else 'plain'} {depth}, seed {seed}: measured"
                )
    columns = [*KEYS, "block", "place"]
    return TwinGradients(
        pd.concat(norms, ignore_index=True)[[*columns, "gradient_norm"]],
        pd.concat([part for part in shares if len(part)], ignore_index=True)[
            [*columns, "shortcut_share"]
        ],
    )


def block_norms(layers: pd.DataFrame) -> pd.DataFrame:
    """GradientFlow.layers summed per block: `block`, `place`, `gradient_norm` (the root of the sum
    of squares over its kernels).

    Blocks are recognized by the layer names of this package (stage1_block1_...); other layers are
    left out.
    """
    block = layers["layer"].str.extract(r"^(stage\d+_block\d+)_", expand=False)
    squares = (layers["gradient_norm"] ** 2).groupby(block, sort=False).sum()
    return pd.DataFrame(
        {
            "block": squares.index,
            "place": range(1, len(squares) + 1),
            "gradient_norm": np.sqrt(squares.to_numpy()),
        }
    )
