"""The classifier: windows or scaling, backbone, global average pooling, one dense head. All of it
in the saved graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()  # quietly, also for those who ask for WINDOWS alone

import keras  # noqa: E402

from medres.backbones.build import checked_shape, features, functional  # noqa: E402
from medres.backbones.variants import model_name, resnet_spec  # noqa: E402
from medres.errors import ModelError  # noqa: E402

# Name -> centre and width in HU, as commonly preset on CT workstations.
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (40.0, 400.0),
    "soft_tissue": (50.0, 350.0),
    "bone": (400.0, 1800.0),
    "temporal_bone": (600.0, 2800.0),
    "brain": (40.0, 80.0),
    "subdural": (75.0, 215.0),
    "stroke": (35.0, 40.0),
    "liver": (60.0, 160.0),
    "abdomen": (60.0, 400.0),
    "angiography": (300.0, 600.0),
}
ACTIVATIONS = {"binary": "sigmoid", "multilabel": "sigmoid", "multiclass": "softmax"}


def classifier(
    variant: int | str,
    input_shape: Sequence[int | None],
    classes: int | Sequence[str],
    *,
    task: str | None = None,
    windows: Sequence[str | tuple[float, float]] | None = None,
    activation: str | None = None,
    **backbone_options: Any,
) -> keras.Model:
    """A functional model of built-in Keras layers: float32 `image` in model units -> float32
    `logits` (batch, outputs).

    input_shape: (H, W, C) or (D, H, W, C) in pixels, counted before the windows.
    classes: how many, or their names (in the order of the outputs). task: "binary" (one logit, the
        positive class), "multiclass" or "multilabel"; None is binary for one class, else
        multiclass.
    windows: for CT in HU, (centre, width) pairs or names of `WINDOWS`; each makes its own channels,
        (x - centre) / width + 1/2 clipped to 0..1 (LINEAR_EXACT, DICOM PS3.3 C.11.2.1.3.2). None:
        the image holds display values 0..1. Either way the backbone receives 2 x - 1, in -1..1.
        These steps are float32 whatever the dtype policy.
    activation: None gives logits; "sigmoid" (binary, multilabel) or "softmax" (multiclass) adds the
        layer `probability`.
    backbone_options: as for `medres.backbones.resnet`.

    Raises ModelError. Neither class names nor task are kept in the model: the artefact holds them.
    """
    outputs, task = _outputs(classes, task)
    if activation is not None and activation != ACTIVATIONS[task]:
        raise ModelError(
            f"activation {activation!r}: task {task!r} takes {ACTIVATIONS[task]!r}, or None for "
            f"logits"
        )
    name = backbone_options.pop("name", None)
    spec = resnet_spec(variant, **backbone_options)
    image = keras.Input(checked_shape(spec, input_shape), name="image", dtype="float32")
    x = features(spec, scaled(image, windows))
    x = getattr(keras.layers, f"GlobalAveragePooling{len(image.shape) - 2}D")(name="pooled")(x)
    x = keras.layers.Dense(outputs, dtype="float32", name="logits")(x)
    if activation is not None:
        x = keras.layers.Activation(activation, dtype="float32", name="probability")(x)
    return functional(image, x, name or f"{model_name(spec)}_classifier")


def scaled(image: Any, windows: Sequence[str | tuple[float, float]] | None) -> Any:
    """The symbolic image in -1..1: through each window (HU), or as it is (display values 0..1)."""
    if windows is None:
        return _rescaling(2.0, -1.0, "scale")(image)
    if isinstance(windows, str) or not windows:
        raise ModelError(
            f"windows {windows!r}: give a list of names ({', '.join(WINDOWS)}) or of (centre, "
            f"width) pairs in HU"
        )
    views = []
    for i, window in enumerate(windows, start=1):
        centre, width = _window(window)
        x = _rescaling(1.0 / width, 0.5 - centre / width, f"window{i}")(image)
        views.append(keras.layers.ReLU(max_value=1.0, dtype="float32", name=f"window{i}_clip")(x))
    x = (
        keras.layers.Concatenate(dtype="float32", name="windows")(views)
        if len(views) > 1
        else views[0]
    )
    return _rescaling(2.0, -1.0, "scale")(x)


def _rescaling(scale: float, offset: float, name: str) -> keras.layers.Layer:
    return keras.layers.Rescaling(scale, offset, dtype="float32", name=name)


def _window(window: str | tuple[float, float]) -> tuple[float, float]:
    if isinstance(window, str):
        if window not in WINDOWS:
            raise ModelError(
                f"window {window!r} is unknown: choose from {', '.join(WINDOWS)}, or give "
                f"(centre, width) in HU"
            )
        return WINDOWS[window]
    try:
        centre, width = (float(value) for value in window)
    except (TypeError, ValueError):
        raise ModelError(f"window {window!r}: give (centre, width) in HU") from None
    if not (abs(centre) < float("inf") and 0 < width < float("inf")):
        raise ModelError(f"window {window!r}: centre and width must be finite, the width above 0")
    return centre, width


def _outputs(classes: int | Sequence[str], task: str | None) -> tuple[int, str]:
    """How many logits, and the task."""
    if (
        isinstance(classes, bool)
        or not isinstance(classes, int | Sequence)
        or isinstance(classes, str)
    ):
        raise ModelError(f"classes {classes!r}: give a number or a list of names")
    if not isinstance(classes, int) and (
        not all(isinstance(c, str) and c for c in classes) or len({*classes}) < len(classes)
    ):
        raise ModelError(f"classes {list(classes)!r}: names must be non-empty text, each once")
    count = classes if isinstance(classes, int) else len(classes)
    task = task or ("binary" if count == 1 else "multiclass")
    if task not in ACTIVATIONS:
        raise ModelError(f"task {task!r} is unknown: choose from {', '.join(ACTIVATIONS)}")
    allowed = {"binary": (1, 2), "multiclass": (2, None), "multilabel": (1, None)}[task]
    if count < allowed[0] or (allowed[1] is not None and count > allowed[1]):
        bound = f"{allowed[0]} or {allowed[1]}" if allowed[1] else f"{allowed[0]} or more"
        raise ModelError(f"classes {classes!r}: task {task!r} takes {bound}")
    return (1 if task == "binary" else count), task
