"""Thousands of files through a model: decoded in isolated workers, answered one study at a time,
resumable, every file accounted for.

OUT/predictions.jsonl   one line a study, appended as it is answered; a repeated command goes on
                        after the last whole line
OUT/predictions.csv     the same as a table, when all is done
OUT/quarantine.csv      path, reason, message of every study that got no answer
OUT/predict.json        the model's SHA-256 and the counts: given = answered + quarantined
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DicomError, InputError
from data_pipelines.runtime.atomic_files import csv_bytes, require_new, write_atomic
from data_pipelines.runtime.csv_cells import escape_formula
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.walk import Walk, walk_files
from data_pipelines.runtime.worker_pool import map_isolated
from medres.artefact.card import Card
from medres.errors import RefusedInput
from medres.inference.predictor import Prediction, Predictor
from medres.inference.study_reader import Files, by_study, read_study, study_key
from medres.progress import ProgressReporter

LINES, SUMMARY = "predictions.jsonl", "predict.json"
QUARANTINE = ("path", "reason", "message")
NO_FILE = "Not a regular file: it is not opened."


def predict_all(
    predictor: Predictor,
    paths: Sequence[str | Path],
    out: Path | str,
    *,
    progress: ProgressReporter | None = None,
) -> dict[str, Any]:
    """Predict every study below `paths` into the folder `out`; returns the content of predict.json.

    out: new, or left by an interrupted call with the same model. A file that crashes or stops its
        decoder costs a worker, not the run. Raises InputError where `out` holds something else, or
        a path does not exist.
    """
    out, reporter = Path(out), progress or ProgressReporter()
    done = _claim(out, predictor.artefact.sha256)
    walks = [walk_files(path) for path in paths]
    others = [(str(found.root / path), reason) for found in walks for path, reason in found.others]
    studies = list(_studies(paths, walks, reporter))
    waiting = [study for study in studies if _key(study) not in done]
    with (out / LINES).open("a", encoding="utf-8") as lines, reporter.task("predict") as update:
        for count, record in enumerate(_answers(predictor, waiting), start=1):
            done[record["key"]] = record
            lines.write(json.dumps(record, allow_nan=False) + "\n")
            lines.flush()
            update(len(studies) - len(waiting) + count, len(studies))
        os.fsync(lines.fileno())
    return _finish(out, predictor, [done[_key(study)] for study in studies], others)


def prepare_study(files: tuple[str, ...], card: Card) -> np.ndarray | str:
    """Prepared integers of a study, or why it is refused; runs in a decode worker. Raises
    DicomError.
    """
    try:
        return read_study(files, card).pixels
    except RefusedInput as error:
        return error.reason


def _claim(out: Path, sha256: str) -> dict[str, dict[str, Any]]:
    """Records of an earlier call by key; a folder that is not ours is an error, a last line that
    was cut is dropped.
    """
    if not (out / LINES).exists():
        require_new(out, what="the predictions")
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / LINES, json.dumps({"model_sha256": sha256}).encode() + b"\n")
        return {}
    whole = (out / LINES).read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    try:
        head, *records = [json.loads(line) for line in whole.splitlines()]
        if head["model_sha256"] != sha256:
            raise InputError(
                f"{out} holds predictions of another model: name a new folder.",
                code="output_exists",
            )
        found = {record["key"]: record for record in records}
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{out / LINES} is damaged: name a new folder.", code="output_exists"
        ) from None
    write_atomic(out / LINES, whole)
    return found


def _studies(
    paths: Sequence[str | Path], walks: Sequence[Walk], reporter: ProgressReporter
) -> Iterator[Files]:
    """The studies of the regular files below each path: links, pipes and the like are not
    opened.
    """
    files = [[found.root / file for file in found.files] for found in walks]
    with reporter.task("index") as update:
        every = [str(file) for below in files for file in below]
        keys = iter([key for _, key in map_isolated(study_key, every, progress=update)])
    for path, below in zip(paths, files, strict=True):
        yield from by_study(path, below, itertools.islice(keys, len(below)))


def _answers(predictor: Predictor, studies: Sequence[Files]) -> Iterator[dict[str, Any]]:
    items = [tuple(str(file) for file in study.files) for study in studies]
    read = functools.partial(prepare_study, card=predictor.card)
    seconds = active_limits().seconds

    def limit(files: tuple[str, ...]) -> float:
        return seconds * len(files)

    for study, (_, found) in zip(studies, map_isolated(read, items, timeout_s=limit), strict=True):
        code = "refused"
        if isinstance(found, np.ndarray):
            prediction = predictor.decide(found, path=study.path)
        else:
            code = found.code if isinstance(found, DicomError) else code
            prediction = Prediction({}, {}, refused=str(found), path=study.path)
        reason = None if prediction.refused is None else code
        yield {
            "key": _key(study),
            "files": len(study.files),
            "reason": reason,
            **prediction.as_dict(),
        }


def _key(study: Files) -> str:
    return hashlib.sha256(
        "\n".join(map(str, study.files)).encode("utf-8", "surrogateescape")
    ).hexdigest()[:16]


def _finish(
    out: Path, predictor: Predictor, records: list[dict[str, Any]], others: list[tuple[str, str]]
) -> dict[str, Any]:
    answered = [record for record in records if record["refused"] is None]
    quarantined = [record for record in records if record["refused"] is not None]
    names = predictor.card.names
    rows = [
        {"path": r["path"], "images": r["images"]}
        | {f"probability:{name}": r["probabilities"][name] for name in names}
        | {f"decision:{name}": value for name, value in r["decisions"].items()}
        | {"abstained": ";".join(r["abstained"]), "novelty": r["novelty"]}
        for r in answered
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row)) or ["path"]
    refused = [
        {"path": r["path"], "reason": r["reason"], "message": r["refused"]} for r in quarantined
    ]
    refused += [{"path": path, "reason": reason, "message": NO_FILE} for path, reason in others]
    write_atomic(out / "predictions.csv", csv_bytes(_guarded(rows), columns))
    write_atomic(out / "quarantine.csv", csv_bytes(_guarded(refused), QUARANTINE))
    summary = {
        "model_sha256": predictor.artefact.sha256,
        "given": len(records) + len(others),
        "answered": len(answered),
        "quarantined": len(refused),
        "reasons": dict(sorted(Counter(str(r["reason"]) for r in refused).items())),
        "files": sum(r["files"] for r in records),
    }
    write_atomic(out / SUMMARY, json.dumps(summary, indent=1, allow_nan=False).encode())
    return summary


def _guarded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: escape_formula(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows
    ]
