"""Cross-validation: whole patients, every image scored once by a net that had not seen it, seeds
and sampling told apart.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import raises_code

import medres
from data_pipelines.ingestion.manifest import Manifest
from medres.errors import TrainingError
from medres.evaluate.metrics.roc import auc_from_counts
from medres.evaluate.scores.sample import rank_counts
from medres.progress import ProgressReporter
from medres.training.config.recipe import RECIPES
from medres.training.cross_validation import folds
from medres.training.cross_validation.ensemble import logits_of, mean_of
from medres.training.cross_validation.folds import cross_validate, out_of_fold

OPTIONS = {"model": "resnet10", "preset": "xray-32", "width": 4, "batch_size": 8, "epochs": 1}


def in_this_process(
    fold_run: folds.FoldRun,
    settings: Path,
    mlflow: str | None,
    name: str,
    reporter: ProgressReporter,
) -> None:
    if not (fold_run.out / "model.keras").exists():
        medres.train(
            fold_run.work,
            config=settings,
            seed=fold_run.seed,
            out=fold_run.out,
            progress=reporter,
            mlflow=mlflow,
        )


@pytest.fixture(scope="module")
def made(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> folds.CrossValidation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "_run", in_this_process)
        out = tmp_path_factory.mktemp("folds") / "cv"
        return cross_validate(
            tiny_work,
            out=out,
            folds=2,
            seeds=1,
            progress=ProgressReporter(),
            seed=5,
            alpha=0.3,
            **OPTIONS,
        )


def test_each_image_outside_test_is_scored_once_and_patients_stay_whole(
    made: folds.CrossValidation, tiny_work: Path
) -> None:
    table = Manifest.load(tiny_work).table
    outside = table[table["split"] != "test"]
    assert sorted(made.scores["image"]) == sorted(outside["image"])
    assert made.scores.groupby("patient")["fold"].nunique().max() == 1
    for fold_run in made.runs:
        own = Manifest.load(fold_run.work).table
        assert set(own["image"]) == set(outside["image"])
        assert own.groupby("patient")["split"].nunique().max() == 1
        assert set(own["split"]) == {"train", "tune", "test"}
    read = pd.read_csv(made.out / "scores.csv")
    assert {"fold", "seed", "patient", "label", "score"} <= set(read)


def test_the_summary_and_what_the_report_says_agree(made: folds.CrossValidation) -> None:
    summary = json.loads((made.out / "summary.json").read_text())
    assert summary["seed_sd"] is None
    assert {(row["fold"], row["seed"]) for row in summary["runs"]} == {(0, 5), (1, 5)}
    report = medres.evaluate.evaluate(made.out / "scores.csv", unit=summary["unit"])
    assert json.loads(report.to_json())["findings"]["positive"]["auc"]["estimate"] == pytest.approx(
        summary["auc"]
    )


def test_the_ensemble_is_the_mean_of_its_members_and_is_served(
    made: folds.CrossValidation, tiny_work: Path
) -> None:
    predictor = medres.load(made.artefact)
    image = np.random.default_rng(0).random((3, 32, 32, 1)).astype(np.float32)
    nets = [logits_of(medres.load(m.out / "model.keras").artefact) for m in made.runs]
    want = np.mean([np.asarray(net(image)) for net in nets], axis=0)
    assert np.asarray(mean_of(nets)(image)) == pytest.approx(want, abs=1e-5)
    scale, offset = predictor.card.calibration["scale"][0], predictor.card.calibration["offset"][0]
    assert predictor.forward(image) == pytest.approx(
        1 / (1 + np.exp(-(scale * want + offset))), abs=1e-5
    )
    row = Manifest.load(tiny_work).table.iloc[0]
    assert predictor.predict(Path(row["source"]) / row["path"]).refused is None
    held = sum(q.n_patients for q in predictor.card.conformal)
    total = made.scores["patient"].nunique()
    assert (
        predictor.card.operating_points[0].n_patients + held == total
    )  # out-of-fold scores of all patients
    assert len(predictor.card.training["config"]["ensemble"]) == 2


def test_the_same_call_goes_on_and_another_is_refused(
    made: folds.CrossValidation, tiny_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(folds, "_run", lambda fold_run, *rest: started.append(fold_run.out))
    again = cross_validate(
        tiny_work,
        out=made.out,
        folds=2,
        seeds=1,
        progress=ProgressReporter(),
        seed=5,
        alpha=0.3,
        **OPTIONS,
    )
    assert again.summary == made.summary
    assert len(started) == 2
    with raises_code(TrainingError, "other_run"):
        cross_validate(
            tiny_work, out=made.out, folds=3, progress=ProgressReporter(), seed=5, **OPTIONS
        )
    with raises_code(TrainingError, "single_run"):
        cross_validate(tiny_work, out=made.out / "x", progress=ProgressReporter(), **OPTIONS)
    with raises_code(TrainingError, "settings_not_plain", ".keras"):
        cross_validate(
            tiny_work,
            out=made.out / "x",
            seeds=2,
            recipe=RECIPES["small"],
            progress=ProgressReporter(),
        )


def table(seeds: int, *, noise: float = 1.0) -> pd.DataFrame:
    """Two folds whose scores lie far apart: pooled they would look worse than they are."""
    rng, parts = np.random.default_rng(0), []
    number = np.arange(40)
    for seed in range(seeds):
        score = 10.0 * (number // 20) + number % 2 + noise * rng.normal(size=40)
        columns = {"label": number % 2, "score": score, "fold": number // 20, "seed": seed}
        parts.append(
            pd.DataFrame(
                {"image": number.astype(str), "patient": (number // 2).astype(str), **columns}
            )
        )
    return pd.concat(parts)


def test_the_auc_is_averaged_over_folds_and_seeds_and_their_spread_is_told() -> None:
    scores = table(3)
    want = []
    for _, one in scores.groupby("seed"):
        parts = [
            auc_from_counts(rank_counts(f["label"].to_numpy() == 1, f["score"].to_numpy()))
            for _, f in one.groupby("fold")
        ]
        want.append(np.mean(parts))
    found = out_of_fold(scores, "image")
    assert found["auc"] == pytest.approx(np.mean(want))
    assert found["seed_sd"] == pytest.approx(np.std(want, ddof=1))
    pooled = scores[scores["seed"] == 0]
    assert found["auc_by_seed"]["0"]["estimate"] > auc_from_counts(
        rank_counts(pooled["label"].to_numpy() == 1, pooled["score"].to_numpy())
    )


def test_the_sampling_error_is_that_of_patients() -> None:
    """Against drawing patients anew within their fold."""
    scores = table(1, noise=1.5)
    found = out_of_fold(scores, "image")["sampling_se"]
    rng, drawn = np.random.default_rng(1), []
    label, score = (
        scores[c].to_numpy().reshape(2, 10, 2) for c in ("label", "score")
    )  # fold, patient, image
    for _ in range(600):
        chosen = [rng.integers(0, 10, 10) for _ in range(2)]
        parts = [(label[f, c].ravel() == 1, score[f, c].ravel()) for f, c in enumerate(chosen)]
        drawn.append(np.mean([auc_from_counts(rank_counts(*part)) for part in parts]))
    assert found == pytest.approx(np.std(drawn), rel=0.25)


@pytest.mark.long
def test_in_processes_of_their_own_from_the_command_line(tiny_work: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from medres.cli.app import app

    (tmp_path / "a.yaml").write_text(yaml.safe_dump(OPTIONS))
    arguments = [
        "train",
        str(tiny_work),
        "--config",
        str(tmp_path / "a.yaml"),
        "--out",
        str(tmp_path / "cv"),
        "--json",
    ]
    done = CliRunner().invoke(app, [*arguments, "--seeds", "2"])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["seed"] for row in told["runs"]] == [0, 1]
    assert medres.load(tmp_path / "cv" / "model.keras").card.names == ["square"]
    assert not (tmp_path / "cv" / "scores.csv").exists()
    failed = CliRunner().invoke(
        app,
        [*arguments[:5], str(tmp_path / "no"), "--folds", "2", "--set", "uncertain={lump: one}"],
    )
    assert failed.exit_code == 1
    assert "fold 0, seed 0 failed: recipe, field uncertain: lump" in failed.stderr
