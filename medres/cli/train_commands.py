"""Verbs that make models: train, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from data_pipelines.runtime.backend import require_tensorflow
from medres.cli.console import Json, Work, report
from medres.cli.serve_commands import prediction_line


def train(
    work: Work,
    out: Annotated[
        Path, typer.Option(help="New run folder, or an unfinished run of the same command.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="resnet18 (default), resnet34, resnet50, ..., or a .keras backbone."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="xray-SIZE, ct-SIZE, ct25d-SIZE or ctvol-SIZE (see medres cache); default "
            "xray-224 or ct-256."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="default, paper, modern, finetune or small.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; default: the recipe's.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and augmentation; default 0.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML or JSON file of settings, as medres plan writes; options here override it."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step; default: the recipe's.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate; default: the recipe's.")
    ] = None,
    class_weights: Annotated[str | None, typer.Option(help="none or balanced.")] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, chest_xray, ct_slice, ct_volume or strong; default: by what the preset "
            "prepares."
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="1 (keras.applications), 1.5 (torchvision), 2 or d.")
    ] = None,
    stem: Annotated[
        str | None, typer.Option(help="imagenet or small; default: small up to 64 px.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the first stage; default 64.")
    ] = None,
    window: Annotated[
        list[str] | None, typer.Option(help="CT window: a name, or CENTRE,WIDTH in HU; repeatable.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="File of weights to start from: a model.keras, .h5, .safetensors, .pth ..."
        ),
    ] = None,
    uncertain: Annotated[
        list[str] | None,
        typer.Option(
            help="Labels of -1 in training: [FINDING=]ignore, zero, one, soft or 0..1; repeatable."
        ),
    ] = None,
    operating_point: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=CRITERION, as default=sensitivity:0.95; repeatable. Default: default=youden."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of any other setting, as ema=0.999; repeatable."),
    ] = None,
    checkpoint_steps: Annotated[
        int | None,
        typer.Option(
            help="Batches between checkpoints inside an epoch; default: every five minutes.", min=1
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            help="Cross-validate by patient in so many folds, each run in its own process.", min=1
        ),
    ] = 1,
    seeds: Annotated[
        int, typer.Option(help="Repeat with so many seeds; the model is then an ensemble.", min=1)
    ] = 1,
    mlflow: Annotated[
        str | None,
        typer.Option(
            help="Log to this MLflow experiment too (extra mlflow); MLFLOW_TRACKING_URI says where."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a classifier; the run folder gets model.keras. Repeat the command to resume after a
    kill.
    """
    require_tensorflow()
    from medres.progress import Bars

    named: dict[str, Any] = {
        "model": model,
        "preset": preset,
        "recipe": recipe,
        "epochs": epochs,
        "seed": seed,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "class_weights": class_weights,
        "augment": augment,
        "version": version,
        "stem": stem,
        "width": width,
        "windows": [_window(text) for text in window] if window else None,
        "weights": weights,
        "uncertain": _pairs([t if "=" in t else f"*={t}" for t in uncertain or ()], "--uncertain")
        or None,
        "operating_points": dict(_pair(text, "--operating-point") for text in operating_point or ())
        or None,
    }
    given = _pairs(setting, "--set") | {
        key: value for key, value in named.items() if value is not None
    }
    if folds * seeds > 1:
        from medres.training.cross_validation.folds import cross_validate

        made = cross_validate(
            work,
            out=out,
            folds=folds,
            seeds=seeds,
            config=config,
            progress=Bars(),
            mlflow=mlflow,
            **given,
        )
        report(
            {"model": str(made.artefact), **made.summary},
            as_json,
            [*_fold_lines(made.summary), f"model: {made.artefact}"],
        )
        return
    from medres.training.run import train as run

    done = run(
        work,
        out=out,
        config=config,
        progress=Bars(),
        checkpoint_steps=checkpoint_steps,
        mlflow=mlflow,
        **given,
    )
    rows = [
        {key: None if value != value else value for key, value in row.items()}  # NaN is no JSON
        for row in done.history.to_dict("records")
    ]
    result = {"model": str(done.artefact), "best_epoch": done.best_epoch, "history": rows}
    report(result, as_json, [f"model: {done.artefact}"])


def _fold_lines(summary: dict[str, Any]) -> list[str]:
    if summary.get("auc") is None:
        return []
    lines = [
        f"out-of-fold AUC {summary['auc']:.3f}, mean over folds and seeds ({summary['unit']} level)"
    ]
    if summary["seed_sd"] is not None:
        lines.append(f"standard deviation between seeds {summary['seed_sd']:.4f}")
    if summary["sampling_se"] is not None:
        lines.append(f"standard error from the sampling of patients {summary['sampling_se']:.4f}")
    return lines


def plan(
    work: Work,
    out: Annotated[
        Path | None, typer.Option(help="New file for the settings, for medres train --config.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="radiograph or ct, where the folder holds both.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose preset, model, recipe, batch and epochs for a work folder, by rules that say why."""
    require_tensorflow()
    from data_pipelines.ingestion.manifest import Manifest
    from data_pipelines.runtime.atomic_files import require_new, write_atomic
    from medres.training.config.planner import plan as propose

    made = propose(Manifest.load(work), kind=kind)
    if out is not None:
        require_new(out, what="the plan")
        write_atomic(out, made.to_yaml().encode())
    result = {
        "fingerprint": vars(made.fingerprint),
        "settings": made.settings,
        "reasons": made.reasons,
    }
    seen = made.fingerprint
    head = (
        f"{seen.images} {seen.kind} training images of {seen.patients} patients, "
        f"{seen.tune_patients} more to tune on"
    )
    report(result, as_json, [head, str(made), *([f"settings: {out}"] if out else [])])


def _pairs(texts: list[str] | None, option: str) -> dict[str, Any]:
    """NAME=VALUE texts, the values read as YAML (numbers, lists, true)."""
    import yaml

    found: dict[str, Any] = {}
    for text in texts or ():
        name, value = _pair(text, option)
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise typer.BadParameter(f"{option} {name}: the value is no YAML") from None
    return found


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise typer.BadParameter(f"{option} takes NAME=VALUE, received {text!r}")
    return name, value


def demo(
    out: Annotated[
        Path, typer.Option(help="New or empty folder, or that of an earlier demo.")
    ] = Path("medres-demo"),
    seed: Annotated[int, typer.Option(help="Seed of cohort, split and training.")] = 0,
    as_json: Json = False,
) -> None:
    """The whole chain on a made-up DICOM cohort: ingest, cache, train, evaluate, predict. Under
    five minutes on two cores.
    """
    require_tensorflow()
    from medres.artefact.archive import read_contents
    from medres.cli.demo import run
    from medres.progress import Bars

    result = run(out, seed=seed, progress=Bars())
    card = read_contents(result["model"]).card
    auc, example = result["auc"], result["example"]
    lines = [
        f"AUC {auc['estimate']:.3f} (95% CI {auc['ci_low']:.3f} to {auc['ci_high']:.3f}; "
        f"{auc['method']})",
        f"one test study from its DICOM files: {prediction_line(example, card)}",
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
        raise typer.BadParameter(
            f"--window takes a name or CENTRE,WIDTH, received {text!r}"
        ) from None
    return [centre, width]
