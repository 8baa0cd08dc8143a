"""Preview of augmentation: what each preset does to your own images, with the drawn parameters."""

from __future__ import annotations

import base64
import io
import textwrap
from pathlib import Path
from typing import Any, cast

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
from data_pipelines.kinds import UNITS, ModelUnitName, image_kind, kind_in_units
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.preprocessing.samples import SampleSlices
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
from medres.inspection.augmentation_captions import MINUS, captions, extremes
from medres.inspection.page_content import Figure as PageFigure
from medres.inspection.page_content import Section

DRAWS = 7  # of the first image and the others together
MAX_IMAGES = 4
MAX_SLICES = 32
MIN_SLICES = 8  # of a series for the preset of volumes
VOLUME_PRESET = "ct_volume"
PAIRS_PER_ROW = 4


def augmentation_section(work: Path | str) -> Section:
    """The section of the inspection page about augmentation: one figure per preset and kind of
    image in a work folder.
    """
    kinds = sorted(set(Manifest.load(work).table["kind"]))
    figures = [
        PageFigure(f"{name}, on {kind}", _data_uri(figure))
        for kind in kinds
        for name, figure in augmentation_figures(work, image_kind(kind).default_preset).items()
    ]
    return Section(
        "Augmentation",
        "Random changes of these images during training. No image is mirrored, because the body "
        "side can be a finding.",
        figures,
    )


def augmentation_figures(
    work: Path | str,
    preset: str | dict | PreprocessSpec,
    *,
    names: tuple[str, ...] = (),
    seed: int = 0,
) -> dict[str, Figure]:
    """A figure per augmentation preset, on images of a work folder prepared with `preset`.

    names: augmentation presets; default: all that change anything and fit the images. ct_volume
    needs a series of 8 slices or more. The random draws are those of a training with this seed on
    these images. Raises SpecError for a preset that does not exist or does not fit the images.
    """
    prepare_spec = spec_from(preset)
    rows = eligible_rows(Manifest.load(work).table, prepare_spec).reset_index(drop=True)
    units = cast(ModelUnitName, image_kind(prepare_spec.kind).units.name)
    slices = _longest_series(rows)
    chosen = names or tuple(
        name
        for name, kinds in PRESETS.items()
        if units in kinds
        and kinds[units].is_active
        and (name != VOLUME_PRESET or len(slices) >= MIN_SLICES)
    )
    specs = {name: augmentation(name, units) for name in chosen}
    if VOLUME_PRESET in specs and len(slices) < MIN_SLICES:
        raise SpecError(
            f"ct_volume needs a series of {MIN_SLICES} slices or more; the longest series has "
            f"{len(slices)}",
            code="too_few_slices",
        )
    plane, figures = _read(rows, _first_patients(rows), prepare_spec), {}
    for name, spec in specs.items():
        images, numbers = plane
        if name == VOLUME_PRESET:
            stack, numbers = _read(rows, slices, prepare_spec)
            images, numbers = stack[None], numbers[:1]
        figures[name] = preview_figure(images, spec, name, numbers, seed)
    return figures


def preview_figure(
    images: np.ndarray, spec: AugmentSpec, name: str, numbers: np.ndarray, seed: int
) -> Figure:
    """The figure of one preset on images (n, [slices,] rows, columns, 1) in model units; `numbers`
    (n,) are their numbers in the cache.

    Top: the first image, then random draws of it and of the others, one epoch per image, with the
    drawn parameters. Bottom: each parameter alone at its extremes; lines that were straight in the
    image show the deformation.
    """
    dims = images.ndim - 2
    alone = extremes(spec, dims)
    rows = -(-len(alone) // PAIRS_PER_ROW)
    figure = Figure(figsize=(12, 7.1 + 1.8 * rows), layout="constrained")
    gray_range = "{:g} to {:g}".format(*_gray_range(spec)).replace("-", MINUS)
    figure.suptitle(
        f"Augmentation {name}: draws of a training with seed {seed}, displayed from "
        f"{gray_range}{UNITS[spec.units].suffix}",
        fontsize=12,
    )
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(6.5, 1.8 * rows + 0.4)))
    _draw_random(top, images, spec, numbers, seed)
    _draw_extremes(bottom, images[:1], spec, alone)
    return figure


def _draw_random(
    figure: SubFigure, images: np.ndarray, spec: AugmentSpec, numbers: np.ndarray, seed: int
) -> None:
    indices = [0] * (DRAWS + 1 - (len(images) - 1)) + list(range(1, len(images)))
    batch, count = images[indices], len(indices)
    key = np.stack(
        [[epoch_key(seed, epoch) for epoch in range(count)], numbers[indices]], axis=1
    ).astype(np.int32)
    params = draw(key, spec, images.ndim - 2)
    augmented = np.asarray(apply(batch, params, spec))
    axes = figure.subplots(2, count // 2).ravel()
    _show(axes[0], images[0], spec, ["original"])
    for index in range(1, count):
        phrases = [
            phrase.replace(" ", "\N{NO-BREAK SPACE}") for phrase in captions(params, spec, index)
        ]
        lines = textwrap.wrap(", ".join(phrases), 52)
        _show(axes[index], augmented[index], spec, lines)


def _draw_extremes(
    figure: SubFigure, image: np.ndarray, spec: AugmentSpec, alone: dict[str, dict[str, Any]]
) -> None:
    figure.suptitle("Each parameter alone, at its extremes", fontsize=11)
    rows = -(-len(alone) // PAIRS_PER_ROW)
    axes = figure.subplots(rows, 2 * PAIRS_PER_ROW, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for number, (name, params) in enumerate(alone.items()):
        pair = np.asarray(apply(np.repeat(image, 2, axis=0), params, spec))
        for end in range(2):
            axis = axes[number // PAIRS_PER_ROW, 2 * (number % PAIRS_PER_ROW) + end]
            _show(axis, pair[end], spec, captions(params, spec, end) or [f"{name}: none"])
            if name in GEOMETRY and image.ndim == 4:
                _draw_grid(axis, params, spec, image.shape[1:-1], end)


def _draw_grid(
    axis: Axes, params: dict[str, Any], spec: AugmentSpec, shape: tuple[int, ...], index: int
) -> None:
    """Lines of constant row and column of the image before the deformation."""
    for positions, side in zip(coordinates(params, spec, shape), shape, strict=True):
        lines = np.broadcast_to(np.asarray(positions), (2, *spec.size(shape)))[index]
        levels = np.linspace(0, side - 1, 7)
        axis.contour(lines, levels=levels, colors="#ffb000", linewidths=0.5, alpha=0.8)


def _show(axis: Axes, image: np.ndarray, spec: AugmentSpec, lines: list[str]) -> None:
    low, high = _gray_range(spec)
    is_color = kind_in_units(spec.units).channels > 1
    flat = image if is_color else image[..., 0]
    if flat.ndim == 3 and not is_color:  # the middle slice above, a coronal reformat below
        flat = np.concatenate([flat[flat.shape[0] // 2], flat[:, flat.shape[1] // 2]])
    axis.imshow(flat, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axis.set_title("\n".join(lines), fontsize=7)
    axis.axis("off")


def _gray_range(spec: AugmentSpec) -> tuple[float, float]:
    """Black and white of the figure: the bounds of the units, else the window of the spec."""
    return UNITS[spec.units].bounds or spec.window or (-1000.0, 1000.0)


def _read(
    rows: pd.DataFrame, indices: list[int], spec: PreprocessSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, rows, columns, 1) in model units, and their numbers (n,) in the cache."""
    files = tuple(file_refs(rows.loc[indices]))
    samples = tuple(SampleSlices((n,)) for n in range(len(indices)))
    integers = prepare_files(WorkItem(files, samples, spec))
    return to_model_units(np.stack(integers), spec), np.array(indices)


def _first_patients(rows: pd.DataFrame) -> list[int]:
    """The first image of each of the first patients, training first."""
    return rows.drop_duplicates("patient").index[:MAX_IMAGES].tolist()


def _longest_series(rows: pd.DataFrame) -> list[int]:
    """Up to MAX_SLICES slices around the middle of the longest series."""
    longest = rows.index[rows["series"] == rows["series"].value_counts().index[0]].tolist()
    start = max(0, len(longest) - MAX_SLICES) // 2
    return longest[start : start + MAX_SLICES]


def _data_uri(figure: Figure) -> str:
    """A figure as the data URI of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
