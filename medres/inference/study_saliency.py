"""Saliency of a study or an image as the predictor sees it, on the original pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import DicomError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.preparation import prepare, resize_axes, to_model_units
from data_pipelines.preprocessing.study import prepared_study
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.sources.image_source import read_row
from medres.artefact.card import Card
from medres.errors import ModelError
from medres.explain.overlay import onto_original, overlay_png
from medres.explain.saliency import Explainer
from medres.inference.study_reader import read_study
from medres.tasks import task_named

UNITS = {
    "gradcam": "relative",
    "gradcam++": "relative",
    "integrated_gradients": "share of logit",
    "occlusion": "fall of logit",
}


class Asked(Protocol):
    """What is asked of a `Predictor` here."""

    card: Card

    @property
    def explainer(self) -> Explainer:
        """Saliency maps of its model."""

    def probabilities(self, prepared_images: np.ndarray) -> np.ndarray:
        """By output, for prepared integers."""

    def forward(self, images: np.ndarray) -> np.ndarray:
        """By output, for images in model units."""


@dataclass(frozen=True)
class Saliency:
    """A map on the original image. `values` float32 (rows, cols) in the unit of the method (see
    Explainer.map); `picture` float32 (rows, cols) 0 to 1, as it is shown; `index`: which of the
    study's images; `probability` of that image alone.
    """

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


def explain_study(
    predictor: Asked, files: Sequence[DicomSource], finding: str, method: str = "gradcam"
) -> Saliency:
    """The saliency of the study's record with the highest probability of the finding (the one that
    a largest score comes from).

    Of a stack of slices the middle one is shown; of a volume, on the model's own grid, the slice
    where the map is largest.
    Raises ModelError for an unknown finding or method; RefusedInput and DicomError as prediction
    does.
    """
    output, kept = _output(predictor, finding), {}
    study = read_study(files, predictor.card)
    index = int(np.argmax(predictor.probabilities(study.pixels)[:, output]))
    slices = study.slices[index]
    if predictor.card.preprocess.form != "volume":
        wanted = slices[len(slices) // 2]

        def keep(image: Image) -> None:
            if (image.header.identifiers.sop_instance_uid, image.frame) == wanted:
                kept[wanted] = image

        prepared_study(files, predictor.card.preprocess, check=keep)
    return _explained(
        predictor, study.pixels[index], kept.get(wanted) if kept else None, finding, method, index
    )


def _explained(
    predictor: Asked, pixels: np.ndarray, image: Image | None, finding: str, method: str, index: int
) -> Saliency:
    """The saliency of one record of prepared integers; image: the picture to draw it on, None for a
    volume's own grid.
    """
    spec, output = predictor.card.preprocess, _output(predictor, finding)
    x = to_model_units(pixels[np.newaxis], spec)
    values = predictor.explainer.map(x[0], output, method=method, baseline=spec.fill)
    if image is not None:
        values, picture = onto_original(values, resize_axes(image, spec)), image.pixels
    else:
        place = int(values.reshape(len(values), -1).max(axis=1).argmax())
        values, picture = values[place], x[0, place, ..., 0]
    probability = float(predictor.forward(x)[0, output])
    return Saliency(
        values.astype(np.float32), _shown(predictor, picture), finding, method, index, probability
    )


def pictures(
    predictor: Asked, work: Path | str, *, method: str = "gradcam"
) -> Callable[[str, str, str], bytes | None]:
    """A function for `medres.evaluate.evaluate(..., pictures=)`: (finding, unit, id) -> PNG of the
    unit's most suspicious image.

    unit: image, series, study or patient; id: its pseudonym in the manifest of `work`. None where
        the unit is not there, a file cannot be read any more, or the model takes stacks or volumes.
    """
    spec = predictor.card.preprocess
    table = Manifest.load(work).table
    table = table[(table["kind"] == spec.kind) & (spec.form == "image")]

    def picture(finding: str, unit: str, key: str) -> bytes | None:
        name = predictor.card.names[0] if task_named(predictor.card.task).single else finding
        try:
            images = [
                read_row(r.source, r.path, r.frame, form=r.form, kind=r.kind, sha256=r.file_sha256)
                for r in cast(Any, table[table[unit] == key].itertuples())
            ]
        except (DicomError, OSError):
            return None
        if not images:
            return None
        prepared = np.stack([prepare(image, spec) for image in images])
        index = int(np.argmax(predictor.probabilities(prepared)[:, _output(predictor, name)]))
        return _explained(predictor, prepared[index], images[index], name, method, index).png()

    return picture


def _output(predictor: Asked, finding: str) -> int:
    names = predictor.card.names
    if finding not in names:
        raise ModelError(
            f"the model does not predict {finding!r}: choose one of {', '.join(names)}"
        )
    return names.index(finding)


def _shown(predictor: Asked, pixels: np.ndarray) -> np.ndarray:
    """0 to 1: a radiograph as it is, CT through the model's first window."""
    if predictor.card.preprocess.kind == "radiograph":
        return pixels
    centre, width = (predictor.card.windows or [(40.0, 400.0)])[0]
    return np.clip((pixels - centre) / width + 0.5, 0, 1).astype(np.float32)
