"""Load pretrained weights into a model of this package: rename, adapt and check, then assign all or
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from medres.backbones.input_scaling import has_input_scaling
from medres.backbones.weights.adapt import (
    REPEAT,
    SCALINGS,
    absorb_scaling,
    adapt_shape,
    fold_biases,
)
from medres.backbones.weights.files import read_weights
from medres.backbones.weights.names import HEAD, SourceWeights, translate
from medres.backbones.weights.parity_check import probe
from medres.errors import WeightsError

RGB = ("sum", "mean", "copy")
SCALED = "the input scaling was folded in, which changes the zeros around the image"
MAX_NAMES = 8  # in an error message
SEED_VARIABLE = "seed_generator_state"  # of a Dropout; not a weight
STEM = re.compile(r"^stem_conv1?/kernel$")


@dataclass(frozen=True)
class ParityReport:
    """The result for each weight. Names are those of this package, "layer/variable", or those of
    the source where this package has no such weight.

    loaded: copied as they are or adapted. adapted: (name, how). skipped: (name, why). missing: not
    in the source, so unchanged. probe_difference: the greatest absolute difference between the last
    feature maps of the source and of the model on one random image, or None; then `probe_missing`
    says why.
    """

    source: str
    kind: str
    loaded: tuple[str, ...]
    adapted: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    probe_difference: float | None
    probe_missing: str | None

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.kind}): {len(self.loaded)} weights loaded"]
        lines += [f"  adapted  {name}: {how}" for name, how in self.adapted]
        lines += [f"  skipped  {name}: {why}" for name, why in self.skipped]
        lines += [f"  missing  {name}: unchanged" for name in self.missing]
        if self.probe_difference is None:
            return "\n".join([*lines, f"  probe    none: {self.probe_missing}"])
        return "\n".join([*lines, f"  probe    greatest difference {self.probe_difference:.2g}"])


def load_pretrained(
    model: keras.Model,
    path_or_mapping: str | Path | Mapping[str, Any],
    *,
    rgb: str = "sum",
    scaling: str | None = None,
    partial: bool = False,
) -> ParityReport:
    """Load weights of another source into a backbone or classifier of this package. If it fails,
    nothing is changed.

    path_or_mapping: `.keras`, `.h5` or `.weights.h5` of this package, of keras.applications' v1
        ResNets or DenseNets, or of RadImageNet; a state dict of torchvision, timm, akamaster,
        RadImageNet, MedicalNet, CheXNet, TorchXRayVision or MONAI's DenseNets as `.safetensors`,
        `.pth`, `.pth.tar`, `.pt` or `.th` (read without running pickled code); or a mapping of such
        names to arrays.
    rgb: how the three input channels of the stem become the n channels of the model. "sum": each
        is the sum of the three divided by n, so that n equal channels give the output of a gray RGB
        image. "mean": each is their mean. "copy": red, green, blue, red, ...
    scaling: the input scaling that the weights were trained with, for a model whose stem receives
        2 x - 1 of x in 0..1, as that of a classifier does. "imagenet": (x - mean) / standard
        deviation per channel (torchvision, timm, the DenseNets of keras.applications); "caffe":
        255 x minus the mean, in the order blue, green, red (its ResNets). It is folded into the
        stem, which is exact except for the zeros around the image. None: the weights are not
        changed. A model with input_scaling (see ResNetSpec) has the scaling in its graph, exactly,
        and takes None; its channels become reds, greens and blues, whatever `rgb` says.
    partial: True loads the weights that fit and reports the others; False raises WeightsError with
        a list of the differences.

    A 2D kernel is inflated to 3D: it is repeated along the depth and divided by that depth
    (Carreira and Zisserman 2017). Convolution biases that the model lacks are folded into the
    following normalization. A head of another size is skipped; a decoder that the source lacks
    stays unchanged. Raises WeightsError if the file
    cannot be read or the weights do not fit.
    """
    if rgb not in RGB:
        raise WeightsError(
            f"rgb {rgb!r} is unknown: choose from {', '.join(RGB)}", code="unknown_choice"
        )
    if scaling not in (None, *SCALINGS):
        raise WeightsError(
            f"scaling {scaling!r} is unknown: choose from {', '.join(SCALINGS)}, or None",
            code="unknown_choice",
        )
    if has_input_scaling(model):
        if scaling is not None:
            raise WeightsError(
                f"scaling {scaling!r}: the model has input_scaling in its graph, so the weights "
                f"are loaded as they are; leave scaling out",
                code="scaling",
            )
        rgb = REPEAT
    source = Path(path_or_mapping) if isinstance(path_or_mapping, str | Path) else None
    raw = read_weights(source) if source else _arrays(path_or_mapping)
    weights = translate(raw)
    _check_version(model, weights)
    assignment = _WeightAssignment(model, weights, rgb, scaling)
    assignment.check(partial=partial)
    for variable, value in assignment.values:
        variable.assign(value)
    difference, why = (
        probe(model, weights, source, assignment.rgb) if scaling is None else (None, SCALED)
    )
    return ParityReport(
        source=source.name if source else "mapping",
        kind=weights.kind,
        loaded=tuple(assignment.loaded),
        adapted=tuple(assignment.adapted.items()),
        skipped=tuple(assignment.skipped.items()),
        missing=tuple(assignment.missing),
        probe_difference=difference,
        probe_missing=why,
    )


def _arrays(mapping: Any) -> dict[str, np.ndarray]:
    """The arrays of a mapping, such as a state dict of torch on the CPU."""
    if not isinstance(mapping, Mapping):
        raise WeightsError(
            f"weights of type {type(mapping).__name__}: give a path, or a mapping of names to "
            f"arrays",
            code="not_arrays",
        )
    arrays = {}
    for name, value in mapping.items():
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"weight {name!r} cannot be converted to a numpy array ({error}); give numbers in "
                f"numpy arrays",
                code="not_arrays",
            ) from error
        if array.dtype.name == "bfloat16":
            array = array.astype("float32")
        if array.dtype.kind not in "fiub":
            raise WeightsError(
                f"weight {name!r} has dtype {array.dtype}: give numbers in numpy arrays",
                code="not_arrays",
            )
        arrays[str(name)] = array
    return arrays


def _check_version(model: keras.Model, weights: SourceWeights) -> None:
    """Check what the shapes do not show: the position of the stride (versions 1 and 1.5), and the
    position of the zeros of shortcut A.
    """
    names = {layer.name for layer in model.layers}
    zeros = [layer.padding[-1] for layer in model.layers if layer.name.endswith("_shortcut_pad")]
    if weights.kind == "torch" and zeros and (zeros[0][0] == 0) != _is_3d(weights):
        source, padding = (
            ("MedicalNet", "end") if _is_3d(weights) else ("akamaster's CIFAR", "both")
        )
        raise WeightsError(
            f'{source} weights with shortcut A need a model with channel_padding="{padding}"',
            code="other_padding",
        )
    strides = [
        layer.strides[0]
        for layer in model.layers
        if layer.name in ("stage2_block1_conv1", "stage2_block1_conv2")
    ]
    if weights.kind == "medres" or "stage2_block1_conv3" not in names or max(strides) == 1:
        return
    model_version, source_version = (
        "1" if strides[0] > 1 else "1.5",
        "1" if weights.kind == "keras.applications" else "1.5",
    )
    if model_version != source_version:
        raise WeightsError(
            f"{weights.kind} weights have version {source_version} and the model has version "
            f'{model_version}: build the model with version="{source_version}"',
            code="other_version",
        )


def _is_3d(weights: SourceWeights) -> bool:
    return np.ndim(weights.arrays.get("stem_conv/kernel", 0)) == 5


OUTSIDE = (f"{HEAD}/", "decoder_")  # layers whose weights need not be in the source
NOT_IN_TRUNK = "not part of the trunk"
NOT_IN_MODEL = "the model has no such weight"


class _WeightAssignment:
    """Each variable of the model with its new value, and the differences between model and file."""

    def __init__(
        self, model: keras.Model, weights: SourceWeights, rgb: str, scaling: str | None
    ) -> None:
        self.values: list[tuple[Any, np.ndarray]] = []
        self.loaded: list[str] = []
        self.adapted: dict[str, str] = {}
        self.missing: list[str] = []
        self.unfit: dict[str, str] = {}
        self.rgb: str | None = None
        variables = {
            f"{layer.name}/{v.name}": v
            for layer in model.layers
            for v in layer.weights
            if v.name != SEED_VARIABLE
        }
        absorbed = (
            absorb_scaling(weights.arrays, scaling, self.adapted) if scaling else weights.arrays
        )
        arrays = fold_biases(absorbed, set(variables), self.adapted)
        for name, variable in variables.items():
            self._assign(name, variable, arrays.pop(name, None), rgb)
        self.skipped = dict.fromkeys(weights.foreign, NOT_IN_TRUNK) | dict.fromkeys(
            arrays, NOT_IN_MODEL
        )

    def _assign(self, name: str, variable: Any, array: np.ndarray | None, rgb: str) -> None:
        shape = tuple(variable.shape)
        if array is None and "conv" in name and name.endswith("/bias"):
            self.adapted[name] = "the source has no bias: set to 0"
            self.values.append((variable, np.zeros(shape)))
            return
        if array is None:
            self.missing.append(name)
            return
        array, how = adapt_shape(array, shape, rgb if STEM.match(name) else None)
        if array.shape != shape:
            self.unfit[name] = f"{array.shape} for {shape}"
        elif not np.isfinite(array).all():
            self.unfit[name] = "it has values that are not finite"
        else:
            self.adapted.update({name: how} if how else {})
            self.rgb = rgb if "channels" in how else self.rgb
            self.loaded.append(name)
            self.values.append((variable, array))

    def check(self, *, partial: bool) -> None:
        """Raise WeightsError if a weight of the trunk is missing, superfluous or of another shape;
        with `partial`, weights of another shape count as skipped.
        """
        parts = {
            "missing in the file": self.missing,
            "not in the model": [name for name, why in self.skipped.items() if why == NOT_IN_MODEL],
            "of another shape or not finite": [
                f"{name}: {why}" for name, why in self.unfit.items()
            ],
        }
        trunk = {
            what: [name for name in names if not name.startswith(OUTSIDE)]
            for what, names in parts.items()
        }
        if not self.loaded or (any(trunk.values()) and not partial):
            lists = "; ".join(
                f"{what}: {_shortened(names)}" for what, names in trunk.items() if names
            )
            raise WeightsError(
                f"the weights do not fit the model. {lists}. Build the matching variant, or pass "
                f"partial=True to load the rest",
                code="weights_differ",
            )
        self.skipped |= self.unfit
        self.missing = [name for name in self.missing if name not in self.unfit]


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
