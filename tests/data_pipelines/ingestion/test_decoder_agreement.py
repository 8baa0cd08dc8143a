"""Two decoders, one answer: files on which they differ are quarantined, those of other scanners are
not decoded twice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from helpers import work_in_process
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from data_pipelines import ingest
from data_pipelines.errors import DecodeFailed
from data_pipelines.ingestion import decoder_agreement
from data_pipelines.ingestion.decoder_agreement import second_opinion
from data_pipelines.pixels import decoders


@pytest.fixture
def cohort(grey, to_bytes, tmp_path: Path) -> Path:
    """Eight JPEG 2000 slices of maker A, of which numbers 0 and 3 hold a 7 in their corner, and two
    of maker B without.
    """
    for n in range(10):
        pixels = np.random.default_rng(n).integers(10, 900, (20, 24)).astype(np.uint16)
        pixels[0, 0] = 7 if n in (0, 3) else 8
        data = encapsulate([imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True)])
        named = {
            "PatientID": f"P{n}",
            "SeriesInstanceUID": f"1.2.{n}",
            "StudyInstanceUID": f"1.3.{n}",
        }
        scale = {
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "Manufacturer": "A" if n < 8 else "B",
        }
        dataset = grey(pixels, syntax=JPEG2000Lossless, data=data, **named, **scale)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{n}.dcm").write_bytes(to_bytes(dataset))
    return tmp_path / "in"


def patched(patch: pytest.MonkeyPatch, second) -> list[int]:
    """Put `second` (values -> values, or an error) after imagecodecs; returns a list that grows
    with each use of it.
    """
    first, uses = decoders.decoders_for(str(JPEG2000Lossless))[0], []

    def decode(data, pixels):
        uses.append(1)
        return second(first.decode(data, pixels))

    patch.setattr(
        decoder_agreement,
        "decoders_for",
        lambda syntax: (first, replace(first, name="other", decode=decode)),
    )
    work_in_process(patch)
    return uses


def wrong_where_seven(values: np.ndarray) -> np.ndarray:
    return values + 1 if values[0, 0] == 7 else values


def test_files_on_which_decoders_differ_are_quarantined(
    cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses = patched(monkeypatch, wrong_where_seven)
    manifest = ingest(cohort)
    rejected = manifest.quarantine
    assert rejected["path"].tolist() == ["0.dcm", "3.dcm"]
    assert set(rejected["reason"]) == {"decoders_disagree"}
    assert len(manifest.table) == 8
    assert manifest.summary["quarantined"] == 2
    assert len(uses) == 9  # the eight of maker A, and the first of B


def test_where_they_agree_one_file_a_scanner_is_decoded_twice(
    cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses = patched(monkeypatch, lambda values: values)
    assert len(ingest(cohort).table) == 10
    assert len(uses) == 2


def test_a_decoder_that_fails_has_no_opinion(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(values):
        raise RuntimeError

    patched(monkeypatch, broken)
    second_opinion(str(cohort / "0.dcm"))
    assert len(ingest(cohort).table) == 10


def test_the_decoders_of_this_machine_agree(cohort: Path) -> None:
    installed = [each for each in decoders.decoders_for(str(JPEG2000Lossless)) if not each.missing]
    assert len(installed) > 1
    second_opinion(str(cohort / "0.dcm"))


def test_the_difference_of_one_bit_is_seen(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, lambda values: values ^ np.eye(*values.shape, k=5, dtype=values.dtype))
    with pytest.raises(DecodeFailed) as caught:
        second_opinion(str(cohort / "1.dcm"))
    assert caught.value.code == "decoders_disagree"
