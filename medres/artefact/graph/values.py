"""Checks of the values that an option of a layer may have in a model file: numbers, lists, and the
few Keras objects that are no layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]
MAX_VALUES = 4096  # of a list of constants, such as one scale per channel
_ACTIVATIONS = """
linear relu relu6 leaky_relu elu selu gelu silu swish hard_sigmoid hard_silu hard_swish sigmoid tanh
softmax softplus softsign mish
"""
ACTIVATIONS = frozenset(_ACTIVATIONS.split())
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")  # all with float32 weights


def is_flag(value: Any) -> bool:
    return type(value) is bool


def is_number(value: Any) -> bool:
    """A finite number; JSON's true and false are none."""
    return type(value) in (int, float) and abs(value) < 1e30


def whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Check:
    return lambda value: is_number(value) and low <= value <= high


def only(*values: Any) -> Check:
    """One of these values, of the same type."""
    return lambda value: any(type(value) is type(v) and value == v for v in values)


def list_of(check: Check, *lengths: int) -> Check:
    return lambda value: (
        isinstance(value, list) and len(value) in (lengths or range(9)) and all(map(check, value))
    )


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


nothing = only(None)
is_whole = whole(-(1 << 31), 1 << 31)  # its range is checked with the shapes


def is_name(value: Any) -> bool:
    """A text of up to 200 characters without control characters and changes of direction."""
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def is_object(value: Any, classes: dict[str, tuple[str, dict[str, Check]]]) -> bool:
    """A serialized Keras object of one of the classes: {name: (module, its options)}."""
    if not isinstance(value, dict) or not set(value) <= ENVELOPE or "class_name" not in value:
        return False
    name, config = value["class_name"], value.get("config")
    if not isinstance(name, str) or name not in classes or not isinstance(config, dict):
        return False
    module, options = classes[name]
    return (
        value.get("module") in (None, module)
        and value.get("registered_name") in (None, name)
        and value.get("build_config") in (None, {})
        and type(value.get(SHARED, 0)) is int
        and all(key in options and options[key](item) for key, item in config.items())
    )


SHARED = "shared_object_id"
ENVELOPE = {"module", "class_name", "config", "registered_name", "build_config", SHARED}


def is_constant(value: Any) -> bool:
    """A number or a list of numbers, also as the array that Keras writes for NumPy values; a list
    within a list only if the outer one has one element.
    """
    if isinstance(value, dict):
        config = value.get("config")
        return (
            set(value) <= ENVELOPE - {SHARED}
            and value.get("class_name") == "__numpy__"
            and all(value.get(key) is None for key in ("module", "registered_name", "build_config"))
            and isinstance(config, dict)
            and set(config) == {"value", "dtype"}
            and config["dtype"] in ("float32", "float64", "int32", "int64", "uint8")
            and is_constant(config["value"])
        )
    for _ in range(6):
        if not (isinstance(value, list) and len(value) == 1):
            break
        (value,) = value
    return is_number(value) or (
        isinstance(value, list) and 0 < len(value) <= MAX_VALUES and all(map(is_number, value))
    )


def constant_count(value: Any) -> int:
    """How many numbers a checked constant has."""
    while isinstance(value, dict):
        value = value["config"]["value"]
    while isinstance(value, list) and len(value) == 1:
        (value,) = value
    return len(value) if isinstance(value, list) else 1


POLICIES = {"DTypePolicy": ("keras", {"name": only(*PRECISIONS)})}


def is_precision(value: Any) -> bool:
    return only(*PRECISIONS)(value) or is_object(value, POLICIES)


_axes = either(nothing, is_whole, list_of(is_whole))
_INITIAL = {
    "scale": number(0, 1e6),
    "mode": only("fan_in", "fan_out", "fan_avg"),
    "distribution": only("truncated_normal", "untruncated_normal", "normal", "uniform"),
    "seed": either(nothing, is_whole),
    "mean": is_number,
    "stddev": is_number,
    "minval": is_number,
    "maxval": is_number,
    "value": is_number,
    "input_axes": _axes,
    "output_axes": _axes,
}
_INITIALIZERS = """
VarianceScaling HeNormal HeUniform GlorotUniform GlorotNormal LecunNormal LecunUniform RandomNormal
RandomUniform TruncatedNormal Zeros Ones Constant
"""
INITIALIZERS = dict.fromkeys(_INITIALIZERS.split(), ("keras.initializers", _INITIAL))
_PENALTY = {"l1": number(0, 1e6), "l2": number(0, 1e6)}
REGULARIZERS = dict.fromkeys(("L1", "L2", "L1L2"), ("keras.regularizers", _PENALTY))
#: Classes that are no layers, and only stand where an option allows them.
OTHERS = {*POLICIES, *INITIALIZERS, *REGULARIZERS, "__keras_tensor__", "__numpy__"}


def is_initializer(value: Any) -> bool:
    return value is None or is_object(value, INITIALIZERS)


def is_regularizer(value: Any) -> bool:
    return value is None or is_object(value, REGULARIZERS)
