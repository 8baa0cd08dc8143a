"""From the files of boxes to the boxes of a cohort: match the listed images, check every box, and
say what became of each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_pipelines.annotations.boxes.checks import (
    MESSAGES,
    CheckedBox,
    checked_boxes,
    rejection_of,
)
from data_pipelines.annotations.boxes.finding import BoxOptions, FoundBoxes
from data_pipelines.annotations.boxes.matching import ImageFinder, NamedImage
from data_pipelines.annotations.boxes.origin import origin_warnings, require_pixels
from data_pipelines.annotations.boxes.outcome import ImageBoxes
from data_pipelines.annotations.boxes.readers.raw_boxes import ListedImage
from data_pipelines.annotations.boxes.report import summary_of, warnings_of, write_report
from data_pipelines.annotations.boxes.store import CORNERS, FOLDER, write_boxes
from data_pipelines.annotations.joining import Annotations
from data_pipelines.annotations.label_map import ClassNames
from data_pipelines.errors import AnnotationError, InputError

#: an entry of a file of boxes, and the image that it lists, by the name that it has there
Entry = tuple[NamedImage, ListedImage]
#: prefix of the columns of the manifest with the number of boxes of a class
BOXES = "boxes:"


def annotate_boxes(
    images: pd.DataFrame, found: FoundBoxes, options: BoxOptions, folder: Path
) -> Annotations:
    """Match the boxes with the accepted rows of the index and write `boxes/` and annotations.csv
    into `folder`.

    An image is `annotated` where a file lists it, also without a box; `rejected` where one of its
    boxes has an unknown place or class, so that nobody trains on half of an annotation; and else
    `not_annotated`. Raises InputError: boxes_unmatched (no listed image is one of the cohort;
    the narrower volume_boxes where all of them are volumes), normalized_boxes.
    """
    require_pixels(found.listed)
    matches, unmatched = _matched(images, found)
    names = ClassNames(dict(options.names))
    result = {n: _joined(images, n, entries, found, names) for n, entries in matches.items()}
    classes = _classes(result, options)
    states = [result[n].state if n in result else "not_annotated" for n in range(len(images))]
    target = folder / FOLDER
    target.mkdir()
    index = pd.DataFrame(
        {
            "image": images["image"].to_numpy(),
            "state": states,
            "rows": images["rows"].to_numpy(np.int32),
            "cols": images["cols"].to_numpy(np.int32),
        }
    )
    write_boxes(target, _table(images, result), index, classes)
    report = write_report(folder, images, result, unmatched)
    summary = summary_of(found, report, result, unmatched, states, classes)
    warnings = [*warnings_of(summary), *origin_warnings(found, result, images)]
    summary["warnings"] = warnings
    return Annotations(_columns(images, result, states, classes), summary, warnings)


def _matched(
    images: pd.DataFrame, found: FoundBoxes
) -> tuple[dict[int, list[Entry]], list[ListedImage]]:
    """The entries of each image by its position, and those of no image, each with its code."""
    finder = ImageFinder(images)
    matches: dict[int, list[Entry]] = defaultdict(list)
    unmatched: list[ListedImage] = []
    for listed in found.listed:
        try:
            if listed.code and not listed.values:
                raise AnnotationError(listed.message, code=listed.code)
            image = finder.find(listed)
            matches[image.row].append((image, listed))
        except AnnotationError as error:
            is_own = listed.code and error.code == "image_unmatched"
            code, text = (listed.code, listed.message) if is_own else (error.code, str(error))
            unmatched.append(listed.refused(code, text))
    if not matches:
        codes = Counter(listed.code for listed in unmatched)
        code = next(iter(codes)) if len(codes) == 1 and "volume_boxes" in codes else ""
        reasons = ", ".join(f"{name} {count}" for name, count in sorted(codes.items()))
        raise InputError(
            f"None of the {len(unmatched)} images that the boxes are given for is one of the "
            f"{len(images)} accepted images ({reasons}). Names are paths relative to SOURCE."
            + _hint(found, codes["duplicate_image_id"]),
            code=code or "boxes_unmatched",
        )
    return dict(matches), unmatched


def _hint(found: FoundBoxes, repeated: int) -> str:
    """What to do about a COCO file whose images share their ids."""
    if not repeated:
        return ""
    return (
        f" In {', '.join(found.files)} several entries of images have the same id, and their boxes "
        f"name nothing else: whose they are is unknown. Give every image an id of its own and, "
        f"as file_name, its path relative to SOURCE; or give the Pascal VOC or YOLO files of these "
        f"images, which have one file per image."
    )


def _joined(
    images: pd.DataFrame,
    n: int,
    matches: Sequence[Entry],
    found: FoundBoxes,
    names: ClassNames,
) -> ImageBoxes:
    """The boxes of one image, checked. Its copies may be listed too, with the same boxes."""
    size = int(images["rows"].iloc[n]), int(images["cols"].iloc[n])
    matches = sorted(matches, key=lambda match: match[0].is_copy)
    entries = [entry for _, entry in matches]
    of_files: dict[str, list[CheckedBox]] = {}
    for image, entry in matches:
        boxes = checked_boxes(entry.boxes, size, names, relative=entry.relative)
        of_files[image.path] = [*of_files.get(image.path, []), *boxes]
    several = found.file_format != "report"  # reports add to each other
    differ = several and _differ(list(of_files.values()))
    if several and not differ:
        _leave_out_repeated(list(of_files.values())[1:])
    each = ImageBoxes(entries, [box for boxes in of_files.values() for box in boxes])
    refused = next((entry for entry in entries if entry.code), None)
    other_size = next((e.size for e in entries if e.size not in (None, size)), None)
    if refused is not None:
        each.code, each.message = refused.code, refused.message
    elif several and len(entries) > len(of_files):
        each.code = "listed_twice"
        each.message = f"{len(entries)} files or entries list this image."
    elif differ:
        each.code = "duplicate_conflict"
        each.message = f"{len(of_files)} copies of this image are listed with different boxes."
    elif other_size is not None:
        each.code = "wrong_size"
        each.message = (
            f"The boxes were drawn on {other_size[0]} x {other_size[1]} pixels, and the image has "
            f"{size[0]} x {size[1]}."
        )
    else:
        each.code = rejection_of(each.boxes)
        each.message = MESSAGES.get(each.code, "")
    return each


def _differ(of_copies: Sequence[Sequence[CheckedBox]]) -> bool:
    """Whether the copies of an image have different boxes."""
    contents = {
        frozenset((box.class_name, box.edges, box.raw.ignore, box.code) for box in boxes)
        for boxes in of_copies
    }
    return len(contents) > 1


def _leave_out_repeated(of_copies: Sequence[Sequence[CheckedBox]]) -> None:
    """Give the usable boxes of further copies the code duplicate_box."""
    for boxes in of_copies:
        for box in boxes:
            box.code = box.code or "duplicate_box"


def _classes(result: Mapping[int, ImageBoxes], options: BoxOptions) -> list[str]:
    """The classes of the cohort: in the order of box_classes, else numbers first, ascending."""
    present = {box.class_name for each in result.values() for box in each.used}
    declared = [name for name in dict.fromkeys(options.names.values()) if name]
    rest = present - set(declared)
    return [
        *declared,
        *sorted(rest, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n)),
    ]


def _table(images: pd.DataFrame, result: Mapping[int, ImageBoxes]) -> pd.DataFrame:
    """boxes.parquet."""
    rows = [
        (
            images["image"].iloc[n],
            box.class_name,
            *box.edges,
            box.raw.score,
            box.raw.reader,
            box.raw.ignore,
            ";".join(box.flags),
        )
        for n, each in sorted(result.items())
        for box in each.used
    ]
    columns = ["image", "class", *CORNERS, "score", "reader", "ignore", "flags"]
    dtypes = {
        **dict.fromkeys(("image", "class", "reader", "flags"), "str"),
        **dict.fromkeys((*CORNERS, "score"), "float64"),
        "ignore": "bool",
    }
    return pd.DataFrame(rows, columns=columns).astype(dtypes)


def _columns(
    images: pd.DataFrame,
    result: Mapping[int, ImageBoxes],
    states: Sequence[str],
    classes: Sequence[str],
) -> pd.DataFrame:
    """For each image box_state, box_classes and boxes:<class>, without ignore regions."""
    counts = np.full((len(images), len(classes)), np.nan)
    present = [""] * len(images)
    for n, each in result.items():
        if each.state == "annotated":
            of_class = Counter(box.class_name for box in each.used if not box.raw.ignore)
            counts[n] = [of_class[name] for name in classes]
            present[n] = ";".join(name for name in classes if of_class[name])
    columns = pd.DataFrame({"box_state": states, "box_classes": present}, index=images.index)
    for number, name in enumerate(classes):
        columns[BOXES + name] = counts[:, number]
    return columns
