"""The verbs of `medres study`, experiments on your own images; and the search of settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from data_pipelines.runtime.backend import require_tensorflow
from medres.cli.console import Json, Work, report
from medres.cli.train_commands import name_value_pairs

Images = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGES",
        help="MedMNIST .npz file, or a folder or .tar.gz with train/CLASS and test/CLASS.",
    ),
]


def depth(
    pictures: Images,
    out: Annotated[Path, typer.Option(help="Output folder; an interrupted experiment resumes.")],
    depths: Annotated[
        str, typer.Option(help="Depths of the form 6n+2, separated by commas.")
    ] = "20,56",
    epochs: Annotated[int, typer.Option(help="Epochs per network; 164 in the paper.")] = 164,
    seeds: Annotated[str, typer.Option(help="Whole numbers separated by commas.")] = "0",
    limit: Annotated[
        int | None, typer.Option(help="Maximum number of training images, and of test images.")
    ] = None,
    width: Annotated[int, typer.Option(help="Channels of the first stage.")] = 16,
    flip: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Random crops and left-right flips.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Train a plain and a residual network of each depth; write the table of errors and figure 6 of
    the paper.
    """
    import pandas as pd

    import medres.experiments as experiments
    from medres.progress import Bars

    images = experiments.load_pictures(pictures, limit=limit)
    plan = experiments.DepthExperiment(
        depths=_numbers(depths), epochs=epochs, seeds=_numbers(seeds), width=width, augment=flip
    )
    table = experiments.depth_study(images, out, plan, progress=Bars())
    experiments.draw_errors(table).savefig(out / "errors.png", dpi=150)
    untrained = {
        f"{kind} {number}": pd.read_csv(
            out / f"{kind}{number}-seed{plan.seeds[0]}" / "gradients.csv"
        ).query("epoch == 0")
        for number in plan.depths
        for kind in ("plain", "residual")
    }
    experiments.draw_gradients(untrained).savefig(out / "gradients.png", dpi=150)
    final = table[table["epoch"] == plan.epochs]
    rows = final[["depth", "residual", "seed", "train_error", "test_error"]].to_dict("records")
    lines = [
        f"{'residual' if row['residual'] else 'plain':8s} {row['depth']:4d}  seed {row['seed']}  "
        f"train error {row['train_error']:.4f}  test error {row['test_error']:.4f}"
        for row in rows
    ]
    report(rows, as_json, [*lines, f"figures: {out / 'errors.png'}, {out / 'gradients.png'}"])


def gradients(
    pictures: Images,
    out: Annotated[Path, typer.Option(help="Folder for the tables and the figure.")],
    depths: Annotated[
        str, typer.Option(help="Depths of the form 6n+2, separated by commas.")
    ] = "20,56,110",
    seeds: Annotated[str, typer.Option(help="Whole numbers separated by commas.")] = "0",
    batch: Annotated[
        int, typer.Option(min=1, help="Number of training images in the measurement.")
    ] = 64,
    width: Annotated[int, typer.Option(help="Channels of the first stage.")] = 16,
    as_json: Json = False,
) -> None:
    """Measure untrained plain and residual networks: the gradient per block, and its share through
    the shortcut.
    """
    import medres.experiments as experiments
    from data_pipelines.runtime.atomic_files import write_atomic
    from medres.progress import Bars

    images = experiments.load_pictures(pictures, limit=batch)
    measured = experiments.twin_gradients(
        images.train,
        images.train_labels,
        depths=_numbers(depths),
        seeds=_numbers(seeds),
        width=width,
        progress=Bars(),
    )
    out.mkdir(parents=True, exist_ok=True)
    table = measured.summary()
    for name, rows in (("norms", measured.norms), ("shares", measured.shares), ("summary", table)):
        write_atomic(out / f"{name}.csv", rows.to_csv(index=False).encode())
    experiments.draw_twins(measured.norms, measured.shares).savefig(out / "twins.png", dpi=150)
    lines = [
        f"{'residual' if row.residual else 'plain':8s} {row.depth:4d}  seed {row.seed}  first "
        f"block {row.first_block:.3g}  "
        f"last {row.last_block:.3g}  ratio {row.first_to_last:.3g}"
        + (f"  shortcut {row.shortcut_share:.2f}" if row.residual else "")
        for row in table.itertuples()
    ]
    report(
        json.loads(table.to_json(orient="records")),
        as_json,
        [*lines, f"figure: {out / 'twins.png'}"],
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"give whole numbers separated by commas, received {text!r}"
        ) from None


def search(
    work: Work,
    out: Annotated[Path, typer.Option(help="New folder, or the folder of an interrupted search.")],
    space: Annotated[
        list[str],
        typer.Option(
            help="Fields of the recipe: NAME=VALUE,VALUE or NAME=LOW..HIGH (repeatable), or one "
            "YAML file with them."
        ),
    ],
    trials: Annotated[int, typer.Option(help="Settings to try; the first are those given.")] = 10,
    folds: Annotated[int, typer.Option(help="Folds by patient of each trial.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the draws, the folds and the training.")] = 0,
    config: Annotated[
        Path | None, typer.Option(help="YAML or JSON file with the settings of all trials.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of all trials as NAME=VALUE. Repeatable."),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray (Ray Tune).")] = "local",
    workers: Annotated[int, typer.Option(help="Trials at a time.")] = 1,
    halving: Annotated[
        int,
        typer.Option(
            help="Factor of asynchronous successive halving (ASHA), usually 3: stop trials early "
            "that are not among the best third; 0: train all to the end."
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Search settings of the training at random, each judged by a cross-validation by patient. The
    test split is not used.
    """
    require_tensorflow()
    from medres.training.cross_validation.search import search as run

    found = run(
        work,
        out=out,
        space=space,
        trials=trials,
        folds=folds,
        seed=seed,
        engine=engine,
        workers=workers,
        halving=halving,
        config=config,
        **name_value_pairs(setting, "--set"),
    )
    summary = found.summary
    chosen = ", ".join(f"{name}={value}" for name, value in summary["settings"].items())
    lines = [
        f"best: trial {summary['best_trial']} ({chosen or 'the given settings'}), out-of-fold AUC "
        f"{summary['auc']:.3f}",
        f"optimistic: {summary['why']}",
        f"model: {found.artefact}",
    ]
    report({"model": str(found.artefact), **summary}, as_json, lines)
