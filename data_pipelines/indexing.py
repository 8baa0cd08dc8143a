"""Looking at every file once: walk, read the header, decode every frame in an isolated worker, give a reason or a row."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.errors import DicomError, Ineligible, InputError, NotDicom
from data_pipelines.files import file_sha256
from data_pipelines.headers import Header, Kind, eligibility, header_of
from data_pipelines.images import Image, image_of
from data_pipelines.parsing import Source, parse
from data_pipelines.planes import Plane, planes_of
from data_pipelines.preprocess import UNITS
from data_pipelines.walking import walk
from data_pipelines.workers import Progress, map_files

#: Raw identifiers that the rows hold besides the manifest's columns; they never leave the process.
IDENTIFIERS = ("sop_uid", "series_uid", "study_uid", "patient_id", "issuer")


@dataclass(frozen=True)
class Rejected:
    """A file without a row. `skipped`: it is not DICOM at all."""

    source: str
    path: str
    reason: str
    message: str
    skipped: bool


@dataclass(frozen=True, eq=False)
class Index:
    """`rows`: one a frame of each sound file, sorted by source (as given) and path; `rejected`: all other files."""

    rows: pd.DataFrame
    rejected: tuple[Rejected, ...]


def index_sources(
    sources: Sequence[Path | str],
    *,
    exclude: Sequence[Path] = (),
    for_processing: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Index:
    """Look at every file below `sources` but those in `exclude`. Raises InputError where a source is missing or inside
    another one. `for_processing` accepts raw radiographs; `progress` is called with (done, total) files.

    Row columns: the technical ones of the manifest, IDENTIFIERS and plane.
    """
    walks = [walk(source) for source in sources]
    _require_apart([w.root / w.files[0] if Path(s).is_file() else w.root for s, w in zip(sources, walks, strict=True)])
    left_out = {str(Path(path).resolve()) for path in exclude}
    places = [(str(w.root), path) for w in walks for path in w.files]
    places = [(root, path) for root, path in places if os.path.join(root, path) not in left_out]  # noqa: PTH118
    rejected = [
        Rejected(str(w.root), path, reason, "Not a regular file: it is not opened.", skipped=True)
        for w in walks
        for path, reason in w.others
    ]
    items = [(os.path.join(root, path), for_processing) for root, path in places]  # noqa: PTH118
    rows: list[dict[str, Any]] = []
    answers = map_files(inspect_file, items, workers=workers, progress=progress)
    for (root, path), (_, answer) in zip(places, answers, strict=True):
        if isinstance(answer, DicomError):
            skipped = isinstance(answer, NotDicom)
            rejected.append(Rejected(root, path, answer.code, str(answer), skipped))
        else:
            rows += [{"source": root, "path": path, **row} for row in answer]
    return Index(pd.DataFrame(rows), tuple(rejected))


def inspect_file(item: tuple[str, bool]) -> list[dict[str, Any]]:
    """Read, decode and describe each frame of (path, for_processing); runs in a worker. Raises DicomError."""
    path, for_processing = item
    digest = file_sha256(path)
    return [{"file_sha256": digest, **_row(*usable)} for usable in usable_images(path, for_processing=for_processing)]


def usable_images(source: Source, *, for_processing: bool = False) -> list[tuple[Image, Kind, Plane]]:
    """Every frame of a file that a model may learn from or be asked about: ingest and prediction share this gate.

    Raises DicomError; Ineligible says what makes a sound file no picture to learn from.
    """
    parsed = parse(source, pixels=True)
    header = header_of(parsed)
    kind = eligibility(header, for_processing=for_processing)
    planes = planes_of(parsed.dataset, header, 0)
    if any(plane.not_a_slice for plane in planes):
        code = next(plane.not_a_slice for plane in planes if plane.not_a_slice)
        raise Ineligible("A frame of it is no slice of intensities.", code=code)
    images = [image_of(parsed.dataset, header, plane.frame) for plane in planes]
    for image in images:
        if image.units != UNITS[kind]:
            raise Ineligible("A CT without a rescale to HU: its values have no known unit.", code="not_hu")
        if image.pixels.min() == image.pixels.max():
            raise Ineligible("All pixels are equal: there is nothing to see.", code="constant_pixels")
    return [(image, kind, plane) for image, plane in zip(images, planes, strict=True)]


def _row(image: Image, kind: Kind, plane: Plane) -> dict[str, Any]:
    header = image.header
    spacing = image.spacing_mm or (float("nan"), float("nan"))
    return {
        "frame": image.frame,
        "status": "repaired" if image.repairs else "ok",
        "repairs": ";".join(dict.fromkeys(image.repairs)),
        "kind": kind,
        **_technical(header),
        "rows": image.pixels.shape[0],
        "cols": image.pixels.shape[1],
        "row_spacing": spacing[0],
        "col_spacing": spacing[1],
        "pixel_sha256": image.pixel_sha256,
        "sop_uid": header.identifiers.sop_instance_uid,
        "series_uid": header.identifiers.series_instance_uid,
        "study_uid": header.identifiers.study_instance_uid,
        "patient_id": header.identifiers.patient_id,
        "issuer": header.identifiers.issuer_of_patient_id,
        "plane": plane,
    }


def _technical(header: Header) -> dict[str, Any]:
    return {
        "modality": header.modality,
        "photometric": header.photometric,
        "transfer_syntax": header.transfer_syntax,
        "manufacturer": header.manufacturer,
        "model": header.model_name,
        "body_part": header.body_part,
        "view": header.view_position,
        "laterality": header.laterality,
        "site": "",
        "sex": header.patient_sex,
        "age": float("nan") if header.patient_age_years is None else header.patient_age_years,
    }


def _require_apart(places: Sequence[Path]) -> None:
    for a, b in itertools.permutations(places, 2):
        if a.is_relative_to(b):
            raise InputError(
                f"SOURCE {a} is given twice or lies inside SOURCE {b}. Give each file once.", code="sources"
            )
