"""`medres.load`: open a model file. A bad file is refused before TensorFlow is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medres.artefact import archive
from medres.artefact.signature import require_signature

if TYPE_CHECKING:
    from medres.inference.predictor import Predictor


def load(
    path: Path | str,
    *,
    signature: Path | str | None = None,
    public_key: Path | str | None = None,
    isolate: bool = True,
) -> Predictor:
    """Check and open a model file (see `medres.artefact.archive.load`). Raises ArtefactError.

    signature, public_key: paths of a detached signature and of the public key with which it is
        verified (see `medres.artefact.signature`).
    isolate: False decodes files in this process (see `Predictor`).
    """
    if signature is not None or public_key is not None:
        require_signature(path, signature, public_key)
    artefact = archive.load(path)
    from medres.inference.predictor import Predictor

    return Predictor(artefact, isolate=isolate)
