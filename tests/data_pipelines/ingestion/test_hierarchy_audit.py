from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.uid import generate_uid

from data_pipelines.cache.plan import plan_samples
from data_pipelines.cache.store import eligible_rows
from data_pipelines.dicom.writer import save
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.preprocessing.spec import spec_from
from data_pipelines.volumes.volume import read_volumes

pytestmark = pytest.mark.usefixtures("in_process")
Write = Callable[..., None]


@pytest.fixture
def radiograph(grey, tmp_path: Path) -> Write:
    """Writes a radiograph with random pixels; a study and a series of its own unless given."""

    def write(name: str, patient: str, **elements: object) -> None:
        pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 4096, (12, 12))
        own = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
        dataset = grey(
            pixels.astype(np.uint16), Modality="CR", PatientID=patient, **{**own, **elements}
        )
        save(dataset, tmp_path / "dicom" / name)

    return write


@pytest.fixture
def ct(grey, tmp_path: Path) -> Write:
    """Writes a CT of eight slices, 2.5 mm apart, first slice at `z`."""

    def write(patient: str, z: float = 0.0, **elements: object) -> None:
        for n in range(8):
            seed = zlib.crc32(f"{patient} {z} {n} {elements}".encode())
            pixels = np.random.default_rng(seed).integers(0, 2000, (12, 12))
            dataset = grey(
                pixels.astype(np.uint16),
                PatientID=patient,
                RescaleSlope="1",
                RescaleIntercept="-1024",
                RescaleType="HU",
                PixelSpacing=["0.7", "0.7"],
                ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
                ImagePositionPatient=["0", "0", str(z + 2.5 * n)],
                FrameOfReferenceUID="1.2.3",
                **elements,
            )
            save(dataset, tmp_path / "dicom" / f"{patient}-{z}-{n}.dcm")

    return write


def read(tmp_path: Path, **options: object) -> Manifest:
    return ingest(tmp_path / "dicom", workers=1, **options)


@pytest.mark.parametrize("series", ["1.2.3.99", None])
def test_two_patients_never_make_one_volume(ct: Write, tmp_path: Path, series: str | None) -> None:
    for n in range(4):
        ct(f"P{n}", 1.25 * n, StudyInstanceUID=f"1.2.9.{n}", SeriesInstanceUID=series)
    table = read(tmp_path).table
    by_series = table.groupby("series").agg(
        {"patient": "nunique", "verdict": "first", "path": "size"}
    )
    assert by_series["patient"].tolist() == [1] * 4
    assert by_series["verdict"].tolist() == ["REGULAR"] * 4
    assert by_series["path"].tolist() == [8] * 4
    spec = spec_from("ctvol-32")
    rows = eligible_rows(table, spec)
    plan = plan_samples(rows, spec, workers=1)
    patients = [
        rows["patient"].iloc[list(sample.slice_indices)].nunique() for sample in plan.samples
    ]
    assert patients == [1] * 4


def test_a_study_of_two_patient_ids_lies_in_one_split(radiograph: Write, tmp_path: Path) -> None:
    for n in range(16):
        radiograph(f"{n}.dcm", f"P{n}", StudyInstanceUID=f"1.2.9.{n // 2}")
    for seed in range(3):
        manifest = read(tmp_path, seed=seed)
        number = manifest.table["path"].str.removesuffix(".dcm").astype(int) // 2
        assert manifest.table.groupby(number)["split"].nunique().eq(1).all()
        assert manifest.table["study"].nunique() == 16
    entries = manifest.audit[manifest.audit["what"] == "study_of_two_patients"]
    assert len(entries) == 16
    assert manifest.summary["audit"]["hierarchy"]["study_of_two_patients"] == {
        "groups": 8,
        "across_patients": 8,
        "across_splits": 0,
    }
    assert any("study_of_two_patients" in text for text in manifest.summary["warnings"])
    assert manifest.summary["leak_attestation"]["attested"]


@pytest.mark.parametrize(("limit", "n_groups"), [(2, 9), (3, 7)])
def test_a_uid_of_many_patients_links_none(
    radiograph: Write, tmp_path: Path, limit: int, n_groups: int
) -> None:
    for n in range(9):
        radiograph(f"{n}.dcm", f"P{n}", SeriesInstanceUID="1.2.9.7" if n < 3 else generate_uid())
    manifest = read(tmp_path, patients_per_uid=limit)
    assert manifest.table["group"].nunique() == n_groups
    assert manifest.summary["leak_attestation"]["reasons"] == ["uid_no_identifier"][: limit == 2]
    assert any("more than 2 patients" in t for t in manifest.summary["warnings"]) == (limit == 2)
    assert manifest.summary["audit"]["hierarchy"]["series_in_two_studies"]["groups"] == 1


@pytest.mark.parametrize("uid", ["1.2.3.4.5", "1.1.1.1", "not a uid", "1.2.840.10008.1.2"])
def test_a_dummy_uid_links_none(radiograph: Write, tmp_path: Path, uid: str) -> None:
    for n in range(6):
        radiograph(f"{n}.dcm", f"P{n}", StudyInstanceUID=uid if n < 2 else generate_uid())
    manifest = read(tmp_path)
    assert manifest.table["group"].nunique() == 6
    assert manifest.table["study"].nunique() == 6
    assert any("dummies" in text for text in manifest.summary["warnings"])


@pytest.mark.parametrize("patient", ["", "ANON", "Anonymous", "12345", "000000", "UNKNOWN^"])
def test_a_placeholder_is_not_one_patient(radiograph: Write, tmp_path: Path, patient: str) -> None:
    for n in range(6):
        radiograph(f"{n}.dcm", patient, StudyInstanceUID=f"1.2.9.{n // 2}")
    if patient != "12345":  # it is constant, the others are placeholders
        radiograph("6.dcm", "P6")
    manifest = read(tmp_path)
    table = manifest.table.set_index("path").sort_index()
    assert table["patient"].iloc[:6].nunique() == 3
    assert manifest.summary["leak_attestation"] == {
        "attested": False,
        "reasons": ["patient_by_study"],
    }


def test_one_sop_instance_of_two_contents(radiograph: Write, tmp_path: Path) -> None:
    for n in range(6):
        uid = {"SOPInstanceUID": "1.2.9.5"} if n < 2 else {}
        radiograph(f"{n}.dcm", f"P{n}", **uid)
    manifest = read(tmp_path)
    assert manifest.summary["reasons"] == {"duplicate_uid": 2}
    entries = manifest.audit[manifest.audit["what"] == "sop_instance_two_contents"]
    assert entries["path"].tolist() == ["0.dcm", "1.dcm"]


def test_names_and_birth_dates_warn_and_separate_nobody(radiograph: Write, tmp_path: Path) -> None:
    names = ["Doe^Jane", "DOE^JANE^^^", "Roe^Jane", "", "Poe^Ann"]
    dates = ["19010203", "19010203", "", "19010204", "19010203"]
    for n, (name, date) in enumerate(zip(names, dates, strict=True)):
        radiograph(f"{n}.dcm", "A" if n < 4 else "B", PatientName=name, PatientBirthDate=date)
    radiograph("c.dcm", "C", PatientName="Doe^Jane", PatientBirthDate="19010203")
    manifest = read(tmp_path)
    assert manifest.table["patient"].nunique() == 3
    hierarchy = manifest.summary["audit"]["hierarchy"]
    assert hierarchy["patient_name"]["groups"] == hierarchy["patient_birth_date"]["groups"] == 1
    text = str(manifest.summary) + manifest.audit.to_csv() + manifest.table.to_csv()
    assert "190102" not in text
    assert "doe" not in text.lower()


@pytest.mark.parametrize(("second", "mentioned"), [("", "IssuerOfPatientID"), ("South", "")])
def test_a_missing_issuer_is_a_warning(
    radiograph: Write, tmp_path: Path, second: str, mentioned: str
) -> None:
    for n in range(6):
        radiograph(f"{n}.dcm", f"{n // 2}", IssuerOfPatientID="North" if n % 2 else second)
    manifest = read(tmp_path)
    assert manifest.table["patient"].nunique() == 6
    assert any("IssuerOfPatientID" in t for t in manifest.summary["warnings"]) == bool(mentioned)
    assert manifest.table["group"].nunique() == (3 if mentioned else 6)


def test_identity_columns_stay_out_of_the_manifest(radiograph: Write, tmp_path: Path) -> None:
    for n in range(3):
        radiograph(f"{n}.dcm", f"P{n}")
    table = read(tmp_path).table
    assert not {"patient_name", "birth_date", "accession_number", "by_study"} & set(table)
    assert pd.api.types.is_integer_dtype(table["group"].dtype)


def test_labels_meet_identifiers_of_every_character_set(radiograph: Write, tmp_path: Path) -> None:
    charsets = (["", "ISO 2022 IR 87"], "ISO_IR 192", "GB18030")
    for n in range(9):
        radiograph(
            f"{n}.dcm",
            "山田1" if n < 6 else f"P{n}",
            SpecificCharacterSet=charsets[n % 3],
            AccessionNumber="検査1" if n < 6 else f"{n}",
            StudyInstanceUID=f"1.2.9.{max(n, 5)}",
        )
    for key in ("patient_id,山田1,P6,P7", "accession_number,検査1,6,7"):
        column, *cells = key.split(",")
        rows = "".join(f"{cell},{n % 2}\n" for n, cell in enumerate(cells))
        (tmp_path / "labels.csv").write_text(f"{column},f\n{rows}", encoding="utf-8")
        manifest = read(tmp_path, labels=tmp_path / "labels.csv")
        assert manifest.table["patient"].nunique() == 4
        assert manifest.table["label:f"].notna().sum() == 8


@pytest.mark.parametrize("patient", ["P", ""])
@pytest.mark.parametrize("per_file", [True, False])
def test_ingest_cache_and_reading_form_the_same_groups(
    grey, tmp_path: Path, patient: str, per_file: bool
) -> None:
    """A study UID that no two files share divides no series; one of two real studies does."""
    pixels = np.random.default_rng(3).integers(0, 2000, (24, 12, 12)).astype(np.uint16)
    for n in range(24):
        series = n // 8
        study = f"1.2.9.3.{n}" if per_file else f"1.2.9.3.{series + 1}{n % 2}"
        dataset = grey(
            pixels[n],
            PatientID=patient and f"{patient}{series}",
            StudyInstanceUID=study,
            SeriesInstanceUID=f"1.2.9.4.{series}",
            RescaleSlope="1",
            RescaleIntercept="-1024",
            PixelSpacing=["0.7", "0.7"],
            ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
            ImagePositionPatient=["0", "0", str(2.5 * n)],
        )
        save(dataset, tmp_path / "dicom" / f"{n:02}.dcm")
    save(dataset, tmp_path / "dicom" / "copy.dcm")  # a copy is no second slice of its study
    manifest = read(tmp_path)
    table, spec = manifest.table, spec_from("ctvol-16")
    number = table["path"].str[:2]
    expected = {frozenset(f"{n:02}" for n in range(24) if n // 8 == s) for s in range(3)}
    if not per_file:
        expected = {frozenset(n for n in g if int(n) % 2 == k) for g in expected for k in (0, 1)}
    assert {frozenset(part) for _, part in number.groupby(table["series"])} == expected
    rows = eligible_rows(table, spec)
    plan = plan_samples(rows, spec, workers=1)
    cached = {frozenset(rows["path"].str[:2].iloc[list(s.slice_indices)]) for s in plan.samples}
    assert cached == expected
    volumes = read_volumes(tmp_path / "dicom", policy="resample")
    position = {round(float(v.affine[2, 3]), 3): len(v.pixels) for v in volumes}
    assert position == {round(2.5 * min(map(int, group)), 3): len(group) for group in expected}
    assert set(table["verdict"]) == {"REGULAR"}
    assert table["study"].nunique() == len(expected)
    assert table["patient"].nunique() == (3 if per_file or patient else 6)
    text = "3 series have a study UID of its own in every slice"
    assert any(text in warning for warning in manifest.summary["warnings"]) == per_file


def test_a_constant_series_uid_makes_no_patient_of_a_cohort(grey, tmp_path: Path) -> None:
    """Single slices of unknown patients at unrelated places: their studies are the patients."""
    for n, z in enumerate((0, 7, 9, 31, 40, 63)):
        pixels = np.random.default_rng(n).integers(0, 2000, (12, 12)).astype(np.uint16)
        dataset = grey(
            pixels,
            PatientID="ANON",
            StudyInstanceUID=f"1.2.9.3.{n}",
            SeriesInstanceUID="1.2.9.4.77",
            RescaleSlope="1",
            RescaleIntercept="-1024",
            PixelSpacing=["0.7", "0.7"],
            ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
            ImagePositionPatient=[str(17 * n), "0", str(z)],
        )
        save(dataset, tmp_path / "dicom" / f"{n}.dcm")
    assert read(tmp_path).table["patient"].nunique() == 6
