"""Verbs of `medres study`: experiments on one's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medres.console import Json, report


def depth(
    pictures: Annotated[
        Path, typer.Argument(help="MedMNIST .npz, or a folder or .tar.gz with train/CLASS and test/CLASS.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; an interrupted one goes on.")],
    depths: Annotated[str, typer.Option(help="6n+2 each, with commas between.")] = "20,56",
    epochs: Annotated[int, typer.Option(help="Epochs of each net; the paper has 164.")] = 164,
    seeds: Annotated[str, typer.Option(help="Whole numbers, with commas between.")] = "0",
    limit: Annotated[int | None, typer.Option(help="At most so many pictures of train, and of test.")] = None,
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
