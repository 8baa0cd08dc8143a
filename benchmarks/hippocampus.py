"""Train a U-Net on ResNet-10 on the hippocampus volumes with plain `Model.fit`: Dice of both halves
on patients that the training never saw.

    python benchmarks/hippocampus.py DATA/hippocampus [--epochs 10] [--width 8] [--seed 0]

201 volumes at 1 mm, one a patient; 52 patients drawn by the seed are the test. No augmentation, no
choice of an epoch: the weights after the last epoch are tested, once. The Dice is that of whole
volumes. Published: nnU-Net .90 / .89.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import nibabel
import numpy as np

import medres

CLASSES = ("background", "anterior", "posterior")
N_TEST, BATCH = 52, 2
TRAIN_SIZE, TEST_SIZE = (40, 56, 40), (48, 64, 48)  # voxels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    names = sorted(path.name for path in (options.data / "images").glob("*.nii.gz"))
    order = np.random.default_rng(options.seed).permutation(len(names))
    test, train = order[:N_TEST], order[N_TEST:]
    x, y = _volumes(options.data, [names[i] for i in train], TRAIN_SIZE)
    model = medres.segmenter(10, (None, None, None, 1), CLASSES, stem="small", width=options.width)
    steps = options.epochs * -(-len(train) // BATCH)
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(3e-3, steps), 1e-4),
        loss=medres.losses.DiceCrossentropy(),
        metrics=[medres.metrics.Dice(CLASSES)],
        jit_compile=False,
    )
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=options.epochs, verbose=2)
    seconds = time.perf_counter() - start
    x, y = _volumes(options.data, [names[i] for i in test], TEST_SIZE)
    dice = model.evaluate(x, y, batch_size=BATCH, verbose=0, return_dict=True)
    print(f"{model.count_params():,} parameters, {seconds / options.epochs:.0f} s per epoch")
    for name in CLASSES[1:]:
        print(f"{name}: Dice {dice[f'dice_{name}']:.3f} on {len(test)} patients")


def _volumes(
    data: Path, names: list[str], size: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Images of mean 0.5 and standard deviation 0.5, (n, *size, 1), and their label maps, -1
    beyond the border of the volume.
    """
    images, labels = [], []
    for name in names:
        image = nibabel.load(data / "images" / name).get_fdata(dtype=np.float32)
        label = np.asarray(nibabel.load(data / "labels" / name).dataobj).astype(np.int32)
        images.append(_centered((image - image.mean()) / (2 * image.std()) + 0.5, size, 0.5))
        labels.append(_centered(label, size, -1))
    return np.stack(images)[..., None], np.stack(labels)


def _centered(volume: np.ndarray, size: tuple[int, int, int], fill: float) -> np.ndarray:
    """The middle of the volume, or the volume in the middle, along each axis."""
    for axis, n in enumerate(size):
        missing = n - volume.shape[axis]
        border = [(0, 0)] * volume.ndim
        border[axis] = (max(missing, 0) // 2, max(missing, 0) - max(missing, 0) // 2)
        volume = np.pad(volume, border, constant_values=fill)
        start = max(-missing, 0) // 2
        volume = volume.take(range(start, start + n), axis)
    return volume


if __name__ == "__main__":
    main()
