"""The allow-list of the model file: every layer, every option of a layer, and the values that the
option may have. What is not on the list is refused by name.

A value is checked for its type and range here. Sizes that decide how much is computed (units,
kernels, paddings) are checked in `medres.artefact.graph.shapes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from medres.artefact.graph.values import (
    ACTIVATIONS,
    OTHERS,
    SHARED,
    Check,
    either,
    is_constant,
    is_flag,
    is_initializer,
    is_name,
    is_number,
    is_precision,
    is_regularizer,
    is_whole,
    list_of,
    nothing,
    number,
    only,
    whole,
)
from medres.errors import ArtefactError

_PRINTABLE = re.compile(r"[\w.>/-]{1,60}")


def _shape(value: Any) -> bool:
    return isinstance(value, list) and 2 <= len(value) <= 6 and value[0] is None


def _weights(*names: str, constraint: bool = True) -> dict[str, Check]:
    """The options of a layer that say how its weights start and are penalized."""
    options: dict[str, Check] = {}
    for name in names:
        options |= {f"{name}_initializer": is_initializer, f"{name}_regularizer": is_regularizer}
        options |= {f"{name}_constraint": nothing} if constraint else {}
    return options


MERGES = ("Concatenate", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
COMMON: dict[str, Check] = {"name": is_name, "trainable": is_flag, "dtype": is_precision}
_FORMAT: dict[str, Check] = {"data_format": only("channels_last")}
_SIZES = list_of(is_whole, 1, 2, 3)
_PADDING: dict[str, Check] = {"padding": only("valid", "same")}
_RATE = number(0, 1)
_RANDOM: dict[str, Check] = {"seed": either(nothing, is_whole)}
_SLIDING = _FORMAT | _PADDING | {"kernel_size": _SIZES, "strides": _SIZES, "dilation_rate": _SIZES}
_ACTIVE: dict[str, Check] = {
    "activation": only(None, *ACTIVATIONS),
    "use_bias": is_flag,
    "activity_regularizer": is_regularizer,
    "lora_rank": nothing,
    "lora_alpha": nothing,
    "quantization_config": nothing,
}
_CONV = _SLIDING | _ACTIVE | {"filters": is_whole, "groups": is_whole} | _weights("kernel", "bias")
_DEPTHWISE = _SLIDING | _ACTIVE | {"depth_multiplier": is_whole} | _weights("depthwise", "bias")
_TRANSPOSED = {key: check for key, check in _CONV.items() if key != "groups"} | {
    "output_padding": nothing
}
_NORM = {
    "axis": either(is_whole, list_of(is_whole, 1, 2, 3, 4)),
    "epsilon": number(0, 1),
    "center": is_flag,
    "scale": is_flag,
} | _weights("beta", "gamma")
_POOL = _FORMAT | _PADDING | {"pool_size": _SIZES, "strides": either(nothing, _SIZES)}
_GLOBAL_POOL = _FORMAT | {"keepdims": is_flag}
_NOISE_SHAPE = either(nothing, list_of(either(nothing, whole(1, 1 << 20)), 1, 2, 3, 4, 5))
_BORDERS = either(list_of(is_whole, 2, 3), list_of(list_of(is_whole, 2), 2, 3))
_INPUT: dict[str, Check] = {
    "name": is_name,
    "batch_shape": _shape,
    "dtype": only("float32"),
    "sparse": only(False),
    "ragged": only(False),
    "optional": only(False),
}

#: The options of each layer.
LAYERS: dict[str, dict[str, Check]] = {
    "InputLayer": _INPUT,
    "Conv2D": COMMON | _CONV,
    "Conv3D": COMMON | _CONV,
    "DepthwiseConv2D": COMMON | _DEPTHWISE,
    "SeparableConv2D": COMMON | _DEPTHWISE | {"filters": is_whole} | _weights("pointwise"),
    "Conv2DTranspose": COMMON | _TRANSPOSED,
    "Conv3DTranspose": COMMON | _TRANSPOSED,
    "Dense": COMMON | _ACTIVE | {"units": is_whole} | _weights("kernel", "bias"),
    "BatchNormalization": COMMON
    | _NORM
    | {
        "momentum": number(0, 1),
        "moving_mean_initializer": is_initializer,
        "moving_variance_initializer": is_initializer,
        "synchronized": is_flag,
        "renorm": only(False),
        "renorm_clipping": nothing,
        "renorm_momentum": number(0, 1),
    },
    "LayerNormalization": COMMON | _NORM | {"rms_scaling": only(False)},
    "GroupNormalization": COMMON | _NORM | {"groups": whole(-1, 1 << 16)},
    "UnitNormalization": COMMON | {"axis": only(-1)},
    "LayerScale": COMMON | {"init_values": is_number, "projection_dim": is_whole},
    "Normalization": COMMON
    | {
        "axis": either(nothing, is_whole, list_of(is_whole, 0, 1)),
        "invert": is_flag,
        "mean": is_constant,
        "variance": is_constant,
    },
    "Rescaling": COMMON | {"scale": is_constant, "offset": is_constant},
    "Activation": COMMON | {"activation": only(None, *ACTIVATIONS)},
    "ReLU": COMMON
    | {
        "max_value": either(nothing, number(0, 1e30)),
        "negative_slope": number(0, 1e6),
        "threshold": number(0, 1e30),
    },
    "LeakyReLU": COMMON | {"negative_slope": is_number},
    "ELU": COMMON | {"alpha": is_number},
    "Softmax": COMMON | {"axis": only(-1)},
    **dict.fromkeys((*MERGES, "Identity"), COMMON),
    "Concatenate": COMMON | {"axis": is_whole},
    "Dropout": COMMON | _RANDOM | {"rate": _RATE, "noise_shape": _NOISE_SHAPE},
    "SpatialDropout2D": COMMON | _RANDOM | _FORMAT | {"rate": _RATE},
    "SpatialDropout3D": COMMON | _RANDOM | _FORMAT | {"rate": _RATE},
    "Flatten": COMMON | _FORMAT,
    "Permute": COMMON | {"dims": list_of(whole(1, 5))},
    "Reshape": COMMON | {"target_shape": list_of(is_whole, 1, 2, 3, 4, 5)},
    "Resizing": COMMON
    | _FORMAT
    | {
        "height": is_whole,
        "width": is_whole,
        "interpolation": only("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5"),
        "crop_to_aspect_ratio": is_flag,
        "pad_to_aspect_ratio": is_flag,
        "fill_mode": only("constant"),
        "fill_value": is_number,
        "antialias": is_flag,
    },
    "UpSampling2D": COMMON
    | _FORMAT
    | {"size": _SIZES, "interpolation": only("nearest", "bilinear", "bicubic", "lanczos3")},
    "UpSampling3D": COMMON | _FORMAT | {"size": _SIZES},
}
for _rank in ("2D", "3D"):
    LAYERS |= {
        f"ZeroPadding{_rank}": COMMON | _FORMAT | {"padding": _BORDERS},
        f"Cropping{_rank}": COMMON | _FORMAT | {"cropping": _BORDERS},
        f"MaxPooling{_rank}": COMMON | _POOL,
        f"AveragePooling{_rank}": COMMON | _POOL,
        f"GlobalAveragePooling{_rank}": COMMON | _GLOBAL_POOL,
        f"GlobalMaxPooling{_rank}": COMMON | _GLOBAL_POOL,
    }
_FUNCTIONAL = {"name", "trainable", "dtype", "layers", "input_layers", "output_layers"}
_SEQUENTIAL = {"name", "trainable", "dtype", "layers", "build_input_shape"}
#: Models, which have layers: their options and the modules that Keras writes for them.
MODELS = {
    "Functional": (_FUNCTIONAL, ("keras.src.models.functional", "keras.models", "keras")),
    "Sequential": (_SEQUENTIAL, ("keras.src.models.sequential", "keras.models", "keras")),
}
#: The one class outside Keras' public layers: keras.applications' ConvNeXt needs it.
MODULES = {"LayerScale": "keras.src.applications.convnext"}
ALLOWED = frozenset(LAYERS) | MODELS.keys() | OTHERS


def _supported() -> Iterator[str]:
    """Names for messages: "Conv2D" and "Conv3D" become "Conv2D/3D"."""
    for name in (*MODELS, *LAYERS):
        if "2D" in name and name.replace("2D", "3D") in LAYERS:
            yield name.replace("2D", "2D/3D")
        elif "3D" not in name or name.replace("3D", "2D") not in LAYERS:
            yield name


SUPPORTED = ", ".join(sorted(_supported()))


def printable(value: Any) -> str | None:
    """A name from the file, if it is short and harmless to print."""
    return value if isinstance(value, str) and _PRINTABLE.fullmatch(value) else None


def title(layer: dict[str, Any]) -> str:
    """The class and the name of a layer for a message."""
    config = layer.get("config")
    name = printable(config.get("name")) if isinstance(config, dict) else None
    kind = printable(layer.get("registered_name")) or printable(layer.get("class_name"))
    return (kind or "layer") + (f" `{name}`" if name else "")


def check_classes(config: Any) -> None:
    """Raise ArtefactError (unsupported_layer) unless every class in the configuration is built into
    Keras and on the allow-list, and objects that share an identity are equal (malformed_graph).
    """
    pending = [config]
    shared: dict[str, Any] = {}
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        if not isinstance(node, dict):
            continue
        if "class_name" in node and not _is_allowed(node):
            module = printable(node.get("module"))
            foreign = f" of {module}" if module and node.get("class_name") in (*LAYERS,) else ""
            raise ArtefactError(
                f"unsupported layer {title(node)}{foreign}; supported: {SUPPORTED}",
                code="unsupported_layer",
            )
        if SHARED in node and shared.setdefault(str(node[SHARED]), node) != node:
            raise ArtefactError(f"two different objects have one {SHARED}", code="malformed_graph")
        pending.extend(node.values())


def _is_allowed(node: dict[str, Any]) -> bool:
    name, module = node["class_name"], node.get("module")
    if not isinstance(name, str) or name not in ALLOWED:
        return False
    if name in LAYERS:
        modules: tuple[str | None, ...] = (MODULES.get(name, "keras.layers"),)
    elif name in MODELS:
        modules = MODELS[name][1]
    else:
        modules = (None, "keras", "keras.initializers", "keras.regularizers")
    return module in modules and node.get("registered_name") in (None, name)


def check_options(layer: dict[str, Any]) -> None:
    """Raise ArtefactError unless every option of a layer is on the list and has an allowed value.
    Codes: unsupported_option, unsupported_activation.
    """
    options, config = LAYERS[layer["class_name"]], layer["config"]
    if not options["name"](config.get("name")):
        raise ArtefactError(
            f"{title(layer)}: the name of a layer has up to 200 printable characters",
            code="unsupported_option",
        )
    for key, value in config.items():
        if key in options and options[key](value):
            continue
        option = printable(key) or "with an unprintable name"
        if key == "activation" and key in options:
            raise ArtefactError(
                f"{title(layer)}: unsupported activation; supported: "
                f"{', '.join(sorted(ACTIVATIONS))}",
                code="unsupported_activation",
            )
        if key == "data_format" and value == "channels_first":
            raise ArtefactError(
                f"{title(layer)}: unsupported data format channels_first: medres models are "
                f"channels_last",
                code="unsupported_layer",
            )
        raise ArtefactError(
            f"{title(layer)}: the option {option} "
            + ("has an unsupported value" if key in options else "is unknown"),
            code="unsupported_option",
        )


def check_model_options(layer: dict[str, Any]) -> None:
    """The same for a model within the file: its own keys, not those of its layers."""
    allowed, _ = MODELS[layer["class_name"]]
    config = layer["config"]
    for key, value in config.items():
        known = {"name": is_name, "trainable": is_flag, "dtype": is_precision}
        if key not in allowed or not known.get(key, lambda value: True)(value):
            raise ArtefactError(
                f"{title(layer)}: the option {printable(key) or 'with an unprintable name'} is "
                f"unsupported",
                code="unsupported_option",
            )
