"""The verbs plan, train and demo."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_pipelines.runtime.backend import require_tensorflow
from data_pipelines.runtime.plain_text import counted
from medres.cli.console import Json, Work, report
from medres.cli.serve_commands import prediction_line

if TYPE_CHECKING:
    from data_pipelines.ingestion.manifest import Manifest
    from medres.tasks import Task
    from medres.training.config.planner import TrainingProposal


def train(
    work: Work,
    out: Annotated[
        Path,
        typer.Option(
            help="New run folder, or the folder of an interrupted run of the same command."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="resnet18 (default), resnet34, densenet121, ..., or a .keras file with a backbone."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification (default), segmentation of a work folder ingested with --masks, "
            "or detection with --boxes."
        ),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Segmentation: unet (default), fpn, or in 2D deeplabv3+.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Segmentation: dice_crossentropy (default), tversky or focal."),
    ] = None,
    patch: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Segmentation: what the network sees at a time, such as 48,96,96 or 256,256. "
            "Default: whole images.",
        ),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Detection: levels of the pyramid, such as 3,4,5. Small objects need 2. Default: "
            "2,3,4,5.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="xray-SIZE, ct-SIZE, ct25d-SIZE or ctvol-SIZE (see medres cache). Default: "
            "xray-224 or ct-256."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="default, paper, modern, finetune, small or detection.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs. Default: from the recipe.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of initial weights, order and augmentation. Default: 0."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML or JSON file of settings, as medres plan writes. Options override it."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Batch size. Default: from the recipe.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Maximum learning rate. Default: from the recipe.")
    ] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="Class weights in the loss: none or balanced.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, chest_xray, ct_slice, ct_volume or strong. Default: from the preset."
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="1 (keras.applications), 1.5 (torchvision), 2 or d.")
    ] = None,
    shortcut: Annotated[
        str | None,
        typer.Option(help="A (for MedicalNet's resnet18 and resnet34), B or C. Default: B."),
    ] = None,
    stem: Annotated[
        str | None, typer.Option(help="imagenet or small. Default: small for images up to 64 px.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the first stage. Default: 64.")
    ] = None,
    window: Annotated[
        list[str] | None, typer.Option(help="CT window: a name, or CENTER,WIDTH in HU. Repeatable.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="imagenet|NAME|FILE",
            help="Pretrained weights: a name of medres weights, or a model.keras, .h5, "
            ".safetensors or .pth file.",
        ),
    ] = None,
    uncertain: Annotated[
        list[str] | None,
        typer.Option(
            help="Uncertain labels (-1) in training: [FINDING=]ignore, zero, one, soft or a number "
            "0 to 1. Repeatable."
        ),
    ] = None,
    operating_point: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=CRITERION, chosen on the tuning (validation) split, such as "
            "default=sensitivity:0.95. Repeatable. Default: default=youden."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other setting as NAME=VALUE, such as ema=0.999. Repeatable."
        ),
    ] = None,
    monitor: Annotated[
        str | None,
        typer.Option(
            help="Which epoch is saved: by loss (default), auc, dice, ap50 (default of detection) "
            "or froc on the tuning split."
        ),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            help="Such as 30m or 2h: no epoch is begun that would end later. Repeat to go on."
        ),
    ] = None,
    checkpoint_steps: Annotated[
        int | None,
        typer.Option(
            help="Batches between checkpoints within an epoch. Default: every 5 minutes.", min=1
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            help="Number of folds of a cross-validation by patient; each fold is a process.", min=1
        ),
    ] = 1,
    seeds: Annotated[
        int, typer.Option(help="Number of seeds; with several, the model is an ensemble.", min=1)
    ] = 1,
    mlflow: Annotated[
        str | None,
        typer.Option(
            help="Also log to this MLflow experiment (extra mlflow), at MLFLOW_TRACKING_URI."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a classifier, a segmenter or a detector, and write model.keras into the run folder. The
    epoch with the best tuning (validation) loss is kept, of a detector that with the best AP50.
    Repeat the command to resume an interrupted run; a higher --epochs continues a finished one.
    """
    require_tensorflow()
    named: dict[str, Any] = {
        "model": model,
        "task": task,
        "decoder": decoder,
        "loss": loss,
        "patch": None if patch is None else _sizes(patch),
        "levels": None if levels is None else _sizes(levels, "--levels"),
        "preset": preset,
        "recipe": recipe,
        "epochs": epochs,
        "seed": seed,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "class_weights": class_weights,
        "augment": augment,
        "version": version,
        "shortcut": shortcut,
        "stem": stem,
        "width": width,
        "windows": [_window(text) for text in window] if window else None,
        "weights": weights,
        "monitor": monitor,
        "uncertain": name_value_pairs(
            [t if "=" in t else f"*={t}" for t in uncertain or ()], "--uncertain"
        )
        or None,
        "operating_points": dict(_pair(text, "--operating-point") for text in operating_point or ())
        or None,
    }
    settings = name_value_pairs(setting, "--set") | {
        key: value for key, value in named.items() if value is not None
    }
    if folds * seeds > 1:
        if time_budget is not None:
            raise typer.BadParameter("--time-budget is for one run, without --folds and --seeds")
        from medres.progress import Bars
        from medres.training.cross_validation.folds import cross_validate

        result_of_folds = cross_validate(
            work,
            out=out,
            folds=folds,
            seeds=seeds,
            config=config,
            progress=Bars(),
            mlflow=mlflow,
            **settings,
        )
        summary = result_of_folds.summary
        ensemble = [f"model: {result_of_folds.artefact}"] if result_of_folds.artefact else []
        report(
            {"model": result_of_folds.artefact and str(result_of_folds.artefact), **summary},
            as_json,
            [*_fold_lines(summary), *ensemble],
        )
        return
    from medres.training.distributed.cluster import cluster_of
    from medres.training.run import train as run

    trained_run = run(
        work,
        out=out,
        config=config,
        checkpoint_steps=checkpoint_steps,
        mlflow=mlflow,
        time_budget=time_budget,
        **settings,
    )
    cluster = cluster_of(os.environ)
    if cluster is not None and cluster.rank > 0:
        return  # only the chief reports
    rows = [
        {key: None if value != value else value for key, value in row.items()}  # NaN is no JSON
        for row in trained_run.history.to_dict("records")
    ]
    result = {
        "model": str(trained_run.artefact),
        "best_epoch": trained_run.best_epoch,
        "history": rows,
    }
    lines = tune_lines(rows[trained_run.best_epoch - 1])
    report(result, as_json, [*lines, f"model: {trained_run.artefact}"])


def tune_lines(epoch: Mapping[Any, Any]) -> list[str]:
    """Whether the AUC of an epoch on the tuning split is no better than chance."""
    from medres.evaluate.reporting.narrative import against_chance

    auc, low, high = (epoch.get(key) for key in ("tune_auc", "tune_auc_low", "tune_auc_high"))
    verdict = against_chance(auc, low, high)
    return [] if verdict is None else [f"tune AUC {auc:.3f}: {verdict}"]


def _fold_lines(summary: dict[str, Any]) -> list[str]:
    from medres.evaluate.reporting.narrative import against_chance

    if "dice_by_class" in summary:
        from medres.training.cross_validation.mask_folds import fold_lines

        return fold_lines(summary)
    if summary.get("ap50") is not None:
        return [
            f"held-out patients: AP50 {summary['ap50']:.3f}, mean FROC sensitivity "
            f"{summary['froc_mean']:.3f}, means over {len(summary['folds'])} runs (standard "
            f"deviation between them {summary['ap50_fold_sd']:.3f} and "
            f"{summary['froc_mean_fold_sd']:.3f})"
        ]
    if summary.get("auc") is None:
        return []
    lines = [
        f"out-of-fold AUC {summary['auc']:.3f}, mean over folds and seeds ({summary['unit']} level)"
    ]
    if summary["seed_sd"] is not None:
        lines.append(f"standard deviation between seeds {summary['seed_sd']:.4f}")
    if summary["sampling_se"] is not None:
        lines.append(f"standard error from the sampling of patients {summary['sampling_se']:.4f}")
        half = 1.96 * summary["sampling_se"]
        verdict = against_chance(summary["auc"], summary["auc"] - half, summary["auc"] + half)
        lines += [] if verdict is None else [f"out-of-fold AUC: {verdict}"]
    return lines


def plan(
    work: Work,
    out: Annotated[
        Path | None, typer.Option(help="New file with the settings, for medres train --config.")
    ] = None,
    find_learning_rate: Annotated[
        bool,
        typer.Option(
            "--find-learning-rate", help="Try rising learning rates on 100 batches and propose one."
        ),
    ] = False,
    kind: Annotated[
        str | None, typer.Option(help="radiograph or ct, if the work folder has both.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Plan for this model, such as densenet121. Default: by the data."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification, segmentation or detection. Default: of a folder without labels, "
            "what it has: masks or boxes."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose preset, model, recipe, batch size and epochs for a work folder, with reasons. For
    masks: spacing, size, patch and 2D or 3D by the rules of nnU-Net. For boxes: the size of the
    image and the levels by the smallest objects.
    """
    require_tensorflow()
    from data_pipelines.ingestion.manifest import Manifest
    from data_pipelines.runtime.atomic_files import require_new, write_atomic
    from medres.training.config.box_planner import plan_boxes
    from medres.training.config.mask_planner import plan_masks
    from medres.training.config.planner import plan as propose

    manifest = Manifest.load(work)
    annotated = _planned_task(manifest, task)
    if annotated is not None:
        if model is not None or find_learning_rate:
            raise typer.BadParameter("--model and --find-learning-rate are for classifiers")
        proposal = (plan_boxes if annotated.finds_boxes else plan_masks)(work, kind=kind)
    else:
        proposal = propose(manifest, kind=kind, model=model)
    if find_learning_rate:
        _propose_rate(work, proposal)
    if out is not None:
        require_new(out, what="the plan")
        write_atomic(out, proposal.to_yaml().encode())
    result = {
        "fingerprint": vars(proposal.fingerprint),
        "settings": proposal.settings,
        "reasons": proposal.reasons,
    }
    facts = proposal.fingerprint
    head = (
        f"{counted(facts.images, f'{facts.kind} training image')} of "
        f"{counted(facts.patients, 'patient')}, {counted(facts.tune_patients, 'patient')} to tune "
        f"(validate) on"
    )
    saved = [f"settings: {out}"] if out else []
    report(result, as_json, [head, *str(proposal).split("\n"), *saved])


def _planned_task(manifest: Manifest, option: str | None) -> Task | None:
    """The task of masks or boxes that is planned for; None for classification."""
    from medres.tasks import TASKS, annotated_task

    annotated = [task for task in TASKS.values() if task.is_annotated]
    if option not in (None, "classification", *(task.name for task in annotated)):
        raise typer.BadParameter("--task takes classification, segmentation or detection")
    if option is not None:
        return annotated_task(option)
    if manifest.summary["task"] in TASKS:
        return None
    return next((task for task in annotated if task.block in manifest.summary), None)


def _propose_rate(work: Path, proposal: TrainingProposal) -> None:
    """Add the learning rate that a search with the proposed settings suggests."""
    from medres.progress import Bars
    from medres.training.rate_finder import find_learning_rate

    search = find_learning_rate(work, config=proposal.settings, progress=Bars())
    if search.suggestion is None:
        proposal.reasons["recipe"] += "; a search found no learning rate at which the loss falls"
        return
    proposal.settings["learning_rate"] = search.suggestion
    proposal.reasons["learning_rate"] = (
        f"a tenth of the rate with the lowest loss, in a search over {len(search.rates)} batches"
    )


def name_value_pairs(texts: list[str] | None, option: str) -> dict[str, Any]:
    """NAME=VALUE texts as a dict; the values are read as YAML (numbers, lists, true)."""
    import yaml

    values: dict[str, Any] = {}
    for text in texts or ():
        name, value = _pair(text, option)
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise typer.BadParameter(f"{option} {name}: the value is not valid YAML") from None
    return values


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise typer.BadParameter(f"{option} takes NAME=VALUE, received {text!r}")
    return name, value


def demo(
    out: Annotated[
        Path, typer.Option(help="New or empty folder, or the folder of an earlier demo.")
    ] = Path("medres-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the cohort, the splits and the training.")] = 0,
    readers: Annotated[
        bool,
        typer.Option(
            "--readers",
            help="A made-up reader study instead: its table and its report, in some seconds, "
            "without TensorFlow.",
        ),
    ] = False,
    task: Annotated[
        str,
        typer.Option(
            help="classification, segmentation of lungs and nodules, or detection of nodules."
        ),
    ] = "classification",
    as_json: Json = False,
) -> None:
    """Run all steps on a synthetic DICOM cohort: ingest, cache, train, evaluate, predict. It takes
    less than five minutes on two cores.
    """
    if readers:
        from medres.cli.reader_commands import contrast_lines
        from medres.cli.reader_demo import run_readers

        result, study = run_readers(out, seed=seed)
        lines = [*contrast_lines(study), f"table:  {result['readers']}"]
        report(result, as_json, [*lines, f"report: {result['report']}"])
        return
    require_tensorflow()
    from medres.tasks import annotated_task

    row = annotated_task(task)
    if row is not None:
        _annotated_demo(row, out, seed, as_json)
        return
    if task != "classification":
        raise typer.BadParameter("--task takes classification, segmentation or detection")
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


def _annotated_demo(task: Task, out: Path, seed: int, as_json: bool) -> None:
    from medres.artefact.archive import read_contents
    from medres.cli.annotated_demo import run_annotated
    from medres.cli.box_commands import BOX_REPORT
    from medres.cli.mask_commands import MASK_REPORT
    from medres.progress import Bars

    result, found = run_annotated(task.name, out, seed=seed, progress=Bars())
    class_lines = (BOX_REPORT if task.finds_boxes else MASK_REPORT).lines
    example = prediction_line(result["example"], read_contents(result["model"]).card)
    lines = [
        *class_lines(found),
        f"one test study from its DICOM files: {example}",
        f"model:  {result['model']}",
        f"report: {result['report']}",
    ]
    report(result, as_json, lines)


def _sizes(text: str, option: str = "--patch") -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{option} takes whole numbers such as 48,96,96, received {text!r}"
        ) from None


def _window(text: str) -> str | list[float]:
    """The name of a window, or its center and width in HU from CENTER,WIDTH."""
    if "," not in text:
        return text
    try:
        center, width = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"--window takes a name or CENTER,WIDTH, received {text!r}"
        ) from None
    return [center, width]
