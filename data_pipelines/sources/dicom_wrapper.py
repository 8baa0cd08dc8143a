"""Folders of PNG and JPEG pictures as DICOM objects: CR or secondary capture, derived, with the
lossy history kept.

A wrapped picture claims nothing that it does not know: no pixel spacing, no date, no laterality.
PS3.3 C.7.6.1 (image), C.8.2 (CR), C.8.6 (SC), C.11.2 (window).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import InputError, LabelError
from data_pipelines.labels.csv_reader import read_csv
from data_pipelines.labels.table import metadata_columns, normalise_key
from data_pipelines.runtime.atomic_files import csv_bytes, staged_folder
from data_pipelines.runtime.walk import walk_files
from data_pipelines.sources.raster import Picture, RasterError, read_picture

SUFFIXES = (".png", ".jpg", ".jpeg")
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class WrapOptions:
    """What the caller knows about all the pictures."""

    modality: str
    body_part: str
    burned_in: Literal["YES", "NO"] | None


@dataclass(frozen=True)
class _Written:
    patient: str
    lossy: bool
    luminance: bool


def wrap(
    source: Path | str,
    out: Path | str,
    *,
    labels: Path | str | None = None,
    modality: str = "CR",
    body_part: str = "",
    burned_in: Literal["YES", "NO"] | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, object]:
    """Write each PNG or JPEG below `source` as a DICOM file below the new or empty folder `out`;
    return the counts.

    `labels` is a labels CSV keyed by `path` (relative to `source`): its `patient` (or `patient_id`)
    becomes PatientID, its age, sex and view go into the header, and `out/labels.csv` is the same
    table with the new paths. A picture without a patient gets an id of its own, and the notes say
    so. `modality` is "CR", or "SC" for secondary capture objects of radiographs. `burned_in`
    answers "is text burned into the pictures?"; None leaves it unsaid, and ingest refuses a
    secondary capture that does not deny it. Pictures that cannot be read as one grey image are
    skipped and counted under `reasons`. Nothing is left behind on failure. Raises InputError for
    folders and arguments, LabelError for the table.
    """
    if modality not in ("CR", "SC"):
        raise InputError(f"modality {modality!r}: give CR, or SC for secondary capture objects.")
    if not re.fullmatch(r"[A-Z0-9 _]{0,16}", body_part):
        raise InputError(
            "body_part must be a DICOM code of up to 16 capital letters, digits and spaces, as in "
            "CHEST."
        )
    table = None if labels is None else _read_table(Path(labels))
    rows = {} if table is None else {str(row["path"]): row for row in table.to_dict("records")}
    found = walk_files(source)
    files = [f for f in found.files if labels is None or found.root / f != Path(labels).resolve()]
    targets = _targets(files)
    outcomes: dict[str, _Written | str] = dict(found.others)
    with staged_folder(Path(out), what="the wrapped folder") as folder:
        for number, path in enumerate(files):
            said = WrapOptions(modality, body_part, burned_in)
            outcomes[path] = _wrap_file(
                found.root, path, folder / targets[path], rows.get(path, {}), said
            )
            if progress is not None:
                progress(number + 1, len(files))
        if not any(isinstance(outcome, _Written) for outcome in outcomes.values()):
            raise InputError(
                f"{source} holds no PNG or JPEG that could be wrapped.", code="no_pictures"
            )
        if table is not None:
            mapped: Iterable[dict] = (
                {**row, "path": targets.get(path, path)} for path, row in rows.items()
            )
            (folder / "labels.csv").write_bytes(csv_bytes(mapped, list(table.columns)))
    return _summary(outcomes, rows, modality, burned_in)


def _read_table(path: Path) -> pd.DataFrame:
    table = read_csv(path)
    if "path" not in table:
        raise LabelError(f"{path} has no column path: pictures can be labelled by path only.")
    table["path"] = table["path"].map(lambda cell: normalise_key("path", cell))
    kept = metadata_columns(table, path)
    twice = table["path"].duplicated()
    if twice.any():
        raise LabelError(f"{path}, column path, row {twice.idxmax()}: the path occurs twice.")
    column = "patient" if "patient" in kept else "patient_id"
    if column in kept:
        wrong = kept[column].map(
            lambda cell: len(cell) > 64 or "\\" in cell or not cell.isprintable()
        )
        if wrong.any():
            raise LabelError(
                f"{path}, column {column}, row {wrong.idxmax()}: no PatientID (64 characters, no "
                f"backslash)."
            )
    return table


def _targets(files: Iterable[str]) -> dict[str, str]:
    """New path of each picture: its suffix becomes .dcm, unless two would meet; then .dcm is
    added.
    """
    files = list(files)
    replaced = {path: str(PurePosixPath(path).with_suffix(".dcm")) for path in files}
    count = Counter(replaced.values())
    return {
        path: new if count[new] == 1 and new not in files else f"{path}.dcm"
        for path, new in replaced.items()
    }


def _wrap_file(
    root: Path, path: str, target: Path, row: Mapping, said: WrapOptions
) -> _Written | str:
    """Write one picture, or return the reason code why not."""
    if PurePosixPath(path).suffix.lower() not in SUFFIXES:
        return "not_a_picture"
    data = (root / path).read_bytes()
    try:
        picture = read_picture(data)
    except RasterError as reason:
        return str(reason)
    dataset = _dataset(picture, path, data, row, said)
    save(dataset, target)
    return _Written(str(dataset.PatientID), picture.lossy, picture.luminance)


def _dataset(picture: Picture, path: str, data: bytes, row: Mapping, said: WrapOptions) -> Dataset:
    identity = (hashlib.sha256(data).hexdigest(), path)
    own = f"picture-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    dataset = new_dataset(
        said.modality,
        ExplicitVRLittleEndian,
        patient_id=_patient(row) or own,
        patient="",
        study=derived_uid("wrap", "study", *identity),
        series=derived_uid("wrap", "series", *identity),
        sop=derived_uid("wrap", "image", *identity),
    )
    dataset.Modality = "CR"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BodyPartExamined = said.body_part
    if said.modality == "SC":
        dataset.ConversionType = "WSD"
    if said.burned_in is not None:
        dataset.BurnedInAnnotation = said.burned_in
    _describe_patient(dataset, row)
    dataset.DerivationDescription = "; ".join(
        ("wrapped from a picture file by medres", *picture.changes)
    )
    dataset.LossyImageCompression = "01" if picture.lossy else "00"
    if picture.lossy:
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.LossyImageCompressionRatio = f"{picture.pixels.nbytes / len(data):.4g}"
    bits = picture.pixels.dtype.itemsize * 8
    if bits == 8:  # it was looked at from 0 to 255; what range a 16-bit picture uses is not known
        dataset.WindowCenter, dataset.WindowWidth = 128, 256
    set_pixels(dataset, picture.pixels, bits=bits)
    return dataset


def _patient(row: Mapping) -> str:
    return str(row["patient"] if "patient" in row else row.get("patient_id", ""))


def _describe_patient(dataset: Dataset, row: Mapping) -> None:
    sex, view = str(row.get("sex", ""))[:1].upper(), str(row.get("view", "")).upper()
    dataset.PatientSex = sex if sex in ("M", "F", "O") else ""
    dataset.ViewPosition = view if re.fullmatch(r"[A-Z0-9 _]{1,16}", view) else ""
    if row.get("age"):
        years = float(row["age"])
        dataset.PatientAge = f"{int(years):03d}Y" if years >= 2 else f"{int(years * 12):03d}M"


def _summary(
    outcomes: Mapping[str, _Written | str], rows: Mapping, modality: str, burned_in: str | None
) -> dict[str, object]:
    written = {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, _Written)}
    reasons = Counter(outcome for outcome in outcomes.values() if isinstance(outcome, str))
    unnamed = sum(not _patient(rows.get(path, {})) for path in written)
    luminance = sum(outcome.luminance for outcome in written.values())
    notes = {
        f"{unnamed} pictures have no patient in the labels: each counts as a patient of its own, "
        f"so several pictures of "
        "one person may fall into different splits.": unnamed,
        f"{luminance} pictures had faint colour and were turned to luminance.": luminance,
        "Ingest will refuse these secondary captures unless burned_in is NO.": modality == "SC"
        and burned_in != "NO",
    }
    return {
        "given": len(outcomes),
        "written": len(written),
        "skipped": reasons.total(),
        "reasons": dict(sorted(reasons.items())),
        "lossy": sum(outcome.lossy for outcome in written.values()),
        "patients": len({outcome.patient for outcome in written.values()}),
        "label_rows_without_picture": len(set(rows) - set(written)),
        "notes": [note for note, true in notes.items() if true],
    }
