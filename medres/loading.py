"""`medres.load`: a bad model file is refused before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medres import artefact

if TYPE_CHECKING:
    from medres.predict import Predictor


def load(path: Path | str) -> Predictor:
    """Open a model file after its checks (see medres.artefact.load). Raises ArtefactError."""
    opened = artefact.load(path)
    from medres.predict import Predictor

    return Predictor(opened)
