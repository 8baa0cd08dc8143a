"""A classifier on a backbone of anybody's make, for the images of a preset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from data_pipelines.kinds import UNCHANGED, image_kind
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
from medres.errors import ModelError
from medres.models.classification import checked_classes, scaled
from medres.training.config.options import DEFAULT_WINDOWS
from medres.training.network import classifier_on, require_backbone

# By name: scale and offset of each channel, from 0..1, as keras.applications and torchvision have
# them. Caffe's channels are blue, green, red, each 0..255 without the mean of ImageNet.
SCALINGS = {
    "imagenet": (
        [1 / 0.229, 1 / 0.224, 1 / 0.225],
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
    ),
    "caffe": ([255.0] * 3, [-103.939, -116.779, -123.68]),
}
Windows = Sequence[str | tuple[float, float]] | None


def adapt(
    backbone: keras.Model,
    preset: str | dict | PreprocessSpec,
    classes: int | Sequence[str],
    *,
    task: str | None = None,
    windows: Windows = None,
    scaling: str | tuple[float, float] = (-1.0, 1.0),
) -> keras.Model:
    """A functional model from images of a preset, in model units, to logits: windows or scaling,
    one channel repeated to as many as the backbone takes, the backbone, global average pooling, and
    a dense head.

    backbone: functional, one input and one output (a feature map or a vector), for instance of
        keras.applications with include_top=False. Its layers are copied with their weights, and are
        frozen where those of `backbone` are.
    classes, task: as for `medres.classifier`. windows: for CT; None: lung, mediastinum and bone.
    scaling: what the backbone expects: the range (low, high) of its values, for instance (-1, 1)
        for MobileNetV2 and ResNet50V2, or (0, 255) for EfficientNet and ConvNeXt; "imagenet" (mean
        and standard deviation; DenseNet and torchvision); "caffe" (ResNet50 and VGG of
        keras.applications).

    Raises ModelError (codes bad_scaling, bad_classes, bad_window, ...), TrainingError (codes
    backbone_shape, backbone_layers, whole_classifier).
    """
    spec = spec_from(preset)
    rules, n_classes = checked_classes(classes, task)
    require_backbone(backbone)
    if windows is None and image_kind(spec.kind).has_windows:
        windows = DEFAULT_WINDOWS
    image = keras.Input(tuple(spec.shape), name="image", dtype="float32")
    bounded = image_kind(spec.kind).units.bounds is not None
    x = scaled(image, windows, None if bounded or windows is not None else UNCHANGED.name)
    channels = backbone.inputs[0].shape[-1]
    if x.shape[-1] == 1 and channels not in (1, None):
        x = keras.layers.Concatenate(dtype="float32", name="channels")([x] * channels)
    scale, offset = _from_signed(scaling, x.shape[-1])
    if (scale, offset) != (1.0, 0.0):
        x = keras.layers.Rescaling(scale, offset, dtype="float32", name="input_range")(x)
    return classifier_on(backbone, image, x, rules.outputs(n_classes))


def _from_signed(scaling: Any, channels: int) -> tuple[Any, Any]:
    """Scale and offset from -1..1 to what the backbone expects, as numbers or one per channel."""
    if isinstance(scaling, str):
        if scaling not in SCALINGS or channels != 3:
            raise ModelError(
                f"scaling {scaling!r} for {channels} channels: give (low, high), or for three "
                f"channels one of {', '.join(SCALINGS)}",
                code="bad_scaling",
            )
        scales, offsets = SCALINGS[scaling]
        halves = [scale / 2 for scale in scales]
        return halves, [o + half for o, half in zip(offsets, halves, strict=True)]
    try:
        low, high = (float(value) for value in scaling)
    except (TypeError, ValueError):
        low = high = 0.0
    if not -1e6 < low < high < 1e6:
        raise ModelError(
            f"scaling {scaling!r}: give the range (low, high) of the backbone's input, or one of "
            f"{', '.join(SCALINGS)}",
            code="bad_scaling",
        )
    return (high - low) / 2, (high + low) / 2
