"""`Predictor`: from DICOM files to the probabilities and decisions of a model, or a refusal."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import DicomError
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.runtime.backend import require_tensorflow
from medres.artefact.archive import Artefact
from medres.artefact.card import Card
from medres.artefact.feature_distance import feature_tensors
from medres.artefact.orientation import MAX_RATIO, orientation_ratios, thumbnails
from medres.errors import ExportError, RefusedInput
from medres.inference.decisions import conformal_answer, decisions, pooled, prediction_sets
from medres.inference.study_reader import files_of, read_study, require_one_study, studies_of
from medres.progress import ProgressReporter

if TYPE_CHECKING:
    from medres.explain import Explainer
    from medres.inference.engines import Scorer
    from medres.inference.study_saliency import Saliency

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """The model's prediction for one study.

    probabilities: finding (or class) -> 0..1; {} if the study was refused.
    decisions: finding -> whether the probability reaches the operating point `default`, or
        {"class": name}.
    refused: the reason for a refusal in one sentence, else None. code: its reason code, else None.
    path: the file or folder for which the prediction was requested, if any.
    sets: finding -> the labels, of 0 and 1, in the conformal prediction set at the card's alpha, or
        {"class": names}; {} if the model has no conformal quantiles.
    conformal: alpha, the sets and the uncertain findings as in JSON, None without conformal sets.
    images: number of images scored. novelty: the greatest distance of an image from the training
        images, None if the model file does not hold their distribution.
    """

    probabilities: dict[str, float]
    decisions: dict[str, bool | str]
    refused: str | None = None
    path: str | None = None
    sets: dict[str, list[int] | list[str]] = field(default_factory=dict)
    images: int = 0
    novelty: float | None = None
    code: str | None = None
    conformal: dict[str, Any] | None = None
    _request: tuple[Predictor, tuple[DicomSource, ...]] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def abstained(self) -> list[str]:
        """Findings whose prediction set does not hold exactly one label: the decision is left to a
        human reader.
        """
        return [name for name, labels in self.sets.items() if len(labels) != 1]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of `medres predict --json`."""
        return {
            "path": self.path,
            "probabilities": self.probabilities,
            "decisions": self.decisions,
            "refused": self.refused,
            "code": self.code,
            "sets": self.sets,
            "abstained": self.abstained,
            "conformal": self.conformal,
            "images": self.images,
            "novelty": self.novelty,
        }

    def saliency(self, finding: str | None = None, *, method: str = "gradcam") -> Saliency:
        """Saliency map of the image of the study with the highest probability. The files are read
        again.

        finding: by default the most probable one. method: one of `medres.explain.METHODS`. Raises
            RefusedInput (nothing_to_explain) for a refused study, or for one predicted from pixels
            without files.
        """
        from medres.inference.study_saliency import explain_study

        if self.refused is not None or self._request is None:
            raise RefusedInput(
                "no saliency map: the study was refused, or predicted without its files",
                code="nothing_to_explain",
            )
        predictor, files = self._request
        return explain_study(
            predictor,
            files,
            finding or max(self.probabilities, key=self.probabilities.__getitem__),
            method,
        )


class Predictor:
    """One loaded model. A prediction does not change its state, so several threads can share one
    object.
    """

    def __init__(self, artefact: Artefact, *, scorer: Scorer | None = None) -> None:
        """scorer: computes probabilities and distances with another engine; the artefact then holds
        no Keras model (see `medres.inference.engines`).
        """
        self.artefact = artefact
        self.card: Card = artefact.card
        self._scorer = scorer
        self._forward: Any = None if scorer is not None else _compile_forward(artefact)

    @functools.cached_property
    def explainer(self) -> Explainer:
        """Saliency maps of this model on its input grid; compiled at first use. Raises ExportError
        (engine_without_gradients) unless the predictor runs on TensorFlow.
        """
        if self._scorer is not None:
            raise ExportError(
                "saliency maps need the gradients of TensorFlow: open the model with medres.load("
                '..., engine="tensorflow")',
                code="engine_without_gradients",
            )
        from medres.explain import Explainer

        return Explainer(self.artefact.model)

    def predict(self, study: DicomSource | Sequence[DicomSource]) -> Prediction:
        """Predict one study: a file, a folder, DICOM bytes, a pydicom Dataset, or a list of these.

        Every image of the model's kind is read and scored, and the probabilities are pooled
        (largest; mean for exclusive classes). Localizers and derived images are skipped. A study is
        refused, with a reason, if a file cannot be read, if the files belong to several studies
        (CT: several series), or if an image lies outside the training domain. Raises TypeError for
        a value that is not a source.
        """
        sources: list[DicomSource] = (
            list(study) if isinstance(study, list | tuple) else [cast(DicomSource, study)]
        )
        path = str(sources[0]) if len(sources) == 1 and isinstance(sources[0], str | Path) else None
        try:
            files = [file for source in sources for file in files_of(source)]
            if len(files) != 1:
                require_one_study(files)
        except (DicomError, RefusedInput) as error:
            return refusal(error, path)
        return self._predict(files, path)

    def predict_many(
        self, paths: Sequence[str | Path], *, progress: ProgressReporter | None = None
    ) -> Iterator[Prediction]:
        """One prediction per study over files and folders, in the order in which the studies are
        found.
        """
        with (progress or ProgressReporter()).task("predict") as update:
            studies = list(studies_of(paths))
            for done, study in enumerate(studies, start=1):
                if study.files:
                    yield self._predict(study.files, study.path)
                else:
                    error = RefusedInput("no DICOM file found at this path", code="no_file")
                    yield refusal(error, study.path)
                update(done, len(studies))

    def _predict(self, files: Sequence[DicomSource], path: str | None) -> Prediction:
        """Predict one study whose files are known to belong together."""
        try:
            return self.decide(read_study(files, self.card).pixels, files, path)
        except (DicomError, RefusedInput) as error:
            return refusal(error, path)

    def decide(
        self, images: np.ndarray, files: Sequence[DicomSource] = (), path: str | None = None
    ) -> Prediction:
        """The prediction for the prepared integers (images, *spec.prepared_shape) of one study;
        refused if images appear rotated (code rotated) or are unlike the training images (code
        out_of_distribution).
        """
        card, count = self.card, len(images)
        inputs = to_model_units(images, card.preprocess)
        rotated = self._count_rotated(inputs)
        if rotated:
            error = RefusedInput(
                "the image appears rotated or flipped"
                if count == 1
                else f"{rotated} of {count} images appear rotated or flipped",
                code="rotated",
            )
            return refusal(error, path, images=count)
        scores, novelty = self.scored(inputs)
        distance = None if novelty is None else float(novelty.max())
        if novelty is not None and card.novelty_threshold is not None:
            unlike = int((~(novelty <= card.novelty_threshold)).sum())
            if unlike:
                error = RefusedInput(
                    f"{unlike} of {count} images are out of distribution: unlike the training "
                    f"images (distance {distance:.3g}, limit {card.novelty_threshold:.3g})",
                    code="out_of_distribution",
                )
                return refusal(error, path, images=count, novelty=distance)
        probabilities = pooled(scores, card)
        return Prediction(
            probabilities,
            decisions(probabilities, card),
            path=path,
            sets=prediction_sets(probabilities, card),
            conformal=conformal_answer(probabilities, card),
            images=count,
            novelty=distance,
            _request=(self, tuple(files)) if len(files) else None,
        )

    def _count_rotated(self, inputs: np.ndarray) -> int:
        """How many images appear rotated or flipped; 0 if the model file cannot tell."""
        model = self.artefact.orientation_model
        if model is None:
            return 0
        return int((orientation_ratios(model, thumbnails(inputs)) > MAX_RATIO).sum())

    def probabilities(self, prepared_images: np.ndarray) -> np.ndarray:
        """Probabilities (images, outputs) of prepared integers (images, *spec.prepared_shape)."""
        return self.forward(to_model_units(prepared_images, self.card.preprocess))

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (images, outputs) of float32 images (images, *spec.shape) in model
        units.
        """
        return self.scored(images)[0]

    def scored(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities (images, outputs), and the distances (images,) from the training images,
        None if the model file does not hold their distribution. images: as for `forward`.
        """
        if self._scorer is not None:
            return self._scorer(images)
        tf, starts = require_tensorflow(), range(0, len(images), BATCH)
        batches = [
            [output.numpy() for output in self._forward(tf.constant(images[i : i + BATCH]))]
            for i in starts
        ]
        probabilities, *features = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        gaussian = self.artefact.novelty
        if gaussian is None:
            return probabilities, None
        return probabilities, gaussian.scores(np.concatenate(features, axis=1))


def refusal(
    error: DicomError | RefusedInput,
    path: str | None,
    *,
    images: int = 0,
    novelty: float | None = None,
) -> Prediction:
    """The prediction for a study that is refused because of `error`."""
    return Prediction(
        {}, {}, refused=str(error), path=path, images=images, novelty=novelty, code=error.code
    )


def _compile_forward(artefact: Artefact) -> Any:
    """The compiled model: images -> (probabilities[, features]). The digits for an image do not
    depend on the other images of the batch.

    On a CPU each image is scored alone, inside the graph: kernels sum in another order for another
    batch size (decision 34), and single images are fastest there. A single image needs no loop. On
    a GPU a batch is run at once.
    """
    tf = require_tensorflow()
    import keras

    outputs = [
        artefact.model.output,
        *(feature_tensors(artefact.model) if artefact.novelty is not None else ()),
    ]
    model, shape = keras.Model(artefact.model.input, outputs), artefact.model.input.shape[1:]

    def at_once(images: Any) -> list:
        return keras.tree.flatten(model(images, training=False))  # Keras unwraps a list of one

    def one_by_one(images: Any) -> list:
        return tf.map_fn(
            lambda image: [output[0] for output in at_once(image[tf.newaxis])],
            images,
            fn_output_signature=[tf.float32] * len(outputs),
        )

    batched = at_once if tf.config.list_physical_devices("GPU") else one_by_one
    single = tf.function(at_once).get_concrete_function(tf.TensorSpec((1, *shape), tf.float32))
    several = tf.function(batched, input_signature=[tf.TensorSpec((None, *shape), tf.float32)])
    return lambda images: single(images) if len(images) == 1 else several(images)
