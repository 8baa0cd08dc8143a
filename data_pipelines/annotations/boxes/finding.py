"""The files of boxes below BOXES: which format they have, and what they list.

XML, text, PNG and DICOM files are read in isolated workers; a boxes.csv and COCO JSON in this
process, as the labels table is.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from data_pipelines.annotations.boxes.readers.boxes_table import TABLE_NAME, read_boxes_table
from data_pipelines.annotations.boxes.readers.coco import read_coco
from data_pipelines.annotations.boxes.readers.mask_boxes import OBJECT, MaskObjects, read_mask_boxes
from data_pipelines.annotations.boxes.readers.raw_boxes import (
    NAME,
    BoxFormat,
    ListedImage,
    RawBox,
)
from data_pipelines.annotations.boxes.readers.structured_report import REPORTS, read_report
from data_pipelines.annotations.boxes.readers.voc import read_voc
from data_pipelines.annotations.boxes.readers.yolo import NAMES_FILES, class_names, read_yolo
from data_pipelines.annotations.raw_mask import Identity
from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import AnnotationError, DicomError, InputError, NotDicom
from data_pipelines.runtime.engines.engine import LOCAL, Engine, map_files
from data_pipelines.runtime.engines.saved_answers import SavedAnswers
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.storage import read_source
from data_pipelines.runtime.walk import Walk, walk_files
from data_pipelines.runtime.worker_pool import ProgressCallback

_FORMAT_OF_SUFFIX: dict[str, BoxFormat] = {
    ".json": "coco",
    ".xml": "voc",
    ".txt": "yolo",
    ".png": "masks",
    ".dcm": "report",
    ".dicom": "report",
    "": "report",
}
_MAX_BYTES = 512 << 20
_BYTES_PER_TIME_LIMIT = 1 << 19
FORMATS = "boxes.csv, COCO JSON, Pascal VOC XML, YOLO text, DICOM SR and PNG masks"


@dataclass(frozen=True)
class BoxOptions:
    """Where boxes are, and how they are read.

    path: BOXES, a folder or a file. names: label -> class. objects: what is one object in a mask,
    None where there are no masks.
    """

    path: Path
    names: Mapping[str, str] = field(default_factory=dict)
    objects: MaskObjects | None = None


@dataclass(frozen=True)
class FoundBoxes:
    """What the files below BOXES list. file_format: the one format of all of them. files: that were
    read. skipped: files that have no boxes.
    """

    root: Path
    file_format: BoxFormat
    files: tuple[str, ...]
    listed: tuple[ListedImage, ...]
    skipped: int

    def paths(self) -> list[Path]:
        """The files that were read, which are no images even if they lie below SOURCE."""
        names = NAMES_FILES if self.file_format == "yolo" else ()
        return [self.root / name for name in (*self.files, *names)]


def find_boxes(
    options: BoxOptions,
    sources: Sequence[Path],
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    *,
    engine: Engine = LOCAL,
    parts: Path | None = None,
) -> FoundBoxes:
    """Read every file below BOXES that has boxes. parts: a folder for what they list, so that the
    same call after a crash does not read them again.

    Raises InputError: no_source, no_boxes, several_formats, mask_objects (masks, and no word about
    what one object is), boxes_table, volume_boxes, table_too_large; LabelError for a boxes.csv that
    is no table.
    """
    walk = walk_files(options.path)
    holds_source = any(Path(s).resolve().is_relative_to(walk.root) for s in sources)
    files = _candidates(walk, is_file=options.path.is_file(), holds_source=holds_source)
    contents = _read_here(walk.root, files)
    others = [name for name, form in files.items() if not _is_read_here(form)]
    read = functools.partial(read_boxes_file, root=str(walk.root), objects=options.objects)
    saved = None
    if parts is not None:
        context = ("read_boxes_file", str(walk.root), options.objects)
        saved = SavedAnswers(parts, context, (ListedImage, RawBox, Identity))
    answers = map_files(
        engine,
        read,
        [str(walk.root / name) for name in others],
        paths=_itself,
        workers=workers,
        timeout_s=_seconds,
        progress=progress,
        saved=saved,
    )
    contents |= _listed(others, [answer for _, answer in answers])
    contents = _without_strangers(contents, files, holds_source=holds_source)
    formats = Counter(files[name] for name in contents)
    file_format = _only_format(options.path, formats, len(walk.files))
    if file_format == "masks" and options.objects is None:
        raise InputError(
            f"The boxes of {options.path} are to be made from masks: say with mask_objects what "
            f"one object is: each label (labels), or each connected component (components).",
            code="mask_objects",
        )
    names = tuple(name for name in contents if files[name] == file_format)
    listed = [each for name in names for each in contents[name]]
    if file_format == "yolo":
        listed = _with_class_names(listed, class_names(walk.root))
    if file_format == "masks" and options.objects == "labels" and not options.names:
        listed = _renamed(listed, lambda _: OBJECT)
    return FoundBoxes(walk.root, file_format, names, tuple(listed), len(walk.files) - len(names))


def read_boxes_file(
    path: str, *, root: str, objects: MaskObjects | None
) -> list[ListedImage] | None:
    """What one file lists; None where it has no boxes. Runs in workers. Raises DicomError."""
    name = PurePosixPath(path).relative_to(root).as_posix()
    file_format = _format_of(name)
    data = read_source(path)
    if file_format == "voc":
        return read_voc(data, name)
    if file_format == "yolo":
        return read_yolo(data, name)
    if file_format == "masks":
        return read_mask_boxes(data, name, objects or "labels")
    try:
        dataset = parse(data, pixels=False).dataset
    except NotDicom:
        return None
    if Elements(dataset).text("SOPClassUID") not in REPORTS:
        return None
    return read_report(dataset, name)


def _format_of(name: str) -> BoxFormat | None:
    path = PurePosixPath(name)
    if path.suffix.lower() == ".csv":
        return "table"
    suffix = path.suffix.lower()
    is_number = suffix[1:].isdecimal()  # the name is a UID
    return _FORMAT_OF_SUFFIX.get("" if is_number else suffix)


def _candidates(walk: Walk, *, is_file: bool, holds_source: bool) -> dict[str, BoxFormat]:
    """The files that may have boxes by their names, and the format that each of them then has."""
    files: dict[str, BoxFormat] = {}
    for name in walk.files:
        file_format = _format_of(name)
        is_other_table = file_format == "table" and not is_file and name != TABLE_NAME
        is_image = file_format == "masks" and holds_source
        is_names = PurePosixPath(name).name in NAMES_FILES
        if file_format and not (is_other_table or is_image or is_names):
            files[name] = file_format
    if set(files.values()) - {"masks", "report"}:  # the PNG and DICOM files are the images
        files = {name: form for name, form in files.items() if form not in ("masks", "report")}
    return files


def _is_read_here(file_format: BoxFormat) -> bool:
    """Tables and COCO files are few, and each lists many images."""
    return file_format in ("table", "coco")


def _read_here(root: Path, files: Mapping[str, BoxFormat]) -> dict[str, list[ListedImage]]:
    """What the files list that this process reads, without those that have no boxes."""
    contents = {}
    for name, file_format in files.items():
        listed = _listed_here(root / name, file_format) if _is_read_here(file_format) else None
        if listed is not None:
            contents[name] = listed
    return contents


def _listed(
    names: Sequence[str], answers: Sequence[list[ListedImage] | DicomError | None]
) -> dict[str, list[ListedImage]]:
    """What the other files list, without those that have no boxes."""
    contents = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, DicomError):
            stem = str(PurePosixPath(name).with_suffix(""))
            contents[name] = [ListedImage(name, NAME, (stem,)).refused(answer.code, str(answer))]
        elif answer is not None:
            contents[name] = answer
    return contents


def _without_strangers(
    contents: Mapping[str, list[ListedImage]],
    files: Mapping[str, BoxFormat],
    *,
    holds_source: bool,
) -> dict[str, list[ListedImage]]:
    """The contents without text files that are empty among files of another format, and without
    DICOM files of SOURCE that cannot be read: ingest itself says so.
    """
    is_text = {name: files[name] == "yolo" for name in contents}
    has_boxes = any(
        e.boxes or e.code for n, listed in contents.items() if is_text[n] for e in listed
    )
    if not has_boxes and not all(is_text.values()):
        contents = {name: listed for name, listed in contents.items() if not is_text[name]}
    if holds_source:
        contents = {
            name: listed
            for name, listed in contents.items()
            if files[name] != "report" or any(e.key != NAME for e in listed)
        }
    return dict(contents)


def _listed_here(path: Path, file_format: BoxFormat) -> list[ListedImage] | None:
    if file_format == "table":
        return read_boxes_table(path)
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} is larger than {_MAX_BYTES >> 20} MiB.", code="table_too_large")
    try:
        return read_coco(path.read_bytes(), path.name)
    except AnnotationError as error:
        raise InputError(f"{path}: {error}", code=error.code) from None


def _itself(path: str) -> list[str]:
    return [path]


def _seconds(path: str) -> float:
    return active_limits().seconds * max(1.0, Path(path).stat().st_size / _BYTES_PER_TIME_LIMIT)


def _only_format(path: Path, formats: Counter[BoxFormat], files: int) -> BoxFormat:
    if len(formats) == 1:
        return next(iter(formats))
    if not formats:
        raise InputError(
            f"There are no boxes among the {files} files of {path}. These are read: {FORMATS}.",
            code="no_boxes",
        )
    counts = ", ".join(f"{name} {count}" for name, count in sorted(formats.items()))
    raise InputError(
        f"{path} has boxes in several formats ({counts} files): give the file or folder of one.",
        code="several_formats",
    )


def _with_class_names(listed: Iterable[ListedImage], names: Sequence[str]) -> list[ListedImage]:
    """The classes of YOLO by their names; a number without a name is unknown_class."""
    if not names:
        return list(listed)
    return _renamed(listed, lambda number: names[int(number)] if int(number) < len(names) else "")


def _renamed(listed: Iterable[ListedImage], name_of: Callable[[str], str]) -> list[ListedImage]:
    renamed = []
    for image in listed:
        boxes = [box._replace(class_name=name_of(box.class_name)) for box in image.boxes]
        known = [box if box.class_name else box._replace(code="unknown_class") for box in boxes]
        renamed.append(replace(image, boxes=tuple(known)))
    return renamed
