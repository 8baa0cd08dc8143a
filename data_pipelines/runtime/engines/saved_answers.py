"""Answers of `map_files` that outlive a kill: one file for each part, with a name that depends on
all that its answers depend on. They hold identifiers of patients: only their owner may read them.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DicomError
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.runtime.engines.shared import code_version
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.object_stores import state_of

SUFFIX = ".answers"


def is_lasting(answer: Any) -> bool:
    """Whether another run has the same answer: a file that cannot be read may be there again."""
    return not isinstance(answer, DicomError)


@dataclass(frozen=True)
class SavedAnswers:
    """Where the answers of one function are saved.

    folder: of the files. context: what the answers depend on beside the items, their files, the
    limits and the code; such as the name of the function. types: the dataclasses and named tuples
    that answers are made of. lasting: which answers are saved (no DicomError is).
    """

    folder: Path
    context: tuple[Any, ...]
    types: tuple[type, ...] = ()
    lasting: Callable[[Any], bool] = is_lasting

    def name(self, items: Sequence[Any], paths: Callable[[Any], Sequence[str]]) -> str:
        """The name of the file of a part."""
        states = [[state_of(path) for path in paths(item)] for item in items]
        facts = [code_version(), asdict(active_limits()), encoded((self.context, tuple(items)))]
        return f"{_sha256(json.dumps([*facts, states]))[:32]}{SUFFIX}"

    def read(self, name: str, count: int) -> list[tuple[Any] | None]:
        """The answers of a part, each in a tuple; None for each that is to be computed."""
        try:
            digest, _, text = (self.folder / name).read_text().partition("\n")
        except (OSError, UnicodeDecodeError):
            return [None] * count
        if digest != _sha256(text):
            return [None] * count
        types = {each.__name__: each for each in self.types}
        return [one if one is None else (_decoded(one[0], types),) for one in json.loads(text)]

    def write(self, name: str, answers: Sequence[Any]) -> None:
        """Write the answers of a part, as a whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lasting = [is_lasting(answer) and self.lasting(answer) for answer in answers]
        kept = [[encoded(a)] if lasts else None for a, lasts in zip(answers, lasting, strict=True)]
        text = json.dumps(kept, separators=(",", ":"))
        write_atomic(self.folder / name, f"{_sha256(text)}\n{text}".encode(), mode=0o600)


def encoded(value: Any) -> Any:
    """A value as JSON: numbers, texts, bytes, arrays, containers, dataclasses, named tuples.

    >>> encoded((1, b"ab"))
    {'tuple': [1, {'bytes': 'YWI='}]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        data = encoded(np.ascontiguousarray(value).tobytes())
        return {"array": [value.dtype.str, list(value.shape), data]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {"of": type(value).__name__, "fields": [encoded(getattr(value, n)) for n in names]}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"of": type(value).__name__, "fields": [encoded(each) for each in value]}
    if isinstance(value, list):
        return {"list": [encoded(each) for each in value]}
    return _encoded_container(value)


def _encoded_container(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [encoded(each) for each in value]}
    if isinstance(value, Mapping):
        return {"dict": [[encoded(k), encoded(v)] for k, v in value.items()]}
    if isinstance(value, frozenset):
        return {"frozenset": [encoded(each) for each in sorted(value)]}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no answer may hold {type(value).__name__}")


def _decoded(value: Any, types: Mapping[str, type]) -> Any:
    if not isinstance(value, dict):
        return value
    if "of" in value:
        return types[value["of"]](*(_decoded(each, types) for each in value["fields"]))
    ((kind, content),) = value.items()
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "array":
        dtype, shape, data = content
        return np.frombuffer(base64.b64decode(data["bytes"]), dtype).reshape(shape).copy()
    if kind == "dict":
        return {_decoded(k, types): _decoded(v, types) for k, v in content}
    of = {"list": list, "tuple": tuple, "frozenset": frozenset}[kind]
    return of(_decoded(each, types) for each in content)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
