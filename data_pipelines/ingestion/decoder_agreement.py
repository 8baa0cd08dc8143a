"""A second decoder's opinion on the first file of each (manufacturer, model, transfer syntax).

Decoders of a lossless syntax must give the same values; where two of them do not, nobody knows
which is right. So every file of that scanner and syntax is then decoded twice, and those on which
the decoders differ are quarantined.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import DecodeFailed, DicomError
from data_pipelines.ingestion.index import FileIndex, RejectedFile
from data_pipelines.pixels.codestream import read_codestream
from data_pipelines.pixels.decoders import CODEC_ERRORS, RLE, Decoder, PixelFormat, decoders_for
from data_pipelines.pixels.encapsulation import encapsulated_frames
from data_pipelines.pixels.stored_values import (
    Stored,
    cell_values,
    pixel_elements,
    pixel_format,
    sample_values,
)
from data_pipelines.runtime.worker_pool import map_isolated

#: lossless syntaxes for which more than one decoder may be installed
CHECKED = frozenset(
    {RLE, *(f"1.2.840.10008.1.2.4.{n}" for n in ("57", "70", "80", "90", "201", "202"))}
)
_SCANNER = ["manufacturer", "model", "transfer_syntax"]


def cross_checked(index: FileIndex, workers: int | None = None) -> FileIndex:
    """The index without the files on which two decoders differ; they are rejected as
    `decoders_disagree`.
    """
    if index.rows.empty:
        return index
    files = index.rows[index.rows["transfer_syntax"].isin(CHECKED)].drop_duplicates(
        ["source", "path"]
    )
    firsts = files.drop_duplicates(_SCANNER)
    found = _disagreeing(firsts, workers)
    if found.empty:
        return index
    doubtful = files[
        pd.MultiIndex.from_frame(files[_SCANNER]).isin(pd.MultiIndex.from_frame(found[_SCANNER]))
    ]
    found = pd.concat(
        [found, _disagreeing(doubtful.drop(index=firsts.index, errors="ignore"), workers)]
    )
    gone = pd.MultiIndex.from_frame(found[["source", "path"]])
    message = (
        "Two decoders give different pixels for it: which is right is not known. Convert "
        "the file, or fetch it again."
    )
    rejected = [
        RejectedFile(source, path, "decoders_disagree", message, skipped=False)
        for source, path in gone
    ]
    rows = index.rows[~pd.MultiIndex.from_frame(index.rows[["source", "path"]]).isin(gone)]
    return replace(index, rows=rows.reset_index(drop=True), rejected=(*index.rejected, *rejected))


def _disagreeing(files: pd.DataFrame, workers: int | None) -> pd.DataFrame:
    paths = [
        os.path.join(source, path)  # noqa: PTH118
        for source, path in zip(files["source"], files["path"], strict=True)
    ]
    answers = [answer for _, answer in map_isolated(second_opinion, paths, workers=workers)]
    codes = [answer.code if isinstance(answer, DicomError) else "" for answer in answers]
    return files[np.array(codes, dtype=object) == "decoders_disagree"]


def second_opinion(path: str) -> None:
    """Decode the first frame with the first two decoders that are installed; runs in a worker.

    Raises DecodeFailed (`decoders_disagree`) where both give values and these differ.
    """
    parsed = parse(path, pixels=True)
    pixels, _ = pixel_format(header_of(parsed))
    data, _, extended = pixel_elements(parsed.dataset)
    frames, _ = encapsulated_frames(data, pixels.frames, extended)
    values = _opinions(
        b"".join(frames[0]),
        pixels,
        [each for each in decoders_for(pixels.syntax) if not each.missing],
    )
    if len(values) == 2 and not np.array_equal(values[0], values[1]):
        raise DecodeFailed("Two decoders give different values.", code="decoders_disagree")


def _opinions(frame: bytes, pixels: PixelFormat, installed: Sequence[Decoder]) -> list[Stored]:
    """Values of up to two decoders; one that fails has no opinion."""
    stream, found = read_codestream(frame), []
    for decoder in installed:
        try:
            samples = decoder.decode(frame, pixels)
        except CODEC_ERRORS:
            continue
        if pixels.syntax == RLE:
            found.append(cell_values(samples.view(f"u{pixels.bits_allocated // 8}"), pixels))
        elif stream is not None:
            found.append(sample_values(samples, stream.precision, pixels))
        if len(found) == 2:
            break
    return found
