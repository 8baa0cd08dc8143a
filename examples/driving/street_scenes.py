"""Street scenes: a residual network finds vehicles, two-wheelers, lights and signs in a town that
it has not seen, the same backbone divides a scene into road, sky and objects, and a drive becomes
an annotated, moving picture.

    python examples/driving/street_scenes.py OUT                  made-up, drawn scenes
    python examples/driving/street_scenes.py OUT --carla FOLDER   pictures of the simulator CARLA

FOLDER has images/ and voc/ with names such as Town01_001020. No town is in two splits. An
interrupted call goes on. Drawn and simulated scenes show how it is done; no figure from them says
anything about a real road.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import medres
from data_pipelines import ingest
from data_pipelines.synthetic.street_scenes import MASK_CLASSES, OBJECTS, draw_towns
from medres.inference.boxes.scoring import evaluate_detector
from medres.inference.masks.scoring import evaluate_segmenter

TOWNS = {"Town02": "train", "Town03": "train", "Town04": "tune", "Town01": "test"}
STRETCH = 1200  # frames of a town that count as one group in the intervals
CARLA_CLASSES = {"vehicle": "vehicle", "bike": "two_wheeler", "motobike": "two_wheeler"} | {
    name: name for name in ("traffic_light", "traffic_sign")
}
NET = {"model": "resnet10", "width": 24, "precision": "float32", "batch_size": 8}
HEAD = {"channels": 48, "head_depth": 1, "levels": (2, 3, 4, 5)}
DRAWN = {"kind": "rgb", "rows": 144, "cols": 240}
SIMULATED = {"kind": "rgb", "rows": 192, "cols": 320}
BORDERS = dict(zip(OBJECTS, ("yellow", "cyan", "orange", "magenta"), strict=True))
MASKS = MASK_CLASSES | dict.fromkeys("567", "small_object")  # too thin to be told apart soon
SURFACES = {"sky": (90, 150, 255), "road": (170, 90, 200), "house": (150, 110, 60)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--carla", type=Path)
    parser.add_argument("--epochs", type=int, default=16)
    options = parser.parse_args()
    out: Path = options.out
    if options.carla:
        images, tables = options.carla / "images", {"boxes": options.carla / "voc"}
        labels, spec = carla_labels(options.carla, out), SIMULATED
        tables["box_classes"] = CARLA_CLASSES
    else:
        drawn = out / "scenes"
        if not (drawn / "boxes.csv").is_file():
            draw_towns(drawn)
        images, labels, spec = drawn / "images", drawn / "labels.csv", DRAWN
        tables = {"boxes": drawn / "boxes.csv", "masks": drawn / "masks"}
        tables["mask_classes"] = MASKS
    work = out / "work"
    if not (work / "ingest.json").is_file():
        ingest(images, labels, work, kind="rgb", **tables)
    detector = detect(work, out, spec, options.epochs)
    segmenter = None if options.carla else segment(work, out, spec, options.epochs, detector)
    frames = sorted(images / row["path"] for row in _rows(labels) if row["split"] == "test")
    animate(annotated(frames[:32], detector, segmenter), out / "drive.gif")
    print(f"the drive: {out / 'drive.gif'}")


def carla_labels(folder: Path, out: Path) -> Path:
    """labels.csv with path, patient (a stretch of a drive) and split (by town)."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [("path", "patient", "split")]
    for path in sorted((folder / "images").iterdir()):
        town, frame = re.fullmatch(r"(Town\d+)_(\d+)", path.stem).groups()
        rows.append((path.name, f"{town}-{int(frame) // STRETCH}", TOWNS[town]))
    with (out / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return out / "labels.csv"


def detect(work: Path, out: Path, spec: dict[str, Any], epochs: int) -> Path:
    """Train and evaluate a detector; return its file."""
    run = medres.train(
        work, out=out / "detector", task="detection", preset=spec, epochs=epochs, **NET, **HEAD
    )
    report = evaluate_detector(run.artefact, work, hit="iou")
    report.save(out / "detector_report", overwrite=True)
    for name, found in report.numbers["findings"].items():
        print(f"{name}: AP50 {_text(found['ap50'])}")
    return run.artefact


def segment(work: Path, out: Path, spec: dict[str, Any], epochs: int, detector: Path) -> Path:
    """Train and evaluate a segmenter whose backbone starts from that of the detector."""
    run = medres.train(
        work,
        out=out / "segmenter",
        task="segmentation",
        preset=spec,
        epochs=epochs,
        weights=detector,
        **NET,
    )
    report = evaluate_segmenter(run.artefact, work)
    report.save(out / "segmenter_report", overwrite=True)
    for name, found in report.numbers["findings"].items():
        print(f"{name}: Dice {_text(found['dice'])}")
    return run.artefact


def annotated(
    frames: list[Path], detector: Path, segmenter: Path | None = None
) -> Iterator[Image.Image]:
    """The frames with boxes above the frozen thresholds and, with a segmenter, tinted surfaces."""
    with (
        medres.load(detector) as boxes,
        medres.load(segmenter) if segmenter else nullcontext() as masks,
    ):
        for path in frames:
            picture = Image.open(path).convert("RGB")
            factor = max(1, round(480 / picture.width))
            if masks is not None:
                picture = _tinted(picture, masks.predict(path).mask)
            picture = picture.resize((picture.width * factor, picture.height * factor))
            draw = ImageDraw.Draw(picture)
            for box in boxes.predict(path).positive_boxes:
                corners = [factor * edge for edge in (box.x_min, box.y_min, box.x_max, box.y_max)]
                draw.rectangle(corners, outline=BORDERS[box.label], width=2)
            yield picture


def _tinted(picture: Image.Image, mask: Any) -> Image.Image:
    pixels = np.array(picture, dtype=float)
    for label, name in enumerate(mask.names):
        if name in SURFACES:
            here = mask.labels == label
            pixels[here] = 0.6 * pixels[here] + 0.4 * np.array(SURFACES[name])
    return Image.fromarray(pixels.astype(np.uint8))


def animate(pictures: Iterator[Image.Image], path: Path) -> Path:
    """A GIF of ten pictures a second."""
    first, *others = [one.quantize(64) for one in pictures]
    first.save(path, save_all=True, append_images=others, duration=100, loop=0)
    return path


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def _text(value: dict[str, Any]) -> str:
    if value["estimate"] is None:
        return value["why"]
    low, high = value["ci_low"], value["ci_high"]
    interval = "" if low is None else f" (95% CI {low:.3f} to {high:.3f})"
    return f"{value['estimate']:.3f}{interval}"


if __name__ == "__main__":
    main()
