"""The HTTP interface as an OpenAPI 3.1 description: `GET /openapi.json`, also in the documentation.
The page for people is not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medres.artefact.card import INTENDED_USE
from medres.serve.database import STATES
from medres.serve.results import SCHEMA

JSON_TYPE, DICOM_JSON = "application/json", "application/dicom+json"
FHIR_JSON, TEXT = "application/fhir+json", "text/plain"
MAX_WAIT = 60  # seconds that a client may wait for an answer in one request
MAX_IMAGES = 1_000_000  # of a study that is announced
_ID = "^[0-9a-f]{32}$"
_TEXT: Mapping[str, Any] = {"type": "string"}
_NULLABLE: Mapping[str, Any] = {"type": ["string", "null"]}
_OBJECT: Mapping[str, Any] = {"type": "object"}
_BYTES = {"type": "string", "contentMediaType": "application/dicom"}
_REASONS = {
    400: "The request or a file is not understood; `code` says why.",
    401: "The token is wrong or missing (wrong_token).",
    403: "Another host name or web page (other_host, other_origin), or a path that is not below a "
    "root of the server (not_allowed).",
    404: "There is no such result or study.",
    405: "The address is asked with another method.",
    408: "The upload stopped (too_slow).",
    409: "An image or its study is held with other contents (other_bytes, other_patient), or the "
    "object was made by medres (own_output).",
    413: "Too many bytes (too_large, limit_exceeded).",
    415: "Another media type (other_type).",
    429: "Too many requests or waiting studies (rate_limit, queue_full): try again later.",
    500: "A fault of the server (internal).",
    503: "The server takes no files in at present; `code` says why.",
    507: "The disk or the spool is full (spool_full): try again later.",
}
_EVERYWHERE = (401, 403, 405, 429, 500)
_UPLOAD = (400, 408, 409, 413, 415, 507)


def openapi(version: str) -> dict[str, Any]:
    """The description as a JSON object. version: of medres."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "medres serve",
            "version": version,
            "description": f"{INTENDED_USE} Studies come in, and each gets a result. No address "
            f"holds an identifier. Every error is a JSON object with `code` and `message`.",
        },
        "security": [{}, {"token": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths() -> dict[str, Any]:
    job, wait = _parameter("job", _ID), _wait()
    results = {200: "All are answered.", 202: "Not all are answered yet: ask for them later."}
    return {
        "/livez": {"get": _operation("The server runs.", {200: _answer("It does.", "Live")})},
        "/readyz": {
            "get": _operation(
                "The server takes files in.",
                {200: _answer("It does.", "Ready"), 503: _answer(_REASONS[503], "Ready")},
            )
        },
        "/metrics": {
            "get": _operation(
                "Counters for Prometheus, without identifiers.",
                {200: _answer("The counters.", _TEXT, TEXT)},
            )
        },
        "/openapi.json": {
            "get": _operation("This description.", {200: _answer("It.", _OBJECT)}),
        },
        "/v1/models": {
            "get": _operation("The models in service.", {200: _answer("Their cards.", "Models")})
        },
        "/v1/studies": {
            "post": _operation(
                "Send one or more complete studies. All files are taken, or none.",
                {status: _answer(text, "Results") for status, text in results.items()},
                _UPLOAD,
                [wait],
                {
                    "application/dicom": _BYTES,
                    "multipart/related": _BYTES,
                    "multipart/form-data": _BYTES,
                    JSON_TYPE: _required({"path": _TEXT}),
                },
            )
        },
        "/v1/results/{job}": {
            "get": _operation(
                "The result of a study.",
                {200: _answer("Answered.", "Result"), 202: _answer("Not answered yet.", "Result")},
                (400, 404),
                [job, wait],
            )
        },
        "/v1/results/{job}/fhir": {
            "get": _operation(
                "The result as a FHIR R4 Bundle, of a server that was started with --fhir.",
                {200: _answer("DiagnosticReport and Observations.", _OBJECT, FHIR_JSON)},
                (404,),
                [job],
            )
        },
        "/v1/complete": {
            "post": _operation(
                "Say that a study is complete, or how many images it has when it is.",
                {status: _answer(text, "Completed") for status, text in results.items()},
                (400, 404, 408, 413, 507),
                body={JSON_TYPE: _completion()},
            )
        },
        "/v1/dead-letters": {
            "get": _operation(
                "Results whose objects were not made or not delivered.",
                {200: _answer("The newest first.", "DeadLetters")},
            )
        },
        "/v1/dead-letters/{job}/retry": {
            "post": _operation(
                "Make or deliver the objects again.",
                {200: _answer("The result.", "Result")},
                (404,),
                [job],
            )
        },
        "/dicom-web/studies": {
            "post": _operation(
                "STOW-RS (PS3.18 section 10.5). The study is complete after the quiet time.",
                {
                    200: _answer("All are stored.", _OBJECT, DICOM_JSON),
                    202: _answer("Some are stored.", _OBJECT, DICOM_JSON),
                },
                _UPLOAD,
                body={"multipart/related": _BYTES},
                refusal=(JSON_TYPE, DICOM_JSON),
            )
        },
    }


def _operation(
    summary: str,
    answers: dict[int, dict[str, Any]],
    refusals: tuple[int, ...] = (),
    parameters: list[dict[str, Any]] | None = None,
    body: Mapping[str, Any] | None = None,
    refusal: tuple[str, ...] = (JSON_TYPE,),
) -> dict[str, Any]:
    """refusals: statuses beside those of every address. refusal: media types of these answers."""
    errors = {status: _error(_REASONS[status], refusal) for status in (*refusals, *_EVERYWHERE)}
    value: dict[str, Any] = {
        "summary": summary,
        "responses": {str(status): (errors | answers)[status] for status in {**answers, **errors}},
    }
    if parameters:
        value["parameters"] = parameters
    if body is not None:
        content = {kind: {"schema": schema} for kind, schema in body.items()}
        value["requestBody"] = {"required": True, "content": content}
    return value


def _answer(text: str, schema: str | Mapping[str, Any], kind: str = JSON_TYPE) -> dict[str, Any]:
    shape = _reference(schema) if isinstance(schema, str) else dict(schema)
    return {"description": text, "content": {kind: {"schema": shape}}}


def _error(text: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    shapes = {JSON_TYPE: _reference("Error"), DICOM_JSON: dict(_OBJECT)}
    return {"description": text, "content": {kind: {"schema": shapes[kind]} for kind in kinds}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(name: str, pattern: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _wait() -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 0, "maximum": MAX_WAIT, "default": 0}
    text = "Seconds to wait for the answer."
    return {"name": "wait", "in": "query", "description": text, "schema": schema}


def _completion() -> dict[str, Any]:
    images = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_IMAGES}
    return _required({"study_uid": _TEXT}, images=images)


def _required(fields: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    return {"type": "object", "required": [*fields], "properties": {**fields, **others}}


def _list(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(schema)}


def _schemas() -> dict[str, Any]:
    flag = {"type": "boolean"}
    results = {"results": _list(_reference("Result"))}
    return {
        "Error": _required({"code": _TEXT, "message": _TEXT}),
        "Live": _required({"live": flag}),
        "Ready": _required({"ready": flag}, code=_TEXT),
        "Models": _list(
            _required(
                {
                    "sha256": _TEXT,
                    "preprocessing_sha256": _TEXT,
                    "signer": _NULLABLE,
                    "banner": _NULLABLE,
                    "research_use_only": _TEXT,
                    "card": _OBJECT,
                }
            )
        ),
        "Results": _required(results),
        "Completed": _required({**results, "waits": flag}),
        "Result": _result(),
        "DeadLetters": _list(
            _required(
                {
                    "id": _TEXT,
                    "failure": _NULLABLE,
                    "attempts": {"type": "integer"},
                    "changed": {"type": "number"},
                    "n_objects": {"type": "integer"},
                    "n_sent": {"type": "integer"},
                }
            )
        ),
    }


def _result() -> dict[str, Any]:
    """As `medres.serve.results.result_document`."""
    made = _required({"role": _TEXT, "sop_instance_uid": _TEXT, "is_sent": {"type": "boolean"}})
    return _required(
        {
            "schema": {"const": SCHEMA},
            "id": _TEXT,
            "state": {"enum": [*STATES]},
            "research_use_only": _TEXT,
            "study_uid": _TEXT,
            "images_received": {"type": "integer"},
            "revision": {"type": "integer"},
            "predecessor": _NULLABLE,
            "successor": _NULLABLE,
            "result_key": _TEXT,
            "objects": _list(made),
            "refused_objects": _list(_required({"role": _TEXT, "code": _TEXT})),
            "fhir": _NULLABLE,
            "failure": _NULLABLE,
            "refused": _NULLABLE,
            "code": _NULLABLE,
            "model": {"type": ["object", "null"]},
            "predictions": {"type": ["array", "null"], "items": _OBJECT},
        }
    )
