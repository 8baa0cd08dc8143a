"""Segmentation beside the peers: the same arrays, split, batches, loss, optimizer and epochs.

    python -m venv PEERS && PEERS/bin/pip install torch monai segmentation-models-pytorch
    python benchmarks/segmentation_peers.py DATA/hippocampus --torch-python PEERS/bin/python
    python benchmarks/segmentation_peers.py DATA/nuclei --torch-python PEERS/bin/python
        [--epochs 10] [--seed 0] [--width 64] [--limit N] [--sides 32,64,32]

hippocampus: `medres.segmenter(10)` and MONAI's FlexibleUNet("resnet10", spatial_dims=3), volumes of
64 x 64 x 64 at 1 mm. nuclei: `medres.segmenter(18)` and segmentation_models_pytorch's U-Net on
resnet18, the gray fields of 256 x 256. Both nets of a pair are trained from scratch with Dice and
cross-entropy, AdamW (3e-4, cosine, weight decay 1e-4), without augmentation. Each runs in a process
of its own; they take turns, epoch by epoch, so that a busy moment of the machine affects both. A
quarter of the patients, drawn by the seed, is the test; the weights after the last epoch are tested
once. Without --torch-python the peers are left out.

Prints Dice by class, the difference with its 95 % interval over patients, and seconds per epoch, by
the clock and of the processor; where other programs run, the latter compare better.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peer_process import PeerProcess

SIDES = {"hippocampus": (64, 64, 64), "nuclei": (256, 256)}  # by default; multiples of 32
CLASSES = {"hippocampus": ("anterior", "posterior"), "nuclei": ("nucleus",)}
BATCH = {"hippocampus": 2, "nuclei": 8}
RATE, DECAY = 3e-4, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--torch-python")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=64, help="of medres; the peers have 64")
    parser.add_argument("--limit", type=int, help="use this number of images, to try the script")
    parser.add_argument("--sides", help="of the middle of each image that is used")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sides:
        SIDES[given.data.name] = tuple(map(int, given.sides.split(",")))
    if given.worker:
        _work(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        _prepare(given, path)
        names = ["medres", *(["peer"] if given.torch_python else [])]
        workers = {name: _started(name, given, path) for name in names}
        seconds: dict[str, list[list[float]]] = {name: [] for name in names}
        for epoch in range(given.epochs):
            for name, worker in workers.items():
                seconds[name].append(worker.ask("epoch"))
                clock, processor = seconds[name][-1]
                shown = f"{clock:.0f} s, {processor:.0f} s of the processor"
                print(f"epoch {epoch + 1} {name}: {shown}", flush=True)
        dice = {name: np.array(worker.ask("test"), float) for name, worker in workers.items()}
        counts = {name: worker.ask("parameters") for name, worker in workers.items()}
    task = given.data.name
    for name in names:
        shown = ", ".join(
            f"{c} {v:.3f}" for c, v in zip(CLASSES[task], np.nanmean(dice[name], 0), strict=True)
        )
        print(f"{name}: {counts[name]:,} parameters, Dice {shown}")
    if "peer" in dice:
        _compare(task, dice, seconds)


def _compare(task: str, dice: dict[str, Any], seconds: dict[str, list[list[float]]]) -> None:
    from medres.evaluate.statistics.patient_means import mean_over_patients

    for n, name in enumerate(CLASSES[task]):
        off = dice["medres"][:, n] - dice["peer"][:, n]
        found = mean_over_patients(off, np.arange(len(off)), 0.95)
        bounds = "" if found.bounds is None else " ({:+.3f} to {:+.3f})".format(*found.bounds)
        print(f"{name}: medres - peer {found.estimate or 0.0:+.3f}{bounds}")
    later = slice(1, None) if len(seconds["peer"]) > 1 else slice(None)  # the first compiles
    for i, what in enumerate(("by the clock", "of the processor")):
        ours, theirs = (median(row[i] for row in seconds[x][later]) for x in ("medres", "peer"))
        print(f"seconds per epoch {what}: {ours:.1f} / {theirs:.1f} = {ours / theirs:.2f}")


def _started(name: str, given: argparse.Namespace, arrays: Path) -> PeerProcess:
    """The process that trains one net."""
    python = sys.executable if name == "medres" else given.torch_python
    command = [python, __file__, str(given.data), "--worker", f"{name}:{arrays}"]
    for option in ("epochs", "seed", "width"):
        command += [f"--{option}", str(getattr(given, option))]
    command += ["--sides", ",".join(map(str, SIDES[given.data.name]))]
    return PeerProcess(command)


def _prepare(given: argparse.Namespace, path: Path) -> None:
    """Images (n, *sides, 1) of mean 0.5 and deviation 0.5; labels, and where they count."""
    task = given.data.name
    images, labels, counted = zip(*_cases(given.data, task, given.limit), strict=True)
    order = np.random.default_rng(given.seed).permutation(len(images))
    n_test = max(1, len(images) // 4)
    arrays = {}
    for split, at in (("test", order[:n_test]), ("train", order[n_test:])):
        arrays[f"{split}_x"] = np.stack([images[i] for i in at])[..., None].astype(np.float32)
        arrays[f"{split}_y"] = np.stack([labels[i] for i in at]).astype(np.int32)
        arrays[f"{split}_counted"] = np.stack([counted[i] for i in at])
    np.savez(path, **arrays)


def _cases(data: Path, task: str, limit: int | None) -> Iterator[tuple[np.ndarray, ...]]:
    sides = SIDES[task]
    for path in sorted((data / "images").iterdir())[:limit]:
        image, label = _read(path), _read(data / "labels" / path.name)
        if task == "nuclei":
            if image.shape != (256, 256):
                continue
            label = label > 0
        image = (image - image.mean()) / (2 * max(float(image.std()), 1e-6)) + 0.5
        known = np.ones(image.shape, bool)
        fills = (image, 0.5), (label, 0), (known, False)
        yield tuple(_centered(values, sides, fill) for values, fill in fills)


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".gz":
        import nibabel

        return np.asarray(nibabel.load(path).dataobj).astype(np.float32)
    from PIL import Image

    with Image.open(path) as image:
        values = np.asarray(image.convert("L") if image.mode in ("RGB", "RGBA") else image)
    return values.astype(np.float32)


def _centered(volume: np.ndarray, size: tuple[int, ...], fill: float) -> np.ndarray:
    """The middle of the volume, or the volume in the middle, along each axis."""
    for axis, n in enumerate(size):
        missing = n - volume.shape[axis]
        border = [(0, 0)] * volume.ndim
        border[axis] = (max(missing, 0) // 2, max(missing, 0) - max(missing, 0) // 2)
        volume = np.pad(volume, border, constant_values=fill)
        start = max(-missing, 0) // 2
        volume = volume.take(range(start, start + n), axis)
    return volume


def _work(given: argparse.Namespace) -> None:
    name, _, path = given.worker.partition(":")
    with np.load(path) as file:
        arrays = dict(file)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    net = (_Medres if name == "medres" else _Peer)(given, arrays)
    rng = np.random.default_rng(given.seed)
    for line in sys.stdin:
        what, result = line.strip(), None
        if what == "epoch":
            order = rng.permutation(len(arrays["train_x"]))
            clock, processor = time.perf_counter(), time.process_time()
            net.epoch(arrays["train_x"][order], arrays["train_y"][order])
            result = [time.perf_counter() - clock, time.process_time() - processor]
        elif what == "test":
            n = len(CLASSES[given.data.name])
            result = [
                [_dice(net.labels(x), y, known, c) for c in range(1, n + 1)]
                for x, y, known in zip(
                    *(arrays[f"test_{part}"] for part in ("x", "y", "counted")), strict=True
                )
            ]
        else:
            result = net.parameters
        answers.write(json.dumps(result) + "\n")
        answers.flush()


def _dice(answer: np.ndarray, truth: np.ndarray, known: np.ndarray, value: int) -> float:
    a, b = (answer == value) & known, (truth == value) & known
    return float("nan") if not b.any() else float(2 * (a & b).sum() / (a.sum() + b.sum()))


class _Medres:
    def __init__(self, given: argparse.Namespace, arrays: dict[str, np.ndarray]) -> None:
        import keras

        import medres
        from medres.backbones import fused_training_copy

        keras.utils.set_random_seed(given.seed)
        task = given.data.name
        self.batch = BATCH[task]
        variant, classes = (10 if len(SIDES[task]) == 3 else 18), len(CLASSES[task]) + 1
        self.model = medres.segmenter(variant, (*SIDES[task], 1), classes, width=given.width)
        self.trained = fused_training_copy(self.model)
        steps = given.epochs * -(-len(arrays["train_x"]) // self.batch)
        rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
        self.trained.compile(
            keras.optimizers.AdamW(rate, DECAY), medres.losses.DiceCrossentropy(), jit_compile=False
        )
        self.parameters = self.model.count_params()

    def epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        self.trained.fit(x, y, batch_size=self.batch, shuffle=False, verbose=0)

    def labels(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.model(x[None], training=False))[0].argmax(axis=-1)


class _Peer:
    def __init__(self, given: argparse.Namespace, arrays: dict[str, np.ndarray]) -> None:
        import torch
        from monai.losses import DiceCELoss

        torch.manual_seed(given.seed)
        task = given.data.name
        self.torch, self.batch, classes = torch, BATCH[task], len(CLASSES[task]) + 1
        if len(SIDES[task]) == 3:
            from monai.networks.nets import FlexibleUNet

            self.net = FlexibleUNet(1, classes, "resnet10", pretrained=False, spatial_dims=3)
        else:
            import segmentation_models_pytorch as smp

            self.net = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=classes)
        # the constants of medres.losses.DiceCrossentropy, so that both losses are the same number
        self.loss = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            smooth_nr=1.0,
            smooth_dr=1.0,
        )
        self.optimizer = torch.optim.AdamW(self.net.parameters(), RATE, weight_decay=DECAY)
        steps = given.epochs * -(-len(arrays["train_x"]) // self.batch)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.parameters = sum(p.numel() for p in self.net.parameters())

    def epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        self.net.train()
        for start in range(0, len(x), self.batch):
            image = self.torch.from_numpy(np.moveaxis(x[start : start + self.batch], -1, 1).copy())
            label = self.torch.from_numpy(y[start : start + self.batch, None].astype(np.int64))
            self.optimizer.zero_grad()
            self.loss(self.net(image), label).backward()
            self.optimizer.step()
            self.schedule.step()

    def labels(self, x: np.ndarray) -> np.ndarray:
        self.net.eval()
        with self.torch.no_grad():
            scores = self.net(self.torch.from_numpy(np.moveaxis(x[None], -1, 1).copy()))
        return scores[0].numpy().argmax(axis=0)


if __name__ == "__main__":
    main()
