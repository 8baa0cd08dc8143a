"""Verbs about a finished model: verify, predict, export, parity."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_pipelines.runtime.atomic_files import require_new
from medres.cli.console import Json, Limit, Work, report

if TYPE_CHECKING:
    from medres.artefact.card import Card
    from medres.inference.predictor import Predictor

Model = Annotated[Path, typer.Argument(help="model.keras of a run.")]


def verify(
    model: Model,
    signature: Annotated[
        Path | None, typer.Option(help="Detached signature of the file, with --public-key.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file of who must have signed it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a model file as medres.load does (nothing from it is run before it has passed), and
    print what it says about itself.
    """
    from medres.artefact import summary
    from medres.inference.loading import load

    found = load(model, signature=signature, public_key=public_key).artefact
    report(summary.as_dict(found) if as_json else None, as_json, summary.lines(found))


def predict(
    model: Model,
    path: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of studies.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for tables of many studies; repeat the command to go on after a stop."
        ),
    ] = None,
    saliency: Annotated[
        Path | None, typer.Option(help="New folder for overlays of where the model looked.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="gradcam, gradcam++, integrated_gradients or occlusion, for --saliency."),
    ] = "gradcam",
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Probability and decision, or a refusal with its reason, one a study. Research use only; not a
    medical device.
    """
    missing = [p for p in path if not p.exists()]
    if missing:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(missing[0]))
    if out is not None and saliency is not None:
        raise typer.BadParameter("give either --out or --saliency")
    from data_pipelines.runtime.limits import limited, parse_limits
    from medres.inference.loading import load

    predictor = load(model)
    with limited(**parse_limits(limit or [])):
        if out is not None:
            _predict_into(predictor, path, out, as_json)
            return
        if saliency is not None:
            require_new(saliency, what="the overlays")
        found = _predicted(predictor, path, saliency, method)
    report(found, as_json, [prediction_line(one, predictor.card) for one in found])


def _predict_into(predictor: Predictor, paths: list[Path], out: Path, as_json: bool) -> None:
    from medres.inference.batch import predict_all
    from medres.progress import Bars

    summary = predict_all(predictor, paths, out, progress=Bars())
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["reasons"].items())
    told = (
        f"{summary['given']} studies: {summary['answered']} answered, {summary['quarantined']} "
        f"quarantined"
    )
    report(summary, as_json, [told + (f" ({reasons})" if reasons else ""), f"tables: {out}"])


def _predicted(
    predictor: Predictor, paths: list[Path], saliency: Path | None, method: str
) -> list[dict[str, Any]]:
    from medres.progress import Bars

    found = []
    for number, prediction in enumerate(predictor.predict_many(paths, progress=Bars()), start=1):
        one = prediction.as_dict()
        if saliency is not None and prediction.refused is None:
            saliency.mkdir(parents=True, exist_ok=True)
            one["saliency"] = str(saliency / f"{number:05d}.png")
            prediction.saliency(method=method).save(one["saliency"])
        found.append(one)
    return found


def export(
    model: Model,
    format: Annotated[str, typer.Option(help="onnx, openvino or saved_model.")],
    out: Annotated[Path, typer.Option(help="New file (onnx) or folder.")],
    optimise: Annotated[
        bool,
        typer.Option("--optimise", help="Fold batch normalisation into the convolutions: faster."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the model for another runtime. It is run there, and kept only where its numbers agree
    within 1e-5.
    """
    from medres.artefact.archive import load
    from medres.inference.exporting import export as run

    made = run(load(model), format, out, optimise=optimise)  # type: ignore[arg-type]
    result = {"path": str(made.path), "difference": made.difference, "images": made.images}
    said = (
        f"{made.path}: {made.images} check images differ by at most {made.difference:.1e}, "
        f"every decision equal"
    )
    report(result, as_json, [said])


def parity(
    model: Model,
    work: Work,
    split: Annotated[
        str, typer.Option(help="train, tune, or test, whose openings are counted.")
    ] = "tune",
    format: Annotated[
        list[str] | None, typer.Option(help="onnx, openvino, saved_model; repeatable; default all.")
    ] = None,
    optimise: Annotated[
        bool, typer.Option("--optimise", help="Compare the optimised exports.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show that the same files give the same probabilities in Keras, Predictor and every export;
    exit code 1 where they do not.
    """
    from medres.inference import parity_report as room
    from medres.inference.exporting import FORMATS
    from medres.progress import Bars

    ways = room.parity(
        model,
        work,
        split,
        formats=format or FORMATS,  # type: ignore[arg-type]
        optimise=optimise,
        progress=Bars(),
    )
    lines = [f"{'way':<28}{'images':>7}{'greatest difference':>21}{'limit':>8}  decisions"]
    lines += [
        f"{w.name:<28}{w.images:>7}{w.difference:>21.1e}{w.limit:>8.0e}  "
        f"{'equal' if w.decisions_equal else 'DIFFER'}"
        for w in ways
    ]
    report([vars(w) | {"holds": w.holds} for w in ways], as_json, lines)
    room.require(ways)


def prediction_line(one: dict[str, Any], card: Card) -> str:
    """A prediction, in its JSON form, as one line of text."""
    if one["refused"] is not None:
        return f"{one['path']}: refused: {one['refused']}"
    from medres.inference.decisions import describe

    return f"{one['path']}: {describe(one['probabilities'], card)}"
