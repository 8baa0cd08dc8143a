"""Reproduce every figure that the README and the docs quote: `make results` runs those that fit in
an hour on two cores and names the others.

    python benchmarks/results.py DATA OUT [--torch-python PYTHON] [--all] [--list]

DATA holds cxr-pneumonia, cxr-pneumonia-28, cxr-nih1000, ct-contrast, cifar10 and hippocampus, as
docs/results.md describes them. Each job writes OUT/NAME.log. A job that has finished well is not
run again, so a repeated call resumes an interrupted one. --all also runs the long jobs. Without
--torch-python, jobs that compare with torch or MONAI leave these out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ENDED = "# ended well after"


@dataclass(frozen=True)
class Job:
    """name; minutes on two cores; arguments of python, with {names} that `run` fills in. long: does
    not fit in the hour.
    """

    name: str
    minutes: int
    arguments: str
    long: bool = False


JOBS = (
    Job("coverage", 4, "{here}/coverage.py"),
    Job("evaluate", 2, "{here}/evaluate.py --report"),
    Job("augment", 4, "{here}/augment.py --step {torch}"),
    Job(
        "gradients",
        2,
        "-m medres study gradients {cifar} --depths 20,56,110 --seeds 0,1,2 --out {out}/gradients",
    ),
    Job("kermany", 23, "{here}/kermany.py {data}/cxr-pneumonia {out}/kermany"),
    Job("nih", 17, "{here}/nih.py {data}/cxr-nih1000 {out}/nih"),
    Job("ct_contrast", 4, "{here}/ct_contrast.py {data}/ct-contrast {out}/ct_contrast"),
    Job("demo", 2, "-m medres demo --out {out}/demo"),
    Job(
        "pneumoniamnist",
        65,
        "{here}/pneumoniamnist.py {data}/cxr-pneumonia-28/pneumoniamnist.npz {out}/pneumoniamnist",
        long=True,
    ),
    Job(
        "depth",
        60,
        "-m medres study depth {cifar} --limit 5000 --epochs 30 --depths 20,56 --out {out}/depth",
        long=True,
    ),
    Job(
        "nih_missing",
        17,
        "{here}/nih.py {data}/cxr-nih1000 {out}/nih_missing --missing 0.3",
        long=True,
    ),
    Job("segmentation_coverage", 6, "{here}/segmentation_coverage.py", long=True),
    Job("hippocampus", 10, "{here}/hippocampus.py {data}/hippocampus", long=True),
    Job(
        "segmentation_hippocampus",
        20,
        "{here}/segmentation.py {data}/hippocampus {out}/segmentation_hippocampus",
        long=True,
    ),
    Job(
        "segmentation_nuclei",
        25,
        "{here}/segmentation.py {data}/nuclei {out}/segmentation_nuclei",
        long=True,
    ),
    Job("sliding_window", 6, "{here}/sliding_window.py --repeats 3 {torch}", long=True),
    Job("backbones", 10, "{here}/backbones.py --rounds 5 {torch}", long=True),
    Job(
        "throughput",
        12,
        "{here}/throughput.py {out}/kermany/work {out}/throughput --turns 2 {torch}",
        long=True,
    ),
    Job(
        "inference",
        8,
        "{here}/inference.py {out}/kermany/seed-0/model.keras {out}/kermany/work",
        long=True,
    ),
)


def run(job: Job, data: Path, out: Path, torch: str) -> bool:
    """Run one job unless its log says that it finished well. Return whether it did."""
    log = out / f"{job.name}.log"
    if log.exists() and ENDED in log.read_text():
        print(f"{job.name}: already done, see {log}")
        return True
    print(f"{job.name}: about {job.minutes} minutes ...", flush=True)
    cifar = data / "cifar10" / "cifar10-jpg.tar.gz"
    filled = [
        part.format(here=HERE, data=data, out=out, cifar=cifar, torch="{torch}")
        for part in job.arguments.split()
    ]
    arguments = [part for part in filled if part != "{torch}"] + (
        ["--torch-python", torch] if "{torch}" in filled and torch else []
    )
    begun = time.monotonic()
    with log.open("w") as file:
        status = subprocess.run(
            [sys.executable, *arguments], stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
        if status == 0:
            file.write(f"{ENDED} {(time.monotonic() - begun) / 60:.1f} minutes\n")
    print(
        "".join(f"    {line}\n" for line in log.read_text().splitlines()[-12:]), end="", flush=True
    )
    return status == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--torch-python",
        default="",
        help="Python of an environment with torch, torchvision and MONAI",
    )
    parser.add_argument("--all", action="store_true", help="also run the long jobs")
    parser.add_argument("--list", action="store_true", help="only list the jobs that would run")
    options = parser.parse_args()
    chosen = [job for job in JOBS if options.all or not job.long]
    left = [job for job in JOBS if job not in chosen]
    if options.list:
        for job in JOBS:
            print(
                f"{job.name:15s} {job.minutes:3d} minutes{'' if job in chosen else ', not run'}: "
                f"python {job.arguments}"
            )
        return
    options.out.mkdir(parents=True, exist_ok=True)
    failed = [
        job.name
        for job in chosen
        if not run(job, options.data.resolve(), options.out.resolve(), options.torch_python)
    ]
    if left:
        names = ", ".join(f"{job.name} ({job.minutes} minutes)" for job in left)
        print(f"not run, because they do not fit in one hour: {names}. Add --all to run them")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see the logs in {options.out}")


if __name__ == "__main__":
    main()
