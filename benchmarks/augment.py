"""Compare the augmentation of this package with a chain of Keras layers, with the transforms of
MONAI and with those of torchvision: same operations, same batch.

    python benchmarks/augment.py [--torch-python PATH/TO/python] [--batch 16] [--repeats 7] [--step]

There are two cases: the chest preset on batch x 224 x 224 (rotation, zoom, shear, shift, offset,
contrast, gamma, blur, noise), and affine with elastic deformation on 64 x 64 x 64 volumes. Each
side draws its own parameters from similar ranges, separately for each image. (MONAI and torchvision
are therefore called for one image at a time.) Every image gets every operation. This package does
three things more: it adds quantum noise, its random numbers can be replayed, and it interpolates
once where the chain of Keras layers interpolates four times. --step also times a training step of
ResNet-50.

MONAI and torchvision run in their own environment, which you can make with

    python -m venv torchenv && torchenv/bin/pip install torch torchvision monai

and pass with --torch-python. Without it they are left out. The results are wall time and processor
time (all threads) in ms per image: the minimum of the repeats, after one run that is not counted.
All sides may use all cores. The rows are written to standard output as CSV. Nothing else should run
on the machine; otherwise processor time is the fairer figure.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SIDE_2D, SIDE_3D = 224, 64
COLUMNS = ["case", "what", "wall_ms", "times_ours_wall", "processor_ms", "times_ours_processor"]


Times = dict[str, tuple[float, float]]


def milliseconds(run: Callable[[], Any], images: int, repeats: int) -> tuple[float, float]:
    """Return wall time and processor time in ms per image: the minimum of the repeats."""
    run()
    wall, processor = [], []
    for _ in range(repeats):
        began, worked = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - worked)
    return 1000 * min(wall) / images, 1000 * min(processor) / images


def ours(batch: int, repeats: int) -> dict[str, Times]:
    """Time this package: its compiled part inside a plain graph, inside a compiled step, and
    operation by operation.
    """
    import numpy as np
    import tensorflow as tf

    from data_pipelines.augment import AugmentSpec, apply, augmentation, draw
    from data_pipelines.augment.layer import compiled

    def times(spec: AugmentSpec, shape: tuple[int, ...]) -> Times:
        images = tf.constant(np.random.default_rng(0).random((batch, *shape, 1), "float32"))
        key = tf.constant(np.stack([np.full(batch, 5), np.arange(batch)], axis=1).astype("int32"))

        def plain(image, key):
            return apply(image, draw(key, spec, len(shape)), spec)

        def layer(image, key):
            return compiled(spec)(image, key)

        modes = {
            "ours, graph": tf.function(layer, autograph=False),
            "ours, XLA step": tf.function(layer, jit_compile=True, autograph=False),
            "ours, not compiled": tf.function(plain, autograph=False),
        }
        return {
            name: milliseconds(lambda run=run: run(images, key).numpy(), batch, repeats)
            for name, run in modes.items()
        }

    affine = AugmentSpec(rotation=7, tilt=5, zoom=0.1, shift=0.05, elastic=0.2, elastic_cells=4)
    chest = augmentation("chest_xray").model_copy(update={"share": 1.0})
    return {
        "chest 2D": times(chest, (SIDE_2D,) * 2),
        "affine + elastic 3D": times(affine, (SIDE_3D,) * 3),
    }


def keras_chain(batch: int, repeats: int) -> dict[str, Times]:
    """Return the layers of Keras, one after the other. Keras has no such layers for 3D."""
    import keras
    import numpy as np
    import tensorflow as tf

    turn = {"fill_mode": "constant", "fill_value": 0.0}
    chain = keras.Sequential(
        [
            keras.layers.RandomRotation(7 / 360, **turn),
            keras.layers.RandomZoom(0.1, **turn),
            keras.layers.RandomShear(0.03, 0.03, **turn),
            keras.layers.RandomTranslation(0.06, 0.06, **turn),
            keras.layers.RandomGaussianBlur(kernel_size=7, sigma=0.7, value_range=(0, 1)),
            keras.layers.GaussianNoise(0.01),
            keras.layers.RandomBrightness(0.05, value_range=(0, 1)),
            keras.layers.RandomContrast(0.15, value_range=(0, 1)),
        ]
    )
    images = tf.constant(np.random.default_rng(0).random((batch, SIDE_2D, SIDE_2D, 1), "float32"))

    @tf.function
    def run(image):
        power = tf.exp(tf.random.uniform((batch, 1, 1, 1), -0.2, 0.2))
        return chain(image, training=True) ** power

    return {
        "chest 2D": {
            "Keras layers, graph": milliseconds(lambda: run(images).numpy(), batch, repeats)
        }
    }


def chest_chains(side: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the operations of the chest preset for one (1, side, side) image in 0..1, as
    transforms of MONAI and of torchvision.
    """
    import math

    import numpy as np
    from monai import transforms as m
    from torchvision.transforms import v2

    rng, angle, pixels, always = (
        np.random.default_rng(0),
        math.radians(7),
        0.06 * side,
        {"prob": 1.0},
    )
    monai_2d = m.Compose(
        [
            m.RandAffine(
                rotate_range=angle,
                scale_range=(0.1, 0.1),
                shear_range=(0.03, 0.03),
                translate_range=(pixels, pixels),
                padding_mode="zeros",
                **always,
            ),
            m.RandGaussianSmooth(sigma_x=(0.01, 0.7), sigma_y=(0.01, 0.7), **always),
            m.RandGaussianNoise(std=0.01, **always),
            m.RandAdjustContrast(gamma=(0.82, 1.22), **always),
            m.RandScaleIntensity(factors=0.15, **always),
            m.RandShiftIntensity(offsets=0.05, **always),
        ]
    )
    vision = v2.Compose(
        [
            v2.RandomAffine(
                7,
                translate=(0.06, 0.06),
                scale=(0.9, 1.1),
                shear=math.degrees(0.03),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.GaussianBlur(5, (0.1, 0.7)),
            v2.GaussianNoise(sigma=0.01),
            v2.ColorJitter(brightness=0.05, contrast=0.15),
            v2.Lambda(lambda image: image ** math.exp(rng.uniform(-0.2, 0.2))),
        ]
    )
    return monai_2d, vision


def peers(batch: int, repeats: int) -> dict[str, Times]:
    """Time MONAI and torchvision v2, one image at a time. This runs in the environment that has
    them.
    """
    import math

    import numpy as np
    import torch
    from monai import transforms as m

    rng = np.random.default_rng(0)
    plane = [torch.from_numpy(rng.random((1, SIDE_2D, SIDE_2D), "float32")) for _ in range(batch)]
    space = [
        torch.from_numpy(rng.random((1, SIDE_3D, SIDE_3D, SIDE_3D), "float32"))
        for _ in range(batch)
    ]
    monai_2d, vision = chest_chains(SIDE_2D)
    angle, tilt, shift = math.radians(7), math.radians(5), 0.05 * SIDE_3D
    monai_3d = m.Rand3DElastic(
        sigma_range=(5, 7),
        magnitude_range=(50, 100),
        rotate_range=(angle, tilt, tilt),
        scale_range=(0.1,) * 3,
        translate_range=(shift,) * 3,
        padding_mode="zeros",
        prob=1.0,
    )
    return {
        "chest 2D": {
            "MONAI, an image at a time": milliseconds(
                lambda: [monai_2d(image) for image in plane], batch, repeats
            ),
            "torchvision v2, an image at a time": milliseconds(
                lambda: [vision(image) for image in plane], batch, repeats
            ),
        },
        "affine + elastic 3D": {
            "MONAI, an image at a time": milliseconds(
                lambda: [monai_3d(image) for image in space], batch, repeats
            )
        },
        "versions": {
            name: __import__(name).__version__ for name in ("torch", "torchvision", "monai")
        },
    }


def training_step(batch: int, repeats: int) -> dict[str, Times]:
    import keras
    import numpy as np

    from medres.models.classification import classifier

    model = classifier(50, (SIDE_2D, SIDE_2D, 1), 1)
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    images, labels = (
        np.random.default_rng(0).random((batch, SIDE_2D, SIDE_2D, 1), "float32"),
        np.zeros((batch, 1)),
    )
    return {
        "chest 2D": {
            "ResNet-50 training step": milliseconds(
                lambda: model.train_on_batch(images, labels), batch, repeats
            )
        }
    }


PARTS = {"ours": ours, "keras": keras_chain, "peers": peers, "step": training_step}


def in_a_process(python: str, part: str, batch: int, repeats: int) -> dict[str, Times]:
    command = [python, __file__, "--part", part, "--batch", str(batch), "--repeats", str(repeats)]
    return json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[
            -1
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--torch-python", help="Python of an environment with torch, torchvision and MONAI."
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--step", action="store_true", help="Also time a training step of ResNet-50."
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part](given.batch, given.repeats)))
        return
    parts = [("ours", sys.executable), ("keras", sys.executable)]
    parts += [("peers", given.torch_python)] if given.torch_python else []
    parts += [("step", sys.executable)] if given.step else []
    found: dict[str, Times] = {}
    for part, python in parts:
        for case, times in in_a_process(python, part, given.batch, given.repeats).items():
            found.setdefault(case, {}).update(times)
    versions = found.pop("versions", {})
    print(
        f"# {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        versions or "",
        file=sys.stderr,
    )
    table = csv.writer(sys.stdout)
    table.writerow(COLUMNS)
    for case, times in found.items():
        ours_wall, ours_processor = times["ours, graph"]
        for name, (wall, processor) in times.items():
            ratios = (f"{wall / ours_wall:.2f}", f"{processor / ours_processor:.2f}")
            table.writerow([case, name, f"{wall:.3f}", ratios[0], f"{processor:.3f}", ratios[1]])


if __name__ == "__main__":
    main()
