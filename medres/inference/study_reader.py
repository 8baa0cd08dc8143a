"""From the files of one study to the input of a model, or a refusal. Does not load TensorFlow, so
decode workers can run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import DicomError
from data_pipelines.kinds import image_kind
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.study import Study, prepared_study
from data_pipelines.runtime.walk import walk_files
from data_pipelines.sources.image_source import study_of
from medres.artefact.card import Card
from medres.artefact.training_domain import domain_violation, header_check
from medres.errors import RefusedInput


def files_of(source: DicomSource) -> list[Any]:
    """The files below a folder, in a fixed order; any other source unchanged, as the only element.
    Raises TypeError for a value that is not a source.
    """
    if not isinstance(source, get_args(DicomSource)):
        raise TypeError(
            f"a study is a path, the bytes of a file, a pydicom Dataset or a list of these; "
            f"received {type(source).__name__}. For an open file or a stream, pass the result of "
            f"its read()."
        )
    if isinstance(source, bytearray | memoryview):
        return [bytes(source)]  # a buffer may change; a raster image is identified by its hash
    if isinstance(source, str | Path) and Path(source).is_dir():
        walk = walk_files(source)
        return [walk.root / file for file in walk.files]
    return [source]


def require_one_study(files: Sequence[DicomSource]) -> None:
    """Raise RefusedInput (several_studies) if files belong to several studies, and DicomError if a
    header cannot be read.
    """
    if len({study_of(file) for file in files}) > 1:
        raise RefusedInput(
            "the files belong to more than one study: predict one study at a time",
            code="several_studies",
        )


def read_study(files: Sequence[DicomSource], card: Card) -> Study:
    """The samples of one study, prepared for the model.

    Localizers, derived images and other kinds of image are skipped. Raises RefusedInput if an image
    lies outside the training domain (codes of `domain_violation`), or slices come from several
    series (several_series); DicomError if no image is left or a file cannot be read.
    """
    has_series = image_kind(card.preprocess.kind).has_series
    series: set[str] = set()

    def check(image: Image) -> None:
        violation = None if card.domain is None else domain_violation(image, card.domain)
        if violation is not None:
            raise RefusedInput(violation.message, code=violation.code)
        series.add(image.header.identifiers.series_instance_uid)
        if has_series and len(series) > 1:
            raise RefusedInput(
                "CT slices of more than one series: predict one series at a time",
                code="several_series",
            )

    check_header = header_check(card.domain, card.preprocess.kind)
    return prepared_study(
        files, card.preprocess, check=check, check_header=check_header, color=card.color
    )


@dataclass
class StudyFiles:
    """The files of one study, and the path that stands for it in results."""

    path: str
    files: list[Path] = field(default_factory=list)


def studies_of(paths: Sequence[str | Path]) -> Iterator[StudyFiles]:
    """The studies below each path, in the order in which they are found. A path without files gives
    a study without files.
    """
    for path in paths:
        files = files_of(path)
        yield from (
            by_study(path, files, map(_key_or_error, files)) if files else [StudyFiles(str(path))]
        )


def by_study(
    path: str | Path, files: Sequence[Path], keys: Iterable[str | DicomError]
) -> Iterable[StudyFiles]:
    """Group the files below `path` by the key of their study. A file that cannot be read becomes a
    study of its own, so that it is not lost.

    The path of a study is that of its first file; if there is only one study below `path`, it is
    `path`.
    """
    studies: dict[str, StudyFiles] = {}
    for file, key in zip(files, keys, strict=True):
        name = str(file) if isinstance(key, DicomError) else key
        studies.setdefault(name, StudyFiles(str(file))).files.append(file)
    return [StudyFiles(str(path), list(files))] if len(studies) == 1 else studies.values()


def study_key(file: str | Path) -> str:
    """The key that all files of a study share. Raises DicomError."""
    return study_of(file) or str(file)


def _key_or_error(file: Path) -> str | DicomError:
    try:
        return study_key(file)
    except DicomError as error:
        return error
