"""The verbs about a trained model: verify, predict, export, parity."""

from __future__ import annotations

import errno
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_pipelines.runtime.atomic_files import require_new
from data_pipelines.runtime.plain_text import counted
from medres.cli.console import Address, Json, Limit, Work, Workers, report

if TYPE_CHECKING:
    from data_pipelines.runtime.engines.opening import EngineName
    from medres.artefact.card import Card
    from medres.inference.predictor import Predictor

Model = Annotated[Path, typer.Argument(help="Model file: model.keras of a run.")]


def verify(
    model: Model,
    signature: Annotated[
        Path | None, typer.Option(help="Detached signature of the model file; needs --public-key.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file with the public key of the signer.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a model file and print a summary of the model.

    The file is checked before it is opened, so that nothing in it can run. Then the model is opened
    and must reproduce the reference outputs that it carries.
    """
    from medres.artefact import summary
    from medres.inference.loading import load

    artefact = load(model, signature=signature, public_key=public_key).artefact
    report(summary.as_dict(artefact) if as_json else None, as_json, summary.lines(artefact))


def predict(
    model: Model,
    path: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of studies.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for predictions.json and, by task, tables, masks (NIfTI, PNG) and DICOM "
            "objects. Of a classifier: repeat the command to resume."
        ),
    ] = None,
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom/--no-dicom",
            help="With --out: also write DICOM objects (report, segmentation) and FHIR. Needs: "
            'pip install "medres[results]".',
        ),
    ] = True,
    saliency: Annotated[
        Path | None, typer.Option(help="New folder for saliency maps of the predictions.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="For --saliency: gradcam, gradcam++, integrated_gradients or occlusion."),
    ] = "gradcam",
    allow_name_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-name-mismatch",
            help="Accept files of one PatientID and study whose patient names or birth dates "
            "differ.",
        ),
    ] = False,
    allow_unknown_patient: Annotated[
        bool,
        typer.Option(
            "--allow-unknown-patient",
            help="Accept several files of one study without a PatientID, or with one such as ANON.",
        ),
    ] = False,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="What computes: tensorflow (default), onnx or openvino; the last two convert the "
            "model once (see medres doctor) and draw no saliency. Where: local (default) or ray, "
            "with --out. Repeatable."
        ),
    ] = None,
    address: Address = None,
    workers: Workers = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Predict studies: per study the probabilities and decisions, or a refusal with its reason.
    Research use only; not a medical device.
    """
    missing = [p for p in path if not p.exists()]
    if missing:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(missing[0]))
    if out is not None and saliency is not None:
        raise typer.BadParameter("give either --out or --saliency")
    runtime, where = _engines(engine or [])
    if saliency is not None and runtime != "tensorflow":
        raise typer.BadParameter("--saliency needs --engine tensorflow")
    if out is None and (where != "local" or workers is not None):
        raise typer.BadParameter("--engine ray and --workers need --out")
    from data_pipelines.runtime.engines.opening import opened_engine
    from data_pipelines.runtime.limits import limited, parse_limits
    from medres.inference.annotated_batch import predict_annotated
    from medres.inference.batch import predict_all
    from medres.inference.loading import load
    from medres.tasks import task_named

    allowed = {
        "allow_name_mismatch": allow_name_mismatch,
        "allow_unknown_patient": allow_unknown_patient,
    }
    reopen = functools.partial(load, model.absolute(), engine=runtime)  # type: ignore[arg-type]
    with (
        reopen() as predictor,
        limited(**parse_limits(limit or [])),
        opened_engine(where, address) as cluster,
    ):
        task = task_named(predictor.card.task)
        if task.is_annotated and saliency is not None:
            raise typer.BadParameter(
                "--saliency is for classifiers: other models show masks or boxes"
            )
        if out is not None:
            write = _annotations_into if task.is_annotated else _predict_into
            run = functools.partial(
                predict_annotated if task.is_annotated else predict_all,
                engine=cluster,
                reopen=reopen,
                workers=workers,
                objects=dicom,
            )
            write(run, predictor, path, out, as_json, allowed)
            return
        if saliency is not None:
            require_new(saliency, what="the overlays")
        found = _predicted(predictor, path, saliency, method, allowed)
    report(found, as_json, [prediction_line(one, predictor.card) for one in found])


def _engines(names: list[str]) -> tuple[str, EngineName]:
    """What computes, and where."""
    where = [name for name in names if name in ("local", "ray")]
    runtime = [name for name in names if name not in where]
    if len(where) > 1 or len(runtime) > 1:
        raise typer.BadParameter(
            "--engine takes one of tensorflow, onnx and openvino, and one of local and ray"
        )
    place: EngineName = "ray" if where == ["ray"] else "local"
    return (runtime or ["tensorflow"])[0], place


def _predict_into(
    run: Callable[..., dict[str, Any]],
    predictor: Predictor,
    paths: list[Path],
    out: Path,
    as_json: bool,
    allowed: dict[str, bool],
) -> None:
    """run: `predict_all` with its options."""
    from medres.inference.batch import DOCUMENT
    from medres.inference.objects.study_objects import object_lines
    from medres.progress import Bars

    summary = run(predictor, paths, out, progress=Bars(), **allowed)
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["reasons"].items())
    counts = (
        f"{counted(summary['given'], 'study')}: {summary['answered']} predicted, "
        f"{summary['quarantined']} quarantined"
    )
    lines = [counts + (f" ({reasons})" if reasons else "")]
    lines += object_lines(json.loads((out / DOCUMENT).read_text())["studies"])
    report(summary, as_json, [*lines, f"tables: {out}"])


def _annotations_into(
    run: Callable[..., dict[str, Any]],
    predictor: Predictor,
    paths: list[Path],
    out: Path,
    as_json: bool,
    allowed: dict[str, bool],
) -> None:
    """Write the masks or the boxes of studies. run: `predict_annotated` with its options."""
    from medres.inference.boxes.files import COCO
    from medres.inference.masks.files import SUMMARY
    from medres.progress import Bars
    from medres.tasks import task_named

    summary = run(predictor, paths, out, progress=Bars(), **allowed)
    if task_named(predictor.card.task).finds_boxes:
        answered, found = "looked at", f"boxes: {out / COCO}"
    else:
        answered, found = "with masks", f"masks: {out / SUMMARY}"
    report(summary, as_json, [*_summary_lines(summary, predictor, answered), found])


def _summary_lines(summary: dict[str, Any], predictor: Predictor, answered: str) -> list[str]:
    """A line for each study, one that counts them, and those of the objects."""
    from medres.inference.objects.study_objects import object_lines

    lines = [prediction_line(study, predictor.card) for study in summary["studies"]]
    reasons = ", ".join(f"{code} {count}" for code, count in summary["refused"].items())
    counts = f"{counted(summary['given'], 'study')}: {summary['answered']} {answered}"
    lines.append(counts + (f", refused: {reasons}" if reasons else ""))
    return lines + object_lines(summary["studies"])


def _predicted(
    predictor: Predictor,
    paths: list[Path],
    saliency: Path | None,
    method: str,
    allowed: dict[str, bool],
) -> list[dict[str, Any]]:
    from medres.progress import Bars

    rows = []
    predictions = predictor.predict_many(paths, progress=Bars(), **allowed)
    for number, prediction in enumerate(predictions, start=1):
        row = prediction.as_dict()
        if saliency is not None and prediction.refused is None:
            saliency.mkdir(parents=True, exist_ok=True)
            row["saliency"] = str(saliency / f"{number:05d}.png")
            prediction.saliency(method=method).save(row["saliency"])
        rows.append(row)
    return rows


def export(
    model: Model,
    format: Annotated[str, typer.Option(help="onnx, openvino or saved_model.")],
    out: Annotated[
        Path,
        typer.Option(
            help="New folder for the model, serving.json and golden vectors. NAME.onnx or NAME.xml "
            "names the file of the model; then NAME.serving is the folder."
        ),
    ],
    optimise: Annotated[
        bool,
        typer.Option(
            "--optimise", help="Fold the batch normalization into the convolutions, for speed."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Export the model for another runtime. The export is run and compared, and kept only if its
    outputs agree within 1e-5.
    """
    from medres.artefact.archive import load
    from medres.inference.exporting import export as run
    from medres.runtimes.golden_folder import GOLDEN
    from medres.runtimes.serving_file import SERVING

    exported = run(load(model), format, out, optimise=optimise)  # type: ignore[arg-type]
    result = {
        "path": str(exported.path),
        "difference": exported.difference,
        "images": exported.images,
        "folder": str(exported.folder),
    }
    lines = [
        f"{exported.path}: the outputs of {exported.images} check images and of the golden vectors "
        f"differ by at most {exported.difference:.1e}; all decisions agree",
        f"to serve it without medres: {exported.folder / SERVING}, {exported.folder / GOLDEN}",
    ]
    report(result, as_json, lines)


def parity(
    model: Model,
    work: Work,
    split: Annotated[
        str, typer.Option(help="train, tune (validation) or test. Every access to test is counted.")
    ] = "tune",
    format: Annotated[
        list[str] | None,
        typer.Option(help="onnx, openvino or saved_model. Repeatable. Default: all."),
    ] = None,
    optimise: Annotated[
        bool, typer.Option("--optimise", help="Compare the exports made with --optimise.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the probabilities of the same files in Keras, in the Predictor and in every export.
    The exit code is 1 if they differ.
    """
    from medres.inference import parity_report
    from medres.progress import Bars
    from medres.runtimes.formats import FORMATS

    paths = parity_report.parity(
        model,
        work,
        split,
        formats=format or FORMATS,  # type: ignore[arg-type]
        optimise=optimise,
        progress=Bars(),
    )
    lines = [f"{'path':<28}{'images':>7}{'maximum difference':>21}{'limit':>8}  decisions"]
    lines += [
        f"{path.name:<28}{path.images:>7}{path.difference:>21.1e}{path.limit:>8.0e}  "
        f"{'equal' if path.decisions_equal else 'DIFFER'}"
        for path in paths
    ]
    report([vars(path) | {"holds": path.holds} for path in paths], as_json, lines)
    parity_report.require(paths)


def prediction_line(one: dict[str, Any], card: Card) -> str:
    """A prediction, in its JSON form, as one line of text."""
    if one["refused"] is not None:
        return f"{one['path']}: refused: {one['refused']}"
    if "masks" in one:
        return f"{one['path']}: {'; '.join(map(_mask_text, one['masks']))}"
    if "boxes" in one:
        return f"{one['path']}: {_boxes_text(one, card)}"
    from medres.inference.decisions import describe

    return f"{one['path']}: {describe(one['probabilities'], card)}"


def _boxes_text(one: dict[str, Any], card: Card) -> str:
    """The boxes that reach the threshold of their class: "nodule 2 (highest score 0.91)"."""
    parts = []
    for name in card.names:
        own = [box["score"] for box in one["boxes"] if box["label"] == name]
        positive = sum(score >= one["thresholds"][name] for score in own)
        highest = f" (highest score {max(own):.2f})" if own else ""
        parts.append(f"{name} {positive}{highest}")
    return ", ".join(parts)


def _mask_text(mask: dict[str, Any]) -> str:
    """A label map in its JSON form: "tumor: 12.3 ml (9.8 to 14.8)", or pixels without a spacing."""
    parts = []
    for name, voxels in mask["voxels"].items():
        size = mask["volumes"].get(name, {})
        if "ml" not in size:
            amount = f"{size['mm2']:.1f} mm2" if "mm2" in size else f"{voxels} pixels"
            parts.append(f"{name}: {amount}")
            continue
        interval = f" ({size['ml_low']:.2f} to {size['ml_high']:.2f})" if "ml_low" in size else ""
        parts.append(f"{name}: {size['ml']:.2f} ml{interval}")
    return ", ".join(parts)
