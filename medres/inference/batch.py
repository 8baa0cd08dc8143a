"""Predict thousands of files: decoded in isolated workers, one study at a time, resumable, with
every file accounted for.

OUT/predictions.jsonl   one line per study, appended when the study is predicted; a repeated command
                        resumes after the last complete line
OUT/predictions.csv     the same as a table, written at the end
OUT/quarantine.csv      path, reason, code and message of every study without a prediction; the
                        reason of a refusal that is no fault of a file is `refused`
OUT/predict.json        SHA-256 of the model, and the counts: given = answered + quarantined
OUT/predictions.json    both in one object, with the task, written at the end
OUT/KEY_*               with `objects`: DICOM report, FHIR and JSON of each study that was answered
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.errors import DicomError, EngineError, InputError
from data_pipelines.runtime.archives import archive_or_file
from data_pipelines.runtime.atomic_files import csv_bytes, require_new, write_atomic
from data_pipelines.runtime.csv_cells import escape_formula
from data_pipelines.runtime.engines.engine import LOCAL, Engine, map_files
from data_pipelines.runtime.engines.shared import (
    require_files,
    require_marker,
    shared_unless,
    this_machine,
)
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.object_stores import require_local
from data_pipelines.runtime.walk import Walk, walk_files
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated
from medres.errors import ArtefactError, RefusedInput
from medres.inference.objects.study_objects import write_objects
from medres.inference.predictor import Predictor
from medres.inference.request_files import NOT_OPENED, paths_of
from medres.inference.study_identity import IdentityRules, StudyFiles, group_files, group_of_file
from medres.inference.study_reader import ReadRequest, StudyReading, read_request, request_of
from medres.progress import ProgressReporter
from medres.tasks import task_named

LINES, SUMMARY, DOCUMENT = "predictions.jsonl", "predict.json", "predictions.json"
QUARANTINE = ("path", "reason", "code", "message")


def predict_all(
    predictor: Predictor,
    paths: str | Path | Iterable[str | Path],
    out: Path | str,
    *,
    allow_name_mismatch: bool = False,
    allow_unknown_patient: bool = False,
    engine: Engine = LOCAL,
    reopen: Callable[[], Predictor] | None = None,
    workers: int | None = None,
    objects: bool = False,
    progress: ProgressReporter | None = None,
) -> dict[str, Any]:
    """Predict every study below `paths` into the folder `out`; returns the content of predict.json.

    out: a new folder, or that of an interrupted call with the same model; studies whose files have
        not changed are not predicted again. A file that crashes or blocks its decoder ends one
        worker, not the run. allow_name_mismatch, allow_unknown_patient: as for `Predictor.predict`.
    objects: also write the objects of `medres.results` of each study, or note in its record why
        there are none.
    engine: where studies are read and predicted, see `opened_engine`. reopen: for an engine of
        several machines, a function importable by name that opens the same model there. workers:
        decode workers, or tasks at the same time.
    Raises InputError if `out` holds anything else (output_exists) or a path does not exist;
    EngineError (no_reopen) without `reopen`, and those of `predict_studies`.
    """
    require_local(out, "the folder of the results")
    out, reporter = Path(out), progress or ProgressReporter()
    opened = opener(predictor, engine, reopen)
    records = _claim_folder(out, predictor.artefact.sha256)
    paths = paths_of(paths)
    walks = [walk_files(path) for path in paths]
    not_files = [(str(walk.root / path), reason) for walk in walks for path, reason in walk.others]
    by_series = predictor.card.preprocess.image_kind.has_series
    studies = list(_studies(paths, walks, by_series, reporter, engine, workers))
    rules = IdentityRules(allow_name_mismatch, allow_unknown_patient)
    keys = [_key(study, rules) for study in studies]
    pending = {key: study for key, study in zip(keys, studies, strict=True) if key not in records}
    objects_in = out if objects else None
    with (
        (out / LINES).open("a", encoding="utf-8") as lines,
        reporter.task("predict") as update,
        shared_unless(objects_in is None or engine.is_local, out) as marker,
    ):
        predictions = engine.run(
            functools.partial(predict_studies, opened=opened, rules=rules, objects_in=objects_in),
            list(pending.items()),
            sizes=[len(study.files) for study in pending.values()],
            check=functools.partial(check_study, marker=marker),
            workers=workers,
        )
        for count, record in enumerate(predictions, start=1):
            records[record["key"]] = record
            lines.write(json.dumps(record, allow_nan=False) + "\n")
            lines.flush()
            update(len(studies) - len(pending) + count, len(studies))
        os.fsync(lines.fileno())
    return _write_tables(out, predictor, [records[key] for key in keys], not_files)


def _claim_folder(out: Path, sha256: str) -> dict[str, dict[str, Any]]:
    """Records of an earlier call by key. A folder of something else is an error; an incomplete last
    line is dropped.
    """
    if not (out / LINES).exists():
        require_new(out, what="the predictions")
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / LINES, json.dumps({"model_sha256": sha256}).encode() + b"\n")
        return {}
    complete = (out / LINES).read_bytes()
    complete = complete[: complete.rfind(b"\n") + 1]
    try:
        head, *records = [json.loads(line) for line in complete.splitlines()]
        if head["model_sha256"] != sha256:
            raise InputError(
                f"{out} holds predictions of another model: give a new folder.",
                code="output_exists",
            )
        by_key = {record["key"]: record for record in records}
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{out / LINES} is damaged: give a new folder.", code="output_exists"
        ) from None
    write_atomic(out / LINES, complete)
    return by_key


def _studies(
    paths: Sequence[str | Path],
    walks: Sequence[Walk],
    by_series: bool,
    reporter: ProgressReporter,
    engine: Engine,
    workers: int | None,
) -> Iterator[StudyFiles]:
    """The studies of the regular files below each path. Links, pipes and devices are not opened."""
    files_per_path = [[walk.root / file for file in walk.files] for walk in walks]
    with reporter.task("index") as update:
        every_file = [str(file) for files in files_per_path for file in files]
        group = functools.partial(group_of_file, by_series=by_series)
        answers = map_files(
            engine,
            group,
            every_file,
            paths=archive_or_file,
            workers=workers,
            progress=update,
        )
        groups = iter([group for _, group in answers])
    for path, files in zip(paths, files_per_path, strict=True):
        yield from group_files(path, files, list(itertools.islice(groups, len(files))))


def predict_studies(
    parts: Sequence[tuple[str, StudyFiles]],
    /,
    *,
    opened: Callable[[], Predictor],
    rules: IdentityRules,
    objects_in: Path | None,
    workers: int | None,
    progress: ProgressCallback | None,
) -> Iterator[dict[str, Any]]:
    """One line of predictions.jsonl per study, by its key. Its reason is the code of a DicomError,
    or `refused` for any other refusal; `code` names each. objects_in: folder for the objects of the
    studies; None: none are made. Raises EngineError (model_not_shared, model_differs) on a machine
    that does not see the model file.
    """
    predictor = opened()
    items = [request_of(study.files, predictor.card, rules) for _, study in parts]
    seconds = active_limits().seconds

    def limit(request: ReadRequest) -> float:
        return seconds * len(request.files)

    answers = map_isolated(read_request, items, workers=workers, timeout_s=limit, progress=progress)
    for (key, study), (_, answer) in zip(parts, answers, strict=True):
        reading = StudyReading(None, answer) if isinstance(answer, DicomError) else answer
        prediction = predictor.decide_reading(reading, study.path)
        is_file_error = isinstance(reading.error, DicomError)
        reason = prediction.code if is_file_error else RefusedInput.code
        made = {}
        if objects_in is not None:
            decoder, card = predictor.decoder, predictor.card
            made = write_objects(prediction, study.files, card, objects_in, decoder).as_dict()
        yield {
            "key": key,
            "files": len(study.files),
            "reason": None if prediction.refused is None else reason,
            **prediction.as_dict(),
            **made,
        }


def opener(
    predictor: Predictor, engine: Engine, reopen: Callable[[], Predictor] | None
) -> Callable[[], Predictor]:
    """What gives the predictor on the machine that computes. Raises EngineError (no_reopen)."""
    if engine.is_local:
        return lambda: predictor
    if reopen is None:
        raise EngineError(
            "Several machines predict, and each must open the model: give predict_all a function "
            "`reopen`, such as functools.partial(medres.load, path).",
            code="no_reopen",
        )
    return functools.partial(_reopened, reopen, predictor.artefact.sha256)


_open_predictors: dict[str, Predictor] = {}


def _reopened(reopen: Callable[[], Predictor], sha256: str) -> Predictor:
    """The model with this hash, opened once per process."""
    if sha256 in _open_predictors:
        return _open_predictors[sha256]
    try:
        predictor = reopen()
    except ArtefactError as error:
        if error.code not in ("no_such_file", "not_readable"):
            raise
        raise EngineError(
            f"The model file cannot be read on {this_machine()} ({error.code}). Put it on "
            f"storage that every machine mounts at the same path.",
            code="model_not_shared",
        ) from None
    if predictor.artefact.sha256 != sha256:
        raise EngineError(
            f"{this_machine()} has another model file at this path. Put the file on storage that "
            f"every machine mounts at the same path.",
            code="model_differs",
        )
    _open_predictors[sha256] = predictor
    return predictor


def check_study(part: tuple[Any, StudyFiles], marker: str | None) -> None:
    """Raise EngineError (source_not_shared, work_not_shared) unless this machine sees the files of
    a study and the folder of the results.
    """
    if marker is not None:
        require_marker(marker)
    require_files([str(file) for file in part[1].files])


def _key(study: StudyFiles, rules: IdentityRules) -> str:
    """What a record is about. A file that was replaced, perhaps by that of another patient, other
    rules and other limits give another key, so that no earlier record answers for them.
    """
    facts = [repr((rules, active_limits()))]
    for file in study.files:
        try:
            status = file.stat()
        except OSError:  # it is gone: its reading will say so
            facts.append(str(file))
        else:
            facts.append(f"{file} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
    return hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _write_tables(
    out: Path,
    predictor: Predictor,
    records: list[dict[str, Any]],
    not_files: list[tuple[str, str]],
) -> dict[str, Any]:
    """Write the two tables and predict.json; returns the content of the latter."""
    answered = [record for record in records if record["refused"] is None]
    quarantined = [record for record in records if record["refused"] is not None]
    names = predictor.card.names
    rows = [
        {"path": r["path"], "study_uid": r["study_uid"], "images": r["n_images"]}
        | {f"probability:{name}": r["probabilities"][name] for name in names}
        | {f"decision:{name}": value for name, value in r["decisions"].items()}
        | {"abstained": ";".join(r["abstained"]), "novelty": r["novelty"]}
        for r in answered
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row)) or ["path"]
    refused = [
        {"path": r["path"], "reason": r["reason"], "code": r["code"], "message": r["refused"]}
        for r in quarantined
    ]
    refused += [
        {"path": path, "reason": reason, "code": reason, "message": NOT_OPENED}
        for path, reason in not_files
    ]
    write_atomic(out / "predictions.csv", csv_bytes(_escaped(rows), columns))
    write_atomic(out / "quarantine.csv", csv_bytes(_escaped(refused), QUARANTINE))
    summary = {
        "model_sha256": predictor.artefact.sha256,
        "given": len(records) + len(not_files),
        "answered": len(answered),
        "quarantined": len(refused),
        "reasons": dict(sorted(Counter(str(r["reason"]) for r in refused).items())),
        "files": sum(r["files"] for r in records),
    }
    write_atomic(out / SUMMARY, json.dumps(summary, indent=1, allow_nan=False).encode())
    task = task_named(predictor.card.task).name
    document = {"task": task, **summary, "studies": records}
    write_atomic(out / DOCUMENT, json.dumps(document, indent=1, allow_nan=False).encode())
    return summary


def _escaped(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose text cells no spreadsheet evaluates as a formula."""
    return [
        {k: escape_formula(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows
    ]
