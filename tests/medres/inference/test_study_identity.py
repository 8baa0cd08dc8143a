from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import write_cr
from helpers import raises_code
from PIL import Image
from pydicom.uid import generate_uid

import medres
from data_pipelines.errors import Unreadable
from data_pipelines.ingestion.manifest import Manifest
from medres.errors import RefusedInput
from medres.inference.study_identity import (
    STRICT,
    FileGroup,
    FileIdentity,
    IdentityRules,
    OnePatient,
    group_files,
    group_of_file,
)

UID = "1.2.840.113619.2.55.3"
DUMMY = "1.2.3.4.5"


def identity(patient: str = "\x1fp1", study: str = UID, **values: object) -> FileIdentity:
    fields = {"is_known": True, "series_uid": "", "sop_instance_uid": "", "name": "doe john"}
    return FileIdentity(
        **{"patient": patient, "study_uid": study, "birth_date": "19700101", **fields, **values}
    )


def refused(*files: FileIdentity | None, rules: IdentityRules = STRICT, n: int = 2) -> str | None:
    check = OnePatient(n, rules)
    try:
        for file in files:
            check.add(file)
    except RefusedInput as error:
        return error.code
    return None


NAMES = IdentityRules(allow_name_mismatch=True)
UNKNOWN = IdentityRules(allow_unknown_patient=True)
NOBODY = {"patient": "", "is_known": False}
ANON = {"patient": "\x1fanon", "is_known": False}


@pytest.mark.parametrize(
    ("files", "rules", "code"),
    [
        ((identity(), identity()), None, None),
        ((identity(), identity(name="", birth_date="")), None, None),
        ((identity(), identity("\x1fp2")), None, "several_patients"),
        ((identity(), identity("north\x1fp1")), None, "several_patients"),
        ((identity(), identity("\x1fp2")), NAMES, "several_patients"),
        ((identity(), identity(study=UID + ".1")), None, "several_studies"),
        ((identity(), None), None, "several_studies"),
        ((None, identity()), None, "several_studies"),
        ((identity(), identity(name="roe jane")), None, "name_mismatch"),
        ((identity(name=""), identity(), identity(name="roe jane")), None, "name_mismatch"),
        ((identity(), identity(birth_date="19700102")), None, "name_mismatch"),
        ((identity(), identity(name="roe jane")), NAMES, None),
        ((identity(study=""), identity(study="")), None, "no_identity"),
        ((identity(study=""), identity(study="")), UNKNOWN, "no_identity"),
        ((identity(**NOBODY), identity(**NOBODY)), None, "no_identity"),
        ((identity(**ANON), identity(**ANON)), None, "no_identity"),
        ((identity(), identity(**NOBODY)), None, "no_identity"),
        ((identity(**NOBODY), identity(**NOBODY)), UNKNOWN, None),
        ((identity(), identity(**NOBODY)), UNKNOWN, "several_patients"),
        ((identity(**ANON), identity(**NOBODY)), UNKNOWN, "several_patients"),
        ((identity(**NOBODY, study=DUMMY),) * 2, UNKNOWN, "no_identity"),
        ((identity(**NOBODY), identity(**NOBODY, name="roe")), UNKNOWN, "name_mismatch"),
        ((identity(study=DUMMY), identity(study=DUMMY)), None, None),
    ],
)
def test_one_answer_is_for_one_patient(files, rules, code) -> None:
    assert refused(*files, rules=rules or STRICT) == code


def test_a_single_file_needs_no_identity() -> None:
    assert refused(identity(**NOBODY, study=""), n=1) is None
    assert refused(None, n=1) is None


def test_an_identity_hides_its_values() -> None:
    assert "doe" not in repr(identity())
    assert "p1" not in repr(identity())


def test_files_are_grouped_by_patient_and_study_and_slices_by_series() -> None:
    files = [Path(f"{n}.dcm") for n in range(8)]
    groups = [
        FileGroup("s1", "a"),
        FileGroup("s1"),  # a localizer
        FileGroup("s2"),
        FileGroup("s1", "b"),
        Unreadable("damaged"),
        FileGroup("s1", "a"),
        FileGroup("s2", "c"),
        FileGroup("7.dcm"),
    ]
    found = [[file.stem for file in request.files] for request in group_files("in", files, groups)]
    assert found == [["0", "1", "5"], ["2", "6"], ["3"], ["4"], ["7"]]
    (only,) = group_files("in", files[:2], groups[:2])
    assert (only.path, only.files) == ("in", files[:2])


Write = Callable[..., Path]


@pytest.fixture
def write(tiny_work: Path, tmp_path: Path) -> Write:
    """A CR file that the tiny model knows, with changed elements."""
    row = Manifest.load(tiny_work).table.iloc[0]
    source = Path(row["source"]) / row["path"]

    def write(name: str, **elements: str) -> Path:
        dataset = pydicom.dcmread(source)
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[name])
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        path = tmp_path / "in" / f"{name}.dcm"
        path.parent.mkdir(exist_ok=True)
        dataset.save_as(path)
        return path

    return write


def test_groups_of_files_follow_the_patient_and_not_the_study_alone(write: Write) -> None:
    def groups(*files: Path) -> int:
        return len({group_of_file(str(file), by_series=False) for file in files})

    a = write("a", StudyInstanceUID=UID, PatientID="P 1", IssuerOfPatientID="North")
    b = write("b", StudyInstanceUID=UID, PatientID="p1", IssuerOfPatientID="north")
    assert groups(a, b) == 1
    assert groups(a, write("c", StudyInstanceUID=UID, PatientID="p2")) == 2
    assert groups(a, write("d", StudyInstanceUID=UID, PatientID="p1")) == 2
    nobody = {"PatientID": "", "IssuerOfPatientID": ""}
    e, f = (write(name, StudyInstanceUID=DUMMY, **nobody) for name in "ef")
    assert groups(e, f) == 2  # a dummy UID is no study of nobody
    g, h = (write(name, StudyInstanceUID=UID, **nobody) for name in "gh")
    assert groups(g, h) == 1
    i, j = (write(name, StudyInstanceUID="", PatientID="p1") for name in "ij")
    assert groups(i, j) == 2


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> medres.Predictor:
    return medres.load(tiny_run / "model.keras")


def test_two_patients_of_one_study_uid_are_never_pooled(predictor, write: Write) -> None:
    a = write("a", StudyInstanceUID=UID, PatientID="p1", PatientName="Doe^John")
    b = write("b", StudyInstanceUID=UID, PatientID="p2", PatientName="Roe^Jane")
    c = write("c", StudyInstanceUID=UID, PatientID="p1", PatientName="Roe^Jane")
    assert predictor.predict([a, b]).code == "several_patients"
    assert predictor.predict([a, c]).code == "name_mismatch"
    assert predictor.predict([a, c], allow_name_mismatch=True).refused is None
    predictions = list(predictor.predict_many([a.parent]))
    assert [p.code for p in predictions] == ["name_mismatch", None]
    assert predictions[1].path == str(b)
    (pooled, _) = predictor.predict_many([a.parent], allow_name_mismatch=True)
    assert pooled.n_images == 2
    assert not {"Doe", "Roe", "p1", "p2"} & {
        *" ".join(p.refused or "" for p in predictions).split()
    }


def test_files_without_identity_are_predicted_alone_only(predictor, write: Write) -> None:
    a, b = (write(name, StudyInstanceUID="", PatientID="p1") for name in "ab")
    assert predictor.predict([a, b]).code == "no_identity"
    assert [p.code for p in predictor.predict_many([a.parent])] == [None, None]
    c, d = (write(name, StudyInstanceUID=UID, PatientID="ANON") for name in "cd")
    assert predictor.predict([c, d]).code == "no_identity"
    assert predictor.predict([c, d], allow_unknown_patient=True).refused is None
    assert predictor.predict(c).refused is None


def test_a_prediction_names_what_it_is_about(predictor, tiny_work: Path) -> None:
    table = Manifest.load(tiny_work).table
    rows = table[table["study"] == table["study"].iloc[0]]
    files = [Path(r.source) / r.path for r in rows.itertuples()]
    headers = [pydicom.dcmread(file) for file in files]
    prediction = predictor.predict(files)
    assert prediction.study_uid == headers[0].StudyInstanceUID
    assert prediction.series_uids == (headers[0].SeriesInstanceUID,)
    assert prediction.sop_instance_uids == tuple(h.SOPInstanceUID for h in headers)
    assert prediction.slices == tuple(((h.SOPInstanceUID, 0),) for h in headers)
    assert prediction.model_sha256 == predictor.artefact.sha256
    assert prediction.thresholds == {"square": predictor.card.threshold("square", unit="study")}
    singles = [predictor.predict(file).probabilities for file in files]
    assert prediction.images == tuple(singles)
    assert prediction.probabilities["square"] == max(p["square"] for p in prediction.images)
    assert headers[0].StudyInstanceUID not in repr(prediction)
    row = prediction.as_dict()
    assert row["study_uid"] == prediction.study_uid
    assert row["images"] == singles
    assert row["n_images"] == 2


def test_a_refusal_names_what_it_is_about(predictor, tiny_work: Path) -> None:
    row = Manifest.load(tiny_work).table.iloc[0]
    dataset = pydicom.dcmread(Path(row["source"]) / row["path"])
    dataset.Modality = "MG"
    prediction = predictor.predict(dataset)
    assert prediction.code == "other_modality"
    assert prediction.study_uid == dataset.StudyInstanceUID
    assert prediction.sop_instance_uids == (dataset.SOPInstanceUID,)
    assert (prediction.images, prediction.slices, prediction.probabilities) == ((), (), {})
    assert prediction.model_sha256 == predictor.artefact.sha256
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture, "png")
    assert predictor.predict(picture.getvalue()).study_uid == ""


def test_the_saliency_is_that_of_the_bytes_that_were_predicted(
    predictor, tiny_work: Path, tmp_path: Path
) -> None:
    row = Manifest.load(tiny_work).table.iloc[0]
    data = (Path(row["source"]) / row["path"]).read_bytes()
    path = tmp_path / "a.dcm"
    path.write_bytes(data)
    prediction = predictor.predict(path)
    assert prediction.saliency().values.shape == (40, 40)
    pixels = np.random.default_rng(1).integers(500, 1500, (40, 40))
    write_cr(path, pixels, patient="OTHER", study="9")
    with raises_code(RefusedInput, "source_changed"):
        prediction.saliency()
    path.write_bytes(data)
    assert prediction.saliency().values.shape == (40, 40)
    path.write_bytes(b"no DICOM any more")
    with raises_code(RefusedInput, "source_changed"):
        prediction.saliency()
    path.unlink()
    with raises_code(Unreadable, "unreadable"):
        prediction.saliency()
    dataset = pydicom.dcmread(io.BytesIO(data))
    prediction = predictor.predict(dataset)
    dataset.PixelData = bytes(len(dataset.PixelData))
    with raises_code(RefusedInput, "source_changed"):
        prediction.saliency()


def test_the_command_allows_what_a_person_has_checked(
    tiny_run: Path, write: Write, tmp_path: Path
) -> None:
    import json

    from helpers import medres as command

    for name, person in (("a", "Doe^John"), ("b", "Roe^Jane")):
        write(name, StudyInstanceUID=UID, PatientID="p1", PatientName=person)
    arguments = ("predict", tiny_run / "model.keras", tmp_path / "in")
    (row,) = json.loads(command(*arguments, "--json").stdout)
    assert (row["code"], row["probabilities"]) == ("name_mismatch", {})
    (row,) = json.loads(command(*arguments, "--json", "--allow-name-mismatch").stdout)
    assert (row["code"], row["study_uid"], row["n_images"]) == (None, UID, 2)
    command(*arguments, "--out", tmp_path / "out")
    assert "Doe" not in (tmp_path / "out" / "quarantine.csv").read_text()
    (line,) = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[1:]
    assert json.loads(line)["code"] == "name_mismatch"
