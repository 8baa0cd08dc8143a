"""Whether an image stands as the training images do: upside down or turned it would fit them worse.
Pure numpy.

The Gaussian of `medres.artefact.feature_distance` is fitted to small pictures of 16 x 16 means of
training images. An image is refused where its own
small picture lies further from them than the same one turned: a likelihood ratio, in the spirit of
    RotNet's out-of-distribution score (Hendrycks et al. 2019), without a network. Mirror images
    pass: which side is which is the header's to say.
"""

from __future__ import annotations

import functools

import numpy as np

from medres.artefact.feature_distance import FeatureGaussian, fit_novelty

SIDE = 16
LIMIT = 1.1  # refused: 10 % further as it is than turned
FEWEST = 30  # tuning images, to know that training images do stand one way
DOUBTFUL = 0.01  # share of tuning images that may fit better turned


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Means over a 16 x 16 grid, float32 (n, 16, 16), of images in model units (n, [slices,] rows,
    cols, channels); slices and channels are averaged.
    """
    planes = (
        images.mean(axis=(-1, *range(1, images.ndim - 3)), dtype=np.float32)
        if images.size
        else images
    )
    return _means(planes.shape[1]) @ planes @ _means(planes.shape[2]).T


def orientation_ratios(upright: FeatureGaussian, small: np.ndarray) -> np.ndarray:
    """float64 (n,): distance of each small picture (n, 16, 16) to the training images, over the
    least distance when it is turned by 90, 180 or 270 degrees, or turned and mirrored (upside down
    is one of these).
    """
    mirrored = small[:, :, ::-1]
    turned = [np.rot90(one, turns, (1, 2)) for turns in (1, 2, 3) for one in (small, mirrored)]
    flat = np.stack([small, *turned]).reshape(-1, SIDE * SIDE)
    own, *others = upright.scores(flat).reshape(7, -1)
    return own / np.maximum(np.min(others, axis=0), 1e-12)


def fit_upright(train: np.ndarray, tune: np.ndarray) -> FeatureGaussian | None:
    """What small pictures of the training images (n, 16, 16) look like; None where the tuning
    images do not show that they stand
    one way: fewer than 30, or more than 1 % that would fit better turned.
    """
    upright = fit_novelty(train.reshape(len(train), -1))
    if len(tune) < FEWEST:
        return None
    doubtful = orientation_ratios(upright, tune) >= 1.0
    return upright if doubtful.mean() <= DOUBTFUL else None


@functools.lru_cache(maxsize=16)
def _means(size: int) -> np.ndarray:
    """float32 (16, size): row i averages the i-th sixteenth of `size` pixels, edge pixels by the
    part that lies in it.
    """
    edge = np.linspace(0, size, SIDE + 1)[:, np.newaxis]
    pixel = np.arange(size)
    covered = np.minimum(edge[1:], pixel + 1) - np.maximum(edge[:-1], pixel)
    return (np.maximum(covered, 0) * SIDE / size).astype(np.float32)
