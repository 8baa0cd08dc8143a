"""Made-up references and predictions in COCO's form."""

from __future__ import annotations

from typing import Any

import numpy as np

Coco = dict[str, Any]


def made_boxes(
    seed: int, images: int = 24, classes: int = 2, *, ties: bool = False, crowds: bool = True
) -> tuple[Coco, list[dict[str, Any]]]:
    """A reference with small, medium and large boxes, and predictions of mixed quality."""
    rng = np.random.default_rng(seed)
    reference: Coco = {
        "images": [
            {"id": i + 5, "width": 400, "height": 300, "file_name": f"image{i}.png"}
            for i in range(images)
        ],
        "categories": [{"id": 3 * c + 1, "name": f"class{c}"} for c in range(classes)],
        "annotations": [],
    }
    predictions = []
    for i in range(images):
        for _ in range(rng.integers(0, 6)):
            size = rng.choice([12, 25, 60, 110], 2) * rng.uniform(0.8, 1.2, 2)
            box = np.concatenate([rng.uniform(0, 150, 2), size]).round()
            category = 3 * int(rng.integers(classes)) + 1
            reference["annotations"].append(
                {
                    "id": len(reference["annotations"]) + 1,
                    "image_id": i + 5,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(crowds and rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, 3)):
                moved = (box + rng.normal(0, rng.choice([1, 4, 20]), 4)).round()
                moved[2:] = np.maximum(moved[2:], 1)
                predictions.append(
                    {
                        "image_id": i + 5,
                        "category_id": category,
                        "bbox": moved.tolist(),
                        "score": round(float(rng.random()), 1 if ties else 9),
                    }
                )
    return reference, predictions


def one_class(boxes: list[list[float]], image: int = 1) -> list[dict[str, Any]]:
    """Entries of one image and class."""
    return [{"image_id": image, "category_id": 1, "bbox": box} for box in boxes]


def reference_of(annotations: list[dict[str, Any]], images: int = 1) -> Coco:
    """A reference with the class nodule and images 1, 2, ..."""
    return {
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": 1, "name": "nodule"}],
        "annotations": [{"id": i + 1, "iscrowd": 0} | a for i, a in enumerate(annotations)],
    }
