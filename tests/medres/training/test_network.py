"""Transfer: frozen statistics, layer rates, thawing stage by stage, and backbones of one's own."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

import medres
from data_pipelines.augment import augmentation, draw_pairs
from data_pipelines.preprocessing.spec import spec_from
from medres.errors import TrainingError
from medres.training.config.recipe import Recipe, recipe
from medres.training.losses import Loss
from medres.training.network import (
    backbone_sha256,
    build_classifier,
    copy_weights,
    load_backbone,
    rate_factors,
    rebuild_on,
    set_trainable,
    stages,
    weights_of,
)
from medres.training.optimizers import optimizer
from medres.training.train_step import Trainer

NETWORK = {"variant": "resnet10", "version": "1.5", "stem": "small", "width": 4, "windows": None}
STAGES = ["stem", "stage1", "stage2", "stage3", "stage4", "head"]


def net(**options) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_classifier(NETWORK, spec_from("xray-16"), ["a"], "binary", **options)


def batch(seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    image = tf.constant(rng.random((6, 16, 16, 1)), tf.float32)
    label = tf.constant(rng.integers(0, 2, (6, 1)), tf.float32)
    return {"image": image, "key": tf.zeros((6, 2), tf.int32)}, label, tf.ones((6, 1))


def trained(core: keras.Model, chosen: Recipe, epochs: int = 1) -> Trainer:
    made = optimizer(chosen, 4, core.trainable_variables, rate_factors(core, chosen.layer_decay))
    trainer = Trainer(
        core, lambda image, key, training: image, Loss("binary"), made, chosen, jit=False
    )
    for epoch in range(epochs):
        trainer.begin_epoch(epoch)
        trainer.reset_means()
        for number in range(2):
            trainer.step(batch(number), number)
    return trainer


def changed_stages(before: dict, core: keras.Model, *, norms: bool) -> list[str]:
    after = weights_of(core)
    moved = {name.split("/")[0] for name in before if not np.array_equal(before[name], after[name])}
    return [
        stage
        for stage, layers in stages(core).items()
        if any(
            layer.name in moved and isinstance(layer, keras.layers.BatchNormalization) == norms
            for layer in layers
        )
    ]


def test_stages_go_from_the_image_to_the_head() -> None:
    assert list(stages(net())) == STAGES
    assert sum(len(layers) for layers in stages(net()).values()) == sum(
        bool(layer.weights) for layer in net().layers
    )


def test_layer_decay_by_stage() -> None:
    factors = rate_factors(net(), 0.5)
    assert (
        factors["logits"],
        factors["stage4_block1_conv1"],
        factors["stage1_block1_norm1"],
        factors["stem_conv"],
    ) == (
        1.0,
        0.5,
        0.5**4,
        0.5**5,
    )


def test_stages_thaw_from_the_head() -> None:
    core, seen = net(), []
    for epoch in range(14):
        if set_trainable(core, epoch, 2, False):
            seen.append(
                (epoch, [name for name, layers in stages(core).items() if layers[0].trainable])
            )
    assert seen == [(0, ["head"]), *((2 * n, STAGES[5 - n :]) for n in range(1, 6))]


def test_frozen_norms_keep_their_statistics_and_scales_and_the_rest_learns() -> None:
    core = net()
    for layer in core.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.linspace(-1, 1, layer.moving_mean.shape[0]))
    before = weights_of(core)
    trained(core, recipe(freeze_norm=True, warmup=0))
    assert changed_stages(before, core, norms=True) == []
    assert changed_stages(before, core, norms=False) == STAGES


def test_a_frozen_stage_runs_on_stored_statistics_and_nothing_of_it_moves() -> None:
    core = net()
    before = weights_of(core)
    trainer = trained(core, recipe(unfreeze=1, warmup=0, ema=0.5))
    assert changed_stages(before, core, norms=True) == []
    assert changed_stages(before, core, norms=False) == ["head"]
    assert [name for name, value in trainer.means().items() if value == 0] == [
        f"grad_{s}" for s in STAGES[:-1]
    ]
    set_trainable(core, 0, 0, False)
    trained(core, recipe(unfreeze=1, warmup=0), epochs=2)
    assert changed_stages(before, core, norms=True) == ["stage4"]
    assert changed_stages(before, core, norms=False) == ["stage4", "head"]


def test_the_gradient_norms_are_those_of_a_plain_tape() -> None:
    core = net()
    twin = net()
    copy_weights(core, twin)
    inputs, label, _ = batch()
    with tf.GradientTape() as tape:
        logits = twin(inputs["image"], training=True)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label, logits))
    gradients = tape.gradient(loss, [v.value for v in twin.trainable_variables])
    want: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    for variable, gradient in zip(twin.trainable_variables, gradients, strict=True):
        layer = variable.path.split("/")[-2]
        want["head" if layer == "logits" else layer.split("_")[0]] += float(
            tf.reduce_sum(gradient**2)
        )
    chosen = recipe()
    made = optimizer(chosen, 4, core.trainable_variables)
    trainer = Trainer(
        core, lambda image, key, training: image, Loss("binary"), made, chosen, jit=False
    )
    trainer.begin_epoch(0)
    trainer.reset_means()
    trainer.step(batch(), 0)
    found = trainer.means()
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    for stage, squared in want.items():
        assert found[f"grad_{stage}"] == pytest.approx(squared**0.5, rel=1e-3)


def test_the_average_starts_fast_and_covers_norm_statistics() -> None:
    core = net()
    before = weights_of(core)
    chosen = recipe(ema=0.9, warmup=0)
    made = optimizer(chosen, 4, core.trainable_variables)
    trainer = Trainer(
        core, lambda image, key, training: image, Loss("binary"), made, chosen, jit=False
    )
    trainer.begin_epoch(0)
    want = {name: value.astype(np.float64) for name, value in before.items()}
    for number in range(3):
        trainer.step(batch(number), number)
        momentum = min(0.9, (2 + number) / (11 + number))
        want = {
            name: momentum * want[name] + (1 - momentum) * value
            for name, value in weights_of(core).items()
        }
    found = trainer.weights()
    assert all(np.allclose(found[name], want[name], rtol=1e-4, atol=1e-6) for name in want)
    assert any(not np.allclose(found[n], before[n]) for n in want if n.endswith("moving_mean"))


def test_the_served_copy_has_no_random_layer_and_float32() -> None:
    core, served = net(stochastic_depth=0.5, policy="mixed_bfloat16"), net()
    copy_weights(core, served)
    assert any(isinstance(layer, keras.layers.Dropout) for layer in core.layers)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in served.layers)
    assert {layer.compute_dtype for layer in served.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    image = batch()[0]["image"]
    assert np.allclose(core(image, training=False), served(image, training=False), atol=0.05)


def test_mixed_pairs_have_the_loss_of_both_labels() -> None:
    """One step of mixup against the sum of two losses by hand, with a label missing."""
    core, twin = net(), net()
    inputs, label, weight = batch()
    inputs = inputs | {"key": tf.stack([tf.fill([6], 7), tf.range(6)], axis=1)}
    weight = tf.constant([[1.0], [1.0], [0.0], [1.0], [1.0], [1.0]])
    pairs = augmentation("none", "display").model_copy(update={"mixup": 1.0})
    made = optimizer(recipe(), 4, core.trainable_variables)
    trainer = Trainer(
        core,
        lambda image, key, training: image,
        Loss("binary"),
        made,
        recipe(),
        jit=False,
        pairs=pairs,
    )
    trainer.begin_epoch(0)
    trainer.reset_means()
    trainer.step((inputs, label, weight), 0)
    part = draw_pairs(inputs["key"], pairs, 2)["part"].numpy()[:, 0]
    assert 0.02 < part.min() < part.max() < 0.98
    image = inputs["image"].numpy()
    own = part[:, None, None, None]
    logits = np.asarray(twin(own * image + (1 - own) * np.roll(image, -1, axis=0), training=True))[
        :, 0
    ].astype(float)

    def loss(y: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, logits) - y * logits

    y, w = label.numpy()[:, 0], weight.numpy()[:, 0]
    cells = part * w * loss(y) + (1 - part) * np.roll(w, -1) * loss(np.roll(y, -1))
    want = cells.sum() / (part * w + (1 - part) * np.roll(w, -1)).sum()
    assert trainer.means()["loss"] == pytest.approx(want, rel=1e-4)


# XLA takes 10 s; by default the loss of boxes and the augmentation are compiled by it
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_step_compiles_with_and_without_xla(jit: bool) -> None:
    core, chosen = net(stochastic_depth=0.2), recipe(ema=0.9, clip=1.0, optimizer="lamb")
    made = optimizer(chosen, 4, core.trainable_variables)
    trainer = Trainer(
        core, lambda image, key, training: image, Loss("binary"), made, chosen, jit=jit
    )
    trainer.begin_epoch(0)
    trainer.reset_means()
    trainer.step(batch(), 0)
    assert 0 < trainer.means()["loss"] < 20
    assert int(trainer.bad_batch.numpy()) == -1


def own_backbone(channels: int = 1, name: str = "mine") -> keras.Model:
    image = keras.Input((32, 32, channels))
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="first")(image)
    x = keras.layers.ReLU(name="bend")(keras.layers.BatchNormalization(name="scale_it")(x))
    return keras.Model(
        image, keras.layers.Conv2D(8, 3, strides=2, padding="same", name="second")(x), name=name
    )


def test_a_backbone_of_ones_own_is_trained_and_served(tiny_work: Path, tmp_path: Path) -> None:
    backbone = own_backbone()
    start = backbone.get_layer("first").kernel.numpy()
    options = {
        "preset": "xray-32",
        "batch_size": 8,
        "epochs": 1,
        "freeze_norm": True,
        "learning_rate": 1e-9,
    }
    run = medres.train(tiny_work, model=backbone, **options, out=tmp_path / "run")
    model = medres.load(run.artefact).artefact.model
    assert np.allclose(model.get_layer("first").kernel.numpy(), start, atol=1e-6)
    assert (model.get_layer("scale_it").moving_mean.numpy() == 0).all()
    assert np.array_equal(
        backbone.get_layer("first").kernel.numpy(), start
    )  # the one that was given is not touched
    with raises_code(TrainingError, "other_run", "backbone_sha256"):
        medres.train(tiny_work, model=own_backbone(), **options, out=tmp_path / "run")
    backbone.save(tmp_path / "mine.keras")
    assert backbone_sha256(load_backbone(tmp_path / "mine.keras")) == backbone_sha256(backbone)


def test_a_whole_classifier_is_no_backbone_and_the_message_says_what_to_write(
    tiny_work: Path, tiny_run: Path, tmp_path: Path
) -> None:
    whole = medres.classifier(10, (32, 32, 1), 1, width=8)
    whole.save(tmp_path / "whole.keras")
    for model in (
        whole,
        medres.classifier(10, (32, 32, 1), 1, width=8, activation="sigmoid"),
        tmp_path / "whole.keras",
        tiny_run / "model.keras",
    ):
        with raises_code(TrainingError, "whole_classifier", "resnet18", "weights"):
            medres.train(tiny_work, model=model, preset="xray-32", epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.long  # by default a recipe that freezes starts from them (below)
def test_a_whole_classifier_gives_its_weights(tiny_work: Path, tmp_path: Path) -> None:
    """The way out that the message of `whole_classifier` names."""
    medres.classifier(10, (32, 32, 1), 1, width=8).save(tmp_path / "whole.keras")
    run = medres.train(
        tiny_work, model="resnet10", stem="imagenet", width=8, preset="xray-32", epochs=1,
        weights=str(tmp_path / "whole.keras"), batch_size=8, out=tmp_path / "run",
    )  # fmt: skip
    assert run.artefact.is_file()


def test_backbones_that_cannot_be_served_are_refused_before_the_first_step(
    tiny_work: Path, tmp_path: Path
) -> None:
    image = keras.Input((32, 32, 1))
    odd = keras.Model(
        image, keras.layers.LayerNormalization()(keras.layers.GaussianNoise(0.1)(image))
    )
    for backbone, code in (
        (odd, "backbone_not_servable"),
        (own_backbone(3), "backbone_shape"),
    ):
        with raises_code(TrainingError, code):
            medres.train(
                tiny_work, model=backbone, preset="xray-32", epochs=1, out=tmp_path / "run"
            )
    (tmp_path / "bad.keras").write_text("no model")
    with raises_code(TrainingError, "backbone_unreadable", "bad.keras"):
        medres.train(
            tiny_work, model=tmp_path / "bad.keras", preset="xray-32", out=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_a_classifier_as_backbone_gets_a_clear_answer(tiny_work: Path, tmp_path: Path) -> None:
    model = medres.classifier("resnet10", (32, 32, 1), 1, stem="small", width=8)
    with raises_code(TrainingError, "whole_classifier", "medres.backbones.resnet"):
        medres.train(tiny_work, model=model, preset="xray-32", epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_backbone_may_use_the_names_of_the_layers_around_it() -> None:
    image = keras.Input((32, 32, 1), name="image")
    x = keras.layers.Conv2D(2, 3, name="scale")(image)
    backbone = keras.Model(image, keras.layers.ReLU(name="pooled")(x))
    network = {"variant": "backbone", "windows": None}
    model = build_classifier(network, spec_from("xray-32"), ["square"], "binary", backbone=backbone)
    names = [layer.name for layer in model.layers]
    assert names == ["image", "scale", "backbone_scale", "backbone_pooled", "pooled", "logits"]


def test_nested_and_repeated_layers_are_refused() -> None:
    image = keras.Input((32, 32, 1))
    inner = own_backbone()
    nested = keras.Model(image, inner(image))
    again = keras.layers.Conv2D(1, 3, padding="same", name="twice")
    repeated = keras.Model(image, again(again(image)))
    for backbone in (nested, repeated):
        with raises_code(TrainingError, "backbone_layers"):
            rebuild_on(backbone, keras.Input((32, 32, 1)))


def test_a_recipe_that_freezes_wants_weights(
    tiny_work: Path, tiny_run: Path, tmp_path: Path
) -> None:
    options = {
        "model": "resnet10",
        "preset": "xray-32",
        "width": 8,
        "batch_size": 8,
        "epochs": 2,
        "recipe": "finetune",
    }
    with raises_code(TrainingError, "no_weights", "--weights"):
        medres.train(tiny_work, **options, out=tmp_path / "run")
    run = medres.train(tiny_work, **options, weights=tiny_run / "model.keras", out=tmp_path / "run")
    start, found = medres.load(tiny_run / "model.keras"), medres.load(run.artefact)
    kept = [
        np.array_equal(
            start.artefact.model.get_layer(n).kernel.numpy(),
            found.artefact.model.get_layer(n).kernel.numpy(),
        )
        for n in ("stem_conv", "stage4_block1_conv2", "logits")
    ]
    assert kept == [True, True, False]  # two epochs of head alone
