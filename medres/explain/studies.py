"""Saliency of a study or an image as the predictor sees it, on the original pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from data_pipelines.doors import read_row
from data_pipelines.errors import DicomError
from data_pipelines.files import write_atomic
from data_pipelines.images import Image
from data_pipelines.manifest import Manifest
from data_pipelines.parsing import Source
from data_pipelines.preprocess import prepare, to_model_units
from medres.errors import ModelError
from medres.explain.drawing import overlay_png
from medres.explain.placing import onto_original
from medres.reading import usable

if TYPE_CHECKING:
    from medres.predict import Predictor

EMPTY = {"ct": -1024.0, "radiograph": 0.0}  # what an image without content holds, in model units
UNITS = {
    "gradcam": "relative", "gradcam++": "relative", "integrated_gradients": "share of logit", "occlusion": "fall of logit"
}  # fmt: skip


@dataclass(frozen=True)
class Saliency:
    """A map on the original image. `values` float32 (rows, cols) in the unit of the method (see Explainer.map); `picture` float32
    (rows, cols) 0 to 1, as it is shown; `index`: which of the study's images; `probability` of that image alone."""

    values: np.ndarray = field(repr=False)
    picture: np.ndarray = field(repr=False)
    finding: str
    method: str
    index: int
    probability: float

    def png(self) -> bytes:
        """The map over the picture at its own size, with a colour bar."""
        return overlay_png(self.picture, self.values, title=self.finding, unit=UNITS[self.method])

    def save(self, path: Path | str) -> None:
        """Write the PNG to PATH, and the arrays `values` and `picture` beside it as .npz."""
        import io

        path, arrays = Path(path), io.BytesIO()
        np.savez_compressed(arrays, values=self.values, picture=self.picture)
        write_atomic(path, self.png())
        write_atomic(path.with_suffix(".npz"), arrays.getvalue())


def explain_study(predictor: Predictor, files: Sequence[Source], finding: str, method: str = "gradcam") -> Saliency:
    """The saliency of the study's image with the highest probability of the finding (the one that a largest score comes from).

    Raises ModelError for an unknown finding or method; RefusedInput and DicomError as prediction does.
    """
    output = _output(predictor, finding)
    prepared = np.stack([prepare(image, predictor.card.preprocess) for image in usable(files, predictor.card)])
    index = int(np.argmax(predictor.probabilities(prepared)[:, output]))
    image = next(image for n, image in enumerate(usable(files, predictor.card)) if n == index)
    return explain_image(predictor, image, finding, method, index=index)


def explain_image(
    predictor: Predictor, image: Image, finding: str, method: str = "gradcam", *, index: int = 0
) -> Saliency:
    """The saliency of one read image of the model's kind, whatever else the predictor would refuse. Raises ModelError."""
    spec, output = predictor.card.preprocess, _output(predictor, finding)
    x = to_model_units(prepare(image, spec)[np.newaxis], spec)
    values = predictor.explainer.map(x[0], output, method=method, baseline=EMPTY[spec.kind])
    shape = (image.pixels.shape[0], image.pixels.shape[1])
    return Saliency(
        onto_original(values, shape, spec).astype(np.float32),
        _shown(predictor, image),
        finding,
        method,
        index,
        float(predictor.forward(x)[0, output]),
    )


def pictures(
    predictor: Predictor, work: Path | str, *, method: str = "gradcam"
) -> Callable[[str, str, str], bytes | None]:
    """A function for `medres.evaluate.evaluate(..., pictures=)`: (finding, unit, id) -> PNG of the unit's most suspicious image.

    unit: image, series, study or patient; id: its pseudonym in the manifest of `work`. None where the unit is not there or a
    file cannot be read any more.
    """
    table = Manifest.load(work).table
    table = table[table["kind"] == predictor.card.preprocess.kind]

    def picture(finding: str, unit: str, key: str) -> bytes | None:
        name = predictor.card.names[0] if predictor.card.task == "binary" else finding
        try:
            images = [
                read_row(r.source, r.path, r.frame, form=r.form, kind=r.kind, sha256=r.file_sha256)
                for r in cast(Any, table[table[unit] == key].itertuples())
            ]
        except (DicomError, OSError):
            return None
        if not images:
            return None
        scores = predictor.probabilities(np.stack([prepare(image, predictor.card.preprocess) for image in images]))
        worst = images[int(np.argmax(scores[:, _output(predictor, name)]))]
        return explain_image(predictor, worst, name, method).png()

    return picture


def _output(predictor: Predictor, finding: str) -> int:
    names = predictor.card.names
    if finding not in names:
        raise ModelError(f"the model does not predict {finding!r}: choose one of {', '.join(names)}")
    return names.index(finding)


def _shown(predictor: Predictor, image: Image) -> np.ndarray:
    """0 to 1: a radiograph as it is, CT through the model's first window."""
    if predictor.card.preprocess.kind == "radiograph":
        return image.pixels
    centre, width = (predictor.card.windows or [(40.0, 400.0)])[0]
    return np.clip((image.pixels - centre) / width + 0.5, 0, 1).astype(np.float32)
