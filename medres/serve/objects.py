"""The objects of a result: a structured report, an overlay, segmentations of masks, and FHIR. They
are made in the process of the model; the same study gives the same objects again.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import CodedError
from data_pipelines.runtime.atomic_files import sync_folder
from data_pipelines.runtime.plain_text import json_text
from medres.inference.objects.study_objects import NO_DICOM_IMAGE, Edition, assemble
from medres.results.fhir import fhir_bundle
from medres.results.writing import file_bytes
from medres.serve.parts import (
    FHIR,
    ROLES,
    EarlierResult,
    MadeObject,
    MakeOrder,
    Objects,
    Part,
    part_key,
    predecessor_key,
)
from medres.serve.results import UNSIGNED
from medres.serve.spool import UNFINISHED

if TYPE_CHECKING:
    from medres.inference.prediction import Prediction
    from medres.inference.predictor import Predictor


def make_all(
    predictor: Predictor, maker: str | None, order: MakeOrder, *, fhir: bool = False
) -> list[MadeObject]:
    """Write the objects of all predictions of a job to a folder: all of them, or nothing. maker:
    'module:function', called as `make_objects`. fhir: also one FHIR bundle of all predictions.
    """
    module, _, name = (maker or "").partition(":")
    make = getattr(__import__(module, fromlist=[name]), name)
    out = Path(order["out"])
    folder = out.with_name(out.name + UNFINISHED)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    made: list[MadeObject] = []
    bundles = []
    try:
        for number, prediction in enumerate(_predictions(predictor, order)):
            objects: Objects = make(prediction, predictor, _part(order, number, prediction))
            for dataset in objects.datasets:
                file = f"{len(made):04d}.dcm"
                _write(folder / file, file_bytes(dataset))
                role = ROLES.get(str(dataset.SOPClassUID), "")
                made.append(MadeObject(sop=str(dataset.SOPInstanceUID), file=file, role=role))
            made += [
                MadeObject(sop="", file="", role=one["role"], code=one["code"])
                for one in objects.refused
            ]
            bundles += [objects.fhir] if fhir and objects.fhir else []
        if bundles:
            _write(folder / FHIR, json_text(_joined(bundles), ensure_ascii=False).encode())
        sync_folder(folder)
        shutil.rmtree(out, ignore_errors=True)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(out.parent)
    return made


def _predictions(predictor: Predictor, order: MakeOrder) -> Iterable[Prediction]:
    """Of the study, as they were answered: the refusal of the server, else what the model says."""
    from medres.inference.prediction import Prediction

    refusal = order.get("refusal")
    if not refusal:
        return predictor.predict_many(order["folder"])
    return [Prediction({}, {}, refused=refusal[0], code=refusal[1])]


def _part(order: MakeOrder, number: int, prediction: Prediction) -> Part:
    earlier = order["predecessor"]
    return Part(
        files=sorted(Path(order["folder"]).iterdir()),
        key=part_key(order["key"], number),
        revision=order["revision"],
        predecessor=predecessor_key(
            None if earlier is None else EarlierResult(*earlier), prediction.series_uids
        ),
        created=order.get("created", 0.0),
    )


def _joined(bundles: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One Bundle with the entries of all; their ids follow from the keys of the parts."""
    return {**bundles[0], "entry": [entry for bundle in bundles for entry in bundle["entry"]]}


def _write(path: Path, data: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_objects(prediction: Prediction, predictor: Predictor, part: Part) -> Objects:
    """The objects of one prediction: the report first; none of a study without images.

    Raises DicomError and ResultError as `assemble` and `result_objects` do.
    """
    artefact = predictor.artefact
    edition = Edition(
        part.key,
        part.predecessor,
        dt.datetime.fromtimestamp(part.created, dt.UTC),
        _notes(artefact.signer, part.revision),
    )
    try:
        assembly = assemble(
            prediction,
            part.files,
            predictor.card,
            predictor.decoder,
            edition,
            sha256=artefact.sha256,
            shows_overlays=True,
        )
    except CodedError as error:
        if error.code == NO_DICOM_IMAGE:
            return Objects([], [])
        raise
    made = assembly.objects()
    left_out = [*((role, error.code) for role, error in made.refusals.items())]
    left_out += [(row["role"], row["code"]) for row in assembly.refused]
    return Objects(
        [*made.datasets.values()],
        [{"role": role, "code": code} for role, code in left_out],
        fhir_bundle(assembly.result),
    )


def _notes(signer: str | None, revision: int) -> tuple[str, ...]:
    notes = () if signer else (UNSIGNED,)
    return notes if revision == 1 else (*notes, f"Revision {revision}: the study has grown.")
