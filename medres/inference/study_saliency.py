"""Saliency maps of a study, from the input of the predictor back to the original pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from data_pipelines.cache.plan import file_refs
from data_pipelines.cache.worker import image_reader
from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import DicomError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.kinds import image_kind
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.preparation import prepare, resize_axes, to_model_units
from data_pipelines.runtime.atomic_files import write_atomic
from medres.artefact.card import Card
from medres.errors import ModelError, RefusedInput
from medres.explain.overlay import onto_original, overlay_png
from medres.explain.saliency import Explainer
from medres.inference.decoder import Decoder
from medres.inference.study_identity import STRICT, IdentityRules
from medres.inference.study_reader import SliceRequest, StudyReading, read_slice, request_of
from medres.tasks import task_named

SOFT_TISSUE = (40.0, 400.0)  # window in HU for a model without windows: center, width
UNITS = {
    "gradcam": "relative",
    "gradcam++": "relative",
    "integrated_gradients": "share of logit",
    "occlusion": "decrease of logit",
}


class SupportsScoring(Protocol):
    """The part of `Predictor` that this module uses."""

    card: Card
    decoder: Decoder

    @property
    def explainer(self) -> Explainer:
        """Saliency maps of the model."""

    def probabilities(self, prepared_images: np.ndarray) -> np.ndarray:
        """Probabilities (images, outputs) of prepared integers."""

    def read(self, files: Sequence[DicomSource], rules: IdentityRules) -> StudyReading:
        """What the files of one study hold for the model."""

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (images, outputs) of images in model units."""


@dataclass(frozen=True)
class Saliency:
    """A saliency map on the original image.

    values: float32 (rows, columns), in the unit of the method (see `Explainer.map`). picture:
    float32 (rows, columns[, 3]), the image from 0 to 1 as it is displayed. index: of the image
    within the study. probability: of that image alone.
    """

    values: np.ndarray = field(repr=False)
    picture: np.ndarray = field(repr=False)
    finding: str
    method: str
    index: int
    probability: float

    def png(self) -> bytes:
        """PNG of the map over the image, pixel for pixel, with a color bar."""
        return overlay_png(self.picture, self.values, title=self.finding, unit=UNITS[self.method])

    def save(self, path: Path | str) -> None:
        """Write the PNG to `path`, and the arrays `values` and `picture` beside it as .npz."""
        import io

        path, arrays = Path(path), io.BytesIO()
        np.savez_compressed(arrays, values=self.values, picture=self.picture)
        write_atomic(path, self.png())
        write_atomic(path.with_suffix(".npz"), arrays.getvalue())


def explain_study(
    predictor: SupportsScoring,
    files: Sequence[DicomSource],
    finding: str,
    method: str = "gradcam",
    *,
    rules: IdentityRules = STRICT,
    sha256: tuple[str, ...] | None = None,
) -> Saliency:
    """The saliency map of the sample of the study with the highest probability of the finding.

    For a stack of slices, the middle slice is shown. For a volume, on the grid of the model, the
    slice with the largest value of the map is shown.
    sha256: of each file as it was predicted; None accepts the files as they are. Raises ModelError
    (unknown_finding, unknown_method); RefusedInput (source_changed) if a file has other bytes;
    RefusedInput and DicomError as `Predictor.predict` would refuse.
    """
    output = _output(predictor, finding)
    reading = predictor.read(files, rules)
    if sha256 is not None:
        _require_unchanged(reading.sha256, sha256)
    study = reading.required()
    index = int(np.argmax(predictor.probabilities(study.pixels)[:, output]))
    slices = study.slices[index]
    original = None
    if predictor.card.preprocess.form != "volume":
        request = request_of(files, predictor.card, rules)
        sought = SliceRequest(request, *slices[len(slices) // 2])
        original = _original(predictor, sought, reading.sha256)
    return _saliency(predictor, study.pixels[index], original, finding, method, index)


def _original(predictor: SupportsScoring, sought: SliceRequest, sha256: tuple[str, ...]) -> Image:
    """The image of a slice, from files with these hashes."""
    answer = predictor.decoder.call(read_slice, sought, n_files=len(sought.request.files))
    if isinstance(answer, DicomError):
        raise answer
    image, digests = answer
    _require_unchanged(digests, sha256)
    if image is None:
        raise _changed()
    return image


def _require_unchanged(digests: tuple[str, ...], sha256: tuple[str, ...]) -> None:
    """Raise RefusedInput (source_changed) if files that were read again have other bytes."""
    if digests != sha256[: len(digests)]:
        raise _changed()


def _changed() -> RefusedInput:
    return RefusedInput(
        "no saliency map: a file or data set has changed since it was predicted. Predict it again",
        code="source_changed",
    )


def _saliency(
    predictor: SupportsScoring,
    pixels: np.ndarray,
    image: Image | None,
    finding: str,
    method: str,
    index: int,
) -> Saliency:
    """The saliency map of one sample of prepared integers. image: the original image, on which the
    map is drawn; None for a volume, drawn on the grid of the model.
    """
    spec, output = predictor.card.preprocess, _output(predictor, finding)
    x = to_model_units(pixels[np.newaxis], spec)
    values = predictor.explainer.map(x[0], output, method=method, baseline=spec.fill)
    if image is not None:
        values, displayed = onto_original(values, resize_axes(image, spec)), image.pixels
    else:
        position = int(values.reshape(len(values), -1).max(axis=1).argmax())
        values, displayed = values[position], x[0, position, ..., 0]
    probability = float(predictor.forward(x)[0, output])
    return Saliency(
        values.astype(np.float32),
        _windowed(predictor, displayed),
        finding,
        method,
        index,
        probability,
    )


def pictures(
    predictor: SupportsScoring, work: Path | str, *, method: str = "gradcam"
) -> Callable[[str, str, str], bytes | None]:
    """A function for `medres.evaluate.evaluate(..., pictures=)`: (finding, unit, id) -> PNG of the
    saliency map of the unit's image with the highest probability.

    unit: image, series, study or patient. id: its pseudonym in the manifest of `work`. The function
        returns None if the unit does not exist, a file can no longer be read, or the input of the
        model is a stack or a volume.
    """
    spec = predictor.card.preprocess
    table = Manifest.load(work).table
    table = table[(table["kind"] == spec.kind) & (spec.form == "image")]

    def draw(finding: str, unit: str, key: str) -> bytes | None:
        name = predictor.card.names[0] if task_named(predictor.card.task).single else finding
        try:
            files = file_refs(table[table[unit] == key])
            images = [image_reader(files)(n) for n in range(len(files))]
        except (DicomError, OSError):
            return None
        if not images:
            return None
        prepared = np.stack([prepare(image, spec) for image in images])
        index = int(np.argmax(predictor.probabilities(prepared)[:, _output(predictor, name)]))
        return _saliency(predictor, prepared[index], images[index], name, method, index).png()

    return draw


def _output(predictor: SupportsScoring, finding: str) -> int:
    names = predictor.card.names
    if finding not in names:
        raise ModelError(
            f"the model does not predict {finding!r}: choose one of {', '.join(names)}",
            code="unknown_finding",
        )
    return names.index(finding)


def _windowed(predictor: SupportsScoring, pixels: np.ndarray) -> np.ndarray:
    """Pixels from 0 to 1: through the first window of the model if its kind of image has windows,
    else unchanged; of images without a unit, from the first to the last percentile.
    """
    kind = image_kind(predictor.card.preprocess.kind)
    if kind.is_standardized:
        low, high = np.percentile(pixels, (1, 99))
        return np.clip((pixels - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    if not kind.has_windows:
        return pixels
    center, width = (predictor.card.windows or [SOFT_TISSUE])[0]
    return np.clip((pixels - center) / width + 0.5, 0, 1).astype(np.float32)
