"""Damaged codestreams, one after the other: each gets an answer, and the server lives."""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless, generate_uid

from .test_mixed_requests import benchmark

COUNT = 500
ENCODERS = {
    JPEG2000Lossless: lambda a: imagecodecs.jpeg2k_encode(a, reversible=True, codecformat="j2k"),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEGLosslessSV1: imagecodecs.ljpeg_encode,
}


def codestreams(source: Path) -> list[tuple[Any, bytes]]:
    """The pixels of a file by transfer syntax."""
    dataset = dcmread(source)
    pixels = np.ascontiguousarray(dataset.pixel_array)
    streams = [(syntax, encode(pixels)) for syntax, encode in ENCODERS.items()]
    dataset.compress(RLELossless)
    from pydicom.encaps import get_frame

    return [*streams, (RLELossless, get_frame(dataset.PixelData, 0, number_of_frames=1))]


def mutated(stream: bytes, rng: random.Random) -> bytes:
    data = bytearray(stream)
    for _ in range(rng.randrange(1, 9)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    how = rng.randrange(4)
    if how == 0:
        del data[rng.randrange(len(data)) :]
    elif how == 1:
        at = rng.randrange(len(data))
        data[at:at] = rng.randbytes(rng.randrange(1, 200))
    return bytes(data) or b"\0"


def file_of(dataset: Dataset, syntax: Any, stream: bytes) -> bytes:
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, name, generate_uid())
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def answer(port: int, body: bytes) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/v1/studies?wait=60", body, {"Content-Type": "application/dicom"})
    response = connection.getresponse()
    value = json.loads(response.read())
    connection.close()
    return response.status, value


@pytest.mark.long  # a real model, five hundred damaged files
@pytest.mark.timeout(900)
def test_five_hundred_mutated_codestreams_leave_the_server_alive(
    tiny_work: Path, tiny_run: Path, tmp_path: Path
) -> None:
    source, rng = sorted((tiny_work.parent / "images").iterdir())[0], random.Random(0)
    streams, outcomes = codestreams(source), Counter[str]()
    serve = benchmark()
    server, port = serve.start(tiny_run / "model.keras", tmp_path / "spool", "--no-objects")
    with server:
        try:
            status, before = answer(port, serve.study_of(source.read_bytes()))
            for syntax, stream in streams:  # whole ones are read
                status, value = answer(port, file_of(dcmread(source), syntax, stream))
                assert (status, value["results"][0]["code"]) == (200, None), syntax.name
            for number in range(COUNT):
                syntax, stream = streams[number % len(streams)]
                body = file_of(dcmread(source), syntax, mutated(stream, rng))
                status, value = answer(port, body)
                if status == 200:
                    (result,) = value["results"]
                    assert result["predictions"], result["state"]
                    outcomes[str(result["code"])] += 1
                else:
                    outcomes[f"{status} {value['code']}"] += 1
            assert server.poll() is None
            _, after = answer(port, serve.study_of(source.read_bytes()))
        finally:
            server.terminate()
    print(dict(outcomes))
    assert sum(outcomes.values()) == COUNT
    told = [one["results"][0]["predictions"][0]["probabilities"] for one in (before, after)]
    assert told[0] == told[1]
