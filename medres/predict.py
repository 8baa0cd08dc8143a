"""From a saved model and DICOM files to a probability, a decision or a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from data_pipelines.backend import require_tensorflow
from data_pipelines.doors import study_of
from data_pipelines.errors import DicomError, Ineligible
from data_pipelines.indexing import usable_images
from data_pipelines.parsing import Source
from data_pipelines.preprocess import UNITS, prepare, to_model_units
from data_pipelines.walking import walk
from medres.artefact import SERVED, Artefact, Card
from medres.artefact import load as load_artefact
from medres.errors import RefusedInput

BATCH = 32


def load(path: Path | str) -> Predictor:
    """Open a model file after its checks (see medres.artefact.load). Raises ArtefactError."""
    return Predictor(load_artefact(path))


@dataclass(frozen=True)
class Prediction:
    """What the model says about one study.

    probabilities: finding (or class) -> 0..1. decisions: finding -> bool at the operating point `default`, or {"class": name}.
    refused: one sentence, or None; a refused study has no probabilities. path: the file or folder it was asked for, if any.
    """

    probabilities: dict[str, float]
    decisions: dict[str, bool | str]
    refused: str | None = None
    path: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the command line."""
        return {
            "path": self.path,
            "probabilities": self.probabilities,
            "decisions": self.decisions,
            "refused": self.refused,
        }


class Predictor:
    """One loaded model. Holds no other state, so one object can serve many threads."""

    def __init__(self, artefact: Artefact) -> None:
        tf = require_tensorflow()
        self.artefact = artefact
        self.card: Card = artefact.card
        spec = artefact.card.preprocess
        images = tf.TensorSpec((None, spec.rows, spec.cols, 1), tf.float32)
        self._forward = tf.function(lambda image: artefact.model(image, training=False)).get_concrete_function(images)

    def predict(self, study: Source | Sequence[Source]) -> Prediction:
        """One study: a file, a folder, DICOM bytes, a pydicom data set, or a list of these.

        Every image of the study that is of the model's kind is read and scored, and the scores are pooled (largest; for classes the
        mean). Localizers and the like are passed over. Whatever cannot be read, or belongs to two studies, is refused with a reason.
        """
        sources: list[Source] = list(study) if isinstance(study, list | tuple) else [cast(Source, study)]
        label = str(sources[0]) if len(sources) == 1 and isinstance(sources[0], str | Path) else None
        try:
            files = [file for source in sources for file in _files(source)]
            if len({study_of(file) for file in files}) > 1:
                raise RefusedInput("the files belong to more than one study: ask for one study at a time")
        except (DicomError, RefusedInput) as error:
            return Prediction({}, {}, refused=str(error), path=label)
        return self._predict(files, label)

    def predict_many(self, paths: Sequence[str | Path]) -> Iterator[Prediction]:
        """One prediction a study over files and folders, in the order in which the studies are met."""
        for path, files in _by_study(paths):
            yield self._predict(files, path) if files else Prediction({}, {}, refused="no DICOM file here", path=path)

    def _predict(self, files: Sequence[Source], path: str | None) -> Prediction:
        """One study whose files are known to belong together."""
        try:
            return self._decide(self.probabilities(self.prepared(files)), path)
        except (DicomError, RefusedInput) as error:
            return Prediction({}, {}, refused=str(error), path=path)

    def prepared(self, files: Sequence[Source]) -> np.ndarray:
        """Prepared integers (images, rows, cols) of the study's images of the model's kind.

        Raises RefusedInput where there is none, and DicomError where a file cannot be read or decoded.
        """
        spec, images, passed_over = self.card.preprocess, [], ""
        for file in files:
            try:
                usable = usable_images(file, units=UNITS[spec.kind])
            except Ineligible as error:
                passed_over = str(error)
                continue
            of_kind = [image for image, kind, _ in usable if kind == spec.kind]
            images += [prepare(image, spec) for image in of_kind]
            if not of_kind:
                passed_over = f"the model was trained on {spec.kind} images, and this is another kind"
        if not images:
            raise RefusedInput(f"no image that this model can read: {passed_over}")
        return np.stack(images)

    def probabilities(self, prepared: np.ndarray) -> np.ndarray:
        """Probabilities (images, outputs) of prepared integers (images, rows, cols)."""
        spec = self.card.preprocess
        chunks = (prepared[i : i + BATCH] for i in range(0, len(prepared), BATCH))
        return np.concatenate([self.forward(to_model_units(chunk, spec)) for chunk in chunks])

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (images, outputs) of float32 images (images, rows, cols, 1) in model units.

        One image alone is run twice over: TensorFlow's kernels take another path for a batch of one, whose last digits differ from those
        of every other batch size, and calibration can magnify them.
        """
        tf = require_tensorflow()
        if len(images) == 1:
            return self._forward(tf.constant(np.repeat(images, 2, axis=0))).numpy()[:1]
        return self._forward(tf.constant(images)).numpy()

    def _decide(self, probabilities: np.ndarray, path: str | None) -> Prediction:
        card = self.card
        pooled = probabilities.max(axis=0) if card.pooling == "max" else probabilities.mean(axis=0)
        named = {name: float(p) for name, p in zip(card.names, pooled, strict=True)}
        if card.task == "multiclass":
            return Prediction(named, {"class": max(named, key=named.__getitem__)}, path=path)
        return Prediction(named, {name: p >= card.threshold(name, unit=SERVED) for name, p in named.items()}, path=path)


@dataclass
class _Study:
    path: str
    files: list[Path] = field(default_factory=list)


def _by_study(paths: Sequence[str | Path]) -> Iterator[tuple[str, list[Path]]]:
    """(path to show, files) of each study; a file that cannot be read is a study of its own, so that it is not lost."""
    for path in paths:
        studies: dict[str, _Study] = {}
        for file in _files(path):
            try:
                key = study_of(file) or str(file)
            except DicomError:
                key = str(file)
            studies.setdefault(key, _Study(str(file))).files.append(file)
        if len(studies) == 1 or not studies:
            yield str(path), next(iter(studies.values())).files if studies else []
        else:
            yield from ((study.path, study.files) for study in studies.values())


def _files(source: Source) -> list[Any]:
    """The files below a folder, in a fixed order; anything else as it is."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        found = walk(source)
        return [found.root / file for file in found.files]
    return [source]
