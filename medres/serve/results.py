"""The result of a job as JSON: what people and programs read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.runtime.plain_text import json_text
from medres.artefact.card import INTENDED_USE
from medres.serve.database import SCORED, STATES
from medres.serve.parts import FHIR
from medres.serve.routing import NO_MODEL, SEVERAL_MODELS, ServedModel
from medres.serve.spool import Spool, objects_folder

SCHEMA = "medres.result/1"
UNSIGNED = "UNSIGNED: nobody has shown who wrote this model file"
FILES_EXPIRED, MODEL_GONE = "files_expired", "model_gone"
_WHY = {
    NO_MODEL: "no served model was trained on images of this modality, body part and view",
    SEVERAL_MODELS: "more than one served model was trained on images such as these; serve them "
    "from servers of their own",
    MODEL_GONE: "the model was taken out of service before it read this study; the next revision "
    "is answered by its successor",
    FILES_EXPIRED: "earlier images of this study were removed after the retention time: send "
    "the whole study again",
    "time_limit": "the model did not answer within the time limit",
    "model_crashed": "the model process ended while it read this study",
    "spool_full": "the disk was full for so long that the study could not be read",
}


def refusal_of(code: str) -> dict[str, Any]:
    """The prediction of a study that no model has answered."""
    why = _WHY.get(code, "the study could not be read because of a fault of the server")
    return {"refused": why, "code": code}


def stored_result(predictions: Sequence[Mapping[str, Any]], model: ServedModel | None) -> str:
    """What the database keeps. predictions: as `Prediction.as_dict`, or a refusal."""
    rows = [{name: value for name, value in row.items() if name != "path"} for row in predictions]
    about = None
    if model is not None:
        about = {
            "sha256": model.sha256,
            "preprocessing_sha256": model.preprocessing_sha256,
            "signer": model.signer,
            "banner": None if model.signer else UNSIGNED,
            "task": model.card["task"],
        }
    return json.dumps({"model": about, "predictions": rows}, allow_nan=False)


def result_document(spool: Spool, job: str) -> dict[str, Any] | None:
    """The JSON object of `GET /v1/results/<id>`; None for an unknown id.

    predictions: as `medres predict --json`, null until the study was read. refused, code: the
    reason, if no image of the study was answered. objects: the DICOM objects made of the result.
    refused_objects: role and code of each that the images do not allow. fhir: the address of the
    FHIR bundle, null where there is none. failure: the code of the last attempt to read the study,
    or to make or send its objects, if it failed.
    """
    row = spool.database.row("SELECT * FROM job WHERE id = ?", job)
    return None if row is None else _document(spool, row)


def _document(spool: Spool, row: sqlite3.Row) -> dict[str, Any]:
    successor = spool.database.value("SELECT id FROM job WHERE predecessor = ?", row["id"])
    is_answered = STATES.index(row["state"]) >= STATES.index(SCORED)
    result = json.loads(row["result"]) if is_answered else {"model": None, "predictions": None}
    predictions = result["predictions"] or []
    refusals = [one for one in predictions if one["refused"] is not None]
    refusal = refusals[0] if refusals and len(refusals) == len(predictions) else {}
    return {
        "schema": SCHEMA,
        "id": row["id"],
        "state": row["state"],
        "research_use_only": INTENDED_USE,
        "study_uid": row["study"],
        "images_received": len(json.loads(row["instances"])),
        "revision": row["revision"],
        "predecessor": row["predecessor"],
        "successor": successor,
        "result_key": row["result_key"],
        "objects": _objects(spool, row["id"]),
        "fhir": fhir_address(row["id"]) if fhir_file(spool, row["id"]) else None,
        "refused_objects": json.loads(row["refused_objects"] or "[]"),
        "failure": row["failure"],
        "refused": refusal.get("refused"),
        "code": refusal.get("code"),
        **result,
    }


def _objects(spool: Spool, job: str) -> list[dict[str, Any]]:
    rows = spool.database.rows("SELECT * FROM made_object WHERE job = ? ORDER BY file", job)
    return [
        {"role": row["role"], "sop_instance_uid": row["sop"], "is_sent": bool(row["is_sent"])}
        for row in rows
    ]


def fhir_address(job: str) -> str:
    return f"/v1/results/{job}/fhir"


def fhir_file(spool: Spool, job: str) -> Path | None:
    """The FHIR bundle of a job; None where none was made, after the retention time, and for an
    unknown id.
    """
    if not spool.database.row("SELECT 1 FROM job WHERE id = ?", job):
        return None
    path = objects_folder(spool, job) / FHIR
    return path if path.is_file() else None


def document_bytes(value: Any) -> bytes:
    return json_text(value).encode()
