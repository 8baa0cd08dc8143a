from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medres.artefact.archive import Artefact
from medres.inference.exporting import export
from medres.runtimes.formats import FORMATS, Format, open_graph, without_warnings
from medres.runtimes.served_graph import reference_outputs

NEEDS = {"onnx": "onnxruntime", "openvino": "openvino", "saved_model": "tensorflow"}
NAMES = ["probability", "novelty", "orientation"]


# OpenVINO takes 12 s; by default test_engines opens such an export by the names of its tensors
@pytest.mark.parametrize(
    "format",
    [pytest.param(f, marks=pytest.mark.long if f == "openvino" else ()) for f in FORMATS],
)
def test_tensors_have_the_same_names_in_every_format(
    upright_artefact: Artefact, tmp_path: Path, format: Format
) -> None:
    """OpenVINO with folded normalization: it changes no name."""
    pytest.importorskip(NEEDS[format])
    made = export(upright_artefact, format, tmp_path / "served", optimise=format == "openvino")
    assert made.folder == tmp_path / "served"
    assert sorted(path.name for path in made.folder.iterdir() if path.suffix == ".json") == sorted(
        ["serving.json", *(["medres.json"] if format != "onnx" else [])]
    )
    assert tensors(format, made.path) == (["image"], NAMES)
    images = np.random.default_rng(0).random((3, 32, 32, 1)).astype(np.float32)
    with without_warnings():
        outputs = open_graph(format, made.folder)(images)
    expected = reference_outputs(upright_artefact, images)
    assert {*outputs} == {*NAMES}
    assert outputs["probability"] == pytest.approx(expected["probability"], abs=1e-5)
    for name in NAMES[1:]:
        assert outputs[name] == pytest.approx(expected[name], rel=1e-3)


def tensors(format: Format, path: Path) -> tuple[list[str], list[str]]:
    """The names of inputs and outputs, in order, as the runtime itself gives them."""
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    if format == "openvino":
        import openvino

        graph = openvino.Core().read_model(path / "model.xml")
        return [i.get_any_name() for i in graph.inputs], [o.get_any_name() for o in graph.outputs]
    import tensorflow as tf

    with without_warnings():
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    inputs = list(signature.structured_input_signature[1])
    assert {*signature.structured_outputs} == {*NAMES}  # a dictionary has no order
    return inputs, NAMES
