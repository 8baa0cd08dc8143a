"""Each layer that a net of other people may have: what the graph check foresees is what Keras
builds, and a net with it is trained, saved, opened and used.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import raises_code

import medres
from medres.artefact.graph.options import ACTIVATIONS, LAYERS
from medres.artefact.graph_check import checked_graph
from medres.errors import ArtefactError

L = keras.layers
SCALE = importlib.import_module("keras.src.applications.convnext").LayerScale

#: One or more layers of each kind, on images of 8 x 8 x 4 (volumes of 4 x 8 x 8 x 4 where 3D).
KINDS: dict[str, list[Callable[[], keras.Layer]]] = {
    "Conv2D": [lambda: L.Conv2D(6, 3, groups=2, strides=2)],
    "Conv3D": [lambda: L.Conv3D(6, 3, dilation_rate=2, padding="same")],
    "DepthwiseConv2D": [lambda: L.DepthwiseConv2D(3, depth_multiplier=2, strides=2)],
    "SeparableConv2D": [lambda: L.SeparableConv2D(6, 3, depth_multiplier=2, padding="same")],
    "Conv2DTranspose": [
        lambda: L.Conv2DTranspose(6, 3, strides=2),
        lambda: L.Conv2DTranspose(6, 2, strides=3, padding="same", use_bias=False),
        lambda: L.Conv2DTranspose(6, 3, dilation_rate=2),
    ],
    "Conv3DTranspose": [lambda: L.Conv3DTranspose(6, 2, strides=2)],
    "Dense": [lambda: L.Dense(5)],
    "BatchNormalization": [lambda: L.BatchNormalization(axis=3, scale=False)],
    "LayerNormalization": [
        lambda: L.LayerNormalization(),
        lambda: L.LayerNormalization(axis=[1, 3], center=False),
    ],
    "GroupNormalization": [lambda: L.GroupNormalization(2)],
    "UnitNormalization": [lambda: L.UnitNormalization()],
    "LayerScale": [lambda: SCALE(0.5, 4)],
    "Normalization": [lambda: L.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[2.0] * 4)],
    "Rescaling": [lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0], np.float32(0.5))],
    "Activation": [lambda name=name: L.Activation(name) for name in sorted(ACTIVATIONS)],
    "ReLU": [lambda: L.ReLU(6.0)],
    "LeakyReLU": [lambda: L.LeakyReLU()],
    "ELU": [lambda: L.ELU()],
    "Softmax": [lambda: L.Softmax()],
    "Identity": [lambda: L.Identity()],
    "Dropout": [lambda: L.Dropout(0.1, noise_shape=(None, 1, 1, 4))],
    "SpatialDropout2D": [lambda: L.SpatialDropout2D(0.1)],
    "SpatialDropout3D": [lambda: L.SpatialDropout3D(0.1)],
    "Flatten": [lambda: L.Flatten()],
    "Permute": [lambda: L.Permute((3, 1, 2))],
    "Reshape": [lambda: L.Reshape((4, -1, 8))],
    "Resizing": [lambda: L.Resizing(5, 9, interpolation="bicubic")],
    "UpSampling2D": [lambda: L.UpSampling2D((2, 3), interpolation="bilinear")],
    "UpSampling3D": [lambda: L.UpSampling3D(2)],
    "ZeroPadding2D": [lambda: L.ZeroPadding2D(((1, 2), (0, 3)))],
    "ZeroPadding3D": [lambda: L.ZeroPadding3D(1)],
    "Cropping2D": [lambda: L.Cropping2D(((1, 2), (0, 3)))],
    "Cropping3D": [lambda: L.Cropping3D(1)],
    "MaxPooling2D": [lambda: L.MaxPooling2D(3, strides=2, padding="same")],
    "MaxPooling3D": [lambda: L.MaxPooling3D(2)],
    "AveragePooling2D": [lambda: L.AveragePooling2D(2)],
    "AveragePooling3D": [lambda: L.AveragePooling3D(2, strides=1)],
    "GlobalAveragePooling2D": [lambda: L.GlobalAveragePooling2D(keepdims=True)],
    "GlobalAveragePooling3D": [lambda: L.GlobalAveragePooling3D()],
    "GlobalMaxPooling2D": [lambda: L.GlobalMaxPooling2D()],
    "GlobalMaxPooling3D": [lambda: L.GlobalMaxPooling3D(keepdims=True)],
}
MERGES = ("Concatenate", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")


def graph_of(model: keras.Model) -> dict:
    return json.loads(model.to_json())


def test_every_layer_of_the_list_is_tested() -> None:
    assert {*KINDS, *MERGES, "InputLayer"} == set(LAYERS)


@pytest.mark.parametrize(
    ("kind", "make"), [(kind, make) for kind, makes in KINDS.items() for make in makes]
)
def test_what_the_check_foresees_is_what_keras_builds(
    kind: str, make: Callable[[], keras.Layer]
) -> None:
    image = keras.Input((4, 8, 8, 4) if "3D" in kind else (8, 8, 4))
    x = make()(image)
    model = keras.Model(image, L.Identity(name="end")(x))
    graph = graph_of(model)
    check = checked_graph(graph)
    expected = Counter(tuple(v.shape) for v in model.weights if "seed" not in v.path)
    assert check.weights == expected
    sizes = [np.prod(t.shape[1:]) for t in (image, x, model.output)]
    assert check.alive == sum(sizes)  # so the shape of the output is the one of Keras
    assert check.multiply_adds >= check.parameters - sum(
        np.prod(shape) * n for shape, n in expected.items() if len(shape) == 1
    )
    graph["config"]["layers"][1]["config"]["mystery"] = 1
    with raises_code(ArtefactError, "unsupported_option", "mystery", kind):
        checked_graph(graph)


@pytest.mark.parametrize("kind", MERGES)
def test_merges_are_foreseen(kind: str) -> None:
    image = keras.Input((8, 8, 4))
    x = getattr(L, kind)()([image, L.Conv2D(4, 3, padding="same")(image)])
    model = keras.Model(image, x)
    assert checked_graph(graph_of(model)).alive == 64 * (4 + 4 + x.shape[-1])


def test_a_sequential_within_is_foreseen() -> None:
    image = keras.Input((8, 8, 4))
    part = keras.Sequential([L.Conv2D(6, 3), keras.Sequential([L.LayerNormalization()])])
    model = keras.Model(image, L.Dense(2)(part(image)))
    graph = graph_of(model)
    assert checked_graph(graph).weights == Counter(tuple(v.shape) for v in model.weights)
    graph["config"]["layers"][1]["config"]["layers"][1]["config"]["lora_rank"] = 2
    with raises_code(ArtefactError, "unsupported_option", "lora_rank", "Conv2D"):
        checked_graph(graph)


def test_an_unsupported_layer_is_named_with_all_supported_ones() -> None:
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, L.GaussianNoise(0.1, name="hiss")(image))
    with raises_code(ArtefactError, "unsupported_layer", "GaussianNoise", "`hiss`") as caught:
        checked_graph(graph_of(model))
    listed = str(caught.value).split("supported: ")[1].split(", ")
    names = {n.replace("2D/3D", rank) for n in listed for rank in ("2D", "3D")}
    assert set(LAYERS) | {"Sequential", "Functional"} == names


NOT_IN_BRANCHES = ("Permute", "Reshape", "GlobalMaxPooling2D", "Flatten", "Activation")


def own_net() -> keras.Model:
    """Every layer that a 2D net may have, in branches; small."""
    image = keras.Input((32, 32, 1))
    x = L.Resizing(16, 16)(image)
    x = keras.Sequential([L.Conv2D(4, 3, padding="same"), L.LeakyReLU()])(x)
    makes = [
        make
        for kind, makes in KINDS.items()
        for make in makes[:2]
        if "3D" not in kind and kind not in NOT_IN_BRANCHES
    ]
    ends = [L.Flatten()(L.AveragePooling2D(8)(x))]
    for make in makes:
        y = make()(x)
        ends.append(L.GlobalMaxPooling2D()(y))
    for activation in ("gelu", "swish", "hard_sigmoid", "relu6"):
        ends.append(L.GlobalMaxPooling2D()(L.Activation(activation)(x)))
    ends.append(L.Flatten()(L.Reshape((4, -1))(L.Permute((3, 1, 2))(L.MaxPooling2D(8)(x)))))
    y = L.Dropout(0.1)(x) * keras.ops.maximum(x, L.SpatialDropout2D(0.1)(x))
    ends.append(L.GlobalAveragePooling2D()(y))
    return keras.Model(image, L.Concatenate()(ends), name="everything")


def trained_and_used(net: keras.Model, work: Path, out: Path, preset: str, epochs: int = 1) -> None:
    """Train a backbone, open its model file, predict."""
    run = medres.train(work, model=net, preset=preset, epochs=epochs, batch_size=8, out=out)
    assert len(run.history) == epochs
    predictor = medres.load(run.artefact)
    image = sorted((work.parent / "images").glob("*.dcm"))[0]
    prediction = predictor.predict(image)
    assert 0 <= prediction.probabilities["square"] <= 1


def test_a_net_of_all_layers_is_trained_saved_opened_and_used(
    tiny_work: Path, tmp_path: Path
) -> None:
    trained_and_used(own_net(), tiny_work, tmp_path / "run", "xray-32")


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["MobileNetV2", "EfficientNetB0", "ConvNeXtTiny", "DenseNet121", "ResNet50"]
)
def test_nets_of_keras_applications_are_trained_saved_opened_and_used(
    name: str, tiny_work: Path, tmp_path: Path
) -> None:
    net = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(64, 64, 1)
    )
    trained_and_used(net, tiny_work, tmp_path / "run", "xray-64", epochs=2)
    script = f"""
from pathlib import Path
from medres.artefact import golden_vectors
from medres.artefact.archive import read_contents
path = Path({str(tmp_path / "run/model.keras")!r})
contents = read_contents(path)
spec = contents.card.preprocess
outputs = golden_vectors.outputs_in_plain_keras(path, contents.inputs, spec)
print(golden_vectors.compare(outputs, contents.outputs))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split()[-1]) <= 1e-6
