"""The search of settings: what is drawn, which trial is kept, and what is said of its AUC."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import raises_code
from sklearn.metrics import roc_auc_score

from data_pipelines.ingestion import Manifest
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.training.cross_validation import search as module
from medres.training.cross_validation.halving import Halving, Rung
from medres.training.cross_validation.search import search
from medres.training.cross_validation.space import drawn, space_of

SPACE = {"learning_rate": "1e-4..1e-2", "warmup": "1..4", "ema": [0, 0.99]}


def test_a_space_is_read_from_texts_files_and_mappings(tmp_path: Path) -> None:
    texts = ["learning_rate=1e-4..1e-2", "warmup=1..4", "ema=0,0.99"]
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE))
    assert space_of(texts) == space_of(SPACE) == space_of(file) == space_of([str(file)]) == SPACE


@pytest.mark.parametrize(
    "space",
    [
        {},
        {"learning_rat": [1]},
        {"name": ["a"]},
        {"seed": [1]},
        {"ema": []},
        {"ema": 0.9},
        {"ema": "0.9..0.1"},
        {"ema": "a..b"},
        ["ema"],
        ["ema="],
    ],
)
def test_what_is_no_space_is_refused(space: Any, tmp_path: Path) -> None:
    if space == ["ema"]:
        space = ["ema", "warmup=1"]
    with raises_code(TrainingError, "bad_space"):
        space_of(space)


def test_draws_follow_from_the_seed_and_the_number_of_the_trial() -> None:
    space = space_of(SPACE)
    assert drawn(space, 3, 0) == {}
    trials = [drawn(space, 3, number) for number in range(1, 400)]
    assert trials == [drawn(space, 3, number) for number in range(1, 400)]
    assert drawn(space, 4, 1) != trials[0]
    rates = [trial["learning_rate"] for trial in trials]
    assert 1e-4 <= min(rates) < max(rates) <= 1e-2
    assert 150 < sum(rate < 1e-3 for rate in rates) < 250  # half of them: a logarithmic scale
    assert {trial["warmup"] for trial in trials} == {1, 2, 3, 4}
    assert {trial["ema"] for trial in trials} == {0, 0.99}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Trials that take no time: the AUC is .5 + 10 x learning rate; ema .99 fails."""
    calls: list[dict[str, Any]] = []

    def run_trial(command: tuple[str, ...]) -> str:
        settings = yaml.safe_load(Path(command[-1]).read_text())
        calls.append(settings)
        if settings.get("ema") == 0.99:
            return "the disk is full"
        out = Path(command[command.index("--out") + 1])
        out.mkdir()
        auc = 0.5 + 10 * settings.get("learning_rate", 1e-3)
        (out / "summary.json").write_text(json.dumps({"auc": auc, "sampling_se": 0.02}))
        (out / "model.keras").write_text(f"model of {auc:.6f}")
        return ""

    monkeypatch.setattr(module, "run_trial", run_trial)
    return calls


def run(tmp_path: Path, **changes: Any) -> module.Search:
    options: dict[str, Any] = {"space": SPACE, "trials": 12, "epochs": 2, **changes}
    return search(tmp_path / "work", out=tmp_path / "out", progress=ProgressReporter(), **options)


def test_the_best_trial_is_kept_and_its_auc_is_called_optimistic(
    ran: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = run(tmp_path)
    assert len(ran) == 12
    assert all(settings["epochs"] == 2 for settings in ran)
    table = found.trials
    failed = table["state"] == "the disk is full"
    assert 0 < failed.sum() < 11
    assert table["auc"].isna().equals(failed)
    best = table.loc[table["auc"].idxmax()]
    assert found.summary["best_trial"] == best["trial"]
    assert found.summary["auc"] == pytest.approx(best["auc"])
    assert found.summary["auc_of_given_settings"] == pytest.approx(0.51)
    assert found.summary["optimistic"] is True
    assert "test split" in found.summary["why"]
    assert found.artefact.read_text() == f"model of {best['auc']:.6f}"
    assert json.loads((tmp_path / "out" / "search.json").read_text()) == found.summary


def test_the_same_search_goes_on_and_another_is_refused(
    ran: list[dict[str, Any]], tmp_path: Path
) -> None:
    run(tmp_path, trials=3, space={"ema": [0.5]})
    more = run(tmp_path, trials=5, space={"ema": [0.5]}, workers=2)
    assert len(ran) == 5
    assert more.trials["trial"].tolist() == [0, 1, 2, 3, 4]
    with raises_code(TrainingError, "other_run"):
        run(tmp_path, trials=5)
    (tmp_path / "out" / "search.yaml").unlink()
    with raises_code(TrainingError, "not_a_run"):
        run(tmp_path, trials=5)


def test_settings_that_cannot_be_trained_are_refused_before_the_first_trial(
    ran: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raises_code(TrainingError, "bad_setting", "ema"):
        run(tmp_path, space={"ema": [0.5, 2.0]}, trials=30)
    with raises_code(TrainingError, "bad_setting"):
        run(tmp_path, folds=1)
    with raises_code(TrainingError, "bad_setting", "spark"):
        run(tmp_path, engine="spark")
    with raises_code(TrainingError, "run_failed"):
        run(tmp_path, space={"warmup": [1]}, ema=0.99, trials=2)
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with raises_code(TrainingError, "one_process"):
        run(tmp_path)


def test_a_trial_that_fails_says_why() -> None:
    lines = "import sys; print('first', file=sys.stderr); sys.exit('medres: the reason')"
    assert module.run_trial([sys.executable, "-c", lines]) == "the reason"
    assert module.run_trial([sys.executable, "-c", ""]) == ""


def test_halving_trains_the_better_trials_to_the_end(
    ran: list[dict[str, Any]], tmp_path: Path
) -> None:
    space = {"learning_rate": "1e-4..1e-2"}
    found = run(tmp_path, space=space, epochs=9, halving=3, seed=3)
    rates = [1e-3, *(drawn(space, 3, trial)["learning_rate"] for trial in range(1, 12))]
    passed: dict[int, list[float]] = {1: [], 3: [], 9: []}
    expected = []  # the last rung of each trial, by the definition
    for rate in rates:
        for epochs, earlier in passed.items():
            expected_last = epochs
            goes_on = not earlier or rate >= np.percentile(earlier, 200 / 3)
            earlier.append(rate)
            if not goes_on:
                break
        expected.append(expected_last)
    assert found.trials["epochs"].tolist() == expected
    assert len({*expected}) == 3
    whole = found.trials["epochs"] == 9
    assert found.trials["state"].tolist() == ["ok" if each else "stopped" for each in whole]
    assert found.summary["stopped"] == (~whole).sum()
    assert found.summary["auc"] == pytest.approx(found.trials["auc"][whole].max())
    computed = len(ran)
    assert computed == sum({1: 1, 3: 2, 9: 3}[last] for last in expected)
    assert {call["epochs"] for call in ran} == {1, 3, 9}

    again = run(tmp_path, space=space, epochs=9, halving=3, seed=3)
    assert len(ran) == computed
    assert again.trials.equals(found.trials)
    with raises_code(TrainingError, "other_run"):
        run(tmp_path, space=space, epochs=9, halving=2, seed=3)


def test_halving_counts_failed_and_undefined_trials_out() -> None:
    rule = Halving(2)
    values = [0.6, float("nan"), 0.5, 0.55, 0.7]
    assert [rule.goes_on(0, value) for value in values] == [True, True, False, True, True]
    with raises_code(TrainingError, "bad_setting"):
        search("work", out="out", space=SPACE, halving=1)
    with raises_code(TrainingError, "bad_space", "epochs"):
        search("work", out="out", space={"epochs": [3, 9]}, halving=3)


@pytest.mark.long  # Ray starts its own processes
@pytest.mark.timeout(600)
def test_ray_tune_runs_the_same_commands(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune")
    lines = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{\"auc\": 0.5}')"
    trials = []
    for n in range(3):
        out = tmp_path / str(n)
        out.mkdir()
        code = f"import sys; sys.exit('x{n}' * {n})" if n else lines
        command = (sys.executable, "-c", code, str(out / "summary.json"))
        trials.append(module.Trial(n, {}, (Rung(1, out, command),)))
    assert dict(module._by_ray(trials, 2, 0)) == {0: "", 1: "x1", 2: "x2x2"}


@pytest.mark.long  # six to eight trainings in processes of their own
@pytest.mark.timeout(6000)
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_search_on_images_leaves_the_test_split_alone(
    engine: str, tiny_work: Path, tmp_path: Path
) -> None:
    if engine == "ray":
        pytest.importorskip("ray.tune")
    settings = {"model": "resnet10", "preset": "xray-32", "width": 8, "batch_size": 8, "epochs": 2}
    out = tmp_path / "out"
    found = search(
        tiny_work,
        out=out,
        space={"learning_rate": [8e-3]},
        trials=2,
        folds=2,
        halving=2,
        engine=engine,
        progress=ProgressReporter(),
        **settings,
    )
    assert not set(found.trials["state"]) - {"ok", "stopped"}
    assert found.trials["auc"].between(0, 1).all()
    best = out / f"trial-{found.summary['best_trial']:03d}"
    scores = pd.read_csv(best / "scores.csv")
    table = Manifest.load(tiny_work).table
    assert {*scores["image"]} == {*table.loc[table["split"] != "test", "image"]}
    assert not scores["image"].duplicated().any()
    patients = scores.groupby(["fold", "patient"])[["label", "score"]].max()
    aucs = [roc_auc_score(fold["label"], fold["score"]) for _, fold in patients.groupby("fold")]
    assert found.summary["auc"] == pytest.approx(np.mean(aucs))
    assert found.artefact.read_bytes() == (best / "model.keras").read_bytes()
