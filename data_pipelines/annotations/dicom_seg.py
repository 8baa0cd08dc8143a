"""Reads a DICOM segmentation object: binary, fractional (C.8.20.2), and label maps (C.8.20.4).

Frames may come in any order, be absent where a segment has no pixel, and overlap. Segments are
classes by their SegmentLabel. The file is not trusted: counts are checked before memory is taken.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.label_map import ClassNames, LabelMap, Mask
from data_pipelines.annotations.raw_mask import FrameUid, RawMask
from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.header import Header, header_of
from data_pipelines.dicom.reader import DicomSource, ParsedDataset, parse
from data_pipelines.errors import (
    AnnotationError,
    DecodeFailed,
    LimitExceeded,
    NoPixelData,
    TruncatedPixelData,
    UnsupportedSyntax,
)
from data_pipelines.pixels.encapsulation import encapsulated_frames
from data_pipelines.pixels.stored_values import NATIVE, decode_stored_values, pixel_elements
from data_pipelines.runtime.limits import active_limits

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
MAX_SEGMENTS = 1000
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
#: DCM code of a segment that means background
_BACKGROUND_CODE = "125040"
#: decimals of a position in mm that tell slices of one segmentation apart
_POSITION_DECIMALS = 4


@dataclass(frozen=True)
class _Frame:
    """One frame: its segment (None in a label map), its plane and the image it was drawn on."""

    segment: int | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    drawn_on: FrameUid | None


def read_segmentation(source: DicomSource, names: ClassNames) -> RawMask:
    """A DICOM SEG as a mask on its own slices, ascending along row x column.

    A fractional value is inside from half of MaximumFractionalValue on; the flag
    `fractional_probability` or `fractional_occupancy` says what it was. Segments of one label are
    one class (flag `segments_merged`).

    Raises AnnotationError: too_many_segments (above 1,000), bad_segments (a segment without a
    number, or two with one number), bad_frames (frames are not described, or of an unknown
    segment), bad_fractional, mixed_orientation, no_reference (neither a position nor an image),
    unknown_label, too_many_labels; LimitExceeded; and the errors of reading and decoding.
    """
    parsed = parse(source, pixels=True)
    header, e = header_of(parsed), Elements(parsed.dataset)
    is_label_map = header.sop_class_uid == LABEL_MAP_SEGMENTATION
    segments, flags = _segments(e, names, is_label_map=is_label_map)
    frames = _frames(e, header, is_label_map=is_label_map)
    slots, grid, drawn_on = _slots(frames, header)
    shape = (len(drawn_on), header.rows or 0, header.columns or 0)
    if np.prod(shape, dtype=np.int64) > active_limits().inflated:
        raise LimitExceeded(
            f"The segmentation would take {np.prod(shape, dtype=np.int64)} bytes; the limit is "
            f"{active_limits().inflated}."
        )
    label_map = LabelMap.empty(shape, tuple(dict.fromkeys(filter(None, segments.values()))))
    if is_label_map:
        for slot, values in zip(slots, _stored(parsed.dataset, header), strict=True):
            label_map = _with_values(label_map, values, segments, slot)
    else:
        masks, more = _binary_frames(parsed, header, e)
        flags += more
        for slot, frame, mask in zip(slots, frames, masks, strict=True):
            name = segments.get(frame.segment or 0)
            if name is None:
                raise _bad_frames("a frame belongs to a segment that is not described")
            if name:
                label_map = label_map.with_plane(name, mask, slot)
    return RawMask(label_map, grid, drawn_on, sparse=True, flags=tuple(flags))


def _segments(
    e: Elements, names: ClassNames, *, is_label_map: bool
) -> tuple[dict[int, str], list[str]]:
    """Number of a segment -> class, '' for background; and flags."""
    items = e.items("SegmentSequence")
    if len(items) > MAX_SEGMENTS:
        raise AnnotationError(
            f"The segmentation has {len(items)} segments; at most {MAX_SEGMENTS} are read.",
            code="too_many_segments",
        )
    segments: dict[int, str] = {}
    for item in map(Elements, items):
        number = item.integer("SegmentNumber")
        if number is None or number in segments:
            raise AnnotationError(
                "A segment of the segmentation has no number of its own.", code="bad_segments"
            )
        kind = Elements(item.item("SegmentedPropertyTypeCodeSequence") or Dataset())
        label = item.text("SegmentLabel") or f"segment {number}"
        is_background = is_label_map and (
            label.lower() == "background" or kind.text("CodeValue") == _BACKGROUND_CODE
        )
        segments[number] = "" if is_background else names.of(label)
    if is_label_map:
        padding = e.integer("PixelPaddingValue")
        if padding is not None:
            segments[padding] = ""
        segments.setdefault(0, "")
    classes = [name for name in segments.values() if name]
    return segments, ["segments_merged"] if len(set(classes)) < len(classes) else []


def _frames(e: Elements, header: Header, *, is_label_map: bool) -> list[_Frame]:
    items = e.items("PerFrameFunctionalGroupsSequence")
    shared = Elements(e.item("SharedFunctionalGroupsSequence") or Dataset())
    if len(items) != header.frames:
        raise _bad_frames(f"it has {header.frames} frames and describes {len(items)}")
    sources = _single_source(e)
    return [_frame(Elements(item), shared, sources, is_label_map=is_label_map) for item in items]


def _frame(
    own: Elements, shared: Elements, source: FrameUid | None, *, is_label_map: bool
) -> _Frame:
    def group(keyword: str) -> Elements:
        return Elements(own.item(keyword) or shared.item(keyword) or Dataset())

    segment = None
    if not is_label_map:
        segment = group("SegmentIdentificationSequence").integer("ReferencedSegmentNumber")
        if segment is None:
            raise _bad_frames("a frame does not say which segment it is of")
    images = group("DerivationImageSequence").items("SourceImageSequence")
    return _Frame(
        segment,
        group("PlanePositionSequence").position(),
        group("PlaneOrientationSequence").orientation(),
        group("PixelMeasuresSequence").pair("PixelSpacing", positive=True),
        _frame_uid(images[0]) if len(images) == 1 else source,
    )


def _single_source(e: Elements) -> FrameUid | None:
    """The image of the whole segmentation, where it refers to a single one."""
    items = [
        instance
        for series in map(Elements, e.items("ReferencedSeriesSequence"))
        for instance in series.items("ReferencedInstanceSequence")
    ] or e.items("SourceImageSequence")
    return _frame_uid(items[0]) if len(items) == 1 else None


def _frame_uid(item: Dataset) -> FrameUid | None:
    e = Elements(item)
    uid, frame = e.text("ReferencedSOPInstanceUID"), e.integer("ReferencedFrameNumber")
    return (uid, max((frame or 1) - 1, 0)) if uid else None


def _slots(
    frames: Sequence[_Frame], header: Header
) -> tuple[list[int], Grid | None, tuple[FrameUid | None, ...]]:
    """The number of the slice of each frame, the grid of the slices, and what each was drawn on."""
    has_planes = all(f.position and f.orientation and f.spacing for f in frames)
    keys: list[tuple] = []
    for frame in frames:
        if has_planes:
            keys.append(tuple(round(v, _POSITION_DECIMALS) for v in frame.position or ()))
        elif frame.drawn_on is not None:
            keys.append(frame.drawn_on)
        else:
            raise AnnotationError(
                "A frame of the segmentation has neither a position nor the image it was drawn on.",
                code="no_reference",
            )
    first = dict(zip(reversed(keys), reversed(frames), strict=True))
    order = sorted(first)
    grid = None
    if has_planes:
        order, grid = _grid([first[key] for key in first], list(first), header)
    number = {key: n for n, key in enumerate(order)}
    return [number[key] for key in keys], grid, tuple(first[key].drawn_on for key in order)


def _grid(frames: Sequence[_Frame], keys: list[tuple], header: Header) -> tuple[list[tuple], Grid]:
    """The keys in the order of the slices, and their grid."""
    planes = np.array([(*(f.orientation or ()), *(f.spacing or ())) for f in frames], np.float64)
    if np.abs(planes - planes[0]).max() > 10.0**-_POSITION_DECIMALS:
        raise AnnotationError(
            "The frames of the segmentation have several orientations or spacings.",
            code="mixed_orientation",
        )
    across, down, spacing = planes[0, :3], planes[0, 3:6], planes[0, 6:]
    positions = np.array([frame.position for frame in frames], np.float64)
    order = np.argsort(positions @ np.cross(across, down), kind="stable")
    grid = Grid(
        positions[order],
        down * spacing[0],
        across * spacing[1],
        header.rows or 0,
        header.columns or 0,
    )
    return [keys[n] for n in order], grid


def _with_values(
    label_map: LabelMap, values: NDArray, segments: dict[int, str], slot: int
) -> LabelMap:
    for value in np.unique(values):
        name = segments.get(int(value))
        if name is None:
            raise AnnotationError(
                "The label map has a value that no segment has.", code="unknown_label"
            )
        if name:
            label_map = label_map.with_plane(name, values == value, slot)
    return label_map


def _binary_frames(
    parsed: ParsedDataset, header: Header, e: Elements
) -> tuple[Iterator[Mask], list[str]]:
    if e.code("SegmentationType") != "FRACTIONAL":
        values = _bits(parsed.dataset, header) if header.bits_allocated == 1 else None
        stored = _stored(parsed.dataset, header) if values is None else values
        return (frame != 0 for frame in stored), []
    maximum = e.integer("MaximumFractionalValue")
    if not maximum or maximum < 1:
        raise AnnotationError(
            "A fractional segmentation without MaximumFractionalValue (0062,000E): where a pixel "
            "is inside is unknown.",
            code="bad_fractional",
        )
    kind = e.code("SegmentationFractionalType").lower() or "unknown"
    masks = (2 * frame.astype(np.int64) >= maximum for frame in _stored(parsed.dataset, header))
    return masks, [f"fractional_{kind}"]


def _stored(dataset: Dataset, header: Header) -> NDArray:
    """Stored values (frames, rows, columns). A palette is only how labels are shown."""
    if header.transfer_syntax == _DEFLATED_FRAMES:
        return _deflated(dataset, header)
    values, _ = decode_stored_values(dataset, replace(header, photometric="MONOCHROME2"))
    return values if values.ndim == 3 else values[np.newaxis]


def _bits(dataset: Dataset, header: Header) -> Iterator[NDArray[np.uint8]]:
    """Frames of one bit per pixel, which follow one another without a gap (PS3.5 8.1.1)."""
    area = _area(header)
    if header.transfer_syntax == _DEFLATED_FRAMES:
        for inflated in _inflated_frames(dataset, header, (area + 7) // 8):
            bits = np.unpackbits(inflated, bitorder="little", count=area)
            yield bits.reshape(header.rows or 0, header.columns or 0)
        return
    if header.transfer_syntax not in NATIVE:
        raise UnsupportedSyntax(
            "Pixels of one bit are read uncompressed or deflated. Convert the file first."
        )
    data, _, _ = pixel_elements(dataset)
    expected = (area * header.frames + 7) // 8
    if len(data) < expected:
        raise TruncatedPixelData(
            f"There are {len(data)} bytes of pixel data; the header describes {expected}. Fetch "
            f"the file again."
        )
    if len(data) > expected + max(area // 8, 2):
        raise DecodeFailed(
            f"There are {len(data)} bytes of pixel data; the header describes {expected}.",
            code="frame_count",
        )
    packed = np.frombuffer(data, np.uint8)
    for n in range(header.frames):
        start, skipped = divmod(n * area, 8)
        part = packed[start : start + (skipped + area + 7) // 8]
        bits = np.unpackbits(part, bitorder="little")[skipped : skipped + area]
        yield bits.reshape(header.rows or 0, header.columns or 0)


def _deflated(dataset: Dataset, header: Header) -> NDArray:
    n_bytes = (header.bits_allocated or 8) // 8
    frames = _inflated_frames(dataset, header, _area(header) * n_bytes)
    values = [frame.view(f"<u{n_bytes}") for frame in frames]
    return np.stack(values).reshape(header.frames, header.rows or 0, header.columns or 0)


def _inflated_frames(dataset: Dataset, header: Header, size: int) -> Iterator[NDArray[np.uint8]]:
    """The bytes of each frame that is compressed by deflate (PS3.5 A.4.13)."""
    if size * header.frames > active_limits().inflated:
        raise LimitExceeded(
            f"The segmentation would take {size * header.frames} bytes; the limit is "
            f"{active_limits().inflated}."
        )
    data, _, extended = pixel_elements(dataset)
    for fragments in encapsulated_frames(data, header.frames, extended)[0]:
        try:
            raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(b"".join(fragments), size)
        except zlib.error:
            raise DecodeFailed("A deflated frame is damaged. Fetch the file again.") from None
        if len(raw) < size:
            raise TruncatedPixelData("A deflated frame ends early. Fetch the file again.")
        yield np.frombuffer(raw, np.uint8)


def _area(header: Header) -> int:
    if not (header.rows and header.columns):
        raise NoPixelData("The segmentation has no Rows or Columns.")
    return header.rows * header.columns


def _bad_frames(what: str) -> AnnotationError:
    return AnnotationError(f"The frames of the segmentation: {what}.", code="bad_frames")
