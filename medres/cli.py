"""The command line: thin verbs over the same functions that people call from Python.

Exit code 0 on success, 2 on wrong usage, 1 on failure with one clear line on standard error.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from data_pipelines.backend import require_tensorflow
from medres.console import DEBUG, report, verb

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Residual networks for medical images: from DICOM files to a diagnostic report. Research use only; not a medical device.",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Work = Annotated[Path, typer.Argument(help="Work folder made by medres ingest.")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    if debug:
        os.environ[DEBUG] = "1"


@app.command()
@verb
def ingest(
    source: Annotated[list[Path], typer.Argument(help="Folders or files with DICOM.")],
    out: Annotated[Path, typer.Option(help="New work folder.")],
    labels: Annotated[Path | None, typer.Option(help="CSV of labels.")] = None,
    finding: Annotated[list[str] | None, typer.Option(help="Finding column of the CSV; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split by patient.")] = 0,
    max_bad: Annotated[
        float | None, typer.Option(help="Fail when more than this share of the files is quarantined, 0 to 1.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="File with the key of the pseudonyms.")] = None,
    for_processing: Annotated[
        bool, typer.Option("--for-processing", help="Accept FOR PROCESSING radiographs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Index, check, group and split DICOM files into a work folder."""
    from data_pipelines.ingestion import ingest as run
    from medres.progress import Bars

    with Bars().task("ingest") as update:
        manifest = run(
            source,
            labels,
            out,
            findings=tuple(finding or ()),
            seed=seed,
            max_bad=max_bad,
            key_file=key_file,
            for_processing=for_processing,
            progress=update,
        )
    report(manifest.summary, as_json, _ingest_lines(manifest.summary, out))


def _ingest_lines(summary: dict[str, Any], out: Path) -> list[str]:
    reasons = ", ".join(f"{code} {count}" for code, count in summary["reasons"].items())
    lines = [
        f"{summary['given']} files: {summary['ok']} ok, {summary['repaired']} repaired, "
        f"{summary['quarantined']} quarantined, {summary['skipped']} skipped" + (f" ({reasons})" if reasons else "")
    ]
    for name, split in summary["splits"].items():
        lines.append(f"{name:5s} {split['patients']} patients, {split['studies']} studies, {split['images']} images")
    if summary["pseudonym_key"] == "made":
        lines.append(
            f"a new pseudonym key was made in {out}: keep it as safe as the data, and give it to later ingests with --key-file"
        )
    return [*lines, *(f"warning: {text}" for text in summary.get("warnings", [])), f"work folder: {out}"]


@app.command()
@verb
def cache(
    work: Work,
    preset: Annotated[str | None, typer.Option(help="xray-SIZE or ct-SIZE, for instance xray-224.")] = None,
    spec: Annotated[Path | None, typer.Option(help="JSON file with a preprocessing spec.")] = None,
    as_json: Json = False,
) -> None:
    """Decode once into verified shards of integers."""
    from data_pipelines.cache import ensure_cache
    from data_pipelines.preprocess import spec_from
    from medres.progress import Bars

    if (preset is None) == (spec is None):
        raise typer.BadParameter("give either --preset NAME or --spec FILE")
    chosen = spec_from(preset if preset is not None else _read_json(spec))
    with Bars().task(f"cache {chosen.name}") as update:
        made = ensure_cache(work, chosen, progress=update)
    counts = {name: int((made.images["split"] == name).sum()) for name in made.shards}
    result = {"cache": str(made.folder), "spec": chosen.model_dump(), "images": counts}
    report(result, as_json, [f"{sum(counts.values())} images in {made.folder}"])


@app.command()
@verb
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
    augment: Annotated[str | None, typer.Option(help="none, chest_xray or ct_slice; default: by modality.")] = None,
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


@app.command()
@verb
def predict(
    model: Annotated[Path, typer.Argument(help="model.keras of a run.")],
    path: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of studies.")],
    as_json: Json = False,
) -> None:
    """Probability and decision, or a refusal with its reason, one a study. Research use only; not a medical device."""
    require_tensorflow()
    from medres.predict import load

    predictor = load(model)
    missing = [p for p in path if not p.exists()]
    if missing:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(missing[0]))
    found = [prediction.as_dict() for prediction in predictor.predict_many(path)]
    report(found, as_json, [_prediction_line(one) for one in found])


def _prediction_line(one: dict[str, Any]) -> str:
    if one["refused"] is not None:
        return f"{one['path']}: refused: {one['refused']}"
    named = ", ".join(f"{name} {value:.3f}" for name, value in one["probabilities"].items())
    decided = ", ".join(
        f"{k}: {v}" if isinstance(v, str) else (k if v else f"no {k}") for k, v in one["decisions"].items()
    )
    return f"{one['path']}: {named} -> {decided}"


@app.command()
@verb
def wrap(
    source: Annotated[Path, typer.Argument(help="Folder of PNG and JPEG files.")],
    out: Annotated[Path, typer.Option(help="New folder for the DICOM files.")],
    labels: Annotated[Path | None, typer.Option(help="CSV with a path column; copied with the new paths.")] = None,
    modality: Annotated[str, typer.Option(help="CR, or SC for secondary capture objects.")] = "CR",
    body_part: Annotated[str, typer.Option(help="BodyPartExamined, for instance CHEST.")] = "",
    burned_in: Annotated[Literal["YES", "NO"] | None, typer.Option(help="Is text burned into the pictures?")] = None,
    as_json: Json = False,
) -> None:
    """Wrap PNG and JPEG images as DICOM, marked as derived and, for JPEG, as lossy; no spacing is invented."""
    from data_pipelines.wrapping import wrap as run
    from medres.progress import Bars

    with Bars().task("wrap") as update:
        summary = run(
            source, out, labels=labels, modality=modality, body_part=body_part, burned_in=burned_in, progress=update
        )
    report(summary, as_json, [f"{key}: {value}" for key, value in summary.items()])


@app.command()
@verb
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
        f"one test study from its DICOM files: {_prediction_line(example)}",
        f"model:  {result['model']}",
        f"report: {result['report']}",
    ]
    report(result, as_json, lines)


study = typer.Typer(no_args_is_help=True, help="Why residual learning works, on one's own pictures.")
app.add_typer(study, name="study")


@study.callback()
def studies() -> None:
    """Why residual learning works, on one's own pictures."""


@study.command()
@verb
def depth(
    pictures: Annotated[
        Path, typer.Argument(help="MedMNIST .npz, or a folder or .tar.gz with train/CLASS and test/CLASS.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; an interrupted one goes on.")],
    depths: Annotated[str, typer.Option(help="6n+2 each, with commas between.")] = "20,56",
    epochs: Annotated[int, typer.Option(help="Epochs of each net; the paper has 164.")] = 164,
    seeds: Annotated[str, typer.Option(help="Whole numbers, with commas between.")] = "0",
    limit: Annotated[int | None, typer.Option(help="At most so many training pictures.")] = None,
    width: Annotated[int, typer.Option(help="Channels of the first stage.")] = 16,
    flip: Annotated[bool, typer.Option("--augment/--no-augment", help="Random crops and left-right flips.")] = True,
    as_json: Json = False,
) -> None:
    """Train plain and residual twins of each depth; a table, and the paper's Figure 6 as a picture."""
    import pandas as pd

    import medres.study as tools
    from medres.progress import Bars

    images = tools.load_pictures(pictures, limit=limit)
    plan = tools.DepthPlan(depths=_numbers(depths), epochs=epochs, seeds=_numbers(seeds), width=width, augment=flip)
    table = tools.depth_study(images, out, plan, progress=Bars())
    tools.draw_errors(table).savefig(out / "errors.png", dpi=150)
    first = {
        f"{kind} {number}": pd.read_csv(out / f"{kind}{number}-seed{plan.seeds[0]}" / "gradients.csv").query(
            "epoch == 0"
        )
        for number in plan.depths
        for kind in ("plain", "residual")
    }
    tools.draw_gradients(first).savefig(out / "gradients.png", dpi=150)
    last = table[table["epoch"] == plan.epochs]
    rows = last[["depth", "residual", "seed", "train_error", "test_error"]].to_dict("records")
    lines = [
        f"{'residual' if row['residual'] else 'plain':8s} {row['depth']:4d}  seed {row['seed']}  "
        f"train error {row['train_error']:.4f}  test error {row['test_error']:.4f}"
        for row in rows
    ]
    report(rows, as_json, [*lines, f"figures: {out / 'errors.png'}, {out / 'gradients.png'}"])


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"whole numbers with commas between are wanted, received {text!r}") from None


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def evaluate(context: typer.Context) -> None:
    """The diagnostic report; the same as python -m medres.evaluate."""
    from medres.evaluate.__main__ import main

    raise typer.Exit(main(context.args))


def _read_json(path: Path | None) -> Any:
    from data_pipelines.errors import SpecError

    try:
        return json.loads(Path(path or "").read_text())
    except ValueError:
        raise SpecError(f"{path}: no JSON") from None


def _window(text: str) -> str | list[float]:
    """A window's name, or CENTRE,WIDTH."""
    if "," not in text:
        return text
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--window takes a name or CENTRE,WIDTH, received {text!r}") from None
    return [centre, width]
