"""srun on a Slurm cluster of two nodes trains as one process does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from worker_processes import BOUND, TINY, distance

TWO_NODES = Path(__file__).parents[3] / "slurm_two_nodes.sh"
PROGRAMS = ("slurmctld", "slurmd", "srun", "sinfo", "ip", "nsenter", "unshare")
SECONDS = 2400


def without_slurm() -> str:
    """Why the cluster of Slurm cannot be made here; "" where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{missing[0]} is not installed (Debian: slurm-wlm, iproute2)"
    if os.getuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        return "network namespaces need root"
    return ""


@pytest.fixture(scope="module")
def one_process(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process. It also builds the cache."""
    import medres
    from medres.progress import ProgressReporter

    out = tmp_path_factory.mktemp("one") / "run"
    medres.train(tiny_work, out=out, progress=ProgressReporter(), **TINY)
    return out


@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.long  # Slurm's daemons, and two processes with TensorFlow
def test_srun_trains_on_two_nodes(tiny_work: Path, one_process: Path, tmp_path: Path) -> None:
    if reason := without_slurm():
        pytest.skip(reason)
    out = tmp_path / "run"
    settings = [text for name, value in TINY.items() for text in ("--set", f"{name}={value}")]
    train = [sys.executable, "-m", "medres", "train", str(tiny_work), "--out", str(out)]
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    done = subprocess.run(
        [str(TWO_NODES), str(slurm), *train, *settings],
        env={**os.environ, "MEDRES_JOIN_SECONDS": "300"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    logs = [(out / "workers" / f"worker-{rank}.log").read_text() for rank in (0, 1)]
    assert "worker 0 on node1" in logs[0]
    assert "worker 1 on node2" in logs[1]
    assert (out / "model.keras").exists()
    assert distance(one_process, out) < BOUND
    assert "0: model: " in done.stdout
    assert "1: " not in done.stdout  # only the chief says something
