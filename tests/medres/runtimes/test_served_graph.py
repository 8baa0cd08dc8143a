from __future__ import annotations

import numpy as np
import pytest

from medres.artefact.archive import Artefact
from medres.runtimes.served_graph import reference_outputs, served_graph


def test_the_graph_computes_what_the_predictor_computes(upright_artefact: Artefact) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((6, 32, 32, 1)).astype(np.float32)
    images[:3] *= np.linspace(0.2, 1, 32, dtype=np.float32)[:, np.newaxis, np.newaxis]
    images[2] = images[2, ::-1]
    graph, names = served_graph(upright_artefact, upright_artefact.model)
    outputs = dict(zip(names, map(np.asarray, graph(images)), strict=True))
    expected = reference_outputs(upright_artefact, images)
    assert names == ["probability", "novelty", "orientation"]
    assert outputs["probability"] == pytest.approx(expected["probability"], abs=1e-6)
    assert outputs["novelty"] == pytest.approx(expected["novelty"], rel=1e-4)
    assert outputs["orientation"] == pytest.approx(expected["orientation"], rel=1e-4)
    assert expected["orientation"][0] < 1 < expected["orientation"][2]  # the last one is flipped


def test_a_model_without_distributions_has_one_output(ct_artefact: Artefact) -> None:
    graph, names = served_graph(ct_artefact, ct_artefact.model)
    assert names == ["probability"]
    assert len(graph.outputs) == 1
