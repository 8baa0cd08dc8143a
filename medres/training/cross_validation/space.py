"""A space of settings for `medres search`: for each field of the recipe some values, or a range."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml

from medres.errors import TrainingError
from medres.training.config.options import read_config
from medres.training.config.recipe import Recipe

RANGE = re.compile(r"\s*([-+.\deE]+?)\s*\.\.\s*([-+.\deE]+)\s*")
Space = dict[str, list[Any] | str]  # values, or "LOW..HIGH"


def space_of(given: Mapping[str, Any] | Path | str | Sequence[str]) -> Space:
    """A space from a mapping, from a YAML file, or from texts NAME=VALUE,VALUE or NAME=LOW..HIGH.
    Raises TrainingError (code bad_space) for a name that is no field of a recipe, and for values
    that are none.

    >>> space_of(["learning_rate=1e-4..1e-2", "ema=0,0.99"])
    {'learning_rate': '1e-4..1e-2', 'ema': [0, 0.99]}
    """
    if isinstance(given, Mapping):
        entries = dict(given)
    else:
        texts = [str(given)] if isinstance(given, str | Path) else list(given)
        if len(texts) == 1 and "=" not in texts[0]:
            entries = read_config(texts[0])
        else:
            entries = dict(_pair(text) for text in texts)
    if not entries:
        _bad("it is empty")
    return {str(name): _values(str(name), values) for name, values in entries.items()}


def drawn(space: Space, seed: int, trial: int) -> dict[str, Any]:
    """The settings of one trial, a function of (seed, trial). Trial 0 changes nothing. A range is
    drawn evenly on a logarithmic scale where its ends are above 0, and gives whole numbers where
    its ends are whole.
    """
    if trial == 0:
        return {}
    rng = np.random.default_rng([seed, trial])
    return {name: _draw(values, rng) for name, values in sorted(space.items())}


def _draw(values: list[Any] | str, rng: np.random.Generator) -> Any:
    at = float(rng.random())
    if isinstance(values, list):
        return values[int(at * len(values))]
    low, high = _ends(values)
    whole = isinstance(low, int) and isinstance(high, int)
    if whole:
        low, high = low - 0.499, high + 0.499
    if low > 0:
        number = math.exp(math.log(low) + at * (math.log(high) - math.log(low)))
    else:
        number = low + at * (high - low)
    return round(number) if whole else float(f"{number:.4g}")


def _values(name: str, values: Any) -> list[Any] | str:
    if name not in Recipe.model_fields or name == "name":
        _bad(f"{name[:40]!r} is no field of a recipe, such as learning_rate")
    if isinstance(values, str) and RANGE.fullmatch(values):
        low, high = _ends(values)
        if not low < high:
            _bad(f"{name}: the range {values} has no values")
        return values
    if not isinstance(values, list) or not values:
        _bad(f"{name}: give a list of values, or a range such as 1e-4..1e-2")
    return values


def _ends(text: str) -> tuple[float, float]:
    match = RANGE.fullmatch(text)
    ends = [_number(end) for end in match.groups()] if match else []
    if len(ends) != 2:
        _bad(f"{text[:40]!r} is no range")
    return ends[0], ends[1]


def _number(text: str) -> float:
    try:
        return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
    except ValueError:
        _bad(f"{text[:40]!r} is no number")


def _pair(text: str) -> tuple[str, Any]:
    name, sign, values = text.partition("=")
    if not (name and sign and values):
        _bad(f"{text[:60]!r}: give NAME=VALUE,VALUE or NAME=LOW..HIGH, or one YAML file")
    if RANGE.fullmatch(values):
        return name.strip(), values.strip()
    try:
        return name.strip(), yaml.safe_load(f"[{values}]")
    except yaml.YAMLError:
        _bad(f"{name}: the values are not valid YAML")


def _bad(problem: str) -> NoReturn:
    raise TrainingError(f"the space of the search: {problem}", code="bad_space")
