"""Time and memory of the search for near-duplicates as the number of images grows.

    python benchmarks/near_duplicates.py [--images FOLDER] [--max 400000]

Three kinds of hashes, each image of a patient of its own, a twentieth of them near copies of others
(unless said otherwise): `independent` has random bits; `alike` has a cluster of 30 % of the images
within the limit of each other; `radiographs` has bits with the frequencies and correlations of the
PNG and JPEG files below --images. Each n runs in a new process. The time is that of the processor,
since a shared machine disturbs it less than the clock; the search uses one thread, except for the
comparison of all pairs among few images.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import norm

from data_pipelines.ingestion.near_duplicates import near_duplicates
from data_pipelines.ingestion.perceptual_hash import perceptual_hash

KINDS = ("independent", "alike", "radiographs")
SMALLEST = 12_500
_BLOCK = 20_000


def hash_bits(kind: str, count: int, real: np.ndarray | None) -> np.ndarray:
    """Hashes of a kind as bits, bool (count, 512)."""
    rng = np.random.default_rng(0)
    bits = np.empty((count, 512), bool)
    for start in range(0, count, _BLOCK):
        block = bits[start : start + _BLOCK]
        block[:] = (
            rng.random(block.shape, np.float32) < 0.5
            if real is None
            else like(real, block.shape, rng)
        )
    if kind == "alike":
        part = bits[: int(0.3 * count)]
        part[:] = bits[0] ^ (rng.random(part.shape, np.float32) < 0.02)
    else:
        copies = count // 20
        flips = rng.choice([0.005, 0.02, 0.04], copies)[:, None]
        bits[-copies:] = bits[:copies] ^ (rng.random((copies, 512), np.float32) < flips)
    return bits


def like(real: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random bits with the frequencies and correlations of `real`: a
    Gaussian copula.
    """
    threshold = norm.ppf(real.mean(axis=0).clip(0.005, 0.995)).astype(np.float32)
    spread = real.T + 1e-3 * np.random.default_rng(1).standard_normal(real.T.shape)
    correlation = 0.95 * np.sin(np.pi / 2 * np.corrcoef(spread)) + 0.05 * np.eye(512)
    values, vectors = np.linalg.eigh(correlation)
    mix = (vectors * np.sqrt(values.clip(0))).astype(np.float32)
    return rng.standard_normal(shape, np.float32) @ mix.T < threshold


def real_bits(folder: Path, most: int = 2500) -> np.ndarray:
    """Hash bits of the images below a folder, (images, 512)."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpeg", ".jpg"))
    hashes = []
    for path in paths[:most]:
        with Image.open(path) as image:
            image.draft("L", (512, 512))
            hashes.append(perceptual_hash(np.asarray(image.convert("L"))))
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    return np.unpackbits(packed, axis=1)


def run_one(kind: str, count: int, bits_file: str) -> None:
    """Search once in this process and print the figures as JSON."""
    real = np.load(bits_file) if kind == "radiographs" else None
    digits = np.packbits(hash_bits(kind, count, real), axis=1).tobytes().hex()
    hashes = [digits[start : start + 128] for start in range(0, len(digits), 128)]
    del digits
    started, clock = time.process_time(), time.perf_counter()
    result = near_duplicates(hashes, np.arange(count), np.arange(count) % 3, show=1000)
    figures = {
        "n": count,
        "processor_s": time.process_time() - started,
        "s": time.perf_counter() - clock,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "pairs": result.pairs,
        "exact": result.exact,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--max", type=int, default=400_000)
    parser.add_argument("--one", nargs=3, metavar=("KIND", "N", "BITS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one[0], int(options.one[1]), options.one[2])
        return
    with tempfile.TemporaryDirectory() as folder:
        run_all(options.images, options.max, Path(folder) / "bits.npy")


def run_all(images: Path | None, most: int, bits_file: Path) -> None:
    """Print a table for each kind of hashes."""
    if images:
        np.save(bits_file, real_bits(images))
    for kind in KINDS if images else KINDS[:-1]:
        print(
            f"| {kind}: n | processor s | times the last | s | peak GB | pairs |\n"
            + "|---" * 6
            + "|"
        )
        count, last = SMALLEST, float("nan")
        while count <= most:
            line = subprocess.run(
                [sys.executable, __file__, "--one", kind, str(count), str(bits_file)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            row = json.loads(line)
            ratio = "" if np.isnan(last) else f"{row['processor_s'] / last:.2f}"
            last = row["processor_s"]
            at_least = "" if row["exact"] else "at least "
            print(
                f"| {count:,} | {last:.1f} | {ratio} | {row['s']:.1f} | {row['peak_gb']:.2f} | "
                f"{at_least}{row['pairs']:,} |",
                flush=True,
            )
            count *= 2


if __name__ == "__main__":
    main()
