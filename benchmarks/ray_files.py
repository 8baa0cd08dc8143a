"""Many tiny files over two Ray workers, one of which is killed: is every file accounted for, and is
the manifest that of one machine?

    python benchmarks/ray_files.py [--files 50000] [--out FOLDER]

FOLDER (a temporary one by default) gets ray_files.json. One file in a thousand is damaged, one is
no image. The first worker that works after a quarter of the files is killed with SIGKILL. Exit code
1 if a row is missing, twice or different.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.ingestion import ingest
from data_pipelines.runtime.engines import LOCAL, opened_engine

WRITTEN = ("manifest.parquet", "quarantine.csv", "ingest.json")
TASK = b"ray::run_task"


def files(folder: Path, count: int) -> None:
    """PNG files of 16 x 16; some are damaged, and some are texts."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16)).astype(np.uint8)
    for n in range(count):
        path = folder / f"{n:07}.png"
        if n % 1000 == 500:
            path.with_suffix(".dcm").write_bytes(bytes(128) + b"DICM" + bytes([1] * 9))
        elif n % 1000 == 600:
            path.with_suffix(".txt").write_text("no image")
        else:
            Image.fromarray(pixels[n]).save(path)


def tasks_below(parent: int) -> list[int]:
    """The processes below a process that work on a task."""
    parents, tasks = dict[int, int](), list[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(status[1])
            if TASK in (folder / "cmdline").read_bytes():
                tasks.append(int(folder.name))
        except OSError:
            continue

    def is_below(process: int) -> bool:
        while process > 1 and process != parent:
            process = parents.get(process, 0)
        return process == parent

    return [process for process in tasks if is_below(process)]


class Killer:
    """A progress callback that kills one worker."""

    killed = 0
    at = 0

    def __call__(self, done: int, total: int) -> None:
        if self.killed or done < total / 4:
            return
        for process in tasks_below(os.getpid())[:1]:
            os.kill(process, signal.SIGKILL)
            self.killed, self.at = process, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="ray-files-"))
    os.environ["MEDRES_KEY"] = "ab" * 32
    import ray

    with tempfile.TemporaryDirectory(prefix="ray-files-") as folder:
        work, killer = Path(folder), Killer()
        files(work / "in", options.files)
        start = time.perf_counter()
        read = {"units": "display", "engine": LOCAL, "progress": lambda done, total: None}
        ingest(work / "in", None, work / "local", **read)
        local = time.perf_counter() - start
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        start = time.perf_counter()
        with opened_engine("ray") as engine:
            read |= {"engine": engine, "progress": killer}
            s = ingest(work / "in", None, work / "ray", **read).summary
        seconds = time.perf_counter() - start
        ray.shutdown()
        equal = {
            name: (work / "local" / name).read_bytes() == (work / "ray" / name).read_bytes()
            for name in WRITTEN
        }
    states = ("ok", "repaired", "quarantined", "skipped")
    result = {
        **{name: s[name] for name in ("given", *states)},
        "accounted": s["given"] == sum(s[name] for name in states) == options.files,
        "equal": equal,
        "killed_after": killer.at,
        "seconds_local": round(local, 1),
        "seconds_ray": round(seconds, 1),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "ray_files.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1), f"written to {out}", sep="\n")
    if not (result["accounted"] and all(equal.values()) and killer.killed):
        sys.exit(1)


if __name__ == "__main__":
    main()
