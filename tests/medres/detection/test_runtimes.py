"""The raw maps of an exported detector give the same boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medres.detection import decode
from medres.models.detection import decoding_settings, detector
from medres.runtimes.formats import MODEL_FILE, Format, open_graph, write_graph

SHAPE = (70, 90, 1)


@pytest.mark.long  # tf2onnx converts a network
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_the_same_boxes_in_other_runtimes(runtime: Format, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    pytest.importorskip("openvino")
    model = detector(10, SHAPE, 2, levels=(3, 4), width=8, channels=16, head_depth=1)
    rng = np.random.default_rng(0)
    for layer in (model.get_layer("logits"), model.get_layer("decoder_centerness")):
        layer.kernel.assign(rng.normal(0, 0.3, layer.kernel.shape))  # scores apart from each other
    model.get_layer("logits").bias.assign(np.zeros(2, np.float32))
    image = rng.random((2, *SHAPE), np.float32)
    expected = np.asarray(model(image))  # Keras exports a network only after its first call
    write_graph(model, ["maps"], "onnx", tmp_path, "{}")  # OpenVINO reads the same file
    raw = open_graph(runtime, tmp_path / MODEL_FILE["onnx"])(image)["maps"]
    settings = decoding_settings(model, nms_iou=0.5)
    for ours, theirs in zip(decode(expected, settings), decode(raw, settings), strict=True):
        assert len(ours) == len(theirs) > 5
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.corners, theirs.corners, atol=0.01)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
