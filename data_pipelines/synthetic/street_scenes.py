"""Street scenes in color: pictures, boxes and masks of drives through made-up towns, for the
example and the notebook. They look like a simple game. Nothing that is learned from them says
anything about a real road.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROWS, COLUMNS = 144, 240
HORIZON, FOCAL, EYE = 63, 142, 1.5  # row; pixels; meters above the road
GROUND, SKY, ROAD, HOUSE = 0, 1, 2, 3
OBJECTS = {"vehicle": 4, "two_wheeler": 5, "traffic_light": 6, "traffic_sign": 7}
MASK_CLASSES = {"1": "sky", "2": "road", "3": "house"} | {
    str(label): name for name, label in OBJECTS.items()
}
SMALLEST = 24  # visible pixels of an object that has a box
EDGES = ("x_min", "y_min", "x_max", "y_max")
SPLITS = {"north": "train", "west": "train", "south": "tune", "east": "test"}
Found = list[tuple[str, tuple[int, int, int, int]]]


@dataclass(frozen=True)
class _Thing:
    """Something upright that stands on the ground: sideways and depth in meters."""

    name: str
    x: float
    z: float
    color: tuple[int, int, int]
    width: float
    height: float
    speed: float = 0.0


def draw_towns(folder: Path, *, frames: int = 16, drives: int = 6, seed: int = 0) -> Path:
    """Write images/, masks/, labels.csv and boxes.csv of four towns; return the folder.

    labels.csv has path, patient and split: the town decides the split, so that no town is in two,
    and the drive stands for the patient, since its frames follow each other. boxes.csv has edges in
    pixels, from 0 on. Pictures are RGB PNG files of 144 x 240 pixels, masks are label maps
    (MASK_CLASSES; 0 is the ground). `drives` of each town have `frames` pictures each.

    Raises FileExistsError where the folder has scenes.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    labels: list[tuple[object, ...]] = [("path", "patient", "split")]
    boxes: list[tuple[object, ...]] = [("path", *EDGES, "class")]
    for number, (town, split) in enumerate(SPLITS.items()):
        for drive in range(drives):
            rng = np.random.default_rng([seed, number, drive])
            for frame, (pixels, mask, found) in enumerate(_drive(rng, frames)):
                name = f"{town}_{drive}_{frame:03d}.png"
                Image.fromarray(pixels).save(folder / "images" / name)
                Image.fromarray(mask).save(folder / "masks" / name)
                labels.append((name, f"{town}-{drive}", split))
                boxes += [(name, *edges, kind) for kind, edges in found] or [(name, *[""] * 5)]
    for name, rows in (("labels.csv", labels), ("boxes.csv", boxes)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def _drive(rng: np.random.Generator, frames: int) -> list[tuple[np.ndarray, np.ndarray, Found]]:
    """The pictures, masks and boxes of one drive straight on."""
    colors = {
        SKY: rng.integers((90, 140, 190), (180, 210, 245)),
        GROUND: rng.integers((60, 100, 40), (130, 150, 90)),
        ROAD: np.full(3, rng.integers(80, 125)),
    }
    light = rng.uniform(0.75, 1.1)
    step = rng.uniform(0.7, 1.1)  # meters per frame
    things = _things(rng, step * frames + 70)
    pictures = []
    for frame in range(frames):
        moved = [
            _Thing(t.name, t.x, t.z - frame * (step - t.speed), t.color, t.width, t.height)
            for t in things
        ]
        pixels, mask, found = _frame(moved, colors, frame * step)
        noisy = pixels * light + rng.normal(0, 5, pixels.shape)
        pictures.append((np.clip(noisy, 0, 255).astype(np.uint8), mask, found))
    return pictures


def _things(rng: np.random.Generator, far: float) -> list[_Thing]:
    """What stands along a street of `far` meters; some of it drives on."""
    things = []
    for side in (-1, 1):
        at = rng.uniform(6, 14)
        while at < far:
            height = rng.uniform(4, 11)
            color = _color(rng, 90, 200)
            things.append(_Thing("house", side * rng.uniform(9, 13), at, color, 7, height))
            at += rng.uniform(8, 22)
    for name, count in (
        ("vehicle", 9),
        ("two_wheeler", 6),
        ("traffic_light", 5),
        ("traffic_sign", 5),
    ):
        for _ in range(rng.poisson(count * far / 90)):
            side, at = rng.choice((-1, 1)), rng.uniform(7, far)
            if name == "vehicle":
                size, x = (1.8, 1.5), side * rng.uniform(1.5, 2.2)
            elif name == "two_wheeler":
                size, x = (0.7, 1.7), side * rng.uniform(2.6, 3.4)
            else:
                size, x = (0.9, 3.2), side * rng.uniform(4.2, 5.2)
            speed = rng.uniform(0.1, 0.5) if name in ("vehicle", "two_wheeler") and side > 0 else 0
            things.append(_Thing(name, x, at, _color(rng, 20, 230), *size, speed))
    return things


def _color(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    return red, green, blue


def _frame(
    things: list[_Thing], colors: dict[int, np.ndarray], way: float
) -> tuple[np.ndarray, np.ndarray, Found]:
    picture = Image.new("RGB", (COLUMNS, ROWS), tuple(int(v) for v in colors[GROUND]))
    mask, owners = Image.new("L", (COLUMNS, ROWS), GROUND), Image.new("I", (COLUMNS, ROWS), 0)
    layers = [ImageDraw.Draw(one) for one in (picture, mask, owners)]

    def fill(draw: str, where: list, color: tuple[int, ...], label: int, owner: int) -> None:
        for layer, value in zip(layers, (tuple(color), label, owner), strict=True):
            getattr(layer, draw)(where, fill=value)

    fill("rectangle", [0, 0, COLUMNS, HORIZON], tuple(int(v) for v in colors[SKY]), SKY, 0)
    gray = tuple(int(v) for v in colors[ROAD])
    road = [_at(-4, 0, 60), _at(4, 0, 60), _at(4, 0, 2), _at(-4, 0, 2)]
    fill("polygon", road, gray, ROAD, 0)
    for number in range(1, 12):  # the line in the middle
        near = max(number * 5 - way % 5 + 2.5, 2)
        line = [
            _at(-0.1, 0, near + 2),
            _at(0.1, 0, near + 2),
            _at(0.1, 0, near),
            _at(-0.1, 0, near),
        ]
        fill("polygon", line, (225, 225, 215), ROAD, 0)
    seen = [thing for thing in things if 3.5 < thing.z < 60]
    for owner, thing in enumerate(sorted(seen, key=lambda one: -one.z), start=1):
        label = OBJECTS.get(thing.name, HOUSE)
        for draw, where, color in _parts(thing):
            fill(draw, where, color, label, owner)
    labels, parts = np.array(mask), np.array(owners)
    found = []
    for owner, thing in enumerate(sorted(seen, key=lambda one: -one.z), start=1):
        rows, columns = np.nonzero(parts == owner)
        if thing.name in OBJECTS and len(rows) >= SMALLEST:
            left, top = int(columns.min()), int(rows.min())
            edges = (left, top, int(columns.max()) + 1, int(rows.max()) + 1)
            found.append((thing.name, edges))
    return np.array(picture, dtype=float), labels.astype(np.uint8), found


def _at(x: float, height: float, z: float) -> tuple[float, float]:
    """The pixel of a point: x and height above the road in meters, z in front of the eye."""
    return COLUMNS / 2 + FOCAL * x / z, HORIZON + FOCAL * (EYE - height) / z


def _parts(thing: _Thing) -> list[tuple[str, list, tuple[int, int, int]]]:
    """The shapes of a thing: (name of the drawing, corners, color)."""
    x, z, half = thing.x, thing.z, thing.width / 2
    red, green, blue = thing.color
    dark = (red // 3, green // 3, blue // 3)

    def box(left: float, bottom: float, right: float, top: float) -> list[tuple[float, float]]:
        return [_at(x + left, top, z), _at(x + right, bottom, z)]

    if thing.name == "house":
        windows = [
            ("rectangle", box(left, up, left + 0.9, up + 1.2), dark)
            for left in (-2.5, -0.5, 1.5)
            for up in np.arange(1, thing.height - 1.5, 2.4)
        ]
        return [("rectangle", box(-half, 0, half, thing.height), thing.color), *windows]
    if thing.name == "vehicle":
        return [
            ("rectangle", box(-half, 0, -half + 0.3, 0.4), (25, 25, 25)),
            ("rectangle", box(half - 0.3, 0, half, 0.4), (25, 25, 25)),
            ("rectangle", box(-half, 0.25, half, 0.95), thing.color),
            ("rectangle", box(-half * 0.75, 0.95, half * 0.75, thing.height), dark),
            ("rectangle", box(-half, 0.6, -half + 0.3, 0.8), (220, 40, 30)),
            ("rectangle", box(half - 0.3, 0.6, half, 0.8), (220, 40, 30)),
        ]
    if thing.name == "two_wheeler":
        return [
            ("rectangle", box(-0.1, 0, 0.1, 0.7), (25, 25, 25)),
            ("rectangle", box(-half, 0.6, half, 1.3), thing.color),
            ("ellipse", box(-0.2, 1.25, 0.2, 1.7), (205, 165, 140)),
        ]
    pole = ("rectangle", box(-0.08, 0, 0.08, 2.2), (95, 95, 95))
    if thing.name == "traffic_light":
        lamps = [(230, 50, 40), (70, 60, 25), (30, 70, 40)]
        return [
            pole,
            ("rectangle", box(-0.35, 2.0, 0.35, 3.4), (35, 35, 35)),
            *(
                ("ellipse", box(-0.22, up, 0.22, up + 0.4), lamp)
                for up, lamp in zip((2.95, 2.5, 2.05), lamps, strict=True)
            ),
        ]
    return [
        pole,
        ("ellipse", box(-0.55, 2.0, 0.55, 3.1), (200, 35, 35)),
        ("ellipse", box(-0.38, 2.17, 0.38, 2.93), (240, 240, 240)),
    ]
