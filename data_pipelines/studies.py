"""One study for a model: its files through ingest's gate and the cache's preparation, in one function that prediction calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_pipelines.errors import Ineligible, SeriesError
from data_pipelines.images import Image
from data_pipelines.indexing import usable_images
from data_pipelines.parsing import Source
from data_pipelines.planes import Plane
from data_pipelines.preprocess import UNITS, PreprocessSpec, prepare
from data_pipelines.stacks import prepare_units, units_of


@dataclass(frozen=True)
class Study:
    """What a model receives for one study.

    pixels: prepared integers (records, *spec.prepared_shape). slices: for each record (SOP instance UID, frame) of each of its
    slices, in order, so that a prediction can be drawn back on them; a stack's are its neighbours.
    """

    pixels: np.ndarray
    slices: tuple[tuple[tuple[str, int], ...], ...] = field(repr=False)


def prepared_study(files: Sequence[Source], spec: PreprocessSpec) -> Study:
    """Every record that the images of a study make for a spec: each image, each slice with its neighbours, or each volume.

    Localizers, images of another kind and the like are passed over. Raises Ineligible where no image is left, SeriesError (code:
    the verdict in lower case) where none of the series makes a volume, and DicomError where a file cannot be read.
    """
    return prepared_images(_of_kind(files, spec), spec)


def prepared_images(images: Iterable[tuple[Image, Plane]], spec: PreprocessSpec) -> Study:
    """As `prepared_study`, from at least one image with its place; images of form "image" are held one at a time."""
    if spec.form != "image":
        return _stacked(list(images), spec)
    pixels, slices = [], []
    for image, _ in images:
        pixels.append(prepare(image, spec))
        slices.append((_name(image),))
    return Study(np.stack(pixels), tuple(slices))


def _of_kind(files: Sequence[Source], spec: PreprocessSpec) -> Iterator[tuple[Image, Plane]]:
    passed_over, count = "there is none", 0
    for file in files:
        try:
            usable = usable_images(file, units=UNITS[spec.kind])
        except Ineligible as error:
            passed_over = str(error)
            continue
        of_kind = [(image, plane) for image, kind, plane in usable if kind == spec.kind]
        if not of_kind:
            passed_over = f"the model was trained on {spec.kind} images, and this is another kind"
        count += len(of_kind)
        yield from of_kind
    if not count:
        raise Ineligible(f"no image that this model can read: {passed_over}", code="no_image")


def _stacked(kept: list[tuple[Image, Plane]], spec: PreprocessSpec) -> Study:
    """Stacks or volumes; as ingest does, of slices with equal pixels in one place the first is kept."""
    first: dict[tuple[object, ...], tuple[Image, Plane]] = {}
    for image, plane in kept:
        first.setdefault((plane.series, plane.position, image.pixel_sha256), (image, plane))
    images, planes = zip(*first.values(), strict=True)
    units, left_out = units_of(planes, spec)
    if not units:
        raise SeriesError(
            f"no series of the study makes a volume: {', '.join(left_out)}; the model's policy is {spec.policy!r}",
            code=next(iter(left_out)).lower(),
        )
    pixels = np.stack(list(prepare_units(units, planes, images.__getitem__, spec)))
    return Study(pixels, tuple(tuple(_name(images[n]) for n in unit.members) for unit in units))


def _name(image: Image) -> tuple[str, int]:
    return image.header.identifiers.sop_instance_uid, image.frame
