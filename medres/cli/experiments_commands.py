"""The verbs of `medres study`: experiments on your own images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medres.cli.console import Json, report

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
