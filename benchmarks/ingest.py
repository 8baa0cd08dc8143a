"""Compare the speed from DICOM files to training batches with MONAI and with pydicom in a PyTorch
DataLoader, on the same files.

    python benchmarks/ingest.py [--data FOLDER] [--files 2000] [--peers PYTHON] [--side 224]

--data is a folder with uncompressed CT slices; without it, synthetic slices are made. Shifted
copies, all of them different, fill up to --files. --peers is the python of an environment with
torch, monai, itk and pydicom (benchmarks/ingest_peers.py shows how to make one); without it the
peers are left out. All sides read, rescale to HU and resize to SIDE x SIDE with two worker
processes, one side after the other. The files are in the page cache. Imports are not timed; the
start of worker processes is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

import medres
from data_pipelines import ingest, make_cohort, read_stored
from data_pipelines.cache.store import Cache, ensure_cache
from data_pipelines.cache.tf_dataset import Targets, eval_batches, train_batches
from data_pipelines.dicom.header import read_header
from data_pipelines.dicom.writer import derived_uid, save, set_pixels
from data_pipelines.errors import DicomError
from data_pipelines.runtime.worker_pool import map_isolated

BATCH, WORKERS, DECODED = 32, 2, 100
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
)
PEERS = {
    "MONAI PersistentDataset, pydicom reader": "PydicomReader",
    "MONAI PersistentDataset, ITK reader": "ITKReader",
    "PyTorch DataLoader, pydicom": "pydicom",
}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def with_processor(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return seconds, processor seconds (including worker processes) and the result."""
    used = processor_seconds()
    spent, result = timed(work)
    return spent, processor_seconds() - used, result


def processor_seconds() -> float:
    """Return the processor seconds of this process and of its finished child processes."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def slices_of(folder: Path | None, scratch: Path) -> list[Path]:
    """Return CT slices of one size with a rescale, from the given folder or synthetic."""
    if folder is None:
        folder = make_cohort(scratch / "phantom", patients=60)
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = read_header(path)
        except DicomError:
            continue
        if header.is_ct and "LOCALIZER" not in header.image_type and header.columns:
            found.append(path)
    return found


def write_files(
    sources: list[Path], count: int, out: Path, syntax: UID = ExplicitVRLittleEndian
) -> list[str]:
    """Write `count` files: the slices repeatedly, each time shifted by some rows, as other
    patients.
    """
    files = []
    for n, source in zip(range(count), itertools.cycle(sources), strict=False):
        dataset, turn = pydicom.dcmread(source), n // len(sources)
        pixels = np.roll(read_stored(source), 3 * turn, axis=0)
        name = derived_uid("benchmark", n)
        dataset.PatientID = f"{turn}-{dataset.PatientID}"
        dataset.SeriesInstanceUID = derived_uid("benchmark", turn, dataset.SeriesInstanceUID)
        dataset.StudyInstanceUID = derived_uid("benchmark", turn, dataset.StudyInstanceUID)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = name
        dataset.file_meta.TransferSyntaxUID = syntax
        plain = Dataset()  # in the encoding of its transfer syntax, whatever that of the source was
        plain.file_meta = dataset.file_meta
        plain.update({element.tag: element for element in dataset if element.tag.group < 0x7FE0})
        set_pixels(plain, pixels, bits=16)
        save(plain, out / f"{n:05d}.dcm")
        files.append(str(out / f"{n:05d}.dcm"))
    return files


def header_rates(files: list[str]) -> dict[str, float]:
    def plain() -> None:
        for file in files:
            pydicom.dcmread(file, stop_before_pixels=True)

    ours = timed(lambda: [read_header(file) for file in files])[0]
    two = timed(lambda: list(map_isolated(read_header, files, workers=WORKERS)))[0]
    return {
        "ours": len(files) / ours,
        "ours, two": len(files) / two,
        "pydicom": len(files) / timed(plain)[0],
    }


def decode_rates(
    sources: list[Path], scratch: Path
) -> Iterator[tuple[str, float, float, float | None]]:
    """Return per transfer syntax the images per second: this package in one process and in two, and
    pydicom's pixel_array in one (None: it cannot decode it).
    """
    for syntax in SYNTAXES:
        files = write_files(sources, DECODED, scratch / syntax.name, syntax)
        one = timed(lambda files=files: [read_stored(file) for file in files])[0]
        first = time.perf_counter()
        for n, _ in enumerate(map_isolated(read_stored, files, workers=WORKERS)):
            first = time.perf_counter() if n == 0 else first  # the workers have started
        two = time.perf_counter() - first
        try:
            plain = timed(
                lambda files=files: [pydicom.dcmread(file).pixel_array for file in files]
            )[0]
        except (RuntimeError, NotImplementedError):
            plain = None
        yield (
            syntax.name,
            len(files) / one,
            (len(files) - 1) / two,
            None if plain is None else len(files) / plain,
        )


def epoch(cache: Cache, targets: Targets, number: int) -> int:
    """Return the number of images: the shuffled training split, then the others, as in an epoch of
    training.
    """
    parts = [train_batches(cache, targets, BATCH, 0, epoch=number)]
    parts += [eval_batches(cache, targets, BATCH, split) for split in ("tune", "test")]
    return sum(len(label) for part in parts for _, label, _ in part)


def ours(files: list[str], side: int, work: Path) -> dict[str, float]:
    """Return the seconds of ingest, of the first epoch (including the cache) and of the second
    epoch; and the bytes of the cache and of its integers.
    """
    spent, _ = timed(lambda: ingest(Path(files[0]).parent, None, work, workers=WORKERS))
    targets: list[Targets] = []

    def first() -> int:
        cache = ensure_cache(work, f"ct-{side}", workers=WORKERS)
        blank = np.zeros((len(cache.images), 1), np.float32)
        targets.append(Targets("binary", ("none",), blank, blank))
        return epoch(cache, targets[0], 0)

    begun, begun_cpu, seen = with_processor(first)
    cache = ensure_cache(work, f"ct-{side}")
    again, again_cpu, _ = min(
        with_processor(lambda n=n: epoch(cache, targets[0], n)) for n in (1, 2, 3)
    )
    size = sum(path.stat().st_size for path in cache.folder.iterdir())
    return {
        "ingest": spent,
        "first": begun,
        "first_cpu": begun_cpu,
        "second": again,
        "second_cpu": again_cpu,
        "images": seen,
        "cache": size,
        "integers": 2 * side**2 * len(cache.images),
    }


def training_rate(side: int) -> float:
    """Return the images per second that ResNet-18 trains on on this machine."""
    net = medres.classifier(18, (side, side, 1), 1, windows=["lung"])
    net.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    images, labels = np.zeros((BATCH, side, side, 1), np.float32), np.zeros((BATCH, 1), np.float32)
    net.train_on_batch(images, labels)
    return 3 * BATCH / timed(lambda: [net.train_on_batch(images, labels) for _ in range(3)])[0]


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    columns = list(header)
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument(
        "--scratch", type=Path, help="folder for temporary files; default: that of the system"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as folder:
        scratch = Path(folder)
        sources = slices_of(chosen.data, scratch)
        files = write_files(sources, chosen.files, scratch / "files")
        print(
            f"{len(files)} CT slices, {sum(Path(f).stat().st_size for f in files) / 2**20:.0f} "
            f"MiB, {len(sources)} of them distinct\n"
        )
        rates = header_rates(files)
        table(["headers", "a second"], [(name, f"{rate:,.0f}") for name, rate in rates.items()])
        decoded = [
            (name, f"{one:,.0f}", f"{two:,.0f}", "-" if plain is None else f"{plain:,.0f}")
            for name, one, two, plain in decode_rates(sources, scratch)
        ]
        table(["decoded images a second", "ours", "ours, two processes", "pydicom"], decoded)
        compare(files, chosen.side, scratch, chosen.peers)


def compare(files: list[str], side: int, scratch: Path, peers: Path | None) -> None:
    listing = scratch / "files.txt"
    listing.write_text("\n".join(files))
    script = Path(__file__).with_name("ingest_peers.py")
    mine = ours(files, side, scratch / "work")
    found = [("medres", mine)]
    for name, way in PEERS.items() if peers else ():
        command = [str(peers), str(script), way, str(listing), str(side), str(WORKERS)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append((name, json.loads(done.stdout.splitlines()[-1])))
    for when in ("first", "second"):
        rows = []
        for name, spent in found:
            size = f"{spent['cache'] / 2**20:.0f}" if spent["cache"] else "-"
            numbers = [spent[when], spent[f"{when}_cpu"]]
            ratios = [
                f"{number / mine[key]:.1f}"
                for number, key in zip(numbers, (when, f"{when}_cpu"), strict=True)
            ]
            rows.append((name, *(f"{number:.2f}" for number in numbers), *ratios, size))
        table(
            [f"{when} epoch", "s", "processor s", "s / ours", "processor s / ours", "cache, MiB"],
            rows,
        )
    feeds, eats = mine["images"] / mine["second"], training_rate(side)
    print(f"ingest (index, decode, check, split) before it: {mine['ingest']:.1f} s")
    print(f"cache: {mine['cache'] / mine['integers']:.3f} x the bytes of the prepared integers")
    print(
        f"a cached epoch gives {feeds:,.0f} images per second; ResNet-18 trains on {eats:.1f}: "
        f"{feeds / eats:,.0f} x"
    )


if __name__ == "__main__":
    main()
