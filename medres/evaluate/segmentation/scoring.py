"""Reads the masks of one case after the other, and scores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.segmentation.aggregation import ClassScores
from medres.evaluate.segmentation.case_scores import CaseScore, Rules, score_case
from medres.evaluate.segmentation.cases import Case, check_labels
from medres.evaluate.segmentation.label_maps import (
    LabelMap,
    on_one_grid,
    read_label_map,
    same_grid,
)


class ScoredCases:
    """The scores of the cases read so far, by model, class and case."""

    def __init__(
        self,
        cases: Sequence[Case],
        classes: dict[int, str] | None,
        spacing: tuple[float, ...] | None,
        rules: Rules,
        n_models: int,
    ) -> None:
        self.cases, self.named, self.spacing, self.rules = cases, classes, spacing, rules
        self.scores: list[dict[tuple[int, int], CaseScore]] = [{} for _ in range(n_models)]
        self.empty: list[CaseScore] = []
        self.in_reference: set[int] = set()
        self.predicted: set[int] = set()
        self.segments: dict[str, int] = {}
        self.titles: dict[int, str] = {}

    def add(self, number: int, case: Case) -> None:
        """Read the masks of a case and score its classes, for each model."""
        where = f"case {number + 1} of {len(self.cases)} (in alphabetical order)"
        pairs = [self.pair(case, model, where) for model in range(len(case.predictions))]
        truth = pairs[0][0]
        self.empty.append(
            CaseScore(
                n_axes=truth.values.ndim,
                has_spacing=truth.spacing is not None,
                reference_size=0.0,
                prediction_size=0.0,
            )
        )
        if truth.values.ndim != self.empty[0].n_axes:
            raise EvaluationError(
                f"the reference of {where} has {truth.values.ndim} axes, and that of the first "
                "case another number: evaluate volumes and single images apart",
                code="mixed_axes",
            )
        labels = truth.labels()
        if min(labels, default=0) < 0:
            raise EvaluationError(
                f"the reference of {where} has a label below 0: classes are whole numbers above 0",
                code="unknown_label",
            )
        if self.named is not None:
            check_labels(labels, self.named, f"reference of {where}")
        self.in_reference |= labels
        for model, (reference, answer) in enumerate(pairs):
            reason = same_grid(reference, answer)
            if reason is not None:
                raise EvaluationError(
                    f"the prediction of {where} is not on the grid of its reference ({reason}): "
                    "nothing is resampled here; bring the prediction onto the grid of the image "
                    "that was annotated",
                    code="other_grid",
                )
            found = answer.labels()
            if self.named is not None:
                check_labels(found, self.named, f"prediction of {where}")
            self.predicted |= found
            for value in labels | found:
                self.scores[model][value, number] = score_case(reference, answer, value, self.rules)

    def pair(self, case: Case, model: int, where: str = "case") -> tuple[LabelMap, LabelMap]:
        """The reference and the prediction of a model, with the values of the classes, on one grid
        where they have one.
        """
        truth = _read(case.reference, self.spacing, f"reference of {where}")
        truth = truth.with_values(self._values_of(truth.names, is_reference=True))
        answer = _read(case.predictions[model], self.spacing, f"prediction of {where}")
        answer = answer.with_values(self._values_of(answer.names, is_reference=False))
        return on_one_grid(truth, answer)

    def _values_of(self, names: Mapping[int, str], *, is_reference: bool) -> dict[int, int]:
        """The value of the class of each segment. Segments are classes by name, as --classes or
        the references name them; where none has the name of a class, by their number.
        """
        if self.named is None and is_reference:
            for number, name in names.items():
                self._register(name, number)
        known = self.segments if self.named is None else {_key(n): v for v, n in self.named.items()}
        if not known or (
            self.named is not None and not any(_key(n) in known for n in names.values())
        ):
            return {number: number for number in names}
        unknown = max(0, *known.values()) + 1
        return {number: known.get(_key(name), unknown) for number, name in names.items()}

    def _register(self, name: str, number: int) -> None:
        """The segment of a reference is a class: with its own number, or the next free one."""
        taken = self.segments.values()
        value = number if number not in taken else max(taken) + 1
        if _key(name) not in self.segments:
            self.segments[_key(name)] = value
            self.titles[value] = name

    def classes(self) -> dict[int, str]:
        """Names by value. Raises EvaluationError (unknown_label, no_class)."""
        names = self.named or {
            value: self.titles.get(value, str(value)) for value in sorted(self.in_reference)
        }
        if not names:
            raise EvaluationError(
                "all references are empty: name the classes with --classes, such as 1=lesion",
                code="no_class",
            )
        check_labels(self.predicted, names, "folder of predictions")
        return names

    def of_class(self, model: int, value: int) -> ClassScores:
        """The scores of a class for all cases; both masks are empty where it does not occur."""
        scores = [
            self.scores[model].get((value, number), empty)
            for number, empty in enumerate(self.empty)
        ]
        patient = np.unique([case.patient for case in self.cases], return_inverse=True)[1]
        return ClassScores(
            scores,
            [case.name for case in self.cases],
            patient.astype(np.int64),
            [case.levels for case in self.cases],
        )


def _key(name: str) -> str:
    """How names of classes are compared: without case and outer spaces."""
    return name.strip().casefold()


def _read(path: Path, spacing: tuple[float, ...] | None, what: str) -> LabelMap:
    try:
        return read_label_map(path).with_spacing(spacing)
    except EvaluationError as error:
        raise EvaluationError(f"the {what}: {error}", code=error.code) from None
