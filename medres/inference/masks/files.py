"""The label maps of many studies as files: NIfTI or PNG, a picture of each, predictions.json, and
beside them the objects of `medres.inference.objects`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_pipelines.runtime.atomic_files import require_new, write_atomic
from data_pipelines.sources.nifti_header import require_nibabel
from medres.artefact.card import Card
from medres.inference.masks.study_mask import StudyMask
from medres.inference.prediction import Prediction
from medres.tasks import task_named

SUMMARY = "predictions.json"
OPACITY = 0.45  # of the colors in a picture


class StudyRecord(NamedTuple):
    """What the files of a run have of one study. study: its entry of predictions.json. images,
    results: of a detector, those of the study, whose ids count from 1.
    """

    study: dict[str, Any]
    images: tuple[dict[str, Any], ...] = ()
    results: tuple[dict[str, Any], ...] = ()


def write_masks(predictions: Iterable[Prediction], card: Card, out: Path | str) -> dict[str, Any]:
    """Write the label maps of studies into the new folder `out`; returns the content of
    predictions.json.

    A volume becomes NUMBER.nii.gz, an image NUMBER.png (the label is the pixel value); both have
    NUMBER_overlay.png. Raises InputError (output_exists).
    """
    out = new_folder(out)
    records = (
        mask_record(prediction, number, card, out)
        for number, prediction in enumerate(predictions, start=1)
    )
    return write_summary(records, card, out)


def new_folder(out: Path | str) -> Path:
    """Make the folder of the predictions. Raises InputError (output_exists)."""
    out = Path(out)
    require_new(out, what="the predictions")
    out.mkdir(parents=True, exist_ok=True)
    return out


def mask_record(
    prediction: Prediction,
    number: int,
    card: Card,
    out: Path,
    more: Mapping[str, Any] | None = None,
) -> StudyRecord:
    """Write the files of one study into `out`; doing so twice changes nothing. number: of the
    study, from 1. more: further entries of the record.
    """
    parts = len(prediction.masks)
    files = [
        file
        for n, mask in enumerate(prediction.masks)
        for file in _write_mask(mask, card, out, part_name(number, n, parts))
    ]
    return StudyRecord({**prediction.as_dict(), "files": files, **(more or {})})


def write_summary(
    records: Iterable[StudyRecord], card: Card, out: Path, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write predictions.json from the records of all studies. facts: further entries."""
    studies = [record.study for record in records]
    refused = [study for study in studies if study["refused"] is not None]
    summary = {
        "task": task_named(card.task).name,
        "classes": list(card.names),
        "model_sha256": studies[0]["model_sha256"] if studies else "",
        "given": len(studies),
        "answered": len(studies) - len(refused),
        "refused": dict(sorted(Counter(str(study["code"]) for study in refused).items())),
        **(facts or {}),
        "studies": studies,
    }
    write_atomic(out / SUMMARY, json.dumps(summary, indent=1, allow_nan=False).encode())
    return summary


def part_name(number: int, part: int, parts: int) -> str:
    """The beginning of the names of the files of a part of a study."""
    return f"{number:05d}" if parts == 1 else f"{number:05d}_{part + 1:03d}"


def _write_mask(mask: StudyMask, card: Card, out: Path, name: str) -> list[str]:
    """The names of the files of one label map."""
    if mask.affine is not None and mask.labels.ndim == 3:
        files = {f"{name}.nii.gz": nifti_bytes(mask.labels, mask.affine)}
    else:
        files = {f"{name}.png": png_bytes(mask.labels)}
    if mask.preview is not None:
        files[f"{name}_overlay.png"] = png_bytes(overlay(mask, card))
    for file, data in files.items():
        write_atomic(out / file, data)
    return list(files)


def nifti_bytes(values: np.ndarray, affine: np.ndarray) -> bytes:
    """A volume (slices, rows, columns) with its affine to LPS mm as a compressed NIfTI file."""
    import gzip

    require_nibabel()
    import nibabel as nib

    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]
    image = nib.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), ras)
    image.header.set_xyzt_units("mm")
    image.set_sform(ras, code=1)
    image.set_qform(ras, code=1)
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def png_bytes(values: np.ndarray) -> bytes:
    """uint8 (rows, columns[, 3]) as a PNG."""
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def overlay(mask: StudyMask, card: Card) -> np.ndarray:
    """The prepared image of the preview with the classes in their colors, uint8 (rows, columns,
    3).
    """
    if mask.preview is None:
        return np.zeros((1, 1, 3), np.uint8)
    image, labels = mask.preview
    rgb = displayed(image, card).astype(np.float64)
    color = np.asarray(mask.colors, np.float64)[labels]
    painted = np.where((labels > 0)[..., None], (1 - OPACITY) * rgb + OPACITY * color, rgb)
    return np.rint(painted).astype(np.uint8)


def displayed(image: np.ndarray, card: Card, *, stacked: bool = True) -> np.ndarray:
    """A prepared image as it is displayed, uint8 (rows, columns, 3). stacked: the last axis of a
    stack is that of its slices.
    """
    if stacked and card.preprocess.layout == "stack":
        image = image[..., image.shape[-1] // 2]
    low, high = _span(image, card)
    gray = np.clip((image.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1) * 255
    rgb = gray if gray.ndim == 3 else np.repeat(gray[..., None], 3, axis=2)
    return np.rint(rgb).astype(np.uint8)


def _span(image: np.ndarray, card: Card) -> tuple[float, float]:
    """The prepared integers that are shown black and white."""
    if card.windows:
        center, width = card.windows[0]
        return center - width / 2, center + width / 2
    low, high = np.percentile(image, (1, 99))
    return float(low), float(high)
