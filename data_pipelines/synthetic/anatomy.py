"""Synthetic images: a chest radiograph and an axial CT slice from formulas, with or without a
nodule.

They resemble anatomy only roughly. They are for testing software, not for training a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from data_pipelines.synthetic.vessels import Branch, cross_sections, draw_tree, tree


@dataclass(frozen=True)
class Anatomy:
    """One synthetic patient. Lengths are in half-widths of the image (x to the right, y down, 0 in
    the center). The defaults are those of an average patient.
    """

    girth: float  # body half-width
    lung: float  # lung half-width
    heart: float  # heart half-width
    ribs: float  # phase of the first rib
    lean: float  # asymmetry of the two lungs
    caliber: float  # strength of the vessels
    rib_spacing: float = 0.2
    rib_slope: float = 0.45  # how far the ribs descend towards the side
    clavicle: float = -0.70  # y of the inner ends of the clavicles
    clavicle_slope: float = 0.22  # how far they rise towards the shoulder
    lung_height: float = 0.60  # half of it
    diaphragm: float = 0.47  # y of its domes; the one below the left of the image is higher
    heart_x: float = 0.10
    heart_height: float = 0.30  # half of it
    arch: float = -0.34  # y of the arch of the aorta
    arch_strength: float = 0.07
    turn: float = 0.0  # of the patient: moves the spine and makes one lung brighter
    penetration: float = 1.0  # of the X-rays: below 1 the radiograph is darker


@dataclass(frozen=True)
class Nodule:
    """A soft ball in a lung: `side` -1 or 1, `u` and `v` its position in that lung (-1..1),
    `radius`, and `contrast` (0..1.5).
    """

    side: int
    u: float
    v: float
    radius: float
    contrast: float


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Return a random patient."""
    return Anatomy(
        girth=rng.uniform(0.82, 0.95),
        lung=rng.uniform(0.26, 0.33),
        heart=rng.uniform(0.20, 0.30),
        ribs=rng.uniform(0.0, 0.17),
        lean=rng.uniform(-0.06, 0.06),
        caliber=rng.uniform(0.5, 1.0),
        rib_spacing=rng.uniform(0.165, 0.235),
        rib_slope=rng.uniform(0.2, 0.7),
        clavicle=rng.uniform(-0.78, -0.62),
        clavicle_slope=rng.uniform(0.05, 0.35),
        lung_height=rng.uniform(0.54, 0.66),
        diaphragm=rng.uniform(0.42, 0.52),
        heart_x=rng.uniform(0.05, 0.15),
        heart_height=rng.uniform(0.25, 0.35),
        arch=rng.uniform(-0.42, -0.28),
        arch_strength=rng.uniform(0.03, 0.10),
        turn=rng.uniform(-0.06, 0.06),
        penetration=rng.uniform(0.9, 1.05),
    )


def radiograph(
    anatomy: Anatomy, rng: np.random.Generator, rows: int, cols: int, nodule: Nodule | None = None
) -> np.ndarray:
    """Return a chest-like radiograph: float64 (rows, cols), 0..1, bright = dense.

    `rng` gives the position, the vessels and the noise.
    """
    x, y = _grid(rows, cols, rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05))
    body = _inside((np.abs(x) / anatomy.girth) ** 4 + (np.abs(y - 0.3) / 1.5) ** 4, 0.05)
    lungs = np.zeros_like(x)
    for side in (-1, 1):
        cx, cy, wx, wy = _lung(anatomy, side)
        lung = _inside(((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2, 0.1)
        lung *= _inside(1 + 8 * (y - _dome(x, anatomy, side)), 0.15) * (1 + side * anatomy.turn)
        lungs = np.maximum(lungs, lung)
    heart = _inside(_heart(x, y, anatomy), 0.15)
    density = body * (0.62 - 0.40 * lungs * (1 - 0.75 * heart) + 0.10 * heart)
    density += body * (_mediastinum(x, y, anatomy) + 0.065 * _ribs(x, y, anatomy))
    texture = gaussian_filter(rng.standard_normal(x.shape), cols / 60) * cols / 60 * 3.5
    seen = lungs * (1 - 0.8 * heart)
    density += anatomy.caliber * seen * (0.018 * texture + _vessels(anatomy, x, y))
    if nodule is not None:
        cx, cy, wx, wy = _lung(anatomy, nodule.side)
        d2 = (x - cx - nodule.u * wx) ** 2 + (y - cy - nodule.v * wy) ** 2
        density += 0.35 * nodule.contrast * np.exp(-d2 / (2 * (0.6 * nodule.radius) ** 2))
    # Less dose arrives behind dense tissue, so that its noise is stronger.
    noise = rng.normal(0, 0.015, x.shape) * np.exp(1.5 * (density - 0.45))
    return np.clip(0.04 + anatomy.penetration * density + noise, 0.0, 1.0)


def radiograph_labels(
    anatomy: Anatomy, rng: np.random.Generator, rows: int, cols: int, nodule: Nodule | None = None
) -> np.ndarray:
    """The label map of `radiograph` with an equal `rng`, uint8 (rows, cols): 1 lung outside of the
    heart, 2 nodule.
    """
    x, y = _grid(rows, cols, rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05))
    labels = np.zeros((rows, cols), np.uint8)
    for side in (-1, 1):
        cx, cy, wx, wy = _lung(anatomy, side)
        lung = ((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2 < 1
        labels[lung & (y < _dome(x, anatomy, side))] = 1
    labels[_heart(x, y, anatomy) < 1] = 0
    if nodule is not None:
        cx, cy, wx, wy = _lung(anatomy, nodule.side)
        d2 = (x - cx - nodule.u * wx) ** 2 + (y - cy - nodule.v * wy) ** 2
        labels[d2 < nodule.radius**2] = 2
    return labels


def ct_labels(anatomy: Anatomy, size: int, z: float, nodule: Nodule | None = None) -> np.ndarray:
    """The label map of `ct_slice`, uint8 (size, size): 1 lung, 2 nodule."""
    x, y = _grid(size, size, 0.0, 0.0)
    labels = np.zeros((size, size), np.uint8)
    width = anatomy.lung * (1.0 - 0.35 * z**2)
    for side in (-1, 1):
        labels[((x - side * 0.42) / width) ** 2 + (y / (1.35 * width)) ** 2 < 1] = 1
    labels[_heart_section(x, y, anatomy) < max(0.0, 0.9 - z)] = 0
    labels[(x / 0.1) ** 2 + ((y - 0.42) / 0.1) ** 2 < 1] = 0
    if nodule is not None:
        center = nodule.side * 0.42 + 0.5 * nodule.u * width
        d2 = (x - center) ** 2 + y**2 + (0.5 * (z - nodule.v)) ** 2
        labels[d2 < nodule.radius**2] = 2
    return labels


def ct_slice(
    anatomy: Anatomy, rng: np.random.Generator, size: int, z: float, nodule: Nodule | None = None
) -> np.ndarray:
    """Return an axial chest slice in HU: float64 (size, size), air is -1000.

    z: from -1 (feet) to 1 (head). The nodule's `v` is its z; it is visible where the slice cuts it.
    """
    x, y = _grid(size, size, 0.0, 0.0)
    depth = 1 - (np.abs(x) / anatomy.girth) ** 2.4 - (np.abs(y) / (0.7 * anatomy.girth)) ** 2.4
    hu = np.where(depth > 0, 45.0, -1000.0)
    hu[(depth > 0) & (depth < 0.14)] = -90.0  # fat
    hu[_rib_sections(x, y, anatomy, z) & (depth > 0.1)] = 420.0
    width = anatomy.lung * (1.0 - 0.35 * z**2)
    lungs = [(side * 0.42, width, 1.35 * width) for side in (-1, 1)]
    vessels = cross_sections(_own_rng(anatomy), x, z, lungs)
    for cx, wx, wy in lungs:
        lung = ((x - cx) / wx) ** 2 + (y / wy) ** 2 < 1
        hu[lung] = -860.0 + 60.0 * y[lung] + 560.0 * anatomy.caliber * vessels[lung]
    hu[_heart_section(x, y, anatomy) < max(0.0, 0.9 - z)] = 40.0
    hu[(x - 0.03) ** 2 + (y - 0.18) ** 2 < 0.04**2 * max(0.0, z)] = -990.0  # trachea
    hu[(x / 0.1) ** 2 + ((y - 0.42) / 0.1) ** 2 < 1] = 350.0  # vertebra
    hu[(x / 0.035) ** 2 + ((y - 0.46) / 0.03) ** 2 < 1] = 30.0  # spinal canal
    if nodule is not None:
        d2 = (
            (x - nodule.side * 0.42 - 0.5 * nodule.u * width) ** 2
            + y**2
            + (0.5 * (z - nodule.v)) ** 2
        )
        hu = np.where(d2 < nodule.radius**2, np.maximum(hu, -860.0 + 900.0 * nodule.contrast), hu)
    # Fewer photons pass through the middle of the body, so that its noise is stronger.
    noise = rng.normal(0, 22.0, hu.shape) * (0.6 + 0.6 * np.clip(depth, 0, 1))
    return gaussian_filter(hu, 0.6) + noise


def _grid(rows: int, cols: int, dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:rows, 0:cols].astype(float)
    return (x - (cols - 1) / 2) / (cols / 2) - dx, (y - (rows - 1) / 2) / (rows / 2) - dy


def _lung(anatomy: Anatomy, side: int) -> tuple[float, float, float, float]:
    width = anatomy.lung * (1 + side * anatomy.lean)
    return side * 0.43, -0.08, width, anatomy.lung_height


def _dome(x: np.ndarray, anatomy: Anatomy, side: int) -> np.ndarray:
    """The height y of the diaphragm below a lung."""
    return anatomy.diaphragm + 0.03 * side + 1.2 * (x - side * 0.43) ** 2


def _heart(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Below 1 in the heart of a radiograph."""
    across, down = (x - anatomy.heart_x) / anatomy.heart, (y - 0.28) / anatomy.heart_height
    return across**2 + down**2


def _heart_section(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Below 1 in the heart of a CT slice through its middle."""
    return ((x - anatomy.heart_x) / anatomy.heart) ** 2 + ((y + 0.1) / 0.2) ** 2


def _inside(level: np.ndarray, softness: float) -> np.ndarray:
    """1 where level < 1, 0 elsewhere, with a soft edge (float64 from 0 to 1)."""
    return 1 / (1 + np.exp(np.clip((level - 1) / softness, -40, 40)))


def _mediastinum(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """What lies between the lungs: the vertebrae with gaps between them, the arch of the aorta, and
    the trachea, which holds air.
    """
    spine = x - 0.6 * anatomy.turn
    vertebrae = np.exp(-((spine / 0.075) ** 4)) * (0.075 + 0.025 * np.cos(2 * np.pi * y / 0.17))
    width = 0.11 + 0.04 * np.tanh((y + 0.1) / 0.2)
    shadow = 0.08 * _inside((x / width) ** 2 + 0.0 * y, 0.35) * _inside((y / 0.9) ** 2, 0.2)
    arch = _inside(((x - 0.10) / 0.075) ** 2 + ((y - anatomy.arch) / 0.09) ** 2, 0.2)
    end = anatomy.arch + 0.1
    middle = 0.01 + anatomy.turn
    trachea = 0.12 * np.exp(-(((x - middle) / 0.035) ** 4)) * _inside(1 + 4 * (y - end), 0.08)
    return vertebrae + shadow + anatomy.arch_strength * arch - trachea


def _ribs(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Pairs of ribs that slope down towards the side, and two clavicles: brighter at their
    edges, where the X-rays pass through more of the hard bone.
    """
    height = (y + 0.9 - anatomy.ribs - anatomy.rib_slope * x**2) / anatomy.rib_spacing
    last = np.round(1.5 / anatomy.rib_spacing) - 0.5
    ribs = np.where((height > -0.5) & (height < last), _bone(height - np.round(height), 0.2), 0.0)
    ribs *= _inside((x / (0.9 * anatomy.girth)) ** 2, 0.05) * (1 - 0.6 * np.exp(-((x / 0.12) ** 2)))
    rise = anatomy.clavicle_slope * np.abs(x)
    clavicles = _bone((y - anatomy.clavicle + rise) / 0.2, 0.22)
    clavicles *= _inside(((np.abs(x) - 0.4) / 0.3) ** 2, 0.15)
    return ribs + 1.2 * clavicles


def _bone(distance: np.ndarray, half: float) -> np.ndarray:
    """A bar with bright edges. distance: from its middle; half: half of its width."""
    bar = _inside((distance / half) ** 2, 0.25)
    return bar * (0.55 + 0.6 * (distance / half) ** 2)


def _rib_sections(x: np.ndarray, y: np.ndarray, anatomy: Anatomy, z: float) -> np.ndarray:
    """Where a CT slice cuts ribs, breastbone and the arch of the vertebra."""
    cut = np.zeros(x.shape, bool)
    for number in range(5):
        angle = -1.0 + 0.5 * number + 0.25 * z + anatomy.ribs
        for side in (-1, 1):
            cx = side * 0.87 * anatomy.girth * np.cos(angle)
            cy = 0.87 * 0.7 * anatomy.girth * np.sin(angle)
            along = (x - cx) * -side * np.sin(angle) + (y - cy) * np.cos(angle)
            across = (x - cx) * side * np.cos(angle) + (y - cy) * np.sin(angle)
            cut |= (along / 0.07) ** 2 + (across / 0.025) ** 2 < 1
    front = -0.7 * anatomy.girth * 0.88
    cut |= (x / 0.1) ** 2 + ((y - front) / 0.03) ** 2 < 1
    return cut | ((np.abs(x) < 0.03) & (np.abs(y - 0.53) < 0.05))


def _vessels(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The trees of both lungs in a radiograph."""
    return draw_tree(_trees(anatomy), x, y, strength=0.11)


@lru_cache(maxsize=4)  # the images of a patient are drawn one after the other
def _trees(anatomy: Anatomy) -> list[Branch]:
    rng = _own_rng(anatomy)
    return [branch for side in (-1, 1) for branch in tree(rng, side, side * 0.2, 0.0)]


def _own_rng(anatomy: Anatomy) -> np.random.Generator:
    """Random numbers that are the same for every image of a patient."""
    return np.random.default_rng([int(value * 1e9) for value in (anatomy.caliber, anatomy.girth)])
