"""One image of a file that holds many, and the binary files of CIFAR-10 and CIFAR-100.

A binary file of CIFAR is a sequence of records without a header: one byte of label (two in
CIFAR-100: coarse, fine), then 32 x 32 bytes each of red, green and blue
(https://www.cs.toronto.edu/~kriz/cifar.html). Only their official names are recognized. The pickled
form of the same data runs code when it is opened, and is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.errors import TruncatedPixelData
from data_pipelines.kinds import FileFormat
from data_pipelines.pixels.grayscale import Integers

_SIDE = 32
#: names of the files -> number of label bytes and split
_CIFAR_FILES = (
    (re.compile(r"data_batch_[1-9]\.bin"), 1, "train"),
    (re.compile(r"test_batch\.bin"), 1, "test"),
    (re.compile(r"train\.bin"), 2, "train"),
    (re.compile(r"test\.bin"), 2, "test"),
)


@dataclass(frozen=True)
class NpzImage:
    """One image of a file of arrays. name: split/number, for example test/17. pixels: (rows,
    columns), or in color (rows, columns, 3). labels: its integers.
    """

    name: str
    split: str
    pixels: Integers
    labels: tuple[int, ...]
    file_format: FileFormat = "npz"


def is_cifar_name(path: Path | str) -> bool:
    """Whether a file is a binary file of CIFAR by its name.

    >>> is_cifar_name("cifar-10-batches-bin/data_batch_1.bin"), is_cifar_name("other.bin")
    (True, False)
    """
    return any(pattern.fullmatch(Path(path).name) for pattern, _, _ in _CIFAR_FILES)


def parse_cifar(data: bytes, path: Path | str) -> dict[str, NpzImage]:
    """All images of a binary file of CIFAR by their names; of CIFAR-100 the fine label. Raises
    TruncatedPixelData where the size is no whole number of records.
    """
    n_labels, split = next(
        (count, split)
        for pattern, count, split in _CIFAR_FILES
        if pattern.fullmatch(Path(path).name)
    )
    size = n_labels + 3 * _SIDE * _SIDE
    if not data or len(data) % size:
        raise TruncatedPixelData(
            f"The file has {len(data)} bytes, and a record of CIFAR has {size}: fetch it again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    pixels = records[:, n_labels:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return {
        f"{split}/{n}": NpzImage(
            f"{split}/{n}",
            split,
            np.ascontiguousarray(image),
            (int(record[n_labels - 1]),),
            "cifar",
        )
        for n, (record, image) in enumerate(zip(records, pixels, strict=True))
    }
