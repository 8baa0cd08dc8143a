"""Verbs that make models: train, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_pipelines.backend import require_tensorflow
from medres.commands.serving import prediction_line
from medres.console import Json, Work, report


def train(
    work: Work,
    out: Annotated[Path, typer.Option(help="New run folder, or an unfinished run of the same command.")],
    model: Annotated[str, typer.Option(help="resnet18, resnet34, resnet50, ...")] = "resnet18",
    preset: Annotated[str | None, typer.Option(help="xray-SIZE or ct-SIZE; default xray-224 or ct-256.")] = None,
    recipe: Annotated[str, typer.Option(help="default, paper or finetune.")] = "default",
    epochs: Annotated[int | None, typer.Option(help="Epochs; default: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    batch_size: Annotated[int | None, typer.Option(help="Images a step; default: the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate; default: the recipe's.")] = None,
    class_weights: Annotated[str | None, typer.Option(help="none or balanced.")] = None,
    augment: Annotated[
        str | None, typer.Option(help="none, chest_xray, ct_slice or strong; default: by modality.")
    ] = None,
    version: Annotated[str, typer.Option(help="1 (keras.applications), 1.5 (torchvision), 2 or d.")] = "1.5",
    stem: Annotated[str | None, typer.Option(help="imagenet or small; default: small up to 64 px.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first stage; default 64.")] = None,
    window: Annotated[
        list[str] | None, typer.Option(help="CT window: a name, or CENTRE,WIDTH in HU; repeatable.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="File of weights to start from (.keras, .h5).")] = None,
    as_json: Json = False,
) -> None:
    """Train a classifier; the run folder gets model.keras. Repeat the command to resume after a kill."""
    require_tensorflow()
    from medres.progress import Bars
    from medres.training.fit import train as run

    done = run(
        work,
        model=model,
        preset=preset,
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        out=out,
        batch_size=batch_size,
        learning_rate=learning_rate,
        class_weights=class_weights,
        augment=augment,
        version=version,
        stem=stem,
        width=width,
        windows=[_window(text) for text in window] if window else None,
        weights=weights,
        progress=Bars(),
    )
    result = {"model": str(done.artefact), "best_epoch": done.best_epoch, "history": done.history.to_dict("records")}
    report(result, as_json, [f"model: {done.artefact}"])


def demo(
    out: Annotated[Path, typer.Option(help="New or empty folder, or that of an earlier demo.")] = Path("medres-demo"),
    seed: Annotated[int, typer.Option(help="Seed of cohort, split and training.")] = 0,
    as_json: Json = False,
) -> None:
    """The whole chain on a made-up DICOM cohort: ingest, cache, train, evaluate, predict. Under five minutes on two cores."""
    require_tensorflow()
    from medres.demo import run
    from medres.progress import Bars

    result = run(out, seed=seed, progress=Bars())
    auc, example = result["auc"], result["example"]
    lines = [
        f"AUC {auc['estimate']:.3f} (95% CI {auc['ci_low']:.3f} to {auc['ci_high']:.3f}; {auc['method']})",
        f"one test study from its DICOM files: {prediction_line(example)}",
        f"model:  {result['model']}",
        f"report: {result['report']}",
    ]
    report(result, as_json, lines)


def _window(text: str) -> str | list[float]:
    """A window's name, or CENTRE,WIDTH."""
    if "," not in text:
        return text
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--window takes a name or CENTRE,WIDTH, received {text!r}") from None
    return [centre, width]
