"""Simulate the coverage of the intervals of means over patients: Dice, distances, false positives.

    python benchmarks/segmentation_coverage.py [--draws 2000] [--cell N ...]

One value per patient. Dice is skewed towards 1, with or without patients who are missed (Dice 0);
HD95 is log-normal; false lesions per case are Poisson; `difference` is the paired difference of two
models whose Dice is correlated. Each row names its true value. `no failure %`: of samples in which
nobody was missed although some of the population are; no interval from the sample alone can then
reach the true mean. `below` and `above`: of intervals that lie wholly on that side of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from medres.evaluate.statistics.patient_means import mean_over_patients

LEVEL = 0.95
PATIENTS = (10, 20, 30, 50, 100)
BETA = (14.0, 1.2)

Draw = Callable[[np.random.Generator, int], np.ndarray]


class Cell(NamedTuple):
    name: str
    draw: Draw
    truth: float
    failures: float = 0.0


def dice(failures: float) -> Cell:
    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.beta(*BETA, n) * (rng.random(n) >= failures)

    truth = BETA[0] / sum(BETA) * (1.0 - failures)
    return Cell(f"Dice, {failures:.0%} missed", draw, truth, failures)


def logit_normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return special.expit(rng.normal(3.0, 1.0, n))


def difference(rng: np.random.Generator, n: int) -> np.ndarray:
    shared = rng.normal(0.0, 0.8, n)
    a, b = (special.expit(2.5 + shared + rng.normal(0.0, 0.6, n)) for _ in "ab")
    return a - b


def mean_logit_normal() -> float:
    return float(stats.norm(3.0, 1.0).expect(special.expit, lb=-7.0, ub=13.0, epsabs=1e-10))


CELLS = [
    dice(0.0),
    Cell("Dice, logit-normal", logit_normal, mean_logit_normal()),
    dice(0.05),
    dice(0.1),
    dice(0.2),
    Cell("HD95, log-normal", lambda rng, n: rng.lognormal(1.0, 0.6, n), float(np.exp(1.18))),
    Cell("false lesions, Poisson", lambda rng, n: rng.poisson(0.5, n).astype(float), 0.5),
    Cell("difference of two models", difference, 0.0),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--cell", type=int, nargs="*", help="numbers of cells; default all")
    given = parser.parse_args()
    print("figure | true value | patients | covers % | below % | above % | width | no failure %")
    for number in given.cell or range(len(CELLS)):
        cell = CELLS[number]
        for n in PATIENTS:
            rng = np.random.default_rng([number, n])
            held = below = above = unseen = 0
            widths = []
            for _ in range(given.draws):
                values = cell.draw(rng, n)
                unseen += bool(cell.failures) and bool((values > 0.0).all())
                found = mean_over_patients(values, np.arange(n), LEVEL)
                if found.bounds is None:
                    continue
                low, high = found.bounds
                below += high < cell.truth
                above += low > cell.truth
                held += low <= cell.truth <= high
                widths.append(high - low)
            shares = " | ".join(f"{100 * x / given.draws:.1f}" for x in (held, below, above))
            none = f"{100 * unseen / given.draws:.0f}" if cell.failures else ""
            print(
                f"{cell.name} | {cell.truth:.3f} | {n} | {shares} | {np.mean(widths):.3f} | {none}",
                flush=True,
            )


if __name__ == "__main__":
    main()
