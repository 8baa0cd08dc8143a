"""From the files of one study to what a model takes, or a refusal. Loads no TensorFlow, so decode
workers can run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import DicomError
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.study import Study, prepared_study
from data_pipelines.runtime.walk import walk_files
from data_pipelines.sources.image_source import study_of
from medres.artefact.card import Card
from medres.artefact.training_domain import domain_violation
from medres.errors import RefusedInput


def files_of(source: DicomSource) -> list[Any]:
    """The files below a folder, in a fixed order; anything else as it is. Raises TypeError for what
    is no source.
    """
    if not isinstance(source, get_args(DicomSource)):
        raise TypeError(
            f"a study is a path, the bytes of a file, a pydicom data set or a list of these; "
            f"received {type(source).__name__}. "
            "Of an open file or a stream give what its read() returns."
        )
    if isinstance(source, bytearray | memoryview):
        return [bytes(source)]  # it may change, and a study is told apart by the hash of a picture
    if isinstance(source, str | Path) and Path(source).is_dir():
        found = walk_files(source)
        return [found.root / file for file in found.files]
    return [source]


def require_one_study(files: Sequence[DicomSource]) -> None:
    """Raise RefusedInput where files belong to several studies, and DicomError where a header
    cannot be read.
    """
    if len({study_of(file) for file in files}) > 1:
        raise RefusedInput("the files belong to more than one study: ask for one study at a time")


def read_study(files: Sequence[DicomSource], card: Card) -> Study:
    """The records of one study, as the model takes them.

    Localizers and the like, and other kinds of image, are passed over. Raises RefusedInput where an
    image is outside what the model was trained on, or CT slices come from several series;
    DicomError where nothing is left or a file cannot be read.
    """
    series: set[str] = set()

    def check(image: Image) -> None:
        reason = None if card.domain is None else domain_violation(image, card.domain)
        if reason is not None:
            raise RefusedInput(reason)
        series.add(image.header.identifiers.series_instance_uid)
        if card.preprocess.kind == "ct" and len(series) > 1:
            raise RefusedInput("CT slices of more than one series: ask for one series at a time")

    return prepared_study(files, card.preprocess, check=check)


@dataclass
class Files:
    """Files that share a study, and the path to show for it."""

    path: str
    files: list[Path] = field(default_factory=list)


def studies_of(paths: Sequence[str | Path]) -> Iterator[Files]:
    """The studies below each path, in the order in which they are met. A path without files is a
    study without files.
    """
    for path in paths:
        files = files_of(path)
        yield from by_study(path, files, map(_key_of, files)) if files else [Files(str(path))]


def by_study(
    path: str | Path, files: Sequence[Path], keys: Iterable[str | DicomError]
) -> Iterable[Files]:
    """The files below `path` by the key of their study; one that cannot be read is a study of its
    own, so that it is not lost.

    A study shows the path of its first file; the only one below `path`, that path.
    """
    studies: dict[str, Files] = {}
    for file, key in zip(files, keys, strict=True):
        name = str(file) if isinstance(key, DicomError) else key
        studies.setdefault(name, Files(str(file))).files.append(file)
    return [Files(str(path), list(files))] if len(studies) == 1 else studies.values()


def study_key(file: str | Path) -> str:
    """What the files of one study have in common. Raises DicomError."""
    return study_of(file) or str(file)


def _key_of(file: Path) -> str | DicomError:
    try:
        return study_key(file)
    except DicomError as error:
        return error
