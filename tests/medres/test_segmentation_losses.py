from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

from medres.errors import TrainingError
from medres.losses import DiceCrossentropy, FocalCrossentropy, Tversky
from medres.metrics import Dice

CLASSES = 3
WEIGHTS = [0.5, 1.0, 2.0]
LOSSES: list[tuple[Any, dict[str, Any]]] = [
    (DiceCrossentropy, {}),
    (DiceCrossentropy, {"label_smoothing": 0.2, "class_weights": WEIGHTS, "batch": False}),
    (DiceCrossentropy, {"dice": 0.5, "crossentropy": 2.0, "background": True, "smooth": 0.0}),
    (Tversky, {"alpha": 0.2, "beta": 0.8, "exponent": 0.75, "class_weights": WEIGHTS}),
    (Tversky, {"batch": False, "ignore_label": 1}),
    (FocalCrossentropy, {}),
    (FocalCrossentropy, {"gamma": 0.5, "class_weights": WEIGHTS, "ignore_label": 2}),
]


def data(shape: tuple[int, ...] = (3, 4, 5)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, CLASSES, shape)
    labels[1] = np.where(labels[1] == 2, 0, labels[1])  # an image without class 2
    return labels, rng.normal(size=(*shape, CLASSES)).astype(np.float32)


def by_definition(kind: Any, options: dict[str, Any], labels: Any, logits: Any) -> float:
    """Pixel by pixel, in float64."""
    weights = options.get("class_weights") or [1.0] * CLASSES
    ignored = {-1, options.get("ignore_label", -1)}
    images = []
    for label, logit in zip(labels, logits, strict=True):
        p = np.exp(logit.astype(np.float64))
        p = (p / p.sum(-1, keepdims=True)).reshape(-1, CLASSES)
        pairs = zip(label.ravel(), p, strict=True)
        images.append([(int(c), row) for c, row in pairs if int(c) not in ignored])
    pixels = [pair for image in images for pair in image]
    if kind is FocalCrossentropy:
        gamma = options.get("gamma", 2.0)
        return mean(pixels, weights, lambda c, p: -((1 - p[c]) ** gamma) * np.log(p[c]))
    groups = [pixels] if options.get("batch", True) else images
    overlap = float(np.mean([overlap_loss(kind, options, weights, group) for group in groups]))
    if kind is Tversky:
        return overlap
    s = options.get("label_smoothing", 0.0)
    target = (1 - s) * np.eye(CLASSES) + s / CLASSES
    entropy = mean(pixels, weights, lambda c, p: -np.sum(target[c] * np.log(p)))
    return options.get("dice", 1.0) * overlap + options.get("crossentropy", 1.0) * entropy


def mean(pixels: list[Any], weights: list[float], cell: Any) -> float:
    total = sum(weights[c] for c, _ in pixels)
    return sum(weights[c] * cell(c, p) for c, p in pixels) / total if total else 0.0


def overlap_loss(
    kind: Any, options: dict[str, Any], weights: list[float], pixels: list[Any]
) -> float:
    default = (0.3, 0.7) if kind is Tversky else (0.5, 0.5)
    alpha, beta = options.get("alpha", default[0]), options.get("beta", default[1])
    smooth = options.get("smooth", 0.5)
    losses = []
    for c in range(0 if options.get("background") else 1, CLASSES):
        if not any(label == c for label, _ in pixels):
            continue
        tp = sum(p[c] for label, p in pixels if label == c)
        fp = sum(p[c] for label, p in pixels if label != c)
        fn = sum(1 - p[c] for label, p in pixels if label == c)
        index = (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)
        losses.append((weights[c], (1 - index) ** options.get("exponent", 1.0)))
    return sum(w * x for w, x in losses) / sum(w for w, _ in losses) if losses else 0.0


@pytest.mark.parametrize(("kind", "options"), LOSSES)
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 2)])
def test_the_loss_is_its_definition(
    kind: Any, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    labels, logits = data(shape)
    loss = kind(**options)
    expected = by_definition(kind, options, labels, logits)
    assert float(loss(labels, logits)) == pytest.approx(expected, abs=1e-5)
    assert float(loss(labels[..., None], logits)) == pytest.approx(expected, abs=1e-5)
    copy = kind.from_config(loss.get_config())
    assert float(copy(labels, logits)) == pytest.approx(expected, abs=1e-5)
    half = loss(labels, logits.astype(np.float16))
    assert float(half) == pytest.approx(expected, rel=1e-2)


def slopes(loss: Any, jit: bool) -> Any:
    @tf.function(jit_compile=jit)
    def run(y: Any, z: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = loss(y, z)
        return value, tape.gradient(value, z)

    return lambda y, z: [np.asarray(x) for x in run(tf.constant(y), tf.constant(z))]


@pytest.mark.parametrize(("kind", "options"), [LOSSES[1], LOSSES[3], LOSSES[6]])
def test_gradients_are_finite_and_the_same_with_xla(kind: Any, options: dict[str, Any]) -> None:
    labels, logits = data()
    plain, compiled = slopes(kind(**options), jit=False), slopes(kind(**options), jit=True)
    for ours, expected in zip(compiled(labels, logits), plain(labels, logits), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    certain = 60.0 * np.eye(CLASSES, dtype=np.float32)
    for label in (np.zeros_like(labels), np.full_like(labels, -1), np.maximum(labels, 0)):
        for z in (logits, certain[np.maximum(label, 0)], -certain[np.maximum(label, 0)]):
            assert all(np.isfinite(x).all() for x in plain(label, z))


def test_a_batch_without_any_label_or_foreground() -> None:
    labels, logits = data()
    for kind, options in LOSSES:
        assert float(kind(**options)(np.full_like(labels, -1), logits)) == 0
    assert float(Tversky()(np.zeros_like(labels), logits)) == 0
    empty = float(DiceCrossentropy()(np.zeros_like(labels), logits))
    assert empty == pytest.approx(float(DiceCrossentropy(dice=0)(np.zeros_like(labels), logits)))


def test_a_label_that_no_class_has_makes_the_loss_nan() -> None:
    labels, logits = data()
    labels[0, 0, 0] = CLASSES
    for kind, _ in LOSSES:
        assert np.isnan(float(kind()(labels, logits)))


def test_ignored_pixels_change_nothing() -> None:
    labels, logits = data()
    other = np.where(labels[..., None] < 0, logits + 3, logits)
    for kind, options in LOSSES:
        loss = kind(**options)
        assert float(loss(labels, logits)) == pytest.approx(float(loss(labels, other)), abs=1e-6)


@pytest.mark.parametrize(
    ("code", "kind", "options"),
    [
        ("out_of_range", Tversky, {"alpha": -1.0}),
        ("out_of_range", Tversky, {"exponent": 0.0}),
        ("out_of_range", DiceCrossentropy, {"label_smoothing": 1.0}),
        ("out_of_range", DiceCrossentropy, {"class_weights": [1.0, float("nan"), 1.0]}),
        ("out_of_range", FocalCrossentropy, {"gamma": -0.1}),
        ("class_weights", FocalCrossentropy, {"class_weights": [1.0, 1.0]}),
    ],
)
def test_options_that_make_no_loss_are_refused(
    code: str, kind: Any, options: dict[str, Any]
) -> None:
    with raises_code(TrainingError, code):
        kind(**options)(*data())


def test_a_weight_belongs_to_an_image() -> None:
    labels, logits = data()
    with raises_code(TrainingError, "weight_shape"):
        DiceCrossentropy()(labels, logits, sample_weight=np.ones(labels.shape))


def test_dice_by_class_leaves_empty_references_out_and_counts_them() -> None:
    labels = np.zeros((5, 2, 3), int)
    chosen = np.zeros((5, 2, 3), int)
    labels[0, 0], chosen[0, 0, :2] = 1, 1  # 2 * 2 / (3 + 2)
    labels[1, 1] = 1  # missed: 0
    chosen[2, 0, 0] = 1  # a false alarm
    labels[3] = -1  # not labeled: in no count
    chosen[3] = 1
    labels[4, 0], labels[4, 1] = 1, -1
    chosen[4] = 1  # perfect where there are labels
    metric = Dice(["background", "lung", "heart"])
    empty = {name: float(value) for name, value in metric.result().items()}
    assert all(map(np.isnan, empty.values()))
    logits = np.eye(3, dtype=np.float32)[chosen]
    metric.update_state(labels[:2], logits[:2])
    metric.update_state(labels[2:], logits[2:])
    result = {name: float(value) for name, value in metric.result().items()}
    assert result["dice_lung"] == result["dice"] == pytest.approx((0.8 + 0 + 1) / 3)
    assert np.isnan(result["dice_heart"])
    assert metric.counts() == {
        "lung": {"images": 3, "missed": 1, "false_alarms": 1, "both_empty": 0},
        "heart": {"images": 0, "missed": 0, "false_alarms": 0, "both_empty": 4},
    }
    weighted = Dice.from_config(metric.get_config())
    weighted.update_state(labels[:2], logits[:2], sample_weight=np.array([1.0, 0.0]))
    assert float(weighted.result()["dice"]) == pytest.approx(0.8)
    assert weighted.counts()["lung"]["images"] == 1


def test_a_fit_shows_loss_and_dice_and_opens_again() -> None:
    model = keras.Sequential([keras.Input((4, 5, 1)), keras.layers.Conv2D(CLASSES, 1)])
    model.compile("sgd", loss=DiceCrossentropy(), metrics=[Dice(CLASSES)], jit_compile=True)
    labels, _ = data()
    history = model.fit(np.ones((3, 4, 5, 1)), labels, verbose=0).history
    assert set(history) == {"loss", "dice", "dice_1", "dice_2"}
    assert np.isfinite(history["loss"]).all()
