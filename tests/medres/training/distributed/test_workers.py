"""Training over processes of this machine, on a tiny cohort: the same numbers as one process, the
same weights on all workers, and the same result after a worker was killed.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import rewrite
from worker_processes import BOUND, TINY, distance, of_srun, start_workers, weights

from data_pipelines.ingestion import Manifest


@pytest.mark.timeout(9000)
@pytest.mark.long  # eight processes with TensorFlow, on a machine that may have two cores
def test_workers_train_as_one_process_and_resume_bit_for_bit(
    tiny_work: Path, tmp_path: Path
) -> None:
    import medres
    from medres.progress import ProgressReporter

    other = tmp_path / "other"
    shutil.copytree(tiny_work, other)
    table = Manifest.load(other).table
    train = table.index[table["split"] == "train"][:1]
    table.loc[train, "label:square"] = 1 - table.loc[train, "label:square"].astype(float)
    rewrite(other, table)
    n_train = int((table["split"] == "train").sum())
    steps = n_train // TINY["batch_size"]
    assert steps * TINY["epochs"] <= 12
    settings = {"batch": {}, "group": {"norm": "group", "ema": 0.0}}
    for name, changes in settings.items():
        medres.train(
            tiny_work, out=tmp_path / "one" / name, progress=ProgressReporter(), **(TINY | changes)
        )
    runs: list[dict[str, Any]] = [
        {"name": "seeds", "settings": TINY, "of_rank": {"1": {"settings": {"seed": 2}}}},
        {"name": "data", "settings": TINY, "of_rank": {"1": {"work": str(other)}}},
        *({"name": name, "settings": TINY | changes} for name, changes in settings.items()),
        {
            "name": "killed",
            "settings": TINY | {"checkpoint_steps": 2},
            "kill": [1, steps + 4],  # in the second epoch, after its first checkpoint
        },
    ]
    two = start_workers(2, tiny_work, tmp_path / "two", runs)

    assert two.codes("seeds") == ["other_settings"] * 2
    assert two.codes("data") == ["other_data"] * 2
    assert not (tmp_path / "two" / "seeds").exists()
    assert not (tmp_path / "two" / "data").exists()
    for name in settings:
        assert two.codes(name) == [None, None]
        assert distance(tmp_path / "one" / name, tmp_path / "two" / name) < BOUND
        chief, worker = two.digests(name)
        assert chief == worker
        assert len(chief) == TINY["epochs"]
    logs = sorted(path.name for path in (tmp_path / "two" / "batch" / "workers").iterdir())
    assert logs == ["worker-0.log", "worker-1.log"]

    assert two.exit_codes == [0, -signal.SIGKILL]
    assert two.codes("killed") == ["worker_lost"]
    seconds = two.lines[0][-1]["ended"] - two.lines[1][-1]["killed"]
    assert seconds < 60
    assert not (tmp_path / "two" / "killed" / "model.keras").exists()
    resumed_run = [runs[-1] | {"kill": None}]
    again = start_workers(2, tiny_work, tmp_path / "two", resumed_run, of_srun)
    assert again.codes("killed") == [None, None]
    whole, resumed = (weights(tmp_path / "two" / name) for name in ("batch", "killed"))
    assert all((whole[name] == resumed[name]).all() for name in whole)
    assert (
        "resuming after epoch 1, batch 2"
        in (tmp_path / "two" / "killed" / "workers" / "worker-1.log").read_text()
    )

    four = start_workers(4, tiny_work, tmp_path / "four", [runs[2]])
    assert four.codes("batch") == [None] * 4
    assert len({tuple(digests) for digests in four.digests("batch")}) == 1
    assert distance(tmp_path / "one" / "batch", tmp_path / "four" / "batch") < BOUND
    figures = {
        f"{folder}/{name}": distance(tmp_path / "one" / name, tmp_path / folder / name)
        for folder, name in (("two", "batch"), ("two", "group"), ("four", "batch"))
    }
    print("largest difference of a weight from one process:", figures, "lost after", seconds)
