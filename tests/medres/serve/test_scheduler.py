"""Jobs from state to state: each step once, again after a crash, and refusals as results."""

from __future__ import annotations

import errno
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medres.errors import ServeError
from medres.serve.completion import close_due_studies
from medres.serve.database import DEAD, MADE, READY, SCORED, SENT
from medres.serve.delivery.outbox import MAX_SENDINGS, Outbox, dead_letters, retry_dead_letter
from medres.serve.parts import MadeObject, MakeOrder
from medres.serve.results import result_document
from medres.serve.routing import ServedModel, choose_model
from medres.serve.scheduler import MAX_CRASHES, Scheduler, remove_expired
from medres.serve.spool import Capacity, Spool
from medres.serve.telemetry import Telemetry

from .test_spool import MODEL, codes, image, receive


class Answers:
    """A model that answers with the number of its files. errors: raised before that, in turn."""

    def __init__(self, *errors: Exception, facts: ServedModel = MODEL) -> None:
        self.errors, self.facts, self.calls, self.is_closed = list(errors), facts, 0, False

    def predict(self, folder: Path, seconds: float) -> list[dict[str, Any]]:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        n_files = len(list(folder.iterdir()))
        return [{"probabilities": {"n": n_files}, "refused": None, "code": None}]

    def make(self, order: MakeOrder, seconds: float) -> list[MadeObject]:
        out = Path(order["out"])
        out.mkdir(exist_ok=True)
        (out / "0.dcm").write_text(order["key"])
        return [MadeObject(sop=f"9.{order['revision']}", file="0.dcm", role="report")]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", Capacity(free_bytes=0))
    yield spool
    spool.close()


def scheduler_of(spool: Spool, *models: Answers, **options: Any) -> Scheduler:
    return Scheduler(spool, models, Telemetry(io.StringIO()), quiet_seconds=-1, **options)


def job_of(spool: Spool, *files: bytes) -> str:
    receive(spool, *(files or (image(1),)))
    (job,) = close_due_studies(spool, [MODEL], -1)
    return job


def row(spool: Spool, job: str) -> Any:
    return spool.database.row("SELECT * FROM job WHERE id = ?", job)


def wait_for(spool: Spool, job: str, state: str) -> dict[str, Any]:
    until = time.monotonic() + 20
    while result_document(spool, job)["state"] != state:
        assert time.monotonic() < until
        time.sleep(0.005)
    return result_document(spool, job)


def test_a_job_goes_through_all_states_by_itself(spool: Spool) -> None:
    sent: list[str] = []
    scheduler = scheduler_of(
        spool, Answers(), makes_objects=True, send=lambda path: sent.append(path.read_text())
    )
    scheduler.start()
    job = job_of(spool, image(1), image(2))
    scheduler.wake()
    document = wait_for(spool, job, SENT)
    scheduler.stop()
    assert document["predictions"][0]["probabilities"] == {"n": 2}
    assert document["model"]["banner"].startswith("UNSIGNED")
    assert "Research use only" in document["research_use_only"]
    assert sent == [document["result_key"]]
    assert list((spool.folder / "work").iterdir()) == []
    # a PACS that sends the object on is told that it is our own
    assert spool.database.value("SELECT sop FROM made_object") == "9.1"


def test_an_image_that_comes_while_the_model_reads_is_not_in_the_answer(spool: Spool) -> None:
    job = job_of(spool, image(1))
    receive(spool, image(2))
    model = Answers()
    scheduler_of(spool, model).answer(model, row(spool, job))
    assert result_document(spool, job)["predictions"][0]["probabilities"] == {"n": 1}


def test_a_crash_is_tried_again_and_then_refused(spool: Spool) -> None:
    model = Answers(*[ServeError("x", code="model_crashed") for _ in range(MAX_CRASHES)])
    scheduler, job = scheduler_of(spool, model), job_of(spool)
    for _ in range(MAX_CRASHES - 1):
        scheduler.answer(model, row(spool, job))
        assert row(spool, job)["state"] == READY
    scheduler.answer(model, row(spool, job))
    document = result_document(spool, job)
    assert (document["code"], model.calls) == ("model_crashed", MAX_CRASHES)
    assert document["refused"]


def test_the_time_limit_is_a_refusal_at_once(spool: Spool) -> None:
    model, job = Answers(ServeError("x", code="time_limit")), job_of(spool)
    scheduler_of(spool, model).answer(model, row(spool, job))
    assert result_document(spool, job)["code"] == "time_limit"


def test_a_destination_that_is_down_gets_everything_later_and_dead_letters_stay(
    spool: Spool,
) -> None:
    model, down = Answers(), [True]

    def send(path: Path) -> None:
        if down[0]:
            raise ConnectionError

    scheduler, job = scheduler_of(spool, model, makes_objects=True, send=send), job_of(spool)
    scheduler._outbox = Outbox(spool, scheduler.telemetry, send, jitter=lambda: 1.0)
    scheduler.answer(model, row(spool, job))
    scheduler.make(model, row(spool, job))
    waits = []
    for attempt in range(1, MAX_SENDINGS):
        assert scheduler.send_next()
        assert (row(spool, job)["state"], row(spool, job)["attempts"]) == (MADE, attempt)
        waits.append(round(row(spool, job)["next_try"] - time.time()))
        assert not scheduler.send_next()  # not before its time
        spool.database.execute("UPDATE job SET next_try = 0")
    assert waits[:4] == [2, 4, 8, 16]
    assert max(waits) == 600
    scheduler.send_next()
    assert row(spool, job)["state"] == DEAD
    remove_expired(spool, -1)
    assert (spool.folder / "objects" / job / "0.dcm").exists()
    (letter,) = dead_letters(spool)
    assert (letter["id"], letter["failure"], letter["n_objects"]) == (job, "unreachable", 1)
    down[0] = False
    assert retry_dead_letter(spool, job)
    assert not retry_dead_letter(spool, job)
    scheduler.send_next()
    assert row(spool, job)["state"] == SENT


def test_files_are_removed_after_sending_and_a_resent_image_is_known(spool: Spool) -> None:
    model, job = Answers(), job_of(spool)
    scheduler = scheduler_of(spool, model)
    remove_expired(spool, -1)
    assert len(list((spool.folder / "files").iterdir())) == 1  # not sent yet
    scheduler.answer(model, row(spool, job))
    assert row(spool, job)["state"] == SENT
    remove_expired(spool, 3600)
    assert len(list((spool.folder / "files").iterdir())) == 1
    remove_expired(spool, -1)
    assert list((spool.folder / "files").iterdir()) == []
    assert result_document(spool, job)["predictions"][0]["probabilities"] == {"n": 1}
    assert close_due_studies(spool, [MODEL], -1) == []
    # A late image would be read without the others: refused until they are sent again.
    receive(spool, image(2))
    (late,) = close_due_studies(spool, [MODEL], -1)
    scheduler.answer(model, row(spool, late))
    assert result_document(spool, late)["code"] == "files_expired"
    assert [r.is_new for r in receive(spool, image(1))] == [False]
    assert len(list((spool.folder / "files").iterdir())) == 2


def test_a_model_is_replaced_while_the_old_one_ends_its_jobs(spool: Spool) -> None:
    old, new = Answers(), Answers(facts=ServedModel("n" * 64, "p" * 64, "SHA256:k", MODEL.card))
    scheduler = scheduler_of(spool, old)
    job = job_of(spool)
    scheduler.start()
    scheduler.replace_model(MODEL.sha256, new)
    assert wait_for(spool, job, SENT)["model"]["sha256"] == MODEL.sha256
    receive(spool, image(2, "1.2.9"), is_complete=True)
    (later,) = close_due_studies(spool, scheduler.served, 60) or [
        spool.database.value("SELECT id FROM job WHERE study = '1.2.9'")
    ]
    document = wait_for(spool, later, SENT)
    scheduler.stop()
    assert (document["model"]["sha256"], document["model"]["banner"]) == ("n" * 64, None)
    assert (old.is_closed, old.calls, new.calls) == (True, 1, 1)


def test_jobs_of_a_model_that_is_gone_get_a_revision_from_its_successor(spool: Spool) -> None:
    job = job_of(spool)
    new = Answers(facts=ServedModel("n" * 64, "p" * 64, None, MODEL.card))
    scheduler = scheduler_of(spool, new)
    scheduler.start()
    first = wait_for(spool, job, SENT)
    assert first["code"] == "model_gone"
    until = time.monotonic() + 20
    while (first := result_document(spool, job))["successor"] is None:
        assert time.monotonic() < until
    second = wait_for(spool, first["successor"], SENT)
    scheduler.stop()
    assert (second["revision"], second["predecessor"]) == (2, job)
    assert second["refused"] is None


def test_several_models_are_chosen_by_their_domain_and_ambiguity_is_refused() -> None:
    def model(name: str, **domain: list[str]) -> ServedModel:
        lists = {"modalities": {}, "body_parts": {}, "views": {}}
        listed = {key: dict.fromkeys(values, 1) for key, values in domain.items()}
        return ServedModel(name, "", None, {"domain": lists | listed})

    chest = model("chest", modalities=["CR", "DX"], body_parts=["CHEST"])
    hand = model("hand", modalities=["CR"], body_parts=["HAND"])
    head = model("head", modalities=["CT"])

    def chosen(*images: tuple[str, str]) -> Any:
        rows = [{"modality": m, "body_part": b, "view": ""} for m, b in images]
        choice = choose_model([chest, hand, head], rows)
        return choice if isinstance(choice, str) else choice.sha256

    assert chosen(("CR", "CHEST"), ("SR", "")) == "chest"
    assert chosen(("CR", "HAND")) == "hand"
    assert chosen(("CT", "ABDOMEN")) == "head"
    assert chosen(("MR", "CHEST")) == "no_model"
    assert chosen(("CR", "CHEST"), ("CR", "HAND")) == "several_models"


def test_results_are_json_without_nan(spool: Spool) -> None:
    model, job = Answers(), job_of(spool)
    scheduler_of(spool, model).answer(model, row(spool, job))
    assert json.loads(json.dumps(result_document(spool, job), allow_nan=False))["id"] == job
    assert codes(receive(spool, image(1))) == [None]


class Failing(Answers):
    """A model whose objects cannot be made. faults: raised while they are made, in turn."""

    def __init__(self, *faults: Exception) -> None:
        super().__init__()
        self.faults = list(faults)

    def make(self, order: MakeOrder, seconds: float) -> list[MadeObject]:
        if self.faults:
            raise self.faults.pop(0)
        return super().make(order, seconds)


def answered(spool: Spool, model: Answers, *files: bytes) -> tuple[Scheduler, str]:
    scheduler, job = scheduler_of(spool, model, makes_objects=True), job_of(spool, *files)
    scheduler.answer(model, row(spool, job))
    return scheduler, job


def test_a_fault_without_a_code_leaves_a_dead_letter_and_holds_up_nobody(spool: Spool) -> None:
    model = Failing(*[KeyError("a name") for _ in range(MAX_CRASHES)])
    scheduler, job = answered(spool, model)
    for attempt in range(1, MAX_CRASHES):
        scheduler.make(model, row(spool, job))
        assert (row(spool, job)["state"], row(spool, job)["attempts"]) == (SCORED, attempt)
        assert result_document(spool, job)["failure"] == "internal"
        assert scheduler._next_job(MODEL.sha256) is None  # others have their turn
    scheduler.make(model, row(spool, job))
    (letter,) = dead_letters(spool)
    assert (row(spool, job)["state"], letter["failure"], letter["n_objects"]) == (
        DEAD,
        "internal",
        0,
    )
    assert "a name" not in scheduler.telemetry._stream.getvalue()
    assert retry_dead_letter(spool, job)
    scheduler.make(model, row(spool, job))
    assert (row(spool, job)["state"], row(spool, job)["failure"]) == (MADE, None)


FULL = OSError(errno.ENOSPC, "full")


def test_studies_and_objects_that_have_waited_take_turns(spool: Spool) -> None:
    model, order = Answers(), []
    scheduler = scheduler_of(spool, model, makes_objects=True)
    jobs = [job_of(spool, image(n, f"1.9.{n}")) for n in range(6)]
    for job in jobs[:3]:
        scheduler.answer(model, row(spool, job))
    last = SCORED
    while job := scheduler._next_job(MODEL.sha256, after=last):
        last = job["state"]
        order.append(last)
        (scheduler.answer if last == READY else scheduler.make)(model, job)
        spool.database.execute("UPDATE job SET changed = changed - 10 WHERE state = ?", SCORED)
    assert order == [READY, SCORED] * 3 + [SCORED] * 3
    later = job_of(spool, image(7, "1.9.7"))
    scheduler.answer(model, row(spool, later))
    newest = job_of(spool, image(8, "1.9.8"))
    assert scheduler._next_job(MODEL.sha256, after=READY)["id"] == newest  # it has not waited


def test_objects_wait_for_space_with_growing_pauses_and_not_for_ever(spool: Spool) -> None:
    model = Failing(*[FULL] * (MAX_SENDINGS + 1))
    scheduler, job = answered(spool, model)
    waits = []
    for _ in range(MAX_SENDINGS - 1):
        scheduler.make(model, row(spool, job))
        waits.append(round(row(spool, job)["next_try"] - time.time()))
    assert (waits[:4], waits[-1]) == ([2, 4, 8, 16], 600)
    assert (row(spool, job)["state"], row(spool, job)["failure"]) == (SCORED, "spool_full")
    scheduler.make(model, row(spool, job))
    assert (row(spool, job)["state"], row(spool, job)["failure"]) == (DEAD, "spool_full")


def test_a_study_waits_for_space_as_well_and_this_is_not_its_fault(spool: Spool) -> None:
    model, job = Answers(FULL, FULL, ServeError("x", code="spool_full")), job_of(spool)
    scheduler = scheduler_of(spool, model)
    for _ in range(3):
        scheduler.answer(model, row(spool, job))
        assert (row(spool, job)["state"], row(spool, job)["attempts"]) == (READY, 0)
        assert row(spool, job)["next_try"] > time.time()
    scheduler.answer(model, row(spool, job))
    assert result_document(spool, job)["refused"] is None
    assert result_document(spool, job)["failure"] is None
    later = job_of(spool, image(2, "1.2.9"))
    scheduler.answer(Answers(*[FULL] * MAX_SENDINGS), row(spool, later))
    scheduler._failures[later] = MAX_SENDINGS - 1
    scheduler.answer(Answers(FULL), row(spool, later))
    assert result_document(spool, later)["code"] == "spool_full"


def test_a_model_that_was_replaced_ends_jobs_that_wait_first(spool: Spool) -> None:
    model = Answers()
    scheduler, job = scheduler_of(spool, model), job_of(spool)
    spool.database.execute("UPDATE job SET next_try = ?", time.time() + 0.3)
    new = Answers(facts=ServedModel("n" * 64, "p" * 64, None, MODEL.card))
    scheduler.start()
    scheduler.replace_model(MODEL.sha256, new)
    assert wait_for(spool, job, SENT)["model"]["sha256"] == MODEL.sha256
    scheduler.stop()
    assert model.is_closed


def test_objects_that_the_images_do_not_allow_are_named(spool: Spool) -> None:
    class Partly(Answers):
        def make(self, order: MakeOrder, seconds: float) -> list[MadeObject]:
            refusal = MadeObject(sop="", file="", role="segmentation 1", code="same_position")
            return [*super().make(order, seconds), refusal]

    model = Partly()
    scheduler, job = answered(spool, model)
    scheduler.make(model, row(spool, job))
    document = result_document(spool, job)
    assert [one["role"] for one in document["objects"]] == ["report"]
    assert document["refused_objects"] == [{"role": "segmentation 1", "code": "same_position"}]
