"""What the page of `medres inspect` shows: plain values that the template draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medres.inspection.dataset_facts import DatasetFacts
from medres.inspection.volume_views import Geometry

SHORT_NAME = 8  # characters of a pseudonym under a small tile


@dataclass(frozen=True)
class Figure:
    """An image with its caption; `image` is a data URI."""

    caption: str
    image: str


@dataclass(frozen=True)
class Section:
    """A section that the caller adds to the page: a heading, a sentence, figures."""

    title: str
    note: str
    figures: Sequence[Figure] = field(default=())


@dataclass(frozen=True)
class Tile:
    """An image that opens larger. label: under the small image. name: what it is, with the whole
    pseudonym. caption: how it is shown. image: data URI.
    """

    label: str
    name: str
    caption: str
    image: str


@dataclass(frozen=True)
class SplitSheet:
    """The tiles of one label group in one split; count: its images."""

    split: str
    count: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class ContactSheet:
    """The tiles of one label group. windows: those through which its images are shown."""

    label: str
    windows: tuple[str, ...]
    splits: tuple[SplitSheet, ...]


@dataclass(frozen=True)
class HistogramLine:
    """shares: of the pixels in each bin, the mean of the images."""

    manufacturer: str
    images: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """Gray values of one kind of image by manufacturer, in equal bins from low to high."""

    kind: str
    low: float
    high: float
    bins: int
    lines: tuple[HistogramLine, ...]


@dataclass(frozen=True)
class SimilarPair:
    """Two near-duplicates; splits: of each."""

    distance: float
    splits: tuple[str, ...]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class SeriesRow:
    """A series whose slices have gaps. share: of slices that are interpolated on a regular grid;
    None if neither the headers nor the manifest say it. geometry: None where the headers can no
    longer be read.
    """

    series: str
    split: str
    verdict: str
    slices: int
    geometry: Geometry | None
    share: float | None


@dataclass(frozen=True)
class VolumeFigure:
    series: str
    split: str
    verdict: str
    geometry: Geometry
    tiles: tuple[Tile, ...]
    caption: str
    note: str


@dataclass(frozen=True)
class PageContent:
    """unread: images and series of the page whose files can no longer be read. more_gaps: series
    with gaps that are not in the table. volume_series: series of three slices or more.
    """

    facts: DatasetFacts
    sheets: tuple[ContactSheet, ...]
    histograms: tuple[Histogram, ...]
    pairs: tuple[SimilarPair, ...]
    volumes: tuple[VolumeFigure, ...]
    volume_series: int
    gaps: tuple[SeriesRow, ...]
    more_gaps: int
    unread: int


def image_tile(pseudonym: str, caption: str, image: str) -> Tile:
    """The tile of an image of the manifest."""
    return Tile(pseudonym[:SHORT_NAME], f"image {pseudonym}", caption, image)
