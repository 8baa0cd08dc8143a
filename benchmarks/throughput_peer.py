"""The other side of benchmarks/throughput.py: the same images through a PyTorch loop with the
ResNet-18 of torchvision and two loader processes.

benchmarks/throughput.py runs it with the python of a separate environment, which you make once:

    python -m venv peers && peers/bin/pip install torch torchvision monai

Arguments: FILE.npz (image (n, 1, rows, cols) uint8, label (n,)), batch size, epochs. Each image is
transformed separately in a loader process, as is usual; weights and batches are channels-last. The
script prints one JSON line: the seconds of the fastest epoch by transform and dtype, without the
first epoch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from augment import chest_chains
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    """Images to 0..1, transformed, then to -1..1."""

    def __init__(self, image: np.ndarray, label: np.ndarray, transform: Callable) -> None:
        self.image, self.label, self.transform = image, label, transform

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.transform(torch.from_numpy(self.image[n].astype("float32") / 255))
        return torch.as_tensor(image) * 2 - 1, torch.tensor([float(self.label[n])])


def epochs_of(data: Dataset, batch: int, epochs: int, dtype: torch.dtype) -> float:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=1)
    net.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
    loader = DataLoader(
        data, batch, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )
    times = []
    for _ in range(epochs):
        begun = time.perf_counter()
        for image, label in loader:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                logits = net(image.contiguous(memory_format=torch.channels_last))
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), label)
            loss.backward()
            optimizer.step()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def main() -> None:
    file, batch, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    given = np.load(file)
    chains = dict(
        zip(("MONAI", "torchvision v2"), chest_chains(given["image"].shape[-1]), strict=True)
    )
    found = {}
    for name, transform in chains.items():
        data = Pictures(given["image"], given["label"], transform)
        for dtype in (torch.float32, torch.bfloat16):
            found[f"torch, {name}, {str(dtype)[6:]}"] = epochs_of(data, batch, epochs, dtype)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
