"""The classifier: windows or scaling, backbone, global average pooling and a dense head, all of it
in the saved graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()  # with quiet logs, also where only WINDOWS is imported

import keras  # noqa: E402

from data_pipelines.kinds import input_scaling  # noqa: E402
from data_pipelines.pixels.ct_windows import WINDOWS  # noqa: E402
from medres.backbones.build import checked_shape, features, functional, spec_for  # noqa: E402
from medres.backbones.variants import model_name, network_spec, variant_name  # noqa: E402
from medres.backbones.weights.cached_files import weights_file  # noqa: E402
from medres.backbones.weights.load import load_pretrained  # noqa: E402
from medres.errors import ModelError  # noqa: E402
from medres.tasks import Task, default_task, task_named  # noqa: E402


def classifier(
    variant: int | str,
    input_shape: Sequence[int | None],
    classes: int | Sequence[str],
    *,
    task: str | None = None,
    windows: Sequence[str | tuple[float, float]] | None = None,
    activation: str | None = None,
    scaling: str | None = None,
    weights: str | Path | None = None,
    **backbone_options: Any,
) -> keras.Model:
    """A functional Keras model of built-in layers.

    Input `image`: float32 (batch, *input_shape) in model units (HU, or display values 0 to 1).
    Output `logits`: float32 (batch, outputs).

    input_shape: (H, W, C) or (D, H, W, C) in pixels, counted before the windows.
    classes: the number of classes, or their names in the order of the outputs.
    task: "binary" (one logit, for the positive class), "multiclass" or "multilabel". None: binary
        for one class, otherwise multiclass.
    windows: for CT in HU: (center, width) pairs or names of `WINDOWS`. Each window makes its own
        channels, (x - center) / width + 1/2 clipped to 0..1 (LINEAR_EXACT, DICOM PS3.3
        C.11.2.1.3.2). None: the image holds display values 0 to 1. In both cases the backbone
        receives 2 x - 1, in -1..1, unless `scaling` says otherwise. These steps are float32 under
        every dtype policy.
    activation: None gives logits; "sigmoid" (binary, multilabel) or "softmax" (multiclass) adds the
        layer `probability`.
    scaling: without windows, the first step: None or "signed" (2 x - 1); "imagenet" for color
        pictures 0..1 of three channels (minus ImageNet's mean, divided by its standard deviation);
        "none" for images that are standardized already (MR).
    weights: pretrained weights of the backbone: "imagenet", or another name of `medres weights`, or
        a file that `medres.backbones.load_pretrained` reads; a head of another size stays random.
        "imagenet" puts the normalization that its weights expect into the graph, unless `scaling`
        is that normalization: the image stays in model units.
    backbone_options: as for `medres.backbones.resnet`, or for `medres.backbones.densenet` if the
        variant is a DenseNet, such as "densenet121".

    Raises ModelError. The model keeps neither the class names nor the task: the saved medres file
    has them in its card.

    >>> model = classifier(18, (64, 64, 1), ["nodule", "edema"], task="multilabel", width=8)
    >>> model.output.shape
    (None, 2)
    """
    rules, n_classes = checked_classes(classes, task)
    if activation is not None and activation != rules.activation:
        raise ModelError(
            f"activation {activation!r}: task {rules.name!r} has the activation "
            f"{rules.activation!r}; give that, or None for logits",
            code="wrong_activation",
        )
    name = backbone_options.pop("name", None)
    spec = network_spec(variant, **backbone_options)
    file = None if weights is None else weights_file(weights, variant_name(variant))
    if file is not None and scaling != file.input_scaling:
        spec = spec_for(spec, file.input_scaling)
    image = keras.Input(checked_shape(spec, input_shape), name="image", dtype="float32")
    x = features(spec, scaled(image, windows, scaling))
    x = getattr(keras.layers, f"GlobalAveragePooling{len(image.shape) - 2}D")(name="pooled")(x)
    x = keras.layers.Dense(rules.outputs(n_classes), dtype="float32", name="logits")(x)
    if activation is not None:
        x = keras.layers.Activation(activation, dtype="float32", name="probability")(x)
    model = functional(image, x, name or f"{model_name(spec)}_classifier")
    if file is not None:
        load_pretrained(model, file.path)
    return model


def checked_classes(classes: int | Sequence[str], task: str | None) -> tuple[Task, int]:
    """The task, and the number of classes, see `classifier`. Raises ModelError (codes bad_classes,
    unknown_task).
    """
    n_classes = _count(classes)
    return _rules(n_classes, task), n_classes


def scaled(
    image: Any,
    windows: Sequence[str | tuple[float, float]] | None,
    scaling: str | None = None,
) -> Any:
    """The symbolic image (batch, ..., C) scaled to -1..1: through each window (HU), or directly
    (display values 0 to 1); or as `scaling` says, see `classifier`.
    """
    if windows is None:
        chosen = input_scaling(scaling)
        scale, offset = (_numbers(value, image) for value in (chosen.scale, chosen.offset))
        return _rescaling(scale, offset, "scale")(image)
    if isinstance(windows, str) or not windows:
        raise ModelError(
            f"windows {windows!r}: give a list of names ({', '.join(WINDOWS)}) or of (center, "
            f"width) pairs in HU",
            code="bad_window",
        )
    windowed = []
    for i, window in enumerate(windows, start=1):
        center, width = _window(window)
        x = _rescaling(1.0 / width, 0.5 - center / width, f"window{i}")(image)
        clip = keras.layers.ReLU(max_value=1.0, dtype="float32", name=f"window{i}_clip")
        windowed.append(clip(x))
    x = windowed[0]
    if len(windowed) > 1:
        x = keras.layers.Concatenate(dtype="float32", name="windows")(windowed)
    return _rescaling(2.0, -1.0, "scale")(x)


def _numbers(value: float | tuple[float, ...], image: Any) -> float | list[float]:
    """Numbers for a Rescaling layer. Raises ModelError (bad_scaling) unless there is one, or one
    for each channel.
    """
    if not isinstance(value, tuple):
        return value
    if image.shape[-1] != len(value):
        raise ModelError(
            f"this scaling is for images of {len(value)} channels, and the input has "
            f"{image.shape[-1]}",
            code="bad_scaling",
        )
    return list(value)


def _rescaling(
    scale: float | list[float], offset: float | list[float], name: str
) -> keras.layers.Layer:
    return keras.layers.Rescaling(scale, offset, dtype="float32", name=name)


def _window(window: str | tuple[float, float]) -> tuple[float, float]:
    """Center and width in HU."""
    if isinstance(window, str):
        if window not in WINDOWS:
            raise ModelError(
                f"window {window!r} is unknown: choose from {', '.join(WINDOWS)}, or give "
                f"(center, width) in HU",
                code="bad_window",
            )
        return WINDOWS[window]
    try:
        center, width = (float(value) for value in window)
    except (TypeError, ValueError):
        raise ModelError(
            f"window {window!r}: give (center, width) in HU", code="bad_window"
        ) from None
    if not (abs(center) < float("inf") and 0 < width < float("inf")):
        raise ModelError(
            f"window {window!r}: center and width must be finite, and the width above 0",
            code="bad_window",
        )
    return center, width


def _count(classes: int | Sequence[str]) -> int:
    """The number of class names."""
    if isinstance(classes, bool | str) or not isinstance(classes, int | Sequence):
        raise ModelError(
            f"classes {classes!r}: give a number or a list of names", code="bad_classes"
        )
    if isinstance(classes, int):
        return classes
    if not all(isinstance(c, str) and c for c in classes) or len({*classes}) < len(classes):
        raise ModelError(
            f"classes {list(classes)!r}: every name must be a non-empty text and occur once",
            code="bad_classes",
        )
    return len(classes)


def _rules(n_classes: int, task: str | None) -> Task:
    """The task, checked against the number of classes."""
    rules = task_named(task) if task else default_task(n_classes)
    low, high = rules.min_classes, rules.max_classes
    if n_classes < low or (high is not None and n_classes > high):
        bound = f"{low} or more" if high is None else f"{low} or {high}"
        raise ModelError(
            f"{n_classes} classes: task {rules.name!r} needs {bound}", code="bad_classes"
        )
    return rules
