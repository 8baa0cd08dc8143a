"""`medres.load`: open a model file. A bad file is refused before TensorFlow is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medres.artefact import archive

if TYPE_CHECKING:
    from medres.inference.engines import Engine
    from medres.inference.predictor import Predictor


def load(
    path: Path | str,
    *,
    engine: Engine = "tensorflow",
    exported: Path | str | None = None,
    signature: Path | str | None = None,
    public_key: Path | str | None = None,
    isolate: bool = True,
) -> Predictor:
    """Check and open a model file (see `medres.artefact.archive.load`). Raises ArtefactError.

    engine: what computes the probabilities. "onnx" and "openvino" convert the model once and cache
        the result; later openings load no TensorFlow. Saliency maps need "tensorflow". Raises
        InputError (unknown_engine, unused_export) and ExportError (package_missing, engine_differs,
        export_folder, other_model); see `medres.inference.engines`.
    exported: for the other engines, a folder that `medres export` made of this model file.
    signature, public_key: paths of a detached signature and of the public key with which it is
        verified (see `medres.artefact.signature`).
    isolate: False decodes files in this process (see `Predictor`).
    """
    from medres.inference.engines import check_engine, open_engine
    from medres.inference.predictor import Predictor

    check_engine(engine, exported)
    if engine == "tensorflow":
        artefact = archive.load(path, signature=signature, public_key=public_key)
        return Predictor(artefact, isolate=isolate)
    artefact, scorer = open_engine(
        path, engine, exported, signature=signature, public_key=public_key
    )
    return Predictor(artefact, scorer=scorer, isolate=isolate)
