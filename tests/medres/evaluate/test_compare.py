from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate import evaluate
from medres.evaluate.compare import align, paired_difference
from medres.evaluate.roc import Sample, auc_covariance, placements
from medres.evaluate.scores import load

pytestmark = pytest.mark.usefixtures("few_replicates")


def drawn(seed: int = 0, n: int = 120, repeat: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    latent = rng.normal(size=n) + label
    patient = np.arange(n) // (2 if repeat else 1)
    frame = pd.DataFrame({"image": [f"i{k}" for k in range(n)], "patient": patient, "label": label})
    scores = [1 / (1 + np.exp(-(latent + rng.normal(size=n) * s))) for s in (0.2, 1.0)]
    return frame.assign(score=scores[0]), frame.assign(score=scores[1])


def sample_of(frame: pd.DataFrame) -> Sample:
    n = len(frame)
    return Sample(
        frame.label.to_numpy() == 1, frame.score.to_numpy(), frame.patient.to_numpy(), np.zeros(n, dtype=np.int64)
    )


def test_paired_difference_is_delongs_test() -> None:
    a, b = (sample_of(f) for f in drawn())
    covariance = auc_covariance([placements(a), placements(b)])
    contrast = np.array([1.0, -1.0])
    z = (placements(a).auc - placements(b).auc) / np.sqrt(contrast @ covariance @ contrast)
    estimate, p_value = paired_difference(a, b, 0.95)
    assert p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert estimate.estimate == pytest.approx(placements(a).auc - placements(b).auc)


def test_rows_are_aligned_by_image_and_not_by_order() -> None:
    a, b = drawn()
    straight = evaluate(a, compare={"other": b}).numbers["comparisons"]
    shuffled = evaluate(a, compare={"other": b.sample(frac=1, random_state=1)}).numbers["comparisons"]
    assert straight == shuffled
    assert straight[0]["direction"] == "a-b"
    assert straight[0]["auc_difference"]["estimate"] > 0
    assert straight[0]["b"] == "other"


def test_only_common_images_count() -> None:
    a, b = drawn()
    row = evaluate(a, compare=b.iloc[20:]).numbers["comparisons"][0]
    assert row["n_common"] == 100


def test_repeated_patients_give_the_clustered_test() -> None:
    a, b = drawn(repeat=True)
    row = evaluate(a, compare=b).numbers["comparisons"][0]
    assert row["method"] == "paired Obuchowski"
    assert row["auc_difference"]["n_clusters"] == 60


def test_a_model_against_itself_is_not_a_crash() -> None:
    a, _ = drawn()
    row = evaluate(a, compare=a).numbers["comparisons"][0]
    assert row["auc_difference"]["estimate"] == 0
    assert "rank alike" in row["auc_difference"]["why"]
    assert row["p_value"] is None
    assert row["p_adjusted"] is None


def test_p_values_are_adjusted_over_all_comparisons() -> None:
    a, b = drawn()
    _, c = drawn(seed=5)
    c["label"] = a.label
    rows = evaluate(a, compare={"b": b, "c": c}).numbers["comparisons"]
    p = sorted(r["p_value"] for r in rows)
    assert sorted(r["p_adjusted"] for r in rows) == pytest.approx([min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])])


def test_noninferiority_only_with_a_margin() -> None:
    a, b = drawn(n=400)
    assert "noninferior" not in evaluate(a, compare=b).numbers["comparisons"][0]
    better = evaluate(a, compare=b, margin=0.05).numbers["comparisons"][0]
    worse = evaluate(b, compare=a, margin=0.001).numbers["comparisons"][0]
    assert (better["noninferior"], worse["noninferior"]) == (True, False)


def test_tables_that_cannot_be_compared() -> None:
    a, b = drawn()
    bad = {
        "no column 'image'": b.drop(columns="image"),
        "no image in common": b.assign(image=[f"z{k}" for k in range(len(b))]),
        "labels of": b.assign(label=1 - b.label),
        "other findings": b.rename(columns={"label": "label:X", "score": "score:X"}),
        "several seeds": b.assign(seed=1),
    }
    for needle, other in bad.items():
        with pytest.raises(EvaluationError, match=needle):
            align(load(a), load(other))
