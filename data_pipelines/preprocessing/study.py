"""One study for a model: its files pass the checks of ingest and the preparation of the cache, in
one function that prediction calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import Ineligible, SeriesError
from data_pipelines.kinds import ColorRule
from data_pipelines.pixels.image import Image
from data_pipelines.pixels.standardization import (
    moments_of,
    standardized,
    standards_of_groups,
)
from data_pipelines.preprocessing.original_grid import OriginalGrid, original_grid
from data_pipelines.preprocessing.preparation import prepare
from data_pipelines.preprocessing.samples import SampleSlices, prepare_samples, samples_of
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.sources.acceptance import CONSTANT_SLICE, HeaderCheck, accepted_images
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.series import group_planes

_OTHER_KIND = "the model was trained on {} images, and this is another kind of image"


@dataclass(frozen=True)
class Study:
    """What a model receives for one study.

    pixels: prepared integers (samples, *spec.prepared_shape). slices: for each sample, the (SOP
        instance UID, frame) of each of its slices, in order, so that a prediction can be drawn on
        them; those of a stack are its neighbors. grids: where each sample comes from.
    """

    pixels: np.ndarray
    slices: tuple[tuple[tuple[str, int], ...], ...] = field(repr=False)
    grids: tuple[OriginalGrid, ...] = field(default=(), repr=False)


def prepared_study(
    files: Iterable[DicomSource],
    spec: PreprocessSpec,
    *,
    check: Callable[[Image], None] | None = None,
    check_header: HeaderCheck | None = None,
    color: ColorRule = "refuse",
) -> Study:
    """Every sample that the images of a study give for a spec: each image, each slice with its
    neighbors, or each volume.

    Localizers, images of another kind and similar files are ignored. check: called with each image
    that is used; its exceptions are passed on. check_header: as for `accepted_images`. color: as
    ingest had it for the training images: an image in color is ignored, or its luminance is taken.

    Raises Ineligible (code no_image) if no image is left, SeriesError (code: the verdict in lower
    case) if no series makes a volume, and DicomError if a file cannot be read.
    """
    single = spec.layout == "image" and not spec.image_kind.is_standardized
    pixels: list[np.ndarray] = []
    grids: list[OriginalGrid] = []
    slices: list[tuple[Image, Plane]] = []
    origins: list[tuple[str, int]] = []
    reason, varied = "the study has no image", False
    for file in files:
        try:
            kind = spec.image_kind
            units = kind.units.name
            accepted = accepted_images(
                file,
                units=units,
                nifti_units=units,
                digest=not single,
                declared=kind.name if kind.is_declared else None,
                check_header=check_header,
                color=color,
            )
        except Ineligible as error:
            reason = _OTHER_KIND.format(spec.kind) if error.code == "other_kind" else str(error)
            continue
        of_kind = [(image, plane) for image, kind, plane in accepted if kind == spec.kind]
        if not of_kind:
            reason = _OTHER_KIND.format(spec.kind)
        for image, plane in of_kind:
            if check is not None:
                check(image)
            varied = varied or CONSTANT_SLICE not in image.repairs
            origins.append((image.header.identifiers.sop_instance_uid, image.frame))
            if single:
                pixels.append(prepare(image, spec))
                grids.append(original_grid(SampleSlices((0,)), [plane], image, spec))
            else:
                slices.append((image, plane))
    if origins and not varied:
        origins, reason = [], "all pixels of every image have the same value"
    if not origins:
        raise Ineligible(f"no image that this model can read: {reason}", code="no_image")
    if single:
        return Study(np.stack(pixels), tuple((origin,) for origin in origins), tuple(grids))
    return _of_series(slices, origins, spec)


def _of_series(
    slices: list[tuple[Image, Plane]], origins: list[tuple[str, int]], spec: PreprocessSpec
) -> Study:
    """Stacks, volumes, or slices of a volume that is standardized. Of slices with equal pixels at
    the same position only the first is used, as in ingest.
    """
    first: dict[tuple[object, ...], int] = {}
    for n, (image, plane) in enumerate(slices):
        first.setdefault((plane.series, plane.position, image.pixel_sha256), n)
    indices = list(first.values())
    images = [slices[n][0] for n in indices]
    planes = [replace(slices[n][1], source_index=0) for n in indices]
    if spec.image_kind.is_standardized:
        images = _standardized(images, planes)
    samples, left_out = samples_of(planes, spec)
    if not samples:
        verdicts = ", ".join(left_out)
        raise SeriesError(
            f"no series of the study makes a volume: {verdicts}; the model's policy is "
            f"{spec.policy!r}",
            code=next(iter(left_out)).lower(),
        )
    pixels = np.stack(list(prepare_samples(samples, planes, images.__getitem__, spec)))
    return Study(
        pixels,
        tuple(tuple(origins[indices[n]] for n in sample.slice_indices) for sample in samples),
        tuple(original_grid(sample, planes, images[sample.middle], spec) for sample in samples),
    )


def _standardized(images: list[Image], planes: list[Plane]) -> list[Image]:
    """The slices in standard deviations of their volumes, which are found as in ingest. Raises
    Ineligible (constant_pixels).
    """
    groups = group_planes([replace(plane, source_index=n) for n, plane in enumerate(planes)])
    standards = standards_of_groups(groups, [moments_of(image) for image in images])
    results = []
    for n, image in enumerate(images):
        standard = standards[n]
        if isinstance(standard, Ineligible):
            raise standard
        results.append(standardized(image, standard))
    return results
