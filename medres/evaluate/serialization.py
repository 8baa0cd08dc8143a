"""From the dataclasses of a report to what `json.dumps` takes, and back.

The name of a field is its key in the JSON, and the order of the fields is the order of the keys.
None becomes null, except in a field marked ABSENT, whose key is then left out. The keys of an
object in a field marked INLINE stand among the keys of its owner. Metadata `key` gives
another key. A number that is not finite becomes null.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from medres.evaluate.statistics.estimate import Estimate

ABSENT: Mapping[str, bool] = {"absent": True}
INLINE: Mapping[str, bool] = {"inline": True}

JsonObject = dict[str, Any]  # what a file or a caller gives, and what report.json holds


def to_plain(value: object) -> Any:
    """What `json.dumps` takes, from the objects of this file, estimates, arrays and mappings.

    >>> to_plain({"n": np.int64(3), "scores": (0.5, math.inf)})
    {'n': 3, 'scores': [0.5, None]}
    """
    if isinstance(value, Estimate):
        return value.to_dict()
    if is_dataclass(value):
        return _members(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [to_plain(item) for item in value]
    return _scalar(value)


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain`: an object of the type `kind`, such as `Finding`, from what
    `json.load` gives. Keys that `kind` does not have are ignored.

    >>> from_plain(Estimate, {"estimate": 0.8, "ci_low": 0.7, "ci_high": 0.9, "n": 20}).bounds
    (0.7, 0.9)
    """
    if value is None:
        return None
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _object(kind, value)
    if origin in (Union, UnionType):
        return next((from_plain(t, value) for t in arguments if _can_be(t, value)), None)
    if origin is list:
        return [from_plain(arguments[0], item) for item in value]
    if origin is dict:
        return {key: from_plain(arguments[1], item) for key, item in value.items()}
    return value


def _object(kind: Any, value: JsonObject) -> Any:
    types, arguments = get_type_hints(kind), {}
    keys = {member.name: member.metadata.get("key", member.name) for member in fields(kind)}
    for member in fields(kind):
        name, key = member.name, keys[member.name]
        if "inline" not in member.metadata:
            if key in value:
                arguments[name] = from_plain(types[name], value[key])
        elif get_origin(types[name]) is Mapping:
            arguments[name] = {k: v for k, v in value.items() if k not in keys.values()}
        else:
            arguments[name] = from_plain(types[name], value)
    return kind(**arguments)


def _can_be(kind: Any, value: Any) -> bool:
    """Whether a value that is not None may be of this member of a union: a dataclass needs all of
    its keys without a default."""
    if not is_dataclass(kind):
        return kind is not NoneType
    return all(
        member.metadata.get("key", member.name) in value
        for member in fields(kind)
        if member.default is member.default_factory is MISSING and "inline" not in member.metadata
    )


def _members(owner: Any) -> JsonObject:
    members: JsonObject = {}
    for member in fields(owner):
        value = getattr(owner, member.name)
        if "inline" in member.metadata:
            members |= {} if value is None else to_plain(value)
        elif value is not None or "absent" not in member.metadata:
            members[member.metadata.get("key", member.name)] = to_plain(value)
    return members


def _scalar(value: object) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if isinstance(value, datetime.date) else str(value)
