"""Detect rotated and flipped images: compare an image, as it is and rotated, with the training
images. Pure numpy.

The Gaussian of `medres.artefact.feature_distance` is fitted to thumbnails (16 x 16 means) of the
training images. An image is refused if its thumbnail lies further from them than the rotated
thumbnail: a likelihood ratio similar to the out-of-distribution score of Hendrycks et al. 2019,
without a network. Left-right mirror images are not detected: the header states the side.
"""

from __future__ import annotations

import functools

import numpy as np

from medres.artefact.feature_distance import FeatureGaussian, fit_novelty

SIDE = 16  # pixels of a thumbnail
MAX_RATIO = 1.1  # an image is refused if it lies more than 10 % further away than when rotated
MIN_TUNE_IMAGES = 30  # needed to tell whether the training images share one orientation
MAX_DOUBTFUL = 0.01  # share of tuning images that may fit better when rotated


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Means over a 16 x 16 grid, float32 (n, 16, 16), of images in model units (n, [slices,] rows,
    columns, channels); slices and channels are averaged.
    """
    planes = (
        images.mean(axis=(-1, *range(1, images.ndim - 3)), dtype=np.float32)
        if images.size
        else images
    )
    return area_means(planes.shape[1]) @ planes @ area_means(planes.shape[2]).T


def orientation_ratios(model: FeatureGaussian, small: np.ndarray) -> np.ndarray:
    """float64 (n,): the distance of each thumbnail (n, 16, 16) from the training images, divided by
    the smallest distance after a rotation by 90, 180 or 270 degrees, with or without a mirror image
    (upside down is one of these).
    """
    mirrored = small[:, :, ::-1]
    rotated = [np.rot90(x, turns, (1, 2)) for turns in (1, 2, 3) for x in (small, mirrored)]
    flat = np.stack([small, *rotated]).reshape(-1, SIDE * SIDE)
    unchanged, *others = model.scores(flat).reshape(7, -1)
    return unchanged / np.maximum(np.min(others, axis=0), 1e-12)


def fit_orientation_model(train: np.ndarray, tune: np.ndarray) -> FeatureGaussian | None:
    """The distribution of the thumbnails (n, 16, 16) of the training images. None if the tuning
    images do not show that they share one orientation: there are fewer than 30, or more than 1 % of
    them would fit better when rotated.
    """
    model = fit_novelty(train.reshape(len(train), -1))
    if len(tune) < MIN_TUNE_IMAGES:
        return None
    doubtful = orientation_ratios(model, tune) >= 1.0
    return model if doubtful.mean() <= MAX_DOUBTFUL else None


@functools.lru_cache(maxsize=16)
def area_means(size: int) -> np.ndarray:
    """float32 (16, size): row i averages the i-th sixteenth of `size` pixels; a pixel on the border
    counts by the part of it that lies inside.
    """
    edge = np.linspace(0, size, SIDE + 1)[:, np.newaxis]
    pixel = np.arange(size)
    covered = np.minimum(edge[1:], pixel + 1) - np.maximum(edge[:-1], pixel)
    return (np.maximum(covered, 0) * SIDE / size).astype(np.float32)
