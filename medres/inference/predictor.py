"""`Predictor`: from DICOM files to the probabilities and decisions of a model, or a refusal."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import CodedError, DicomError
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.preprocessing.study import Study
from data_pipelines.runtime.backend import require_tensorflow
from medres.artefact.archive import Artefact
from medres.artefact.card import Card
from medres.artefact.feature_distance import feature_tensors
from medres.artefact.orientation import MAX_RATIO, orientation_ratios, thumbnails
from medres.errors import ExportError, RefusedInput
from medres.inference.boxes.predicting import detected
from medres.inference.decisions import (
    conformal_answer,
    decisions,
    default_thresholds,
    pooled,
    prediction_sets,
)
from medres.inference.decoder import Decoder
from medres.inference.masks.predicting import segmented
from medres.inference.prediction import Prediction
from medres.inference.request_files import files_below, files_of, paths_of
from medres.inference.study_identity import (
    IdentityRules,
    StudyFiles,
    group_of_file,
    requests_below,
)
from medres.inference.study_reader import StudyReading, read_request, request_of
from medres.progress import ProgressReporter
from medres.tasks import task_named

if TYPE_CHECKING:
    from medres.explain import Explainer
    from medres.inference.engines import Scorer
    from medres.inference.study_saliency import Saliency

BATCH = 32
NO_FILE = StudyReading(None, RefusedInput("no DICOM file found at this path", code="no_file"))


class Predictor:
    """One loaded model. A prediction does not change its state, so several threads can share one
    object.

    Files are decoded in separate processes with limits of time and memory, so that a file that
    crashes or blocks a decoder costs one refusal. The processes start at the first prediction, are
    shared by all predictors of the process, and end with `close()`, at the end of a `with` block,
    or at exit. isolate: False decodes in this process, for those who own the files.

    scorer: computes probabilities and distances with another engine; the artefact then holds no
    Keras model (see `medres.inference.engines`).
    """

    def __init__(
        self, artefact: Artefact, *, isolate: bool = True, scorer: Scorer | None = None
    ) -> None:
        self.artefact = artefact
        self.card: Card = artefact.card
        self.decoder = Decoder(isolate=isolate)
        self._scorer = scorer
        self._forward: Any = None if scorer is not None else _compile_forward(artefact)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decode workers, unless another predictor uses them. A later prediction starts
        them again.
        """
        self.decoder.close()

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

    def predict(
        self,
        study: DicomSource | Sequence[DicomSource],
        *,
        allow_name_mismatch: bool = False,
        allow_unknown_patient: bool = False,
    ) -> Prediction:
        """Predict one study: a file, a folder, DICOM bytes, a pydicom Dataset, or a list of these.

        Every image of the model's kind is read and scored, and the probabilities are pooled
        (largest; mean for exclusive classes). Localizers and derived images are skipped. A study is
        refused, with a reason, if a file cannot be read, if an image lies outside the training
        domain, or if several files are not of one patient and study (CT: one series).

        allow_name_mismatch: accept files that agree on PatientID, issuer and study, but not on
            PatientName or PatientBirthDate (else refused: name_mismatch).
        allow_unknown_patient: accept several files without a usable PatientID if they share a valid
            StudyInstanceUID (else refused: no_identity).
        Raises TypeError for a value that is not a source, and DicomError (workers) if the decode
        workers cannot be started.
        """
        sources: list[DicomSource] = (
            list(study) if isinstance(study, list | tuple) else [cast(DicomSource, study)]
        )
        path = str(sources[0]) if len(sources) == 1 and isinstance(sources[0], str | Path) else None
        rules = IdentityRules(allow_name_mismatch, allow_unknown_patient)
        try:
            files = [file for source in sources for file in files_of(source)]
        except DicomError as error:
            return self.decide_reading(StudyReading(None, error), path)
        return self._conclude(files, path, rules, self.read(files, rules))

    def predict_many(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        allow_name_mismatch: bool = False,
        allow_unknown_patient: bool = False,
        progress: ProgressReporter | None = None,
    ) -> Iterator[Prediction]:
        """One prediction per study (CT: per series) over files and folders, in the order in which
        they are found. Files belong together that agree on the patient, with the issuer, and on the
        study. What is no regular file, such as a link or a pipe, is a refusal of its own. The
        options are those of `predict`.

        The next studies are decoded while one is predicted. Raises TypeError for a value that is no
        path.
        """
        rules = IdentityRules(allow_name_mismatch, allow_unknown_patient)
        with (progress or ProgressReporter()).task("predict") as update:
            studies = [study for path in paths_of(paths) for study in self._studies(path)]
            for done, prediction in enumerate(self.predict_studies(studies, rules), start=1):
                yield prediction
                update(done, len(studies))

    def predict_studies(
        self, studies: Sequence[StudyFiles], rules: IdentityRules
    ) -> Iterator[Prediction]:
        """One prediction per study, in their order; the next ones are decoded meanwhile."""
        readings = self.decoder.ahead(
            lambda study: (
                StudyReading(None, study.error) if study.error else self.read(study.files, rules)
            ),
            studies,
        )
        for study, reading in zip(studies, readings, strict=True):
            yield self._conclude(study.files, study.path, rules, reading)

    def _studies(self, path: str | Path) -> list[StudyFiles]:
        below = files_below(path)
        by_series = self.card.preprocess.image_kind.has_series
        group = functools.partial(group_of_file, by_series=by_series)
        groups = self.decoder.ahead(lambda file: self.decoder.call(group, str(file)), below.files)
        return requests_below(path, below, groups)

    def read(self, files: Sequence[DicomSource], rules: IdentityRules) -> StudyReading:
        """What the files of one study hold for this model, or why they are refused."""
        if not files:
            return NO_FILE
        try:
            request = request_of(files, self.card, rules)
        except DicomError as error:
            return StudyReading(None, error)
        reading = self.decoder.call(read_request, request, n_files=len(files))
        return StudyReading(None, reading) if isinstance(reading, DicomError) else reading

    def _conclude(
        self,
        files: Sequence[DicomSource],
        path: str | None,
        rules: IdentityRules,
        reading: StudyReading,
    ) -> Prediction:
        """The prediction for a study that was read."""
        prediction = replace(self.decide_reading(reading, path), files=tuple(files))
        if prediction.refused is not None or task_named(self.card.task).is_annotated:
            return prediction
        explain = functools.partial(self._explain, tuple(files), rules, reading.sha256)
        return replace(prediction, _explain=explain)

    def _explain(
        self,
        files: tuple[DicomSource, ...],
        rules: IdentityRules,
        sha256: tuple[str, ...],
        finding: str,
        method: str,
    ) -> Saliency:
        from medres.inference.study_saliency import explain_study

        return explain_study(self, files, finding, method, rules=rules, sha256=sha256)

    def decide_reading(self, reading: StudyReading, path: str | None = None) -> Prediction:
        """The prediction for a study that was read, without its saliency."""
        if reading.study is None:
            error = reading.error or RefusedInput("the study was not read")
            prediction = self._refusal(error)
        else:
            prediction = replace(self.decide_study(reading.study), slices=reading.study.slices)
        return replace(
            prediction,
            path=path,
            study_uid=reading.study_uid,
            series_uids=reading.series_uids,
            sop_instance_uids=reading.sop_instance_uids,
        )

    def decide_study(self, study: Study) -> Prediction:
        """The prediction for the samples of one study; of a segmenter with its label maps, of a
        detector with its boxes.
        """
        task = task_named(self.card.task)
        if not task.is_annotated:
            return self.decide(study.pixels)
        rotated = self._count_rotated(to_model_units(study.pixels, self.card.preprocess))
        if rotated:
            return self._refuse_rotated(rotated, len(study.pixels))
        units = functools.partial(to_model_units, spec=self.card.preprocess)
        answered = detected if task.finds_boxes else segmented
        answer, count = answered(study, units, self.card, self.scored), len(study.pixels)
        if answer.error is not None:
            return self._refusal(answer.error, n_images=count, novelty=answer.novelty)
        positive = {box.label for box in answer.boxes if box.is_positive}
        return Prediction(
            {},
            {name: name in positive for name in self._thresholds},
            masks=answer.masks,
            boxes=list(answer.boxes),
            previews=answer.previews,
            n_images=count,
            novelty=answer.novelty,
            model_sha256=self.artefact.sha256,
            thresholds=self._thresholds,
        )

    def decide(self, images: np.ndarray) -> Prediction:
        """The prediction for the prepared integers (images, *spec.prepared_shape) of one study;
        refused if images appear rotated (code rotated) or are unlike the training images (code
        out_of_distribution), or if a probability is NaN (code not_finite).
        """
        card, count = self.card, len(images)
        inputs = to_model_units(images, card.preprocess)
        rotated = self._count_rotated(inputs)
        if rotated:
            return self._refuse_rotated(rotated, count)
        scores, novelty = self.scored(inputs)
        if not np.isfinite(scores).all():
            error = RefusedInput("the model gives no number for this image", code="not_finite")
            return self._refusal(error, n_images=count)
        distance = None if novelty is None else float(novelty.max())
        if novelty is not None and card.novelty_threshold is not None:
            unlike = int((~(novelty <= card.novelty_threshold)).sum())
            if unlike:
                error = RefusedInput(
                    f"{unlike} of {count} images are out of distribution: unlike the training "
                    f"images (distance {distance:.3g}, limit {card.novelty_threshold:.3g})",
                    code="out_of_distribution",
                )
                return self._refusal(error, n_images=count, novelty=distance)
        probabilities = pooled(scores, card)
        return Prediction(
            probabilities,
            decisions(probabilities, card),
            sets=prediction_sets(probabilities, card),
            conformal=conformal_answer(probabilities, card),
            images=tuple(dict(zip(card.names, map(float, row), strict=True)) for row in scores),
            n_images=count,
            novelty=distance,
            model_sha256=self.artefact.sha256,
            thresholds=self._thresholds,
        )

    def _refuse_rotated(self, rotated: int, count: int) -> Prediction:
        error = RefusedInput(
            "the image appears rotated or flipped"
            if count == 1
            else f"{rotated} of {count} images appear rotated or flipped",
            code="rotated",
        )
        return self._refusal(error, n_images=count)

    def _refusal(
        self, error: CodedError, *, n_images: int = 0, novelty: float | None = None
    ) -> Prediction:
        return Prediction(
            {},
            {},
            refused=str(error),
            code=error.code,
            n_images=n_images,
            novelty=novelty,
            model_sha256=self.artefact.sha256,
            thresholds=self._thresholds,
        )

    @property
    def _thresholds(self) -> dict[str, float]:
        if self.card.detection is not None:
            return self.card.box_thresholds
        return {} if task_named(self.card.task).exclusive else default_thresholds(self.card)

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
