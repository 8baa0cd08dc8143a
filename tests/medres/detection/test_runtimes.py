"""The raw maps of an exported detector give the same boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medres.detection import decode
from medres.models.detection import decoding_settings, detector

SHAPE = (70, 90, 1)


@pytest.mark.long  # tf2onnx converts a network
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_same_boxes_in_other_runtimes(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    module = pytest.importorskip(runtime)
    model = detector(10, SHAPE, 2, levels=(3, 4), width=8, channels=16, head_depth=1)
    rng = np.random.default_rng(0)
    for layer in (model.get_layer("logits"), model.get_layer("decoder_centerness")):
        layer.kernel.assign(rng.normal(0, 0.3, layer.kernel.shape))  # scores apart from each other
    model.get_layer("logits").bias.assign(np.zeros(2, np.float32))
    image = rng.random((2, *SHAPE), np.float32)
    path = str(tmp_path / "detector.onnx")
    model.export(path, format="onnx", verbose=False)
    if runtime == "onnxruntime":
        session = module.InferenceSession(path)
        raw = session.run(None, {session.get_inputs()[0].name: image})[0]
    else:
        core = module.Core()
        compiled = core.compile_model(
            core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        raw = compiled(image)[0]
    settings = decoding_settings(model, nms_iou=0.5)
    for ours, theirs in zip(
        decode(np.asarray(model(image)), settings), decode(raw, settings), strict=True
    ):
        assert len(ours) == len(theirs) > 5
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.corners, theirs.corners, atol=0.01)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
