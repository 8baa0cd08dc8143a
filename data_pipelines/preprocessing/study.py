"""One study for a model: its files through ingest's gate and the cache's preparation, in one
function that prediction calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import Ineligible, SeriesError
from data_pipelines.kinds import image_kind
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.preparation import prepare
from data_pipelines.preprocessing.samples import prepare_units, units_of
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.sources.acceptance import accepted_images
from data_pipelines.volumes.plane import Plane


@dataclass(frozen=True)
class Study:
    """What a model receives for one study.

    pixels: prepared integers (records, *spec.prepared_shape). slices: for each record (SOP instance
        UID, frame) of each of its slices, in order, so that a prediction can be drawn back on them;
        a stack's are its neighbours.
    """

    pixels: np.ndarray
    slices: tuple[tuple[tuple[str, int], ...], ...] = field(repr=False)


def prepared_study(
    files: Sequence[DicomSource],
    spec: PreprocessSpec,
    *,
    check: Callable[[Image], None] | None = None,
) -> Study:
    """Every record that the images of a study make for a spec: each image, each slice with its
    neighbours, or each volume.

    Localizers, images of another kind and the like are passed over. check: called with each image
    that is used; what it raises comes through. Raises Ineligible where no image is left,
    SeriesError (code: the verdict in lower case) where none of the series makes a volume, and
    DicomError where a file cannot be read.
    """
    single = spec.form == "image"
    pixels: list[np.ndarray] = []
    kept: list[tuple[Image, Plane]] = []
    places: list[tuple[str, int]] = []
    passed_over = "there is none"
    for file in files:
        try:
            usable = accepted_images(
                file, units=image_kind(spec.kind).units.name, digest=not single
            )
        except Ineligible as error:
            passed_over = str(error)
            continue
        of_kind = [(image, plane) for image, kind, plane in usable if kind == spec.kind]
        if not of_kind:
            passed_over = f"the model was trained on {spec.kind} images, and this is another kind"
        for image, plane in of_kind:
            if check is not None:
                check(image)
            places.append((image.header.identifiers.sop_instance_uid, image.frame))
            if single:
                pixels.append(prepare(image, spec))
            else:
                kept.append((image, plane))
    if not places:
        raise Ineligible(f"no image that this model can read: {passed_over}", code="no_image")
    if single:
        return Study(np.stack(pixels), tuple((place,) for place in places))
    return _stacked(kept, places, spec)


def _stacked(
    kept: list[tuple[Image, Plane]], places: list[tuple[str, int]], spec: PreprocessSpec
) -> Study:
    """Stacks or volumes; as ingest does, of slices with equal pixels in one place the first is
    kept.
    """
    first: dict[tuple[object, ...], int] = {}
    for n, (image, plane) in enumerate(kept):
        first.setdefault((plane.series, plane.position, image.pixel_sha256), n)
    at = list(first.values())
    images, planes = [kept[n][0] for n in at], [replace(kept[n][1], source_index=0) for n in at]
    units, left_out = units_of(planes, spec)
    if not units:
        verdicts = ", ".join(left_out)
        raise SeriesError(
            f"no series of the study makes a volume: {verdicts}; the model's policy is "
            f"{spec.policy!r}",
            code=next(iter(left_out)).lower(),
        )
    pixels = np.stack(list(prepare_units(units, planes, images.__getitem__, spec)))
    return Study(pixels, tuple(tuple(places[at[n]] for n in unit.members) for unit in units))
