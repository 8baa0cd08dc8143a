from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code

from medres.artefact.feature_distance import (
    dump_gaussian,
    fit_novelty,
    parse_gaussian,
    threshold_of,
)
from medres.errors import ArtefactError


def features(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n, 3)) @ rng.normal(size=(3, 20)) + 0.1 * rng.normal(size=(n, 20)) + 5
    ).astype(np.float32)


def test_the_score_is_the_mahalanobis_distance_of_the_low_rank_covariance() -> None:
    """Against the dense formula: the covariance written out and inverted."""
    x = features(200)
    novelty = fit_novelty(x)
    eigen, vectors = np.linalg.eigh(np.cov(x.astype(np.float64), rowvar=False))
    eigen, vectors = eigen[::-1], vectors[:, ::-1]
    kept = len(novelty.variance)
    eigen[kept:] = eigen[kept:].mean()
    inverse = np.linalg.inv(vectors @ np.diag(eigen) @ vectors.T)
    new = features(5, seed=1) + 1
    centered = new - x.mean(axis=0)
    want = np.sqrt(np.einsum("ni,ij,nj->n", centered, inverse, centered) / 20)
    assert novelty.scores(new) == pytest.approx(want, rel=1e-4)


def test_images_like_the_training_images_score_about_one_and_others_far_more() -> None:
    x = features(400)
    novelty = fit_novelty(x[:300])
    alike, other = novelty.scores(x[300:]), novelty.scores(features(100, seed=7))
    assert alike.mean() == pytest.approx(1, abs=0.15)
    threshold = threshold_of(alike[:50])
    assert (alike <= threshold).all()
    assert (other > threshold).mean() > 0.95


def test_the_threshold_refuses_no_tuning_image() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 300):
        scores = np.exp(rng.normal(size=size) ** 3)
        assert (scores <= threshold_of(scores)).all()
    log_normal = np.exp(rng.normal(0, 0.2, 10_000))
    assert threshold_of(log_normal) == pytest.approx(np.exp(5 * 0.2), rel=0.05)


def test_few_images_and_features_that_never_vary() -> None:
    x = np.zeros((3, 8), np.float32)
    x[:, 0] = [1, 2, 3]
    scores = fit_novelty(x).scores(np.vstack([x, np.ones((1, 8), np.float32)]))
    assert np.isfinite(scores).all()
    assert scores[3] > 10 * scores[:3].max()
    assert np.isfinite(fit_novelty(x[:1]).scores(x)).all()


def test_the_member_round_trips_and_a_wrong_one_is_refused() -> None:
    novelty = fit_novelty(features(50))
    again = parse_gaussian(dump_gaussian(novelty))
    x = features(5, seed=2)
    assert again.scores(x) == pytest.approx(novelty.scores(x), rel=1e-5)
    with raises_code(ArtefactError, "malformed_arrays", "novelty"):
        parse_gaussian(b"PK")
    with raises_code(ArtefactError, "malformed_gaussian"):
        parse_gaussian(
            dump_gaussian(
                type(novelty)(novelty.mean[:3], novelty.axes, novelty.variance, novelty.noise)
            )
        )
