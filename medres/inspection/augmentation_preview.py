"""The gallery of augmentation: what a preset does to one's own images, with its drawn
parameters.
"""

from __future__ import annotations

import base64
import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from data_pipelines.augment import PRESETS, AugmentSpec, apply, augmentation, draw
from data_pipelines.augment.spatial import GEOMETRY, coordinates
from data_pipelines.cache.plan import file_refs
from data_pipelines.cache.store import eligible_rows
from data_pipelines.cache.tf_dataset import epoch_key
from data_pipelines.cache.worker import WorkItem, prepare_files
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.preprocessing.samples import SampleSlices
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
from medres.inspection.augmentation_captions import MINUS, captions, ends
from medres.inspection.dataset_report import Figure as Shown
from medres.inspection.dataset_report import Section

SIZES = {"radiograph": "xray-224", "ct": "ct-256"}
DRAWS = 7
IMAGES = 4
SLICES = 32
MIN_SLICES = 8
PAIRS_A_ROW = 4


def augmentation_section(work: Path | str) -> Section:
    """The part of the inspection page about augmentation: a figure a preset, for the radiographs
    and the CT of a work folder.
    """
    kinds = sorted(set(Manifest.load(work).table["kind"]))
    figures = [
        Shown(f"{name}, on {kind}", _address(figure))
        for kind in kinds
        for name, figure in augmentation_figures(work, SIZES[kind]).items()
    ]
    return Section(
        "Augmentation",
        "What training may make of these images. Nothing is mirrored: a side is a finding.",
        figures,
    )


def augmentation_figures(
    work: Path | str,
    preset: str | dict | PreprocessSpec,
    *,
    names: tuple[str, ...] = (),
    seed: int = 0,
) -> dict[str, Figure]:
    """A figure for each augmentation preset, drawn on images of a work folder prepared as `preset`
    says.

    names: presets to draw; none given: all that change anything and fit the images. ct_volume needs
        a series of 8 slices or more. The draws are those of a training with this seed, of these
        images. Raises SpecError for presets that do not exist or fit.
    """
    size = spec_from(preset)
    rows = eligible_rows(Manifest.load(work).table, size).reset_index(drop=True)
    units, slices = size.image_kind.units.name, _series(rows)
    chosen = names or tuple(
        name
        for name, kinds in PRESETS.items()
        if units in kinds
        and kinds[units].is_active
        and (name != "ct_volume" or len(slices) >= MIN_SLICES)
    )
    specs = {name: augmentation(name, units) for name in chosen}
    if "ct_volume" in specs and len(slices) < MIN_SLICES:
        raise SpecError(
            f"ct_volume needs a series of {MIN_SLICES} slices, the longest here has {len(slices)}"
        )
    plane, figures = _read(rows, _patients(rows), size), {}
    for name, spec in specs.items():
        images, numbers = plane
        if name == "ct_volume":
            stack, numbers = _read(rows, slices, size)
            images, numbers = stack[None], numbers[:1]
        figures[name] = draw_gallery(images, spec, name, numbers, seed)
    return figures


def draw_gallery(
    images: np.ndarray, spec: AugmentSpec, name: str, numbers: np.ndarray, seed: int
) -> Figure:
    """The figure of one preset on images (n, [slices,] rows, cols, 1) in model units; numbers:
    theirs in the cache.

    Above: the first image, draws of it and then of the others, an epoch each, with their drawn
    parameters. Below: each parameter alone at its ends; lines that were straight in the picture
    show how it moves.
    """
    dims = images.ndim - 2
    alone = ends(spec, dims)
    strips = -(-len(alone) // PAIRS_A_ROW)
    figure = Figure(figsize=(12, 7.1 + 1.8 * strips), layout="constrained")
    shown = "{:g} to {:g}".format(*_window(spec)).replace("-", MINUS) + (
        " HU" if spec.units == "HU" else ""
    )
    figure.suptitle(
        f"Augmentation {name}: draws of a training with seed {seed}, shown from {shown}",
        fontsize=12,
    )
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=(6.5, 1.8 * strips + 0.4)))
    _draw_draws(above, images, spec, numbers, seed)
    _draw_ends(below, images[:1], spec, alone)
    return figure


def _draw_draws(
    figure: SubFigure, images: np.ndarray, spec: AugmentSpec, numbers: np.ndarray, seed: int
) -> None:
    which = [0] * (DRAWS + 1 - (len(images) - 1)) + list(range(1, len(images)))
    batch, count = images[which], len(which)
    key = np.stack(
        [[epoch_key(seed, epoch) for epoch in range(count)], numbers[which]], axis=1
    ).astype(np.int32)
    drawn = draw(key, spec, images.ndim - 2)
    moved = np.asarray(apply(batch, drawn, spec))
    axes = figure.subplots(2, count // 2).ravel()
    _show(axes[0], images[0], spec, ["as it is"])
    for place in range(1, count):
        phrases = [
            phrase.replace(" ", "\N{NO-BREAK SPACE}") for phrase in captions(drawn, spec, place)
        ]
        lines = textwrap.wrap(", ".join(phrases), 52)
        _show(axes[place], moved[place], spec, lines)


def _draw_ends(
    figure: SubFigure, image: np.ndarray, spec: AugmentSpec, alone: dict[str, dict[str, Any]]
) -> None:
    figure.suptitle("Each parameter alone, at its ends", fontsize=11)
    strips = -(-len(alone) // PAIRS_A_ROW)
    axes = figure.subplots(strips, 2 * PAIRS_A_ROW, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for place, (name, drawn) in enumerate(alone.items()):
        pair = np.asarray(apply(np.repeat(image, 2, axis=0), drawn, spec))
        for end in range(2):
            axis = axes[place // PAIRS_A_ROW, 2 * (place % PAIRS_A_ROW) + end]
            _show(axis, pair[end], spec, captions(drawn, spec, end) or [f"{name}: none"])
            if name in GEOMETRY and image.ndim == 4:
                _grid(axis, drawn, spec, image.shape[1:-1], end)


def _grid(
    axis: Axes, drawn: dict[str, Any], spec: AugmentSpec, shape: tuple[int, ...], row: int
) -> None:
    for place, side in zip(coordinates(drawn, spec, shape), shape, strict=True):
        lines = np.broadcast_to(np.asarray(place), (2, *spec.size(shape)))[row]
        levels = np.linspace(0, side - 1, 7)
        axis.contour(lines, levels=levels, colors="#ffb000", linewidths=0.5, alpha=0.8)


def _show(axis: Axes, image: np.ndarray, spec: AugmentSpec, lines: list[str]) -> None:
    low, high = _window(spec)
    flat = image[..., 0]
    if flat.ndim == 3:  # the middle slice, and the middle row of every slice below it
        flat = np.concatenate([flat[flat.shape[0] // 2], flat[:, flat.shape[1] // 2]])
    axis.imshow(flat, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axis.set_title("\n".join(lines), fontsize=7)
    axis.axis("off")


def _window(spec: AugmentSpec) -> tuple[float, float]:
    return spec.span if spec.units == "display" or spec.window else (-1000.0, 1000.0)


def _read(
    rows: pd.DataFrame, which: list[int], size: PreprocessSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, rows, cols, 1) in model units, and their numbers in the cache."""
    files = tuple(file_refs(rows.loc[which]))
    samples = tuple(SampleSlices((n,)) for n in range(len(which)))
    integers = prepare_files(WorkItem(files, samples, size))
    return to_model_units(np.stack(integers), size), np.array(which)


def _patients(rows: pd.DataFrame) -> list[int]:
    """The first image of each of the first patients, training first."""
    return rows.drop_duplicates("patient").index[:IMAGES].tolist()


def _series(rows: pd.DataFrame) -> list[int]:
    """The middle slices of the longest series."""
    longest = rows.index[rows["series"] == rows["series"].value_counts().index[0]].tolist()
    spare = max(0, len(longest) - SLICES) // 2
    return longest[spare : spare + SLICES]


def _address(figure: Figure) -> str:
    """A figure as a data address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
