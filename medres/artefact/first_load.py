"""The first load of a graph that medres cannot build itself: in a process with limited memory and
time, which computes the reference outputs. A file that passed is remembered by its SHA-256.
"""

from __future__ import annotations

import contextlib
import os
from importlib import metadata
from pathlib import Path

from medres.artefact import golden_vectors
from medres.artefact.consistency import ArtefactContents
from medres.artefact.graph_check import Graph
from medres.artefact.model_file import ModelFile

_SPARE_BYTES, _SPARE_SECONDS = 2 << 30, 120.0  # for Keras itself, on a busy machine
_MULTIPLY_ADDS_PER_SECOND = 1e9  # of one slow core


def require_pass(file: ModelFile, contents: ArtefactContents, graph: Graph) -> None:
    """Open the model and compute its reference outputs in a limited process, unless this file
    passed before. Raises ArtefactError (keras_cannot_open, golden_shape, outputs_differ).

    The limit of memory holds on Linux, that of time everywhere.
    """
    if has_passed(file.sha256):
        return
    inputs = contents.inputs
    outputs = golden_vectors.outputs_in_plain_keras(
        file.path, inputs, contents.card.preprocess, limits_of(graph, len(inputs))
    )
    golden_vectors.compare(outputs, contents.outputs, contents.card)
    remember(file.sha256)


def limits_of(graph: Graph, images: int) -> golden_vectors.ProcessLimits:
    """What opening a graph and computing some images may take: three times its feature maps and six
    times its weights, one second per 10^9 multiply-adds, and what Keras needs itself.
    """
    return golden_vectors.ProcessLimits(
        memory=_SPARE_BYTES + 12 * graph.alive * images + 24 * graph.parameters,
        seconds=_SPARE_SECONDS + graph.multiply_adds * images / _MULTIPLY_ADDS_PER_SECOND,
    )


def has_passed(sha256: str) -> bool:
    """Whether the file with this hash was opened with this version of Keras."""
    return _mark(sha256).is_file()


def remember(sha256: str) -> None:
    """Remember that the file with this hash can be opened; where the folder cannot be written, the
    check is repeated at the next load.
    """
    mark = _mark(sha256)
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark.touch(mode=0o600)


def _mark(sha256: str) -> Path:
    """An empty file in the user's cache: $XDG_CACHE_HOME/medres/opened, or ~/.cache/..."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(cache).expanduser() / "medres" / "opened"
    return folder / f"{sha256}-keras-{metadata.version('keras')}"
