"""Training over processes of this machine: starts them, and compares what they write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from distributed_ports import free_ports

from medres.training import checkpoint

TINY = {
    "model": "resnet10",
    "preset": "xray-32",
    "width": 8,
    "batch_size": 8,
    "seed": 1,
    "optimizer": "sgd",
    "epochs": 2,
    "schedule": "steps",
    "clip": 0.5,
    "ema": 0.9,
}
BOUND = 1e-5

WORKER = """
import hashlib, json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import medres
from medres.errors import MedresError
from medres.training.loop import Loop
from medres.training.train_step import Trainer
work, out, runs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
config = os.environ.get("TF_CONFIG")
rank = json.loads(config)["task"]["index"] if config else int(os.environ["SLURM_PROCID"])
state, finish, step = {}, Loop._finish_epoch, Trainer.step

def finish_epoch(self, epoch, row):
    digest = hashlib.sha256()
    for group in self.trainer.variables().values():
        for variable in group:
            digest.update(variable.numpy().tobytes())
    print(json.dumps({"run": state["name"], "epoch": epoch, "digest": digest.hexdigest()}))
    finish(self, epoch, row)

def killed_step(self, batch, number):
    state["steps"] += 1
    if state.get("kill") == [rank, state["steps"]]:
        print(json.dumps({"run": state["name"], "killed": time.time()}), flush=True)
        os.kill(os.getpid(), 9)
    step(self, batch, number)

Loop._finish_epoch, Trainer.step = finish_epoch, killed_step
for run in runs:
    own = run.get("of_rank", {}).get(str(rank), {})
    settings = {**run["settings"], **own.get("settings", {})}
    state.update(name=run["name"], steps=0, kill=run.get("kill"))
    try:
        medres.train(own.get("work", work), out=f"{out}/{run['name']}", **settings)
        code = None
    except MedresError as error:
        code = error.code
    print(json.dumps({"run": run["name"], "code": code, "ended": time.time()}), flush=True)
"""


class Ended:
    """What the workers of one start have printed, by rank, and their exit codes."""

    def __init__(self, lines: list[list[dict[str, Any]]], codes: list[int]) -> None:
        self.lines, self.exit_codes = lines, codes

    def codes(self, run: str) -> list[Any]:
        return [
            line["code"]
            for of in self.lines
            for line in of
            if line["run"] == run and "code" in line
        ]

    def digests(self, run: str) -> list[list[str]]:
        """By rank, one for each epoch."""
        return [
            [line["digest"] for line in of if line["run"] == run and "digest" in line]
            for of in self.lines
        ]


def of_tf_config(addresses: list[str], rank: int) -> dict[str, str]:
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    return {"TF_CONFIG": json.dumps(task)}


def of_srun(addresses: list[str], rank: int) -> dict[str, str]:
    """What `srun --ntasks 2` sets for two tasks on this machine."""
    return {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_JOB_ID": str(os.getpid()),
    }


def start_workers(
    size: int, work: Path, out: Path, runs: list[dict[str, Any]], named: Any = of_tf_config
) -> Ended:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(size)]
    processes = []
    for rank in range(size):
        with (out.parent / f"{out.name}-{rank}.err").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(work), str(out), json.dumps(runs)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "MEDRES_JOIN_SECONDS": "300", **named(addresses, rank)},
            )
        processes.append(process)
    try:
        printed = [process.communicate(timeout=3000)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.stdout.close()
            process.wait()
    lines = [[json.loads(line) for line in text.splitlines()] for text in printed]
    return Ended(lines, [process.returncode for process in processes])


def weights(run: Path) -> dict[str, np.ndarray]:
    arrays, _ = checkpoint.read(max(run.glob("checkpoints/epoch-*.npz")))
    return arrays


def distance(first: Path, second: Path) -> float:
    one, other = weights(first), weights(second)
    assert {*one} == {*other}
    names = [name for name in one if name.startswith(("model/", "average/"))]
    return max(float(np.abs(one[name] - other[name]).max()) for name in names)
