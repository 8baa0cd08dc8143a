"""The spool: what is acknowledged is safe, what is held is never replaced, and whose it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from canaries import CANARIES, encodings, radiograph, with_canaries
from helpers import raises_code
from pydicom.dataset import Dataset

from medres.errors import ServeError
from medres.results.identity import result_key
from medres.serve import spool as spool_module
from medres.serve.completion import close_due_studies
from medres.serve.database import SCORED
from medres.serve.results import result_document
from medres.serve.routing import ServedModel
from medres.serve.spool import Capacity, Receipt, Spool

ANY = {"modalities": {}, "body_parts": {}, "views": {}}
MODEL = ServedModel("m" * 64, "p" * 64, None, {"task": "binary", "domain": ANY})


def dicom(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def image(number: int, study: str = "1.2.3", *, patient: str = "P1", issuer: str = "") -> bytes:
    dataset = radiograph(patient, number, issuer=issuer)
    dataset.StudyInstanceUID = study
    return dicom(dataset)


def receive(spool: Spool, *files: bytes, **options: bool) -> list[Receipt]:
    with spool.incoming() as incoming:
        return spool.accept([incoming.add(file) for file in files], source="test", **options)


def codes(receipts: list[Receipt]) -> list[str | None]:
    return [receipt.code for receipt in receipts]


def close_all(spool: Spool) -> list[str]:
    return close_due_studies(spool, [MODEL], quiet_seconds=-1)


def events(spool: Spool) -> list[str]:
    return [row["event"] for row in spool.database.rows("SELECT event FROM audit ORDER BY number")]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", Capacity(free_bytes=0))
    yield spool
    spool.close()


def test_an_acknowledged_file_is_stored_as_it_was_sent_under_a_name_without_identifiers(
    spool: Spool,
) -> None:
    data = image(1)
    (receipt,) = receive(spool, data)
    (stored,) = (spool.folder / "files").iterdir()
    assert receipt.code is None
    assert receipt.is_new
    assert stored.read_bytes() == data
    assert "P1" not in stored.name
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert stored.stat().st_mode & 0o777 == 0o600


def test_the_same_bytes_again_are_a_success_without_work(spool: Spool) -> None:
    receive(spool, image(1))
    (job,) = close_all(spool)
    (receipt,) = receive(spool, image(1))
    assert (receipt.code, receipt.is_new) == (None, False)
    assert close_all(spool) == []
    assert len(list((spool.folder / "files").iterdir())) == 1
    assert [row["id"] for row in spool.database.rows("SELECT id FROM job")] == [job]


def test_another_sender_of_the_same_data_set_is_no_other_image(spool: Spool) -> None:
    dataset = radiograph("P1", 1)
    receive(spool, dicom(dataset))
    dataset.file_meta.SourceApplicationEntityTitle = "OTHER"
    (receipt,) = receive(spool, dicom(dataset))
    assert (receipt.code, receipt.is_new) == (None, False)


def test_other_bytes_of_an_image_are_refused_and_audited(spool: Spool) -> None:
    receive(spool, image(1))
    dataset = radiograph("P1", 1)
    dataset.StudyInstanceUID, dataset.PatientComments = "1.2.3", "changed"
    assert codes(receive(spool, dicom(dataset))) == ["other_bytes"]
    assert events(spool) == ["refused"]


@pytest.mark.parametrize(("patient", "issuer"), [("P2", ""), ("P1", "NORTH"), ("", "")])
def test_a_study_that_is_held_for_another_patient_is_refused_and_audited(
    spool: Spool, patient: str, issuer: str
) -> None:
    receive(spool, image(1))
    (receipt,) = receive(spool, image(2, patient=patient, issuer=issuer))
    assert receipt.code == "other_patient"
    assert events(spool) == ["refused"]
    assert len(list((spool.folder / "files").iterdir())) == 1


def test_of_an_upload_that_is_taken_whole_nothing_stays_if_one_file_is_refused(
    spool: Spool,
) -> None:
    receipts = receive(spool, image(1), b"no DICOM file", whole=True, is_complete=True)
    assert codes(receipts) == [None, "not_dicom"]
    assert not receipts[0].is_new
    assert list((spool.folder / "files").iterdir()) == []
    assert spool.database.value("SELECT count(*) FROM instance") == 0


def test_own_output_is_not_taken_in(spool: Spool) -> None:
    dataset = radiograph("P1", 1)
    dataset.Manufacturer = "medres"
    assert codes(receive(spool, dicom(dataset))) == ["own_output"]


def test_a_file_without_a_study_is_refused(spool: Spool) -> None:
    dataset = radiograph("P1", 1)
    del dataset.StudyInstanceUID
    assert codes(receive(spool, dicom(dataset))) == ["no_uid"]


def test_late_images_make_a_revision_that_names_its_predecessor(spool: Spool) -> None:
    receive(spool, image(1))
    (first,) = close_all(spool)
    receive(spool, image(2))
    (second,) = close_all(spool)
    document, earlier = result_document(spool, second), result_document(spool, first)
    assert (document["revision"], document["predecessor"]) == (2, first)
    assert (document["images_received"], document["successor"]) == (2, None)
    assert (earlier["revision"], earlier["successor"]) == (1, second)


def test_a_study_waits_for_its_quiet_time_unless_somebody_says_that_it_is_complete(
    spool: Spool,
) -> None:
    receive(spool, image(1, "1.2.1"))
    receive(spool, image(2, "1.2.2"), is_complete=True)
    (asked,) = close_due_studies(spool, [MODEL], quiet_seconds=60)
    assert result_document(spool, asked)["study_uid"] == "1.2.2"
    assert len(close_due_studies(spool, [MODEL], quiet_seconds=0)) == 1


def test_the_key_of_a_result_depends_on_model_preprocessing_and_bytes_not_on_order() -> None:
    base = result_key("m", "p", [("1", "a"), ("2", "b")])
    assert base == result_key("m", "p", [("2", "b"), ("1", "a")])
    others = [
        result_key("n", "p", [("1", "a"), ("2", "b")]),
        result_key("m", "q", [("1", "a"), ("2", "b")]),
        result_key("m", "p", [("1", "a"), ("2", "c")]),
        result_key("m", "p", [("1", "b"), ("2", "a")]),
    ]
    assert len({base, *others}) == 5


def test_with_a_full_queue_new_studies_are_refused_and_open_ones_continue(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", Capacity(studies=1, free_bytes=0))
    receive(spool, image(1, "1.2.1"))
    assert codes(receive(spool, image(2, "1.2.2"))) == ["queue_full"]
    assert codes(receive(spool, image(3, "1.2.1"))) == [None]
    assert events(spool) == []  # the sender tries again: no event
    spool.close()


def test_a_full_spool_refuses_before_anything_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", Capacity(n_bytes=1000, free_bytes=0))
    with raises_code(ServeError, "spool_full"):
        receive(spool, image(1) + b"\0" * 1000)
    assert list((spool.folder / "incoming").iterdir()) == []
    spool.close()


def test_a_disk_that_fills_up_while_files_are_taken_in_is_a_refusal(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "sync_folder", full)
        assert codes(receive(spool, image(1))) == ["spool_full"]
    assert list((spool.folder / "files").iterdir()) == []
    assert codes(receive(spool, image(1))) == [None]


def test_after_a_crash_unacknowledged_files_are_gone_and_acknowledged_ones_stay(
    spool: Spool,
) -> None:
    receive(spool, image(1))
    (spool.folder / "files" / "moved-without-a-row").write_bytes(b"x")
    (spool.folder / "incoming" / "half").write_bytes(b"x")
    folder = spool.folder
    spool.close()
    again = Spool(folder)
    (stored,) = (folder / "files").iterdir()
    assert stored.read_bytes() == image(1)
    assert list((folder / "incoming").iterdir()) == []
    assert len(close_all(again)) == 1
    again.close()


def test_a_file_that_somebody_removed_is_an_event_and_can_be_sent_again(spool: Spool) -> None:
    receive(spool, image(1))
    (stored,) = (spool.folder / "files").iterdir()
    stored.unlink()
    folder = spool.folder
    spool.close()
    again = Spool(folder, Capacity(free_bytes=0))
    assert events(again) == ["file_missing"]
    assert codes(receive(again, image(1))) == [None]
    assert len(list((folder / "files").iterdir())) == 1
    again.close()


def test_a_spool_has_one_server_and_is_private(spool: Spool, tmp_path: Path) -> None:
    with raises_code(ServeError, "spool_in_use"):
        Spool(spool.folder)
    (tmp_path / "open").mkdir(mode=0o755)
    with raises_code(ServeError, "spool_open_to_others"):
        Spool(tmp_path / "open")


def test_the_audit_log_finds_changed_removed_and_cut_rows(spool: Spool) -> None:
    for number in range(4):
        spool.audit.add("refused", code=f"c{number}")
    assert spool.audit.verify().n_events == 4
    changes = [
        ("UPDATE audit SET fields = '{}' WHERE number = 2", "event 2"),
        ("DELETE FROM audit WHERE number = 2", "event 2"),
        ("DELETE FROM audit WHERE number = 4", "event 4"),
        ("UPDATE audit SET at = at + 1 WHERE number = 1", "event 1"),
    ]
    for statement, mention in changes:
        with pytest.raises(RuntimeError), spool.database.transaction():  # noqa: PT012
            assert spool.database.execute(statement) == 1
            with raises_code(ServeError, "audit_broken", mention):
                spool.audit.verify()
            raise RuntimeError  # rolls the change back
    assert spool.audit.verify().n_events == 4


def test_audit_and_receipts_hold_no_identifier(spool: Spool) -> None:
    data = dicom(with_canaries(1))
    receive(spool, data)
    receipts = receive(spool, data[:-2] + b"zz")
    assert codes(receipts) == ["other_bytes"]
    (job,) = close_all(spool)
    rows = spool.database.rows("SELECT event, fields FROM audit")
    text = repr([tuple(row) for row in rows]) + repr(receipts) + receipts[0].message + job
    assert len(rows) == 2
    for canary in CANARIES:
        assert not any(form in text.encode() for form in encodings(canary))


def test_a_refused_route_is_a_result(spool: Spool) -> None:
    receive(spool, image(1))
    (job,) = close_due_studies(spool, [], quiet_seconds=-1)
    document = result_document(spool, job)
    assert (document["state"], document["code"]) == (SCORED, "no_model")
    assert document["model"] is None
