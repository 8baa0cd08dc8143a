"""Reproduce every figure that the README and the docs quote: `make results` runs those that fit in
an hour on two cores and names the others.

    python benchmarks/results.py DATA OUT [--torch-python PYTHON] [--all] [--list]

DATA holds cxr-pneumonia, cxr-pneumonia-28, cxr-nih1000, ct-contrast, cifar10, hippocampus, nuclei
and bccd, as docs/results.md and benchmarks/RESULTS.md describe them. Each job writes OUT/NAME.log.
A job that has finished well is not run again, so a repeated call resumes an interrupted one. --all
also runs the long jobs. Jobs that need what a person must prepare are only named. Without
--torch-python, jobs that compare with torch or MONAI leave these out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
ENDED = "# ended well after"


@dataclass(frozen=True)
class Job:
    """name; arguments of python, with {names} that `run` fills in; minutes on two cores, None where
    they have not been measured. long: does not fit in the hour. needs: what a person must prepare
    first; such a job is named and never run here.
    """

    name: str
    minutes: int | None
    arguments: str
    long: bool = False
    needs: str = ""

    @property
    def time(self) -> str:
        return "time not measured" if self.minutes is None else f"{self.minutes} minutes"


HOUR = (
    Job("coverage", 8, "{here}/coverage.py"),
    Job("evaluate", 2, "{here}/evaluate.py --report"),
    Job(
        "gradients",
        2,
        "-m medres study gradients {cifar} --depths 20,56,110 --seeds 0,1,2 --out {out}/gradients",
    ),
    Job("kermany", 23, "{here}/kermany.py {data}/cxr-pneumonia {out}/kermany"),
    Job("nih", 17, "{here}/nih.py {data}/cxr-nih1000 {out}/nih"),
    Job("ct_contrast", 4, "{here}/ct_contrast.py {data}/ct-contrast {out}/ct_contrast"),
    Job("demo", 2, "-m medres demo --out {out}/demo"),
    Job("large_table", 1, "{here}/large_table.py"),
    Job(
        "serve",
        1,
        "{here}/serve.py {out}/demo/run/model.keras {out}/demo/dicom/PHANTOM-0002 --requests 1000",
    ),
)
CLASSIFICATION = (
    Job(
        "pneumoniamnist",
        65,
        "{here}/pneumoniamnist.py {data}/cxr-pneumonia-28/pneumoniamnist.npz {out}/pneumoniamnist",
    ),
    Job(
        "depth",
        60,
        "-m medres study depth {cifar} --limit 5000 --epochs 30 --depths 20,56 --out {out}/depth",
    ),
    Job("nih_missing", 17, "{here}/nih.py {data}/cxr-nih1000 {out}/nih_missing --missing 0.3"),
    Job(
        "cifar",
        9,
        "-m pytest -m long {here}/../tests/medres/fitting/test_cifar10.py -k short_training",
    ),
)
SEGMENTATION = (
    Job("segmentation_demo", None, "-m medres demo --task segmentation --out {out}/masks_demo"),
    Job("segmentation_coverage", 6, "{here}/segmentation_coverage.py"),
    Job("hippocampus", 10, "{here}/hippocampus.py {data}/hippocampus"),
    Job("segmentation_hippocampus", 20, "{here}/segmentation.py {data}/hippocampus {out}/hippo"),
    Job("segmentation_nuclei", 25, "{here}/segmentation.py {data}/nuclei {out}/nuclei"),
    Job("segmentation_peers", None, "{here}/segmentation_peers.py {data}/nuclei {torch}"),
    Job("sliding_window", 6, "{here}/sliding_window.py --repeats 3 {torch}"),
    Job(
        "masks_peers",
        None,
        "{here}/masks_peers.py SURFACE_DISTANCE --pairs 100",
        needs="medres, torch and MONAI in one environment, and the source of surface-distance",
    ),
)
DETECTION = (
    Job("detection_demo", None, "-m medres demo --task detection --out {out}/boxes_demo"),
    Job("detection_coverage", None, "{here}/detection_coverage.py"),
    Job("bccd_detector", 10, "{here}/bccd_detector.py {data}/bccd {out}/bccd"),
    Job("detection_peers", 9, "{here}/detection_peers.py {data}/bccd {torch} --epochs 20"),
    Job(
        "street_scenes",
        8,
        "{here}/../examples/driving/street_scenes.py {out}/streets --carla {data}/carla "
        "--epochs 10",
    ),
    Job("decoding", None, "{here}/decoding.py"),
)
READERS = (
    Job("reader_type_one", 2, "{here}/reader_type_one.py"),
    Job("readers_demo", None, "-m medres demo --readers --out {out}/readers_demo"),
    Job("small_samples", None, "{here}/small_samples.py"),
)
SERVING = (
    Job(
        "inference",
        8,
        "{here}/inference.py {out}/kermany/seed-0/model.keras {out}/kermany/work",
    ),
    Job("engines", None, "{here}/engines.py"),
    Job("isolation", None, "{here}/isolation.py --files 100 --rounds 6"),
    Job("hostile_models", None, "{here}/hostile_models.py {out}/demo/run/model.keras"),
    Job(
        "serve_long",
        None,
        "{here}/serve.py {out}/demo/run/model.keras {out}/demo/dicom/PHANTOM-0002 --requests 5000",
    ),
    Job(
        "serve_objects",
        None,
        "{here}/serve.py {out}/demo/run/model.keras {out}/demo/dicom/PHANTOM-0002 --objects",
    ),
    Job(
        "serve_orthanc",
        None,
        "{here}/serve_orthanc.py {out}/demo/run/model.keras {out}/demo/dicom/PHANTOM-0002",
        needs="apt install orthanc orthanc-dicomweb dcmtk",
    ),
)
SPEED_AND_SCALE = (
    Job("augment", 4, "{here}/augment.py --step {torch}"),
    Job("backbones", 10, "{here}/backbones.py --rounds 5 {torch}"),
    Job(
        "throughput",
        12,
        "{here}/throughput.py {out}/kermany/work {out}/throughput --turns 2 {torch}",
    ),
    Job(
        "ingest",
        None,
        "{here}/ingest.py --files 1000 --peers PYTHON",
        needs="an environment of the peers (benchmarks/ingest_peers.py)",
    ),
    Job("pipelines", None, "{here}/pipelines.py"),
    Job("near_duplicates", None, "{here}/near_duplicates.py --images {data}/cxr-nih1000"),
    Job("growth", None, "{here}/growth.py --sizes 1000 10000 --out {out}/growth"),
    Job("ray_files", None, "{here}/ray_files.py --files 10000 --out {out}/ray"),
    Job("distributed", None, "-m pytest -m long {here}/../tests/medres/training/distributed"),
)
LONG = (*CLASSIFICATION, *SEGMENTATION, *DETECTION, *READERS, *SERVING, *SPEED_AND_SCALE)
JOBS = (*HOUR, *(replace(job, long=True) for job in LONG))


def run(job: Job, data: Path, out: Path, torch: str) -> bool:
    """Run one job unless its log says that it finished well. Return whether it did."""
    log = out / f"{job.name}.log"
    if log.exists() and ENDED in log.read_text():
        print(f"{job.name}: already done, see {log}")
        return True
    print(f"{job.name}: {job.time} ...", flush=True)
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
            [sys.executable, *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
            env=os.environ | {"MEDRES_DATA": str(data)},
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
    chosen = [job for job in JOBS if not job.needs and (options.all or not job.long)]
    left = [job for job in JOBS if job not in chosen]
    if options.list:
        for job in JOBS:
            needs = f" (needs: {job.needs})" if job.needs else ""
            print(
                f"{job.name:24s} {job.time}{'' if job in chosen else ', not run'}: "
                f"python {job.arguments}{needs}"
            )
        return
    options.out.mkdir(parents=True, exist_ok=True)
    failed = [
        job.name
        for job in chosen
        if not run(job, options.data.resolve(), options.out.resolve(), options.torch_python)
    ]
    if left:
        too_long = ", ".join(f"{job.name} ({job.time})" for job in left if not job.needs)
        by_hand = ", ".join(f"{job.name} ({job.needs})" for job in left if job.needs)
        if too_long:
            print(
                f"not run, because they do not fit in the hour: {too_long}. Add --all to run them"
            )
        print(f"not run, because they need what is not prepared here: {by_hand}. See --list")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see the logs in {options.out}")


if __name__ == "__main__":
    main()
