"""Verbs of `medres study`: experiments on one's own pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medres.cli.console import Json, report


def depth(
    pictures: Annotated[
        Path,
        typer.Argument(
            help="MedMNIST .npz, or a folder or .tar.gz with train/CLASS and test/CLASS."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; an interrupted one goes on.")],
    depths: Annotated[str, typer.Option(help="6n+2 each, with commas between.")] = "20,56",
    epochs: Annotated[int, typer.Option(help="Epochs of each net; the paper has 164.")] = 164,
    seeds: Annotated[str, typer.Option(help="Whole numbers, with commas between.")] = "0",
    limit: Annotated[
        int | None, typer.Option(help="At most so many pictures of train, and of test.")
    ] = None,
    width: Annotated[int, typer.Option(help="Channels of the first stage.")] = 16,
    flip: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Random crops and left-right flips.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Train plain and residual twins of each depth; a table, and the paper's Figure 6 as a
    picture.
    """
    import pandas as pd

    import medres.experiments as tools
    from medres.progress import Bars

    images = tools.load_pictures(pictures, limit=limit)
    plan = tools.DepthPlan(
        depths=_numbers(depths), epochs=epochs, seeds=_numbers(seeds), width=width, augment=flip
    )
    table = tools.depth_study(images, out, plan, progress=Bars())
    tools.draw_errors(table).savefig(out / "errors.png", dpi=150)
    first = {
        f"{kind} {number}": pd.read_csv(
            out / f"{kind}{number}-seed{plan.seeds[0]}" / "gradients.csv"
        ).query("epoch == 0")
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


def gradients(
    pictures: Annotated[
        Path,
        typer.Argument(
            help="MedMNIST .npz, or a folder or .tar.gz with train/CLASS and test/CLASS."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the tables and the figure.")],
    depths: Annotated[str, typer.Option(help="6n+2 each, with commas between.")] = "20,56,110",
    seeds: Annotated[str, typer.Option(help="Whole numbers, with commas between.")] = "0",
    batch: Annotated[int, typer.Option(min=1, help="Training pictures that are measured.")] = 64,
    width: Annotated[int, typer.Option(help="Channels of the first stage.")] = 16,
    as_json: Json = False,
) -> None:
    """Measure untrained plain and residual twins: gradients block by block, and the share that
    takes the shortcut.
    """
    import medres.experiments as tools
    from data_pipelines.runtime.atomic_files import write_atomic
    from medres.progress import Bars

    images = tools.load_pictures(pictures, limit=batch)
    found = tools.twin_gradients(
        images.train,
        images.train_labels,
        depths=_numbers(depths),
        seeds=_numbers(seeds),
        width=width,
        progress=Bars(),
    )
    out.mkdir(parents=True, exist_ok=True)
    table = found.summary()
    for name, rows in (("norms", found.norms), ("shares", found.shares), ("summary", table)):
        write_atomic(out / f"{name}.csv", rows.to_csv(index=False).encode())
    tools.draw_twins(found.norms, found.shares).savefig(out / "twins.png", dpi=150)
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
            f"whole numbers with commas between are wanted, received {text!r}"
        ) from None
