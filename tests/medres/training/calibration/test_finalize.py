"""What is frozen after the fit: on tune alone, at the unit that is served, with its origin."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import rewrite
from scipy.special import expit

import medres
from data_pipelines.cache.tf_dataset import Targets
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import spec_from
from medres.artefact.archive import load
from medres.artefact.summary import lines
from medres.progress import ProgressReporter
from medres.training.calibration.finalize import (
    after_calibration,
    calibrate,
    conformal,
    operating_points,
)
from medres.training.data import ScoredImages, load_data, min_patients_for_quantile, tuning_holdout


def scored(
    scores: np.ndarray, label: np.ndarray, study: list, patient: list, task: str = "binary"
) -> ScoredImages:
    n = len(scores)
    names = ("positive",) if task == "binary" else tuple("abc")
    labels = label[:, None].astype(np.float32) if task == "binary" else label.astype(np.int32)
    weights = np.ones(labels.shape, np.float32)
    table = pd.DataFrame(
        {"image": np.arange(n), "series": study, "study": study, "patient": patient}
    )
    return ScoredImages(
        scores.reshape(n, -1).astype(np.float32), Targets(task, names, labels, weights), table
    )


@pytest.fixture
def repeated() -> ScoredImages:
    """60 studies of 30 patients, one to three images each; the first of a study has its label's
    score, the others lie lower.
    """
    rng = np.random.default_rng(0)
    study = np.repeat(np.arange(60), rng.integers(1, 4, 60))
    label = (np.arange(60) % 2)[study]
    logits = rng.normal(size=len(study)) - 3
    first = np.unique(study, return_index=True)[1]
    logits[first] = 2.0 * label[first] + rng.normal(size=60)
    return scored(logits, label, [f"s{i}" for i in study], [f"p{i // 2}" for i in study])


def test_calibration_sees_the_pooled_study(repeated: ScoredImages) -> None:
    """The same largest logits, with or without the lower images, give the same calibration."""
    first = np.zeros(len(repeated.scores), bool)
    first[repeated.table.assign(z=repeated.scores[:, 0]).groupby("study")["z"].idxmax()] = True
    for method in ("platt", "temperature"):
        whole, alone = calibrate(repeated, method), calibrate(repeated.take(first), method)
        assert whole == alone
        assert (whole.method, whole.unit, whole.split, whole.n, whole.n_positive) == (
            method,
            "study",
            "tune",
            [60],
            [30],
        )
    assert calibrate(repeated, "none").scale == [1.0]


def test_points_are_named_at_both_units_with_their_origin(repeated: ScoredImages) -> None:
    made = ScoredImages(expit(repeated.scores), repeated.targets, repeated.table)
    wanted = {"screening": "sensitivity:0.95", "sure": "specificity_low:0.999"}
    points, left_out = operating_points(made, "image", wanted)
    assert [(p.name, p.unit, p.criterion) for p in points] == [
        ("default", "image", "youden"), ("screening", "image", "sensitivity:0.95"),
        ("default", "study", "youden"), ("screening", "study", "sensitivity:0.95"),
    ]  # fmt: skip
    assert {(p.split, p.n_patients) for p in points} == {("tune", 30)}
    assert [one["why"] for one in left_out] == ["no threshold reaches the criterion"] * 2
    study = made.units("study")
    screening = next(p for p in points if (p.name, p.unit) == ("screening", "study"))
    assert (
        np.mean(study.score["positive"][study.label["positive"] == 1] >= screening.threshold)
        >= 0.95
    )


def test_the_default_point_can_be_another_than_youdens(repeated: ScoredImages) -> None:
    points, _ = operating_points(repeated, "study", {"default": "sensitivity:1"})
    assert [(p.name, p.criterion) for p in points] == [("default", "sensitivity:1")]


def test_one_class_gives_no_point_and_says_why(repeated: ScoredImages) -> None:
    alone = repeated.take(repeated.targets.labels[:, 0] == 1)
    points, left_out = operating_points(alone, "study", {})
    assert points == []
    assert "one class only" in left_out[0]["why"]
    assert calibrate(alone, "platt").scale == [1.0]


def test_conformal_quantiles_cover_each_label_at_the_served_unit(repeated: ScoredImages) -> None:
    made = ScoredImages(expit(repeated.scores), repeated.targets, repeated.table)
    found, left_out = conformal(made, 0.1)
    assert [(q.finding, q.label, q.alpha, q.n_patients) for q in found] == [
        ("positive", 0, 0.1, 30),
        ("positive", 1, 0.1, 30),
    ]
    assert left_out == []
    units = made.units("study")
    for one in found:
        score = units.score["positive"][units.label["positive"] == one.label]
        apart = 1 - score if one.label else score
        assert 0.85 <= np.mean(apart <= one.quantile) <= 1.0
    assert conformal(made, 0.0) == ([], [])


def test_too_few_patients_give_no_quantile_and_say_why(repeated: ScoredImages) -> None:
    few = repeated.take(repeated.table["patient"].isin([f"p{i}" for i in range(8)]).to_numpy())
    found, left_out = conformal(few, 0.1)
    assert found == []
    assert [one["what"] for one in left_out] == [
        "conformal quantile of 0",
        "conformal quantile of 1",
    ]
    assert all("8 patients" in one["why"] and "9 are needed" in one["why"] for one in left_out)
    assert [min_patients_for_quantile(a) for a in (0.1, 0.05, 0.2, 1 / 3, 0.5)] == [9, 19, 4, 2, 1]


def test_classes_take_one_temperature_and_leave_mixed_studies_out() -> None:
    rng = np.random.default_rng(1)
    study = np.repeat(np.arange(40), 2)
    label = (np.arange(40) % 3)[study]
    label[1] = 2  # study 0 holds two classes
    logits = rng.normal(size=(80, 3)) * 3
    logits[np.arange(80), label] += 1
    made = scored(logits, label, study.tolist(), study.tolist(), "multiclass")
    found = calibrate(made, "platt")
    assert found.method == "temperature"
    assert len(set(found.scale)) == 1
    assert found.n == [39] * 3
    assert sum(found.n_positive) == 39
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sure = scored(shares, label, study.tolist(), study.tolist(), "multiclass")
    frozen = after_calibration(found, sure, sure, "image", {"operating_points": {}, "alpha": 0.3})
    assert frozen.points == []
    assert {q.label for q in frozen.conformal} == {"a", "b", "c"}
    assert all(q.finding == q.label for q in frozen.conformal)


@pytest.fixture(scope="module")
def many(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cohort with every study a patient and most of them in tune, so that conformal
    quantiles can be had.
    """
    work = tmp_path_factory.mktemp("many") / "work"
    shutil.copytree(tiny_work, work, ignore=shutil.ignore_patterns("cache"))
    table = Manifest.load(work).table
    table["patient"] = table["study"] = table["image"]
    number = pd.factorize(table["image"])[0]
    table["split"] = np.where(number < 8, "train", np.where(number < 56, "tune", "test"))
    rewrite(work, table)
    return work


def test_a_third_of_the_patients_is_kept_from_early_stopping_calibration_and_thresholds(
    many: Path, tmp_path: Path
) -> None:
    alpha = 0.2
    data = load_data(many, spec_from("xray-32"), Manifest.load(many), ProgressReporter())
    held = tuning_holdout(data, alpha)
    assert 12 <= held.sum() <= 20
    assert not tuning_holdout(data, 0.0).any()
    assert not tuning_holdout(data, 0.02).any()  # 49 patients a class: there are not so many
    patients = data.table("tune")["patient"]
    assert not set(patients[held]) & set(patients[~held])
    run = medres.train(
        many, model="resnet10", preset="xray-32", width=8, batch_size=4, epochs=1, alpha=alpha,
        operating_points={"screening": "sensitivity:0.9"}, out=tmp_path / "run",
    )  # fmt: skip
    card = medres.load(run.artefact).card
    assert {p.n_patients for p in card.operating_points} == {48 - held.sum()}
    assert card.calibration["n"] == [48 - held.sum()]
    assert sum(q.n_patients for q in card.conformal) == held.sum()
    assert {p.name for p in card.operating_points} == {"default", "screening"}
    assert card.training["config"]["after"]["operating_points"] == {"screening": "sensitivity:0.9"}


def test_a_small_tuning_split_stays_whole(tiny_work: Path, tiny_run: Path) -> None:
    data = load_data(tiny_work, spec_from("xray-32"), Manifest.load(tiny_work), ProgressReporter())
    assert not tuning_holdout(data, 0.1).any()
    card = medres.load(tiny_run / "model.keras").card
    assert card.conformal == []
    assert any("too few" in one["why"] for one in card.training["left_out"])
    few = [note for note in card.training["notes"] if "fewer than 20" in note]
    assert len(few) == 1
    (point,) = [p for p in card.operating_points if p.unit == "study"]
    assert point.n_class_patients < 20
    assert f"{point.n_class_patients} patients of the class" in few[0]
    assert any("27 of each class" in note for note in card.training["notes"])
    printed = "\n".join(lines(load(tiny_run / "model.keras")))
    assert "fewer than 20" in printed
    assert "27 of each class" in printed
