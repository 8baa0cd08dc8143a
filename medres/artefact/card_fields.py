"""Types of the fields of a card: lengths, ranges and characters, which hold for a card that was
edited as well as for one that training wrote.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from data_pipelines.runtime.plain_text import is_plain
from medres.tasks import TASKS

MAX_NAME, MAX_TEXT, MAX_NAMES = 200, 2000, 4096
MAX_COUNT = 1 << 53  # the largest count that every JSON reader keeps
MAX_NODES, MAX_DEPTH = 100_000, 32
#: `medres.evaluate.metrics.thresholds.midway` writes the number after 1 for "above every score".
ABOVE_ONE = math.nextafter(1.0, 2.0)


def plain(text: str) -> str:
    """The text, if it has neither control nor bidirectional characters. Raises ValueError."""
    if not is_plain(text):
        raise ValueError("has a control or bidirectional character")
    return text


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(plain)]
Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(plain)]
Sha256 = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]  # '' where it is not known
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=0.0, le=ABOVE_ONE, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Alpha = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
Hounsfield = Annotated[float, Field(ge=-65536.0, le=65536.0)]
WindowWidth = Annotated[float, Field(gt=0.0, le=131072.0)]
Distance = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class _Calibration(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    method: Name
    scale: list[Finite]
    offset: list[Finite]
    n: list[Count]
    n_positive: list[Count]
    unit: Name
    split: Name


# Settings of a run belong to the run, and later versions add some: only what medres reads back is
# typed, and the rest may be any JSON of bounded size.
class _Model(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    version: Text | None
    stem: Text | None


class _After(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    calibration: Name
    operating_points: dict[Name, Name]
    alpha: Annotated[float, Field(ge=0.0, lt=1.0)]
    views: Annotated[int, Field(ge=1, le=64)]


class _Config(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    model: _Model
    after: _After


class _Split(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    patients: Count
    studies: Count
    images: Count


class _Training(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    config: _Config
    kept_epoch: Count
    kept_epochs: list[Count]
    splits: dict[Name, _Split]
    left_out: list[dict[Name, Text]]
    notes: list[Text]


_CALIBRATION, _TRAINING = TypeAdapter(_Calibration), TypeAdapter(_Training)


def _calibration(value: dict) -> dict:
    _CALIBRATION.validate_python(value, strict=True)
    return value


def _training(value: dict) -> dict:
    require_bounded(value)
    _TRAINING.validate_python(value, strict=True)
    return value


CalibrationFields = Annotated[dict, AfterValidator(_calibration)]
TrainingFields = Annotated[dict, AfterValidator(_training)]


def require_bounded(value: Any) -> None:
    """Raise ValueError unless a JSON value has plain texts of bounded length, finite numbers of
    bounded size, and at most 100,000 nodes, 32 deep.
    """
    for number, (node, depth) in enumerate(_nodes(value)):
        if number > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError("has too many values, or nests too deeply")
        if isinstance(node, str):
            if len(node) > MAX_TEXT:
                raise ValueError(f"has a text of more than {MAX_TEXT} characters")
            plain(node)
        elif isinstance(node, int | float) and not abs(node) <= 1e308:
            raise ValueError("has a number that is not finite")


def _nodes(value: Any) -> Iterator[tuple[Any, int]]:
    """Every key and value below a JSON value, with its depth."""
    pending = [(value, 0)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        if isinstance(node, dict):
            pending.extend((key, depth + 1) for key in node)
            pending.extend((item, depth + 1) for item in node.values())
        elif isinstance(node, list | tuple):
            pending.extend((item, depth + 1) for item in node)


def require_names(names: list[str], task: str) -> None:
    """Raise ValueError unless the number of names is that of the outputs of the task, and they
    differ.
    """
    rule = TASKS[task]
    if len(names) != rule.outputs(len(names)) or len(names) < rule.min_classes:
        raise ValueError(f"{len(names)} names do not fit the task {task}")
    if len({*names}) != len(names):
        raise ValueError("two names are the same")
