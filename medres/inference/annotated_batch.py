"""Masks or boxes of many studies, predicted here or on a cluster. The machine that predicts a study
also writes its files; this one writes the tables of all studies.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.runtime.archives import archive_or_file
from data_pipelines.runtime.engines.engine import LOCAL, Engine, map_files
from data_pipelines.runtime.engines.shared import shared_unless
from data_pipelines.runtime.object_stores import require_local
from data_pipelines.runtime.worker_pool import ProgressCallback
from medres.inference.batch import check_study, opener
from medres.inference.boxes.files import box_record, write_box_tables
from medres.inference.masks.files import StudyRecord, mask_record, new_folder, write_summary
from medres.inference.objects.study_objects import write_objects
from medres.inference.predictor import Predictor
from medres.inference.request_files import files_below, paths_of
from medres.inference.study_identity import (
    IdentityRules,
    StudyFiles,
    group_of_file,
    requests_below,
)
from medres.progress import ProgressReporter
from medres.tasks import task_named


def predict_annotated(
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
    """Write the masks of a segmenter, or the boxes of a detector, of every study below `paths` into
    the new folder `out` (see `write_masks` and `write_boxes`); returns the content of
    predictions.json.

    The arguments are those of `predict_all`, and so are the errors, but `out` must be new
    (output_exists). workers: tasks at the same time, or the workers that read headers.
    """
    require_local(out, "the folder of the results")
    opened, card = opener(predictor, engine, reopen), predictor.card
    out, reporter = new_folder(out).absolute(), progress or ProgressReporter()
    rules = IdentityRules(allow_name_mismatch, allow_unknown_patient)
    by_series = card.preprocess.image_kind.has_series
    studies = list(_studies(paths_of(paths), by_series, reporter, engine, workers))
    with (
        reporter.task("predict") as update,
        shared_unless(engine.is_local, out) as marker,
    ):
        answers = engine.run(
            functools.partial(predict_records, opened=opened, rules=rules, out=out, made=objects),
            list(enumerate(studies, start=1)),
            sizes=[max(1, len(study.files)) for study in studies],
            check=functools.partial(check_study, marker=marker),
            workers=workers,
        )
        records = []
        for record in answers:
            records.append(record)
            update(len(records), len(studies))
    write = write_box_tables if task_named(card.task).finds_boxes else write_summary
    return write(records, card, out)


def predict_records(
    parts: Sequence[tuple[int, StudyFiles]],
    /,
    *,
    opened: Callable[[], Predictor],
    rules: IdentityRules,
    out: Path,
    made: bool,
    workers: int | None,
    progress: ProgressCallback | None,
) -> Iterator[StudyRecord]:
    """Predict studies, each with its number, and write their files. made: also the objects of
    `medres.results`. The files are decoded in the workers of the predictor.
    """
    predictor = opened()
    card, decoder = predictor.card, predictor.decoder
    record_of = box_record if task_named(card.task).finds_boxes else mask_record
    predictions = predictor.predict_studies([study for _, study in parts], rules)
    for (number, study), prediction in zip(parts, predictions, strict=True):
        more = {}
        if made:
            more = write_objects(prediction, study.files, card, out, decoder).as_dict()
        yield record_of(prediction, number, card, out, more)


def _studies(
    paths: Sequence[str | Path],
    by_series: bool,
    reporter: ProgressReporter,
    engine: Engine,
    workers: int | None,
) -> Iterator[StudyFiles]:
    every = [files_below(path) for path in paths]
    with reporter.task("index") as update:
        answers = map_files(
            engine,
            functools.partial(group_of_file, by_series=by_series),
            [str(file) for below in every for file in below.files],
            paths=archive_or_file,
            workers=workers,
            progress=update,
        )
        groups = iter([group for _, group in answers])
    for path, below in zip(paths, every, strict=True):
        yield from requests_below(path, below, itertools.islice(groups, len(below.files)))
