"""From a saved model and DICOM files to a probability, a decision or a refusal."""

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
from medres.artefact.orientation import LIMIT, orientation_ratios, thumbnails
from medres.errors import RefusedInput
from medres.inference.decisions import decisions, pooled, prediction_sets
from medres.inference.study_reader import files_of, read_study, require_one_study, studies_of
from medres.progress import ProgressReporter

if TYPE_CHECKING:
    from medres.explain import Explainer, Saliency

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What the model says about one study.

    probabilities: finding (or class) -> 0..1. decisions: finding -> bool at the operating point
        `default`, or {"class": name}.
    sets: finding -> labels of 0 and 1 that cannot be ruled out at the card's alpha, or {"class":
        names}; {} where the model has no
    conformal quantiles. refused: one sentence, or None; a refused study has no probabilities. path:
    the file or folder it was
    asked for, if any. images: how many were scored. novelty: greatest distance of an image from the
    training images.
    """

    probabilities: dict[str, float]
    decisions: dict[str, bool | str]
    refused: str | None = None
    path: str | None = None
    sets: dict[str, list[int] | list[str]] = field(default_factory=dict)
    images: int = 0
    novelty: float | None = None
    _asked: tuple[Predictor, tuple[DicomSource, ...]] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def abstained(self) -> list[str]:
        """Findings whose set does not hold exactly one label: the model leaves the decision to the
        reader.
        """
        return [name for name, labels in self.sets.items() if len(labels) != 1]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the command line."""
        return {
            "path": self.path,
            "probabilities": self.probabilities,
            "decisions": self.decisions,
            "refused": self.refused,
            "sets": self.sets,
            "abstained": self.abstained,
            "images": self.images,
            "novelty": self.novelty,
        }

    def saliency(self, finding: str | None = None, *, method: str = "gradcam") -> Saliency:
        """Where in the study's most suspicious image the model looked; the files are read again for
        it.

        finding: None is the most probable one. method: see medres.explain.METHODS. Raises
            RefusedInput for a refused study.
        """
        from medres.explain import explain_study

        if self.refused is not None or self._asked is None:
            raise RefusedInput("a study that was refused has nothing to explain")
        predictor, files = self._asked
        return explain_study(
            predictor,
            files,
            finding or max(self.probabilities, key=self.probabilities.__getitem__),
            method,
        )


class Predictor:
    """One loaded model. Holds no state that a prediction changes, so one object can serve many
    threads.
    """

    def __init__(self, artefact: Artefact) -> None:
        self.artefact = artefact
        self.card: Card = artefact.card
        self._forward = _forward_of(artefact)

    @functools.cached_property
    def explainer(self) -> Explainer:
        """Saliency maps of this model on the grid of its input; compiled at first use."""
        from medres.explain import Explainer

        return Explainer(self.artefact.model)

    def predict(self, study: DicomSource | Sequence[DicomSource]) -> Prediction:
        """One study: a file, a folder, DICOM bytes, a pydicom data set, or a list of these.

        Every image of the study that is of the model's kind is read and scored, and the scores are
        pooled (largest; for classes the mean). Localizers and the like are passed over. What cannot
        be read, belongs to two studies (CT: two series), or is unlike what the model was trained
        on, is refused with a reason.
        """
        sources: list[DicomSource] = (
            list(study) if isinstance(study, list | tuple) else [cast(DicomSource, study)]
        )
        label = (
            str(sources[0]) if len(sources) == 1 and isinstance(sources[0], str | Path) else None
        )
        try:
            files = [file for source in sources for file in files_of(source)]
            if len(files) != 1:
                require_one_study(files)
        except (DicomError, RefusedInput) as error:
            return Prediction({}, {}, refused=str(error), path=label)
        return self._predict(files, label)

    def predict_many(
        self, paths: Sequence[str | Path], *, progress: ProgressReporter | None = None
    ) -> Iterator[Prediction]:
        """One prediction a study over files and folders, in the order in which the studies are
        met.
        """
        with (progress or ProgressReporter()).task("predict") as update:
            studies = list(studies_of(paths))
            for done, study in enumerate(studies, start=1):
                if study.files:
                    yield self._predict(study.files, study.path)
                else:
                    yield Prediction({}, {}, refused="no DICOM file here", path=study.path)
                update(done, len(studies))

    def _predict(self, files: Sequence[DicomSource], path: str | None) -> Prediction:
        """One study whose files are known to belong together."""
        try:
            return self.decide(read_study(files, self.card).pixels, files, path)
        except (DicomError, RefusedInput) as error:
            return Prediction({}, {}, refused=str(error), path=path)

    def decide(
        self, images: np.ndarray, files: Sequence[DicomSource] = (), path: str | None = None
    ) -> Prediction:
        """The prediction for the prepared integers of one study's images; refused where they are
        unlike the training images.
        """
        card = self.card
        given, upright = to_model_units(images, card.preprocess), self.artefact.upright
        turned = (
            0
            if upright is None
            else int((orientation_ratios(upright, thumbnails(given)) > LIMIT).sum())
        )
        if turned:
            reason = (
                f"{turned} of {len(images)} images would fit what the model was trained on "
                f"better upside down or turned"
            )
            return Prediction({}, {}, refused=reason, path=path, images=len(images))
        probabilities, novelty = self.scored(given)
        furthest = None if novelty is None else float(novelty.max())
        if novelty is not None and card.novelty_threshold is not None:
            odd = int((~(novelty <= card.novelty_threshold)).sum())
            if odd:
                reason = f"{odd} of {len(images)} images look unlike what the model was trained on"
                reason += f" (distance {furthest:.3g}, limit {card.novelty_threshold:.3g})"
                return Prediction(
                    {}, {}, refused=reason, path=path, images=len(images), novelty=furthest
                )
        named = pooled(probabilities, card)
        return Prediction(
            named,
            decisions(named, card),
            path=path,
            sets=prediction_sets(named, card),
            images=len(images),
            novelty=furthest,
            _asked=(self, tuple(files)) if len(files) else None,
        )

    def probabilities(self, prepared_images: np.ndarray) -> np.ndarray:
        """Probabilities (images, outputs) of prepared integers (images, *spec.prepared_shape)."""
        return self.forward(to_model_units(prepared_images, self.card.preprocess))

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (images, outputs) of float32 images (images, *spec.shape) in model
        units.
        """
        return self.scored(images)[0]

    def scored(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities, and the distances (images,) from the training images where the model knows
        them.
        """
        tf, chunks = require_tensorflow(), range(0, len(images), BATCH)
        answers = [
            [part.numpy() for part in self._forward(tf.constant(images[i : i + BATCH]))]
            for i in chunks
        ]
        probabilities, *features = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        known = self.artefact.novelty
        return probabilities, None if known is None else known.scores(
            np.concatenate(features, axis=1)
        )


def _forward_of(artefact: Artefact) -> Any:
    """The compiled model: images -> (probabilities[, features]), the same digits for an image
    whatever stands beside it.

    On a processor each image is scored alone, inside the graph: kernels choose another order of
    summation for another batch size (decision 34), and alone is the fastest there. A single image
    needs no loop around it. On a GPU a batch is run as one.
    """
    tf = require_tensorflow()
    import keras

    outputs = [
        artefact.model.output,
        *(feature_tensors(artefact.model) if artefact.novelty is not None else ()),
    ]
    model, shape = keras.Model(artefact.model.input, outputs), artefact.model.input.shape[1:]

    def together(image: Any) -> list:
        return keras.tree.flatten(model(image, training=False))  # Keras unwraps a list of one

    def each(image: Any) -> list:
        types = [tf.float32] * len(outputs)
        return tf.map_fn(
            lambda one: [x[0] for x in together(one[tf.newaxis])], image, fn_output_signature=types
        )

    many = together if tf.config.list_physical_devices("GPU") else each
    single = tf.function(together).get_concrete_function(tf.TensorSpec((1, *shape), tf.float32))
    several = tf.function(many, input_signature=[tf.TensorSpec((None, *shape), tf.float32)])
    return lambda image: single(image) if len(image) == 1 else several(image)
