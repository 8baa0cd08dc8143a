"""The other side of benchmarks/ingest.py: the same files through MONAI, and through pydicom in a
PyTorch DataLoader.

benchmarks/ingest.py runs it with the python of a separate environment, which you make once:

    python -m venv peers
    peers/bin/pip install torch torchvision monai itk pydicom pylibjpeg pylibjpeg-openjpeg

Each variant reads, rescales to HU and resizes to a float32 tensor (1, SIDE, SIDE), in batches of
32, shuffled, with two worker processes. Resizing is `area`, the cheapest filter of torch that does
not alias. The script prints one JSON line.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

BATCH = 32


class PlainDicom(Dataset):
    """A data set that uses only pydicom and torch."""

    def __init__(self, files: list[str], side: int) -> None:
        self.files, self.side = files, side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, n: int) -> torch.Tensor:
        import pydicom

        dataset = pydicom.dcmread(self.files[n])
        values = dataset.pixel_array.astype("float32") * float(dataset.RescaleSlope) + float(
            dataset.RescaleIntercept
        )
        image = torch.from_numpy(values)[None, None]
        return torch.nn.functional.interpolate(image, size=(self.side, self.side), mode="area")[0]


def monai_dataset(files: list[str], side: int, reader: str, cache: str) -> Dataset:
    from monai.data import PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, SqueezeDim

    flat = (
        [SqueezeDim(dim=-1)] if reader == "ITKReader" else []
    )  # which reads a slice as a volume with one slice
    read = [LoadImage(reader=reader, image_only=True), EnsureChannelFirst(), *flat]
    return PersistentDataset(
        files, Compose([*read, Resize((side, side), mode="area")]), cache_dir=cache
    )


def processor_seconds() -> float:
    """Return the processor seconds of this process and of its finished child processes."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def epoch(dataset: Dataset, workers: int) -> tuple[float, float, int]:
    """Return seconds, processor seconds and images of one pass, including the start of the workers,
    as in real use.
    """
    begun, used, seen = time.perf_counter(), processor_seconds(), 0
    for batch in DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers):
        seen += len(batch)
    return time.perf_counter() - begun, processor_seconds() - used, seen


def main(way: str, listing: str, side: int, workers: int) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    files = Path(listing).read_text().split("\n")
    with tempfile.TemporaryDirectory() as cache:
        if way == "pydicom":
            dataset: Dataset = PlainDicom(files, side)
        else:
            dataset = monai_dataset(files, side, way, cache)
        first, first_cpu, seen = epoch(dataset, workers)
        second, second_cpu, _ = min(epoch(dataset, workers) for _ in range(2))
        size = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
    spent = {"first": first, "second": second, "first_cpu": first_cpu, "second_cpu": second_cpu}
    print(json.dumps({**spent, "images": seen, "cache": size}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
