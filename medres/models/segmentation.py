"""The segmenter: windows or scaling, padding, backbone, decoder, one logit per class and pixel,
cropping; all of it in the saved graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()

import keras  # noqa: E402

from medres.backbones.build import functional, well_formed_shape  # noqa: E402
from medres.backbones.layer_factory import LayerFactory, Tensor  # noqa: E402
from medres.backbones.spec import ResNetSpec, one_of  # noqa: E402
from medres.backbones.variants import model_name, network_spec  # noqa: E402
from medres.errors import ModelError  # noqa: E402
from medres.models.classification import checked_classes, scaled  # noqa: E402
from medres.models.decoders import DECODERS, Decoder  # noqa: E402
from medres.models.necks import Level, Spec, backbone_levels  # noqa: E402

PREFIX = "decoder_"
MAX_SUPERVISED = 3  # coarser maps with logits of their own


def segmenter(
    variant: int | str,
    input_shape: Sequence[int | None],
    classes: int | Sequence[str],
    *,
    decoder: str = "unet",
    windows: Sequence[str | tuple[float, float]] | None = None,
    scaling: str | None = None,
    deep_supervision: bool = False,
    **backbone_options: Any,
) -> keras.Model:
    """A functional Keras model of built-in layers that classifies every pixel or voxel.

    Input `image`: float32 (batch, *input_shape) in model units (HU, or display values 0 to 1).
    Output: float32 logits (batch, [D,] H, W, classes) at the size of the input.

    variant, windows, scaling, backbone_options: as for `medres.classifier`, so any backbone of the
        package.
    input_shape: (H, W, C) or (D, H, W, C). An image whose sides are no multiples of the network's
        stride is padded with mid-gray on both sides in the graph, and the logits are cropped. A
        side of None is not padded: it takes multiples of the stride.
    classes: their number, or their names in the order of the logits; with the background, so two
        or more.
    decoder: "unet", "fpn", or in 2D "deeplabv3+" (by default with output_stride=16 on a ResNet with
        the "imagenet" stem). See `medres.models.decoders`.
    deep_supervision: for training only. The outputs are a dictionary: "logits", and "logits_2",
        "logits_3" ... from coarser maps, all at the size of the input. `without_deep_supervision`
        gives the model to save.

    Raises ModelError, for a decoder that is not built for volumes with the code decoder_rank.

    >>> model = segmenter(10, (30, 40, 1), ["background", "lung"], stem="small", width=8)
    >>> model.output.shape
    (None, 30, 40, 2)
    """
    _, n_classes = checked_classes(classes, "multiclass")
    shape = well_formed_shape(input_shape)
    row = _decoder(decoder, len(shape) - 1)
    name = backbone_options.pop("name", None)
    spec = _spec(variant, row, backbone_options)
    image = keras.Input(shape, name="image", dtype="float32")
    borders = [_borders(size, spec.total_stride) for size in shape[:-1]]
    x = _bordered("ZeroPadding", borders, "pad")(scaled(image, windows, scaling))
    if len(borders) == 3 and any(map(any, borders)):
        # TensorFlow's optimizer takes a padding before a 3D convolution as all of its padding,
        # and so drops that of the convolution; a layer that changes nothing keeps them apart
        x = keras.layers.MaxPooling3D(1, dtype="float32", name="pad_apart")(x)
    net = LayerFactory(spec, len(borders), PREFIX)
    decoded = row.build(net, backbone_levels(spec, x, PREFIX))
    levels = [decoded.level, *(decoded.coarser[:MAX_SUPERVISED] if deep_supervision else [])]
    outputs = {}
    for i, level in enumerate(levels, start=1):
        key = "logits" if i == 1 else f"logits_{i}"
        layer = key if i == 1 else PREFIX + key
        y = _full_size(net, level, n_classes, layer)
        outputs[key] = _bordered("Cropping", borders, f"{layer}_cropped")(y)
    name = name or f"{model_name(spec)}_{decoder.replace('+', 'plus')}"
    return functional(image, outputs if deep_supervision else outputs["logits"], name)


def without_deep_supervision(model: keras.Model) -> keras.Model:
    """The model with the output "logits" alone, which shares the weights of `model`. A model with
    one output is returned as it is.
    """
    if not isinstance(model.output, dict):
        return model
    return functional(model.input, model.output["logits"], model.name)


def _decoder(name: str, rank: int) -> Decoder:
    one_of("decoder", name, tuple(DECODERS))
    row = DECODERS[name]
    if rank not in row.ranks:
        usable = [other for other, its in DECODERS.items() if rank in its.ranks]
        raise ModelError(
            f"decoder {name!r} is not built for volumes (Keras has neither the separable "
            f"convolution nor the linear upsampling in {rank}D): use {' or '.join(usable)}",
            code="decoder_rank",
        )
    return row


def _spec(variant: int | str, row: Decoder, options: dict[str, Any]) -> Spec:
    """The spec with the decoder's own options where the backbone takes them and none are given."""
    spec = network_spec(variant, **options)
    missing = {key: value for key, value in row.backbone_options.items() if key not in options}
    if not (missing and isinstance(spec, ResNetSpec) and spec.stem == "imagenet"):
        return spec
    return network_spec(variant, **{**options, **missing})


def _borders(size: int | None, stride: int) -> tuple[int, int]:
    """Pixels before and after an axis that make its size a multiple of the stride."""
    missing = 0 if size is None else -size % stride
    return missing // 2, missing - missing // 2


def _bordered(kind: str, borders: Sequence[tuple[int, int]], name: str) -> Any:
    """ZeroPadding or Cropping of all axes; nothing where no axis needs it."""
    if not any(map(any, borders)):
        return lambda x: x
    layer = getattr(keras.layers, f"{kind}{len(borders)}D")
    return layer(tuple(borders), dtype="float32", name=name)


def _full_size(net: LayerFactory[Spec], level: Level, classes: int, name: str) -> Tensor:
    """The logits of a level at the size of the padded image.

    In 2D they are interpolated. In 3D Keras only repeats voxels, so a convolution follows.
    """

    def logits(x: Tensor, kernel: int, name: str) -> Tensor:
        conv = getattr(keras.layers, f"Conv{net.rank}D")
        return conv(classes, kernel, padding="same", dtype="float32", name=name)(x)

    up = {"dtype": "float32", "name": f"{name}_up"}
    if level.stride == 1:
        return logits(level.x, 1, name)
    if net.rank == 2:
        x = logits(level.x, 1, name)
        return keras.layers.UpSampling2D(level.stride, interpolation="bilinear", **up)(x)
    coarse = logits(level.x, 1, f"{PREFIX}{name.removeprefix(PREFIX)}_coarse")
    return logits(keras.layers.UpSampling3D(level.stride, **up)(coarse), 3, name)
