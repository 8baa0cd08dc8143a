"""annotations.csv and the block `boxes` of ingest.json: what became of every box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.annotations.boxes.finding import FoundBoxes
from data_pipelines.annotations.boxes.outcome import ImageBoxes
from data_pipelines.annotations.boxes.readers.raw_boxes import ListedImage, RawBox
from data_pipelines.runtime.atomic_files import csv_bytes, write_atomic
from data_pipelines.runtime.csv_cells import escape_formula

#: columns of annotations.csv, one row per box; images without a box have one row
REPORT_COLUMNS = ("boxes", "state", "reason", "message", "image", "class", "flags", "ignore")
REPORT = "annotations.csv"


def write_report(
    folder: Path,
    images: pd.DataFrame,
    result: Mapping[int, ImageBoxes],
    unmatched: Sequence[ListedImage],
) -> pd.DataFrame:
    """Write annotations.csv, behind the rows of masks if there are any; returns the rows of boxes,
    with `is_box`, false where an image has no box.
    """
    rows = []
    for n, each in sorted(result.items()):
        image = images["image"].iloc[n]
        for box in each.boxes:
            fate = each.fate_of(box)
            flags = ";".join(box.flags)
            rows.append((box.raw.name, *fate, image, box.class_name, flags, box.raw.ignore, True))
        for entry in each.entries:
            if not entry.boxes:
                fate = "rejected" if each.code else "used", each.code, each.message
                rows.append((entry.name, *fate, image, "", "no_object", False, False))
    for entry in unmatched:
        fate = "unmatched", entry.code, entry.message
        boxes = entry.boxes or (None,)
        rows += [_unmatched_row(entry, box, fate) for box in boxes]
    report = pd.DataFrame(rows, columns=[*REPORT_COLUMNS, "is_box"])
    report = report.sort_values("boxes", kind="stable")
    masks = folder / REPORT
    table = report.drop(columns="is_box")
    if masks.is_file():
        before = pd.read_csv(masks, dtype=str, keep_default_na=False)
        table = pd.concat([before, table]).fillna("")
    content = [
        {str(k): escape_formula(str(v)) for k, v in row.items()} for row in table.to_dict("records")
    ]
    write_atomic(masks, csv_bytes(content, tuple(map(str, table))))
    return report


def _unmatched_row(entry: ListedImage, box: RawBox | None, fate: tuple[str, str, str]) -> tuple:
    if box is None:
        return (entry.name, *fate, "", "", "no_object", False, False)
    return (box.name, *fate, "", box.class_name, ";".join(box.flags), box.ignore, True)


def summary_of(
    found: FoundBoxes,
    report: pd.DataFrame,
    result: Mapping[int, ImageBoxes],
    unmatched: Sequence[ListedImage],
    states: Sequence[str],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The block `boxes` of ingest.json: given = used + rejected + unmatched + skipped boxes."""
    boxes = report[report["is_box"]]
    fates = Counter(boxes["state"])
    reasons = Counter(report["reason"][report["reason"] != ""])
    flags = Counter(flag for text in boxes["flags"] for flag in text.split(";") if flag)
    used = [box for each in result.values() for box in each.used]
    of_class = Counter(box.class_name for box in used if not box.raw.ignore)
    images = Counter(states)
    return {
        "format": found.file_format,
        "files": len(found.files),
        "files_skipped": found.skipped,
        "given": len(boxes),
        **{state: fates[state] for state in ("used", "rejected", "unmatched", "skipped")},
        "reasons": dict(sorted(reasons.items())),
        "flags": dict(sorted(flags.items())),
        "classes": list(classes),
        "images": {state: images[state] for state in ("annotated", "not_annotated", "rejected")},
        "images_listed": len(found.listed),
        "images_unmatched": len(unmatched),
        "images_without_objects": sum(
            each.state == "annotated" and not each.used for each in result.values()
        ),
        "boxes": {name: of_class[name] for name in classes},
        "ignore": sum(box.raw.ignore for box in used),
    }


def warnings_of(summary: Mapping[str, Any]) -> list[str]:
    """What a person should know about the block `boxes`."""
    images, warnings = summary["images"], []
    if images["not_annotated"]:
        warnings.append(
            f"{images['not_annotated']} of {sum(images.values())} images are listed by no file of "
            f"boxes: they are not annotated, which is not the same as no object, and are not used "
            f"to train detection"
        )
    if images["rejected"]:
        reasons = ", ".join(f"{code} {count}" for code, count in summary["reasons"].items())
        warnings.append(
            f"{images['rejected']} images have boxes that cannot be used ({reasons}): they are not "
            f"used to train detection; see {REPORT}"
        )
    if summary["images_unmatched"]:
        warnings.append(
            f"{summary['images_unmatched']} images that the boxes are given for are no accepted "
            f"images"
        )
    spellings = Counter(name.casefold() for name in summary["classes"])
    same = [name for name in summary["classes"] if spellings[name.casefold()] > 1]
    if same:
        warnings.append(
            f"the classes {', '.join(same)} differ in case only: join them with box_classes"
        )
    return warnings
