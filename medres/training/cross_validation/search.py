"""A random search over fields of the recipe, each trial a cross-validation by patient; perhaps with
successive halving, which stops the worse trials after a few epochs (`halving`).

    OUT/search.yaml          the space, the settings of all trials, folds and seed
    OUT/trial-000/           the cross-validation of a trial, as `medres train --folds` writes it
    OUT/trial-000-epochs-5/  with halving: the same with fewer epochs
    OUT/trials.csv           one row per trial: settings, out-of-fold AUC, standard error
    OUT/search.json          the best trial, and what its AUC is worth
    OUT/model.keras          the ensemble of the best trial

The test split of the work folder is not used, so that it can judge the chosen ensemble.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError
from medres.progress import Bars, ProgressReporter
from medres.tasks import annotated_task
from medres.training.config.options import read_config, resolve_settings
from medres.training.cross_validation.halving import Halving, Rung, climb, rung_epochs
from medres.training.cross_validation.space import Space, drawn, space_of
from medres.training.distributed.joining import refuse_workers

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Trial:
    """One trial: its number, what it changes, and its rungs, of which the last has all epochs. The
    other rungs are those of halving.
    """

    number: int
    changes: dict[str, Any]
    rungs: tuple[Rung, ...]

    @property
    def out(self) -> Path:
        """The folder of the cross-validation with all epochs."""
        return self.rungs[-1].out

    @property
    def last_done(self) -> Rung | None:
        """The highest rung that has ended."""
        return next((rung for rung in reversed(self.rungs) if rung.is_done), None)


@dataclass(frozen=True)
class Search:
    """A finished search: its folder, one row per trial, the content of search.json, and the file of
    the best ensemble.
    """

    out: Path
    trials: pd.DataFrame
    summary: dict[str, Any]
    artefact: Path


def search(
    work: Path | str,
    *,
    out: Path | str,
    space: Mapping[str, Any] | Path | str | Sequence[str],
    trials: int = 10,
    folds: int = 3,
    seed: int = 0,
    engine: str = "local",
    workers: int = 1,
    halving: int = 0,
    config: Path | str | Mapping[str, Any] | None = None,
    progress: ProgressReporter | None = None,
    **overrides: Any,
) -> Search:
    """Try `trials` settings, each with a cross-validation of `folds` folds, and keep the one with
    the highest out-of-fold AUC. Trial 0 has the given settings, the others are drawn from `space`
    (see `medres.training.cross_validation.space`) by (seed, number of the trial).

    engine: "local" (processes of this machine, `workers` trials at a time) or "ray" (Ray Tune;
        all nodes must see `work` and `out`).
    halving: 0, or the factor of asynchronous successive halving, usually 3: a trial is trained for
        1/9 and 1/3 of the epochs first, and goes on only if its AUC is not below the best third of
        the trials before it (Ray Tune's ASHAScheduler, or the same rule by processes). With several
        workers, which trials are stopped depends on their order in time.
    config, overrides: the settings of all trials, as for
        `medres.train`. The same call resumes; a higher number of trials goes on.
    The AUC of the best trial is optimistic, since the trial was chosen by it: search.json says so.
    An honest estimate is that of OUT/model.keras on the test split of the work folder.
    Raises TrainingError: bad_space, bad_setting, other_run, not_a_run, one_process, no_ray,
    run_failed (no trial has ended well).
    """
    refuse_workers("a search")
    work, out, reporter = Path(work), Path(out), progress or Bars()
    space = space_of(space)
    if trials < 2 or folds < 2 or workers < 1 or engine not in ENGINES:
        raise TrainingError(
            f"a search needs 2 or more trials and folds, 1 or more workers and the engine local or "
            f"ray; received trials={trials}, folds={folds}, workers={workers}, engine={engine!r}",
            code="bad_setting",
        )
    base = read_config(config) | {k: v for k, v in overrides.items() if v is not None}
    _check_halving(space, halving)
    planned = [
        _trial(work, out, base, space, seed, folds, halving, number) for number in range(trials)
    ]
    content = {"space": space, "folds": folds, "seed": seed, "settings": base}
    _claim(out, content | ({"halving": halving} if halving else {}))
    for trial in planned:
        for rung in trial.rungs:
            epochs = {} if rung is trial.rungs[-1] else {"epochs": rung.epochs}
            settings = yaml.safe_dump({**base, **trial.changes, "seed": seed, **epochs})
            write_atomic(out / f"{rung.out.name}.yaml", settings.encode())
    # Halving decides again about all trials; rungs that are done are not computed again.
    pending = [trial for trial in planned if halving or not trial.rungs[-1].is_done]
    compute = _by_ray if engine == "ray" else _by_processes
    faults: dict[int, str] = {}
    for done, (number, fault) in enumerate(compute(pending, workers, halving), start=1):
        faults |= {number: fault} if fault else {}
        state = f"failed: {fault}" if fault else _state(planned[number])
        reporter.line(f"trial {number}, {done} of {len(pending)}: {state}")
    return _finish(out, planned, faults, reporter)


def _check_halving(space: Space, halving: int) -> None:
    if halving < 0 or halving == 1:
        raise TrainingError(
            f"halving is 0, or a factor of 2 or more; received {halving}", code="bad_setting"
        )
    if halving and "epochs" in space:
        raise TrainingError(
            "the space of the search: epochs cannot be drawn with halving, which chooses them",
            code="bad_space",
        )


def _trial(
    work: Path,
    out: Path,
    base: dict[str, Any],
    space: Space,
    seed: int,
    folds: int,
    halving: int,
    number: int,
) -> Trial:
    """Raises TrainingError where its settings are not allowed."""
    changes = drawn(space, seed, number)
    options, recipe = resolve_settings(base, changes)
    if annotated_task(options.task) is not None:
        raise TrainingError("a search is for classifiers", code="other_task")
    rungs = []
    for epochs in rung_epochs(recipe.epochs, halving):
        lower = "" if epochs == recipe.epochs else f"-epochs-{epochs}"
        folder = out / f"trial-{number:03d}{lower}"
        arguments = ["train", work, "--out", folder, "--folds", folds, "--config"]
        settings = out / f"{folder.name}.yaml"
        command = (sys.executable, "-m", "medres", *map(str, arguments), str(settings))
        rungs.append(Rung(epochs, folder, command))
    return Trial(number, changes, tuple(rungs))


def run_trial(command: Sequence[str]) -> str:
    """Compute a trial in a process of its own. Returns "" or its last line, which says why it
    failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return "" if done.returncode == 0 else lines[-1].removeprefix("medres: ")


def _by_processes(trials: list[Trial], workers: int, halving: int) -> Iterator[tuple[int, str]]:
    rule = Halving(halving)

    def compute(trial: Trial) -> str:
        return climb(trial.rungs, run_trial, auc_of, rule.goes_on)

    with ThreadPoolExecutor(workers) as pool:
        faults = pool.map(compute, trials)
        yield from zip([trial.number for trial in trials], faults, strict=True)


def _by_ray(trials: list[Trial], workers: int, halving: int) -> Iterator[tuple[int, str]]:
    """By Ray Tune, at most `workers` trials at a time (1: as many as the cluster has room for)."""
    try:
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
    except ImportError:
        raise TrainingError(
            "Ray Tune is not installed: pip install 'ray[tune]', or leave out --engine ray",
            code="no_ray",
        ) from None
    if not trials:
        return
    rungs = {trial.number: trial.rungs for trial in trials}

    def trainable(config: dict[str, Any]) -> dict[str, Any]:
        def goes_on(rung: int, auc: float) -> bool:
            if halving:  # Ray ends the trial here if it is to stop
                tune.report({"fault": "", "auc": auc, "budget": halving**rung})
            return True

        own = rungs[config["trial"]]
        fault = climb(own, run_trial, auc_of, goes_on)
        return {"fault": fault, "auc": float("nan"), "budget": halving ** len(own)}

    scheduler = None
    if halving:
        scheduler = ASHAScheduler(
            time_attr="budget",
            metric="auc",
            mode="max",
            max_t=halving ** (len(trials[0].rungs) - 1),
            reduction_factor=halving,
        )
    tuner = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(sorted(rungs))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=workers if workers > 1 else None,
            scheduler=scheduler,
        ),
    )
    results = tuner.fit()
    for result in (results[index] for index in range(len(results))):
        config, metrics = result.config or {}, result.metrics or {}
        yield config["trial"], str(result.error) if result.error else metrics["fault"]


def auc_of(out: Path) -> float:
    """The out-of-fold AUC of a cross-validation that has ended; NaN where it is undefined."""
    value = _summary(out)["auc"]
    return float("nan") if value is None else float(value)


def _summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def _state(trial: Trial) -> str:
    rung = trial.last_done
    if rung is None:
        return "not started"
    value = auc_of(rung.out)
    stopped = "" if rung is trial.rungs[-1] else f", stopped after {rung.epochs} epochs"
    return ("AUC undefined" if np.isnan(value) else f"AUC {value:.3f}") + stopped


def _finish(
    out: Path, planned: list[Trial], faults: dict[int, str], reporter: ProgressReporter
) -> Search:
    halved = any(len(trial.rungs) > 1 for trial in planned)
    rows = [_row(trial, faults.get(trial.number), halved) for trial in planned]
    table = pd.DataFrame(rows)
    write_atomic(out / "trials.csv", table.to_csv(index=False).encode())
    finished = [row for row in rows if row["state"] == "ok"]
    defined = [row for row in finished if row["auc"] is not None]
    if not defined:
        raise TrainingError(
            f"no trial has ended with an AUC: {next(iter(faults.values()), 'one class only')}",
            code="run_failed",
        )
    best = planned[max(defined, key=lambda row: row["auc"])["trial"]]
    given = rows[0] if rows[0]["state"] == "ok" else {"auc": None}
    summary = {
        "best_trial": best.number,
        "settings": best.changes,
        "auc": _summary(best.out)["auc"],
        "sampling_se": _summary(best.out)["sampling_se"],
        "auc_of_given_settings": given["auc"],
        "trials": len(planned),
        "failed": len(faults),
        "optimistic": True,
        "why": f"the out-of-fold AUC is that of the best of {len(planned) - len(faults)} trials, "
        f"which was chosen by it. Evaluate model.keras on the test split, which no trial has used",
    }
    if halved:
        summary["stopped"] = len(planned) - len(faults) - len(finished)
    model = out / "model.keras"
    shutil.copyfile(best.out / "model.keras", out / ".model.keras")
    (out / ".model.keras").replace(model)
    write_atomic(out / "search.json", json.dumps(summary, indent=1, default=str).encode())
    reporter.line(f"best: trial {best.number}, out-of-fold {_state(best)} (optimistic)")
    return Search(out, table, summary, model)


def _row(trial: Trial, fault: str | None, halved: bool) -> dict[str, Any]:
    """Of trials.csv. A trial that was stopped has the AUC of its last rung."""
    rung = None if fault else trial.last_done
    known = {} if rung is None else _summary(rung.out)
    whole = rung is trial.rungs[-1]
    return {
        "trial": trial.number,
        "auc": known.get("auc"),
        "sampling_se": known.get("sampling_se"),
        "state": fault or ("ok" if whole else "stopped"),
        **({"epochs": rung.epochs if rung else None} if halved else {}),
        **trial.changes,
    }


def _claim(out: Path, content: dict[str, Any]) -> None:
    """Create `out` with search.yaml, or accept an earlier call of the same search."""
    try:
        text = yaml.safe_dump(content, sort_keys=True)
    except yaml.YAMLError:
        raise TrainingError(
            "a search passes its settings to other processes: give names and numbers instead of "
            "objects",
            code="settings_not_plain",
        ) from None
    file = out / "search.yaml"
    if file.exists() and file.read_text() != text:
        raise TrainingError(
            f"the existing search in {out} has another space or other settings (see search.yaml): "
            f"choose a new folder, or repeat the original command",
            code="other_run",
        )
    if not file.exists() and out.exists() and any(out.iterdir()):
        raise TrainingError(
            f"{out} exists and is not a search of medres: choose a new folder", code="not_a_run"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(file, text.encode())
