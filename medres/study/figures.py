"""The study's figures. They draw tables and compute nothing."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure


def draw_errors(table: pd.DataFrame) -> Figure:
    """Training (thin) and test (bold) error in percent by epoch, plain on the left, residual on the right: figure 6 of the paper.

    `table` is what `depth_study` returns; several seeds are drawn as several lines.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    depths = sorted(table["depth"].unique())
    for axis, residual in zip(axes, (False, True), strict=True):
        for (depth, _), rows in table[table["residual"] == residual].groupby(["depth", "seed"]):
            colour = f"C{depths.index(depth)}"
            axis.plot(rows["epoch"], 100 * rows["train_error"], colour, linewidth=0.8)
            axis.plot(rows["epoch"], 100 * rows["test_error"], colour, linewidth=2, label=f"{depth} layers")
        axis.set(title="residual" if residual else "plain", xlabel="epoch", ylabel="error (%)")
        handles, labels = axis.get_legend_handles_labels()
        axis.legend(
            *zip(*{label: (handle, label) for handle, label in zip(handles, labels, strict=True)}.values(), strict=True)
        )
    return figure


def draw_gradients(tables: dict[str, pd.DataFrame]) -> Figure:
    """Gradient norm of each layer's kernel by its depth, one line a net: {name: GradientFlow.layers}."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for name, layers in tables.items():
        axis.semilogy(layers["depth"], layers["gradient_norm"], marker=".", linewidth=0.8, label=name)
    axis.set(xlabel="layer", ylabel="gradient norm of its kernel")
    axis.legend()
    return figure
