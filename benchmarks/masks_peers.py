"""HD95, NSD and ASSD of masks against DeepMind's surface-distance and MONAI, on random blobs.

    git clone https://github.com/google-deepmind/surface-distance
    python -m venv peers && peers/bin/pip install torch monai numpy scipy
    peers/bin/pip install --no-deps .
    peers/bin/python benchmarks/masks_peers.py surface-distance [--pairs 100]

Prints the greatest difference of each figure by convention, peer and dimension, the greatest
difference of the areas of surface elements, and the two balls of the tests. MONAI takes its
percentile in float32 (`hd95, float32`); `hd95` takes that of its distances in float64.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from itertools import product
from types import ModuleType

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from monai.metrics.utils import get_edge_surface_distance
from scipy import ndimage

from medres.evaluate.segmentation.surface_elements import corners, element_sizes
from medres.evaluate.segmentation.surfaces import CONVENTIONS, surface_distances

SPACINGS = {2: [(1.0, 1.0), (0.6, 1.7)], 3: [(1.0, 1.0, 1.0), (3.0, 0.7, 0.9)]}
TOLERANCE = 1.0


def deepmind(folder: str) -> ModuleType:
    """The package in a folder; it uses names that SciPy has since moved."""
    ndimage.filters = ndimage.morphology = ndimage
    sys.path.insert(0, folder)
    from surface_distance import metrics

    return metrics


def blobs(rng: np.random.Generator, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping masks with rough surfaces, which may touch the edge of the image."""
    shape = rng.integers(12, 40 if axes == 2 else 26, axes)
    base = ndimage.gaussian_filter(rng.standard_normal(shape), 2.0)
    masks = []
    for _ in range(2):
        field = base + rng.uniform(0.2, 1.0) * ndimage.gaussian_filter(
            rng.standard_normal(shape), rng.uniform(0.8, 2.0)
        )
        masks.append(field > np.quantile(field, rng.uniform(0.6, 0.95)))
    return masks[0], masks[1]


def ours(a: np.ndarray, b: np.ndarray, spacing: tuple, convention: str) -> dict[str, float]:
    distances = surface_distances(a, b, spacing, CONVENTIONS[convention])
    return {
        "hd95": distances.hausdorff(),
        "nsd": distances.surface_dice(TOLERANCE),
        "assd": distances.average(),
    }


def by_deepmind(package: ModuleType, a: np.ndarray, b: np.ndarray, spacing: tuple) -> dict:
    found = package.compute_surface_distances(a, b, spacing)
    there, back = package.compute_average_surface_distance(found)
    areas = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    return {
        "hd95": package.compute_robust_hausdorff(found, 95),
        "nsd": package.compute_surface_dice_at_tolerance(found, TOLERANCE),
        "assd": (there * areas[0] + back * areas[1]) / sum(areas),
    }


def by_monai(a: np.ndarray, b: np.ndarray, spacing: tuple) -> dict[str, float]:
    y, y_pred = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (a, b))
    options = {"include_background": True, "spacing": spacing}
    distances = get_edge_surface_distance(y_pred[0, 0], y[0, 0], spacing=spacing, symmetric=True)[1]
    return {
        "hd95": max(float(np.percentile(d.double().numpy(), 95)) for d in distances),
        "hd95, float32": float(compute_hausdorff_distance(y_pred, y, percentile=95, **options)),
        "nsd": float(compute_surface_dice(y_pred, y, [TOLERANCE], **options)),
        "assd": float(compute_average_surface_distance(y_pred, y, symmetric=True, **options)),
    }


def element_difference(package: ModuleType, axes: int, spacing: tuple) -> float:
    """Between the sizes of surface elements, over all neighborhoods."""
    tables = package.lookup_tables
    three = axes == 3
    kernel = (
        tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL if three else tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL
    )
    make = (
        tables.create_table_neighbour_code_to_surface_area
        if three
        else tables.create_table_neighbour_code_to_contour_length
    )
    theirs, mine = make(spacing), element_sizes(spacing)
    places = [int(kernel[corner]) for corner in corners(axes)]
    codes = [sum(p for i, p in enumerate(places) if code >> i & 1) for code in range(mine.size)]
    return float(np.abs(mine - theirs[codes]).max())


def two_balls() -> tuple[np.ndarray, np.ndarray]:
    z, y, x = np.ogrid[:64, :64, :64]
    a = (z - 32) ** 2 + (y - 32) ** 2 + (x - 32) ** 2 <= 15**2
    return a, (z - 32) ** 2 + (y - 32) ** 2 + (x - 35) ** 2 <= 16**2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("surface_distance")
    parser.add_argument("--pairs", type=int, default=100)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    package = deepmind(given.surface_distance)
    rng = np.random.default_rng(0)
    worst: dict[tuple, float] = defaultdict(float)
    for axes, number in product((2, 3), range(given.pairs)):
        a, b = blobs(rng, axes)
        spacing = SPACINGS[axes][number % 2]
        sides = {
            "surface, surface-distance": (
                ours(a, b, spacing, "surface"),
                by_deepmind(package, a, b, spacing),
            ),
            "boundary, MONAI": (ours(a, b, spacing, "boundary"), by_monai(a, b, spacing)),
        }
        for peer, (mine, theirs) in sides.items():
            for name, value in mine.items():
                key = (peer, axes, name)
                worst[key] = max(worst[key], abs(value - theirs[name]))
            if "hd95, float32" in theirs:
                key = (peer, axes, "hd95, float32")
                worst[key] = max(worst[key], abs(mine["hd95"] - theirs["hd95, float32"]))
    print("convention and peer | axes | figure | greatest difference")
    for (peer, axes, name), difference in sorted(worst.items()):
        print(f"{peer} | {axes} | {name} | {difference:.2g}")
    for axes, spacing in ((2, (0.6, 1.7)), (3, (3.0, 0.7, 0.9))):
        print(
            f"surface elements | {axes} | size | {element_difference(package, axes, spacing):.2g}"
        )
    a, b = two_balls()
    for convention in CONVENTIONS:
        print("two balls", convention, ours(a, b, (1.0, 1.0, 1.0), convention))


if __name__ == "__main__":
    main()
