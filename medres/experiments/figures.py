"""The figures of the experiments. They draw tables and compute nothing."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def draw_errors(table: pd.DataFrame) -> Figure:
    """Training (thin) and test (bold) error in percent by epoch, plain on the left, residual on the
    right: figure 6 of the paper.

    `table` is what `depth_study` returns; several seeds are drawn as several lines.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    depths = sorted(table["depth"].unique())
    for axis, residual in zip(axes, (False, True), strict=True):
        for (depth, _), rows in table[table["residual"] == residual].groupby(["depth", "seed"]):
            color = f"C{depths.index(depth)}"
            axis.plot(rows["epoch"], 100 * rows["train_error"], color, linewidth=0.8)
            axis.plot(
                rows["epoch"],
                100 * rows["test_error"],
                color,
                linewidth=2,
                label=f"{depth} layers",
            )
        axis.set(title="residual" if residual else "plain", xlabel="epoch", ylabel="error (%)")
        handles, labels = axis.get_legend_handles_labels()
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
        once = dict(zip(labels, handles, strict=True))
        axis.legend(once.values(), once.keys(), title="bold: test, thin: training", frameon=False)
    return figure


def draw_gradients(tables: dict[str, pd.DataFrame]) -> Figure:
    """The gradient norm of each kernel by the depth of its layer. tables: name of a network ->
    GradientFlow.layers; one line per network.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for name, layers in tables.items():
        axis.semilogy(
            layers["depth"], layers["gradient_norm"], marker=".", linewidth=0.8, label=name
        )
    axis.set(xlabel="layer", ylabel="gradient norm of the kernel")
    axis.legend()
    return figure


def draw_twins(norms: pd.DataFrame, shares: pd.DataFrame) -> Figure:
    """Top: the gradient norm of every block, plain and residual; bottom: the share of the gradient
    through the shortcut. One column per depth.

    `norms` and `shares` are those of `TwinGradients`; several seeds are drawn as several lines.
    """
    depths = sorted(norms["depth"].unique())
    figure = Figure(figsize=(1.5 + 3.3 * len(depths), 5.6), layout="constrained")
    axes = figure.subplots(2, len(depths), sharey="row", sharex="col", squeeze=False)
    for (top, bottom), depth in zip(axes.T, depths, strict=True):
        for residual, color in ((False, "C3"), (True, "C0")):
            curves = norms[(norms["depth"] == depth) & (norms["residual"] == residual)]
            for i, (_, rows) in enumerate(curves.groupby("seed")):
                label = ("residual" if residual else "plain") if i == 0 else None
                top.semilogy(
                    rows["place"],
                    rows["gradient_norm"],
                    color,
                    marker=".",
                    markersize=4,
                    label=label,
                )
        for _, rows in shares[shares["depth"] == depth].groupby("seed"):
            bottom.plot(rows["place"], rows["shortcut_share"], "C0", marker=".", markersize=4)
        bottom.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
        top.set(title=f"{depth} layers")
        bottom.set(xlabel="block, from the input", ylim=(0, 1))
        for axis in (top, bottom):
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].minorticks_off()
    axes[0, 0].set(ylabel="gradient norm of the kernels")
    axes[1, 0].set(ylabel="share through the shortcut")
    axes[0, 0].legend(frameon=False)
    return figure
