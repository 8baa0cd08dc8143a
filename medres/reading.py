"""From the files of one study to what a model takes, or a refusal. Loads no TensorFlow, so decode workers can run it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.doors import study_of
from data_pipelines.errors import DicomError, Ineligible
from data_pipelines.images import Image
from data_pipelines.indexing import usable_images
from data_pipelines.parsing import Source
from data_pipelines.preprocess import UNITS, prepare
from data_pipelines.walking import walk
from medres.artefact import Card
from medres.domain import why_outside
from medres.errors import RefusedInput


def files_of(source: Source) -> list[Any]:
    """The files below a folder, in a fixed order; anything else as it is."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        found = walk(source)
        return [found.root / file for file in found.files]
    return [source]


def require_one_study(files: Sequence[Source]) -> None:
    """Raise RefusedInput where files belong to several studies, and DicomError where a header cannot be read."""
    if len({study_of(file) for file in files}) > 1:
        raise RefusedInput("the files belong to more than one study: ask for one study at a time")


def usable(files: Sequence[Source], card: Card) -> Iterator[Image]:
    """The images of one study that the model was made for, in the order of the files.

    Localizers and the like, and other kinds of image, are passed over. Raises RefusedInput where nothing is left, where an image is
    outside what the model was trained on, or where CT slices come from several series; DicomError where a file cannot be read.
    """
    kind, passed_over, series, count = card.preprocess.kind, "", set(), 0
    for file in files:
        try:
            found = usable_images(file, units=UNITS[kind])
        except Ineligible as error:
            passed_over = str(error)
            continue
        of_kind = [image for image, its_kind, _ in found if its_kind == kind]
        if not of_kind:
            passed_over = f"the model was trained on {kind} images, and this is another kind"
        for image in of_kind:
            reason = None if card.domain is None else why_outside(image, card.domain)
            if reason is not None:
                raise RefusedInput(reason)
            series.add(image.header.identifiers.series_instance_uid)
            if kind == "ct" and len(series) > 1:
                raise RefusedInput("CT slices of more than one series: ask for one series at a time")
            count += 1
            yield image
    if not count:
        raise RefusedInput(f"no image that this model can read: {passed_over}")


def prepared(files: Sequence[Source], card: Card) -> np.ndarray:
    """Prepared integers (images, rows, cols) of the study's images; errors as of `usable`."""
    return np.stack([prepare(image, card.preprocess) for image in usable(files, card)])


@dataclass
class Study:
    """Files that share a study, and the path to show for it."""

    path: str
    files: list[Path] = field(default_factory=list)


def studies_of(paths: Sequence[str | Path]) -> Iterator[Study]:
    """The studies below each path, in the order in which they are met; a file that cannot be read is a study of its own, so that
    it is not lost. A path without files is a study without files."""
    for path in paths:
        studies: dict[str, Study] = {}
        for file in files_of(path):
            try:
                key = study_of(file) or str(file)
            except DicomError:
                key = str(file)
            studies.setdefault(key, Study(str(file))).files.append(file)
        if len(studies) == 1 or not studies:
            yield Study(str(path), next(iter(studies.values())).files if studies else [])
        else:
            yield from studies.values()
