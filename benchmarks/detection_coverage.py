"""Simulate the coverage of the intervals of AP50, AP, mean FROC sensitivity, and sensitivity at one
false positive per image, by number of patients.

    python benchmarks/detection_coverage.py [--draws 1000] [--replicates 1000]

A patient has one to three images; lesions are Poisson with a patient's own rate, and the patient's
own difficulty shifts the scores and the chance of being found, so patients are clusters. A found
lesion has a box with jitter, false positives are Poisson. The true value is that of 20,000 patients
(mean over 4 such populations). Cells with 30 patients or more are gated: the exit code is 1 if the
95 % Monte Carlo interval of a coverage lies wholly outside 93 to 97 %.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from medres.evaluate.detection.average_precision import match_precision
from medres.evaluate.detection.boxes import Boxes
from medres.evaluate.detection.froc import RATES, match_marks
from medres.evaluate.statistics.bca import bca_estimate, draw
from medres.evaluate.statistics.intervals import wilson

FIGURES = ("ap", "ap50", "froc_mean", "sensitivity_at_1")
PATIENTS = (10, 20, 30, 60, 120)
GATED_FROM = 30
GATE = (0.93, 0.97)
WELLS = (("difficult", 0.0), ("easy", 1.6))


def population(
    rng: np.random.Generator, patients: int, skill: float
) -> tuple[Boxes, Boxes, np.ndarray]:
    """(predictions, references, patient of each image)."""
    patient = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    ease = rng.normal(0, 0.7, patients)[patient]
    rate = rng.gamma(2.0, 0.6, patients)[patient]
    lesions = rng.poisson(rate)
    image = np.repeat(np.arange(patient.size), lesions)
    corner = np.column_stack([np.arange(image.size) % 50 * 40.0, np.zeros(image.size)])
    reference = _boxes(image, np.hstack([corner, corner + 20.0]), np.zeros(image.size))
    own = ease[image]
    found = rng.random(image.size) < 1 / (1 + np.exp(-(skill + 0.6 + own)))
    jitter = rng.normal(0, 1.5 if skill else 3.0, (image.size, 4))
    true = _boxes(
        image[found],
        (reference.corners + jitter)[found],
        rng.normal(1.2 + 0.5 * skill, 1.0, image.size)[found] + own[found],
    )
    false = np.repeat(np.arange(patient.size), rng.poisson(1.2, patient.size))
    far = np.tile([5000.0, 0.0, 5020.0, 20.0], (false.size, 1))
    wrong = _boxes(false, far, rng.normal(0.0, 1.0, false.size) - 0.3 * ease[false])
    return _joined(true, wrong), reference, patient


def _boxes(image: np.ndarray, corners: np.ndarray, score: np.ndarray) -> Boxes:
    n = image.size
    area = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    return Boxes(image, np.zeros(n, dtype=int), corners, score, area, np.zeros(n, dtype=bool))


def _joined(a: Boxes, b: Boxes) -> Boxes:
    return Boxes(*(np.concatenate([getattr(a, f), getattr(b, f)]) for f in a.__dataclass_fields__))


def statistics(predicted: Boxes, reference: Boxes, patient: np.ndarray):
    """The figures as a function of (patients,) weights."""
    precision = match_precision(predicted, reference, patient.size)
    marks = match_marks(predicted, reference, patient.size)

    def figures(weight: np.ndarray) -> np.ndarray:
        each = weight[patient]
        ap = precision.average_precisions(each)
        froc = marks.sensitivities(np.array(RATES), each)
        return np.array([ap.mean(), ap[0], froc.mean(), froc[3]])

    return figures


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=1000)
    options = parser.parse_args()
    failed = []
    print(f"| cell | patients | {' | '.join(FIGURES)} |\n|{'---|' * (2 + len(FIGURES))}")
    for name, skill in WELLS:
        truth = np.mean(
            [
                statistics(*population(np.random.default_rng(10**6 + i), 20_000, skill))(
                    np.ones(20_000)
                )
                for i in range(4)
            ],
            axis=0,
        )
        for n in PATIENTS:
            covered = np.zeros(len(FIGURES))
            for seed in range(options.draws):
                figures = statistics(*population(np.random.default_rng(seed), n, skill))
                draws = draw(figures, n, replicates=options.replicates, seed=seed)
                for i in range(len(FIGURES)):
                    bounds = bca_estimate(draws, i, 0.95).bounds
                    covered[i] += bounds is not None and bounds[0] <= truth[i] <= bounds[1]
            shares = covered / options.draws
            cells = " | ".join(f"{100 * share:.1f}" for share in shares)
            print(f"| {name} | {n} | {cells} |", flush=True)
            for figure, k in zip(FIGURES, covered, strict=True):
                low, high = wilson(k, options.draws, 1.96)
                if n >= GATED_FROM and (high < GATE[0] or low > GATE[1]):
                    failed.append(f"{name}, {n} patients, {figure}: {k / options.draws:.3f}")
        values = ", ".join(
            f"{figure} {value:.4f}" for figure, value in zip(FIGURES, truth, strict=True)
        )
        print(f"true values, {name}: {values}", flush=True)
    print(
        "\n".join(["outside the gate:", *failed]) if failed else "all gated cells within the gate"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
