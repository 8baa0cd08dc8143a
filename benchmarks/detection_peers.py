"""A detector beside torchvision's FCOS: the same images, batches, flips, optimizer and epochs.

    python -m venv PEERS && PEERS/bin/pip install torch torchvision
    python benchmarks/detection_peers.py DATA/bccd --torch-python PEERS/bin/python
        [--epochs 30] [--size 96 128] [--rate 1e-3] [--seed 0] [--limit N]

`medres.detector(18)` and torchvision's FCOS on resnet18, both from random weights, with levels of
stride 4 to 32, 64 channels and two convolutions in each head, group norm in the heads and batch
norm in the backbone. Both train on the published train split of BCCD with AdamW (cosine, weight
decay 1e-4, gradient clipped at 5), batches of 8 and mirrored images, on two threads, each with its
own loss. Each runs in a process of its own; they take turns, epoch by epoch, so that a busy moment
of the machine affects both. The weights after the last epoch are tested once, on the published test
split, with the same thresholds (score .05, overlap .6, 100 boxes). Without --torch-python the peer
is left out.

Prints average precision by class, its difference with a 95 % interval over images, and wall and
processor seconds per epoch.
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

CLASSES = ("RBC", "WBC", "Platelets")
LEVELS, STRIDES = (2, 3, 4, 5), (4, 8, 16, 32)
CHANNELS, DEPTH = 64, 2
BATCH, DECAY, CLIP, THREADS = 8, 1e-4, 5.0, 2
SCORE, OVERLAP, MOST = 0.05, 0.6, 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--torch-python")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), help="rows and columns")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="use this number of training images")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _work(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        _prepare(given, path)
        with np.load(path) as file:
            truth = file["test_boxes"]
        names = ["medres", *(["peer"] if given.torch_python else [])]
        workers = {name: _started(name, given, path) for name in names}
        seconds: dict[str, list[list[float]]] = {name: [] for name in names}
        for epoch in range(given.epochs):
            for name, worker in workers.items():
                wall, core, loss = worker.ask("epoch")
                seconds[name].append([wall, core])
                print(
                    f"epoch {epoch + 1} {name}: {wall:.1f} s, processor {core:.1f} s, "
                    f"loss {loss:.3f}",
                    flush=True,
                )
        found = {name: worker.ask("test") for name, worker in workers.items()}
        counts = {name: worker.ask("parameters") for name, worker in workers.items()}
    for name in names:
        print(f"{name}: {counts[name]:,} parameters")
    _compare(found, truth, seconds)


def _compare(
    found: dict[str, list[Any]], truth: np.ndarray, seconds: dict[str, list[list[float]]]
) -> None:
    from medres.evaluate.detection.average_precision import match_precision
    from medres.evaluate.statistics.bca import bca_estimate, draw

    images = len(truth)
    references = [np.column_stack([np.full(len(t), n), t]) for n, t in enumerate(truth)]
    reference = np.concatenate([lines[lines[:, 5] >= 0] for lines in references])
    matches = {}
    for name, lines in found.items():
        predicted = np.array(lines, float).reshape(-1, 7)  # image, corners, class, score
        matches[name] = [
            match_precision(
                _boxes(predicted[predicted[:, 5] == label]),
                _boxes(reference[reference[:, 5] == label]),
                images,
            )
            for label in range(len(CLASSES))
        ]

    def figures(name: str, weight: np.ndarray) -> np.ndarray:
        """Average precision, that of each class, and that of each class at an overlap of .5."""
        each = np.array([one.average_precisions(weight) for one in matches[name]])
        return np.array([each.mean(), *each.mean(axis=1), *each[:, 0]])

    ones = np.ones(images)
    for name in found:
        values = figures(name, ones)
        classes = ", ".join(
            f"{c} {values[1 + n]:.3f} (AP50 {values[4 + n]:.3f})" for n, c in enumerate(CLASSES)
        )
        print(f"{name}: AP {values[0]:.3f}; {classes}")
    if "peer" not in found:
        return
    draws = draw(lambda w: figures("medres", w) - figures("peer", w), images, replicates=1000)
    estimate = bca_estimate(draws, 0, 0.95)
    bounds = "" if estimate.bounds is None else " ({:+.3f} to {:+.3f})".format(*estimate.bounds)
    print(f"AP, medres - peer: {draws.value[0]:+.3f}{bounds}")
    later = slice(1, None) if len(seconds["peer"]) > 1 else slice(None)  # the first one compiles
    for column, what in enumerate(("wall", "processor")):
        medres, peer = (
            median(row[column] for row in seconds[name][later]) for name in ("medres", "peer")
        )
        ratio = medres / peer
        print(f"{what} seconds per epoch: {medres:.1f} and {peer:.1f}, medres / peer {ratio:.2f}")


def _boxes(lines: np.ndarray) -> Any:
    """lines: image, corners, class, and of predictions the score."""
    from medres.evaluate.detection.boxes import Boxes

    corners = lines[:, 1:5]
    score = lines[:, 6] if lines.shape[1] > 6 else np.zeros(len(lines))
    area = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    image, label = lines[:, 0].astype(int), lines[:, 5].astype(int)
    return Boxes(image, label, corners, score, area, np.zeros(len(lines), bool))


def _started(name: str, given: argparse.Namespace, arrays: Path) -> PeerProcess:
    """The process that trains one net."""
    python = sys.executable if name == "medres" else given.torch_python
    command = [python, __file__, str(given.data), "--worker", f"{name}:{arrays}"]
    for option in ("epochs", "rate", "seed"):
        command += [f"--{option}", str(getattr(given, option))]
    command += ["--size", *map(str, given.size)]
    return PeerProcess(command)


def _prepare(given: argparse.Namespace, path: Path) -> None:
    """Of each split the images (n, rows, columns, 3), from 0 to 1, and their boxes in the pixels of
    these images (n, lines, 5): x_min, y_min, x_max, y_max and the class, -1 for no box.
    """
    arrays = {}
    for split, limit in (("train", given.limit), ("test", None)):
        images, boxes = zip(*_images(given, split, limit), strict=True)
        lines = np.full((len(boxes), max(map(len, boxes)), 5), -1.0, np.float32)
        for line, rows in zip(lines, boxes, strict=True):
            line[: len(rows)] = rows
        arrays |= {f"{split}_images": np.stack(images), f"{split}_boxes": lines}
    np.savez(path, **arrays)


def _images(given: argparse.Namespace, split: str, limit: int | None) -> Iterator[Any]:
    from PIL import Image

    from data_pipelines.annotations.boxes.finding import BoxOptions, find_boxes

    data, (rows, columns) = given.data, given.size
    found = find_boxes(BoxOptions(data / "Annotations"), [data / "JPEGImages"])
    boxes = {image.values[0]: image.boxes for image in found.listed}
    names = (data / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
    for name in names[:limit]:
        with Image.open(data / "JPEGImages" / f"{name}.jpg") as image:
            scale = np.tile([columns / image.width, rows / image.height], 2)
            small = image.convert("RGB").resize((columns, rows), Image.Resampling.BILINEAR)
        lines = [
            [*(np.array(box.edges) * scale), CLASSES.index(box.class_name)]
            for box in boxes[name]
            if not box.code
        ]
        yield np.asarray(small, np.float32) / 255, np.array(lines, np.float32)


def _work(given: argparse.Namespace) -> None:
    name, _, path = given.worker.partition(":")
    with np.load(path) as file:
        arrays = dict(file)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    steps = given.epochs * -(-len(arrays["train_images"]) // BATCH)
    net = (_Medres if name == "medres" else _Peer)(given, steps)
    rng = np.random.default_rng(given.seed)
    for line in sys.stdin:
        result: Any = net.parameters
        if line.strip() == "epoch":
            order = rng.permutation(len(arrays["train_images"]))
            mirrored = rng.random(len(order)) < 0.5
            images, boxes = _mirrored(
                arrays["train_images"][order], arrays["train_boxes"][order], mirrored
            )
            start = time.perf_counter(), time.process_time()
            loss = net.epoch(images, boxes)
            result = [time.perf_counter() - start[0], time.process_time() - start[1], loss]
        elif line.strip() == "test":
            result = [
                [n, *row] for n, x in enumerate(arrays["test_images"]) for row in net.boxes(x)
            ]
        answers.write(json.dumps(result) + "\n")
        answers.flush()


def _mirrored(
    images: np.ndarray, boxes: np.ndarray, which: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    images, boxes = images.copy(), boxes.copy()
    images[which] = images[which, :, ::-1]
    is_box = which[:, None] & (boxes[..., 4] >= 0)
    low, high = boxes[..., 0].copy(), boxes[..., 2].copy()
    boxes[..., 0] = np.where(is_box, images.shape[2] - high, low)
    boxes[..., 2] = np.where(is_box, images.shape[2] - low, high)
    return images, boxes


class _Medres:
    def __init__(self, given: argparse.Namespace, steps: int) -> None:
        import keras
        import tensorflow as tf

        import medres
        from medres.backbones import fused_training_copy
        from medres.models import decoding_settings

        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
        keras.utils.set_random_seed(given.seed)
        self.model = medres.detector(
            18,
            (*given.size, 3),
            CLASSES,
            levels=LEVELS,
            channels=CHANNELS,
            head_depth=DEPTH,
            width=64,
        )
        self.settings = decoding_settings(
            self.model, score_threshold=SCORE, nms_iou=OVERLAP, most=MOST
        )
        self.decode = medres.decode
        rate = keras.optimizers.schedules.CosineDecay(given.rate, steps)
        self.trained = fused_training_copy(self.model)
        self.trained.compile(
            keras.optimizers.AdamW(rate, DECAY, global_clipnorm=CLIP),
            medres.losses.DetectionLoss(self.settings.input_size, self.settings.strides),
            jit_compile=False,
        )
        self.parameters = self.model.count_params()

    def epoch(self, images: np.ndarray, boxes: np.ndarray) -> float:
        history = self.trained.fit(images, boxes, batch_size=BATCH, shuffle=False, verbose=0)
        return float(history.history["loss"][0])

    def boxes(self, image: np.ndarray) -> list[list[float]]:
        raw = np.asarray(self.model(image[None], training=False))[0]
        return [
            [*corners.tolist(), label, score]
            for corners, score, label in self.decode(raw, self.settings)
        ]


class _Peer:
    def __init__(self, given: argparse.Namespace, steps: int) -> None:
        import torch
        from torchvision.models import resnet18
        from torchvision.models.detection import FCOS
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.backbone_utils import BackboneWithFPN
        from torchvision.models.detection.fcos import FCOSHead

        torch.set_num_threads(THREADS)
        torch.manual_seed(given.seed)
        self.torch = torch
        stages = {f"layer{n}": str(n) for n in range(1, 5)}
        channels = [64, 128, 256, 512]
        backbone = BackboneWithFPN(resnet18(weights=None), stages, channels, CHANNELS)
        backbone.fpn.extra_blocks = None  # no fifth level
        self.net = FCOS(
            backbone,
            len(CLASSES),
            min_size=min(given.size),
            max_size=max(given.size),
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            anchor_generator=AnchorGenerator(
                tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES)
            ),
            head=FCOSHead(CHANNELS, 1, len(CLASSES), DEPTH),
            score_thresh=SCORE,
            nms_thresh=OVERLAP,
            detections_per_img=MOST,
        )
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), given.rate, weight_decay=DECAY, eps=1e-7
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.parameters = sum(p.numel() for p in self.net.parameters())

    def epoch(self, images: np.ndarray, boxes: np.ndarray) -> float:
        torch, total = self.torch, 0.0
        self.net.train()
        for start in range(0, len(images), BATCH):
            batch = slice(start, start + BATCH)
            x = [torch.from_numpy(np.moveaxis(image, -1, 0).copy()) for image in images[batch]]
            y = [
                {
                    "boxes": torch.from_numpy(lines[lines[:, 4] >= 0, :4]),
                    "labels": torch.from_numpy(lines[lines[:, 4] >= 0, 4].astype(np.int64)),
                }
                for lines in boxes[batch]
            ]
            self.optimizer.zero_grad()
            loss = sum(self.net(x, y).values())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
            self.optimizer.step()
            self.schedule.step()
            total += float(loss.detach()) * len(x)
        return total / len(images)

    def boxes(self, image: np.ndarray) -> list[list[float]]:
        self.net.eval()
        with self.torch.no_grad():
            x = self.torch.from_numpy(np.moveaxis(image, -1, 0).copy())
            (found,) = self.net([x])
        return [
            [*corners, label, score]
            for corners, label, score in zip(
                found["boxes"].tolist(),
                found["labels"].tolist(),
                found["scores"].tolist(),
                strict=True,
            )
        ]


if __name__ == "__main__":
    main()
