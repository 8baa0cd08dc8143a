"""Decoding the first file of each (manufacturer, model, transfer syntax) with a second decoder.

Decoders of a lossless syntax must give the same values. When two of them do not, it is unknown
which is right: every file of that scanner and syntax is then decoded twice, and the files on which
the decoders differ are quarantined.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import DecodeFailed, DicomError
from data_pipelines.ingestion.file_inspection import columns_of_row
from data_pipelines.ingestion.index.entries import FileIndex, RejectedFile
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
from data_pipelines.runtime.archives import archive_or_file
from data_pipelines.runtime.engines.engine import LOCAL, Engine, map_files
from data_pipelines.runtime.object_stores import joined
from data_pipelines.runtime.worker_pool import ProgressCallback

#: lossless syntaxes for which more than one decoder may be installed
CHECKED = frozenset(
    {RLE, *(f"1.2.840.10008.1.2.4.{n}" for n in ("57", "70", "80", "90", "201", "202"))}
)
_SCANNER = ["manufacturer", "model", "transfer_syntax"]
_FILE = ["source", "path"]
_MESSAGE = (
    "Two decoders give different pixels, and it is unknown which is right. Convert the file, or "
    "fetch it again."
)


def cross_checked(
    index: FileIndex,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    engine: Engine = LOCAL,
) -> FileIndex:
    """Return the index without the files on which two decoders differ; their reason is
    `decoders_disagree`. engine: where files are decoded.
    """
    if index.rows.empty:
        return index
    checked = index.rows[index.rows["transfer_syntax"].isin(CHECKED)].drop_duplicates(_FILE)
    first_files = checked.drop_duplicates(_SCANNER)
    run = functools.partial(_disagreeing, workers=workers, progress=progress, engine=engine)
    disagreeing = run(first_files)
    if disagreeing.empty:
        return index
    same_scanner = checked[_among(checked, disagreeing, _SCANNER)]
    others = same_scanner.drop(index=first_files.index, errors="ignore")
    disagreeing = pd.concat([disagreeing, run(others)])
    rejected = [
        RejectedFile(
            row["source"],
            row["path"],
            "decoders_disagree",
            _MESSAGE,
            skipped=False,
            columns=columns_of_row(row),
        )
        for row in disagreeing.to_dict("records")
    ]
    rows = index.rows[~_among(index.rows, disagreeing, _FILE)]
    return replace(index, rows=rows.reset_index(drop=True), rejected=(*index.rejected, *rejected))


def second_opinion(path: str) -> None:
    """Decode the first frame with the first two installed decoders; runs in a worker.

    Raises DecodeFailed (code decoders_disagree) when both give values and the values differ.
    """
    parsed = parse(path, pixels=True)
    pixels, _ = pixel_format(header_of(parsed))
    data, _, extended = pixel_elements(parsed.dataset)
    frames, _ = encapsulated_frames(data, pixels.frames, extended)
    installed = [decoder for decoder in decoders_for(pixels.syntax) if not decoder.missing]
    values = _decoded_values(b"".join(frames[0]), pixels, installed)
    if len(values) == 2 and not np.array_equal(values[0], values[1]):
        raise DecodeFailed("Two decoders give different values.", code="decoders_disagree")


def _disagreeing(
    files: pd.DataFrame,
    workers: int | None,
    progress: ProgressCallback | None,
    engine: Engine,
) -> pd.DataFrame:
    """The files on which two decoders differ."""
    paths = [
        joined(source, path) for source, path in zip(files["source"], files["path"], strict=True)
    ]
    answers = map_files(
        engine,
        second_opinion,
        paths,
        paths=archive_or_file,
        workers=workers,
        progress=progress,
    )
    results = [result for _, result in answers]
    codes = [result.code if isinstance(result, DicomError) else "" for result in results]
    return files[np.array(codes, dtype=object) == "decoders_disagree"]


def _among(rows: pd.DataFrame, others: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Whether each row equals one of the others in these columns."""
    values = pd.MultiIndex.from_frame(rows[columns])
    return np.asarray(values.isin(pd.MultiIndex.from_frame(others[columns])))


def _decoded_values(
    frame: bytes, pixels: PixelFormat, installed: Sequence[Decoder]
) -> list[Stored]:
    """Values of up to two decoders; a decoder that fails is skipped."""
    stream = read_codestream(frame)
    values: list[Stored] = []
    for decoder in installed:
        try:
            samples = decoder.decode(frame, pixels)
        except CODEC_ERRORS:
            continue
        if pixels.syntax == RLE:
            values.append(cell_values(samples.view(f"u{pixels.bits_allocated // 8}"), pixels))
        elif stream is not None:
            values.append(sample_values(samples, stream.precision, pixels))
        if len(values) == 2:
            break
    return values
