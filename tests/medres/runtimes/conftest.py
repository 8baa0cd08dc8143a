"""One small model with every further output, and its exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.preprocessing.spec import spec_from
from medres.artefact.archive import Artefact, load
from medres.artefact.feature_distance import fit_novelty
from medres.artefact.orientation import thumbnails


@pytest.fixture(scope="session")
def upright_artefact(tiny_run: Path) -> Artefact:
    """The artefact of the tiny run, which also checks the orientation of images."""
    artefact = load(tiny_run / "model.keras")
    images = np.random.default_rng(4).random((40, 32, 32, 1)).astype(np.float32)
    images *= np.linspace(0.2, 1, 32, dtype=np.float32)[:, np.newaxis, np.newaxis]
    upright = fit_novelty(thumbnails(images).reshape(len(images), -1))
    return replace(artefact, orientation_model=upright)


@pytest.fixture(scope="session")
def ct_artefact(upright_artefact: Artefact) -> Artefact:
    """A model of CT images with 32 x 40 pixels, with two classes."""
    from medres.models.classification import classifier

    model = classifier(
        "resnet10",
        (32, 40, 1),
        2,
        width=8,
        windows=[(40, 400), (-600, 1500)],
        activation="softmax",
    )
    card = upright_artefact.card.model_copy(
        update={
            "preprocess": spec_from({"kind": "ct", "rows": 32, "cols": 40}),
            "task": "multiclass",
            "names": ["a", "b"],
            "operating_points": [],
        }
    )
    return replace(upright_artefact, model=model, card=card, novelty=None, orientation_model=None)
