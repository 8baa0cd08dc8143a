"""Train a detector of blood cells from random weights with plain `Model.fit`, on the published
split of BCCD: average precision of three classes as pycocotools computes it.

    python benchmarks/bccd_detector.py DATA/bccd [--epochs 12] [--height 192] [--width 24]

Images of 480 x 640 are scaled to height x 4/3 height. Flips and a random scale are the only
augmentation. The weights after the last epoch are tested; `--every` tests on the way too, outside
of the training time, and chooses nothing. `--fit train --test val` leaves the test images alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import medres
from medres.models.detection import decoding_settings

CLASSES = ("RBC", "WBC", "Platelets")
MOST_BOXES = 48  # of one image; the data have 30 at most
SCALES = (0.8, 1.25)


class Sample(NamedTuple):
    """An image of 480 x 640 and its boxes: (n, 5), edges and class."""

    image: Image.Image
    boxes: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--variant", type=int, default=18)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--levels", type=int, nargs="+", default=[2, 3, 4, 5])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--fit", default="trainval")
    parser.add_argument("--test", default="test")
    parser.add_argument("--every", type=int, default=0, help="test after so many epochs too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    train = [_read(options.data, name) for name in _split(options.data, options.fit)]
    test = [_read(options.data, name) for name in _split(options.data, options.test)]
    size = (options.height, options.height * 4 // 3)
    model = medres.detector(
        options.variant,
        (*size, 3),
        CLASSES,
        levels=options.levels,
        width=options.width,
        channels=options.channels,
        head_depth=options.depth,
    )
    settings = decoding_settings(model)
    batches = Batches(train, size, options.batch, options.seed)
    steps = options.epochs * len(batches)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=options.rate, warmup_steps=steps // 20
    )
    model.compile(
        keras.optimizers.AdamW(rate, 1e-4, global_clipnorm=5.0),
        loss=medres.losses.DetectionLoss(settings.input_size, settings.strides),
        jit_compile=False,
    )
    print(f"{model.count_params():,} parameters, {len(train)} images, {len(batches)} steps")
    clock = Clock(test, options.every)
    model.fit(batches, epochs=options.epochs, verbose=2, callbacks=[clock])
    print(f"training took {clock.wall:.0f} s, {clock.cpu:.0f} s of one core")
    print(f"{len(test)} images: {_table(model, test)}")
    if options.save:
        model.save(options.save)


class Batches(keras.utils.PyDataset):
    """Flipped and scaled images in random order."""

    def __init__(self, samples: Sequence[Sample], size: tuple[int, int], batch: int, seed: int):
        super().__init__()
        self.samples, self.size, self.batch = samples, size, batch
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.samples) // self.batch

    def on_epoch_end(self) -> None:
        self.order = self.rng.permutation(len(self.samples))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        images, boxes = zip(*(self._augmented(self.samples[i]) for i in chosen), strict=True)
        return np.stack(images), np.stack(boxes)

    def _augmented(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """The part of the image that a scale and an offset choose; gray where there is none."""
        factor = np.exp(self.rng.uniform(*np.log(SCALES)))
        whole = np.array(sample.image.size, float)
        part = whole / factor
        offset = self.rng.uniform(0, 1, 2) * (whole - part)
        (rows, columns), (x, y) = self.size, offset
        scale = np.array([columns, rows]) / part
        picture = sample.image.transform(
            (columns, rows),
            Image.Transform.AFFINE,
            (1 / scale[0], 0, x, 0, 1 / scale[1], y),
            Image.Resampling.BILINEAR,
            fillcolor=(128, 128, 128),
        )
        image = np.asarray(picture, np.float32) / 255
        boxes = sample.boxes.copy()
        boxes[:, :4] = (boxes[:, :4] - np.tile(offset, 2)) * np.tile(scale, 2)
        for axis, length in ((0, columns), (1, rows)):
            if self.rng.random() < 0.5:
                image = np.flip(image, 1 - axis)
                boxes[:, [axis, axis + 2]] = length - boxes[:, [axis + 2, axis]]
        return image, _padded(_visible(boxes, columns, rows))


class Clock(keras.callbacks.Callback):
    """Wall and processor time of the epochs alone; average precision after some of them."""

    def __init__(self, test: Sequence[Sample], every: int):
        super().__init__()
        self.test, self.every, self.wall, self.cpu = test, every, 0.0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.wall += time.perf_counter() - self.start[0]
        self.cpu += time.process_time() - self.start[1]
        if self.every and (epoch + 1) % self.every == 0:
            table = _table(self.model, self.test)
            print(f"epoch {epoch + 1}, {self.wall:.0f} s, {self.cpu:.0f} s of a core: {table}")


def _split(data: Path, name: str) -> list[str]:
    return (data / "ImageSets" / "Main" / f"{name}.txt").read_text().split()


def _read(data: Path, name: str) -> Sample:
    tree = ElementTree.parse(data / "Annotations" / f"{name}.xml")
    boxes = []
    for item in tree.iterfind("object"):
        corners = [
            float(item.findtext(f"bndbox/{key}", "nan")) for key in ("xmin", "ymin", "xmax", "ymax")
        ]
        boxes.append([*corners, CLASSES.index(item.findtext("name", ""))])
    image = Image.open(data / "JPEGImages" / f"{name}.jpg").convert("RGB")
    table = np.array(boxes, np.float32).reshape(-1, 5)
    return Sample(image, table[(table[:, 2:4] > table[:, :2]).all(axis=1)])


def _visible(boxes: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """The boxes clipped to the image, without those of which less than a third is left."""
    clipped = boxes.copy()
    clipped[:, :4] = np.clip(boxes[:, :4], 0, np.tile([columns, rows], 2))
    area, before = (np.prod(b[:, 2:4] - b[:, :2], axis=1) for b in (clipped, boxes))
    return clipped[area > before / 3]


def _padded(boxes: np.ndarray) -> np.ndarray:
    out = np.full((MOST_BOXES, 5), -1, np.float32)
    out[: len(boxes)] = boxes
    return out


def _table(model: keras.Model, samples: Sequence[Sample]) -> str:
    """AP50 by class, and AP from .50 to .95 of all, at the size of the file."""
    settings = decoding_settings(model)
    rows, columns = settings.input_size
    images = [
        np.asarray(sample.image.resize((columns, rows), Image.Resampling.BILINEAR), np.float32)
        for sample in samples
    ]
    raw = model.predict(np.stack(images) / 255, batch_size=8, verbose=0)
    predictions = []
    for number, (sample, found) in enumerate(
        zip(samples, medres.decode(raw, settings), strict=True)
    ):
        scale = np.tile(np.array(sample.image.size) / [columns, rows], 2)
        for corners, score, label in found:
            x, y, right, bottom = (float(value) for value in corners * scale)
            box = [x, y, right - x, bottom - y]
            predictions.append(
                {"image_id": number, "category_id": label, "bbox": box, "score": score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCOeval(_reference(samples), None, "bbox")
        coco.cocoDt = coco.cocoGt.loadRes(predictions)
        coco.params.imgIds = list(range(len(samples)))
        coco.params.catIds = list(range(len(CLASSES)))
        coco.evaluate()
        coco.accumulate()
    precision = coco.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class)
    by_class = ", ".join(
        f"{name} {precision[0, :, i].mean():.3f}" for i, name in enumerate(CLASSES)
    )
    return f"AP50 {by_class}; AP {precision.mean():.3f}"


def _reference(samples: Sequence[Sample]) -> COCO:
    boxes = []
    for number, sample in enumerate(samples):
        for x, y, right, bottom, label in sample.boxes.tolist():
            box = [x, y, right - x, bottom - y]
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(len(samples))],
        "annotations": boxes,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    coco.createIndex()
    return coco


if __name__ == "__main__":
    main()
