from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import json
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

import medres
from medres.artefact.graph_check import checked_graph, weight_shapes
from medres.backbones import fold_batch_norm, fused_training_copy, load_pretrained, resnet
from medres.errors import ModelError
from medres.models.decoders import DECODERS
from medres.models.segmentation import segmenter, without_deep_supervision
from medres.training.network import rate_factors, set_trainable, stages

Options = dict[str, Any]
NETS: list[tuple[int | str, tuple[int, ...], str, Options]] = [
    (10, (24, 31, 1), "unet", {"stem": "small"}),
    (10, (40, 33, 3), "unet", {"version": "2"}),
    (10, (33, 40, 1), "deeplabv3+", {}),
    (10, (20, 17, 1), "fpn", {"stem": "small", "residual": False}),
    ("densenet40", (18, 21, 1), "fpn", {"stem": "cifar", "growth": 4}),
    (10, (8, 11, 9, 1), "unet", {"stem": "small"}),
    (10, (8, 33, 20, 2), "fpn", {}),
]


def build(variant: int | str, shape: tuple[int, ...], decoder: str, options: Options) -> Any:
    options = options if "growth" in options else {"width": 4, **options}
    return segmenter(variant, shape, 3, decoder=decoder, **options)


@pytest.mark.parametrize(("variant", "shape", "decoder", "options"), NETS)
def test_logits_have_the_size_of_any_image(
    variant: int | str, shape: tuple[int, ...], decoder: str, options: Options
) -> None:
    model = build(variant, shape, decoder, options)
    assert model.output.shape == (None, *shape[:-1], 3)
    assert model.output.dtype == "float32"
    image = np.random.default_rng(0).random((1, *shape), np.float32)
    assert np.isfinite(np.asarray(model(image))).all()
    assert checked_graph(config := json.loads(model_config(model))).parameters == sum(
        np.prod(v.shape) for v in model.weights
    )
    assert sum(weight_shapes(config).values()) == len(model.weights)
    assert medres.summary(model).total.stride == 1


def model_config(model: keras.Model) -> str:
    return json.dumps(keras.saving.serialize_keras_object(model))
