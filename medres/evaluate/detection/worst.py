"""The images with most errors, for the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medres.errors import EvaluationError
from medres.evaluate.detection.finding import MatchedClass, Threshold
from medres.evaluate.detection.froc import match_marks
from medres.evaluate.detection.outcome import WorstImage
from medres.evaluate.scores.sample import Int64Array

MOST_SHOWN = 12  # of all classes together
LONGEST_SIDE = 320  # pixels of a picture on the page


def worst_images(
    by_class: Mapping[str, MatchedClass],
    points: Mapping[str, Sequence[Threshold]],
    folder: str | Path | None,
) -> list[WorstImage]:
    """Those with most missed and false boxes at the first threshold of each class.

    Raises EvaluationError (not_a_folder) if `folder` is none. A file that is not there, or is no
    PNG or JPEG, gives a drawing without a picture.
    """
    root = None if folder is None else Path(folder)
    if root is not None and not root.is_dir():
        raise EvaluationError(f"images={root.name!r} is not a folder", code="not_a_folder")
    errors: list[tuple[int, str, int]] = []
    for name, matched in by_class.items():
        missed, false = _errors(matched, points[name][0])
        total = missed + false
        errors += [(-int(total[i]), name, int(i)) for i in np.flatnonzero(total)]
    return [
        _worst(name, by_class[name], points[name][0], image, root)
        for _, name, image in sorted(errors)[:MOST_SHOWN]
    ]


def _errors(matched: MatchedClass, threshold: Threshold) -> tuple[Int64Array, Int64Array]:
    """(images,) missed references, and false marks."""
    marks = matched.marks
    missed = marks.lesion_image[~marks.hits(threshold.value)]
    return np.bincount(missed, minlength=marks.lesions.size), marks.false_marks(threshold.value)


def _worst(
    name: str, matched: MatchedClass, threshold: Threshold, image: int, root: Path | None
) -> WorstImage:
    images = matched.images
    missed, false = _errors(matched, threshold)
    true = matched.reference.take(matched.reference.image == image)
    called = matched.predicted.take(
        (matched.predicted.image == image) & (matched.predicted.score >= threshold.value)
    )
    again = match_marks(called, true, len(images), matched.rule)
    corners = np.concatenate([true.corners, called.corners, [[0.0, 0.0, 1.0, 1.0]]])
    return WorstImage(
        finding=name,
        id=hashlib.sha256(str(images.ids[image]).encode()).hexdigest()[:12],
        missed=int(missed[image]),
        false=int(false[image]),
        width=int(images.width[image] or np.ceil(corners[:, 2].max())),
        height=int(images.height[image] or np.ceil(corners[:, 3].max())),
        reference=true.corners.tolist(),
        predicted=called.corners[again.order].tolist(),
        hit=(again.lesion >= 0).tolist(),
        picture=None if root is None else _picture(root, images.names[image]),
    )


def _picture(root: Path, name: str) -> str | None:
    """A small JPEG as a data URI. Names that lead out of the folder are not opened."""
    path = (root / name).resolve()
    if not name or not path.is_relative_to(root.resolve()):
        return None
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            data = io.BytesIO()
            picture.convert("RGB").save(data, "JPEG", quality=80)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
