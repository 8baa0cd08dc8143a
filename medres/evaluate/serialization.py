"""From the dataclasses of a report to what `json.dumps` takes.

The name of a field is its key in the JSON, and the order of the fields is the order of the keys.
None becomes null, except in a field marked ABSENT, whose key is then left out. The keys of an
object in a field marked INLINE stand among the keys of its owner. Metadata `key` gives
another key. A number that is not finite becomes null.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

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
