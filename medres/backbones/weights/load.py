"""Pretrained weights into a model of this package: rename, adapt, check, then assign all or
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

from medres.backbones.weights.adapt import SCALINGS, absorb_scaling, adapt_shape, fold_biases
from medres.backbones.weights.files import read_weights
from medres.backbones.weights.names import HEAD, SourceWeights, translate
from medres.backbones.weights.parity_check import probe
from medres.errors import WeightsError

RGB = ("sum", "mean", "copy")
SCALED = "the input's scaling was folded in, which leaves other zeros around the image"
SHOWN = 8  # names in an error message
SEED = "seed_generator_state"  # of a Dropout: no weight
STEM = re.compile(r"^stem_conv1?/kernel$")


@dataclass(frozen=True)
class ParityReport:
    """What became of each weight. Names are this package's, "layer/variable"; source names where
    there is no such.

    `probe_difference` is the greatest absolute difference between the last feature maps of the
    source and of the model on one random image, or None, and then `probe_missing` says why.
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
        lines += [f"  missing  {name}: kept as it was" for name in self.missing]
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
    """Fill a backbone or classifier of this package with weights from elsewhere; nothing is changed
    where it fails.

    path_or_mapping: `.keras`, `.h5` or `.weights.h5` of this package, of keras.applications' v1
        ResNets or of RadImageNet; a state dict of torchvision, timm, akamaster, RadImageNet or
        MedicalNet as `.safetensors`, `.pth`, `.pt` or `.th` (read without running pickled code); or
        a mapping of such names to arrays.
    rgb: how the stem's three input channels become the model's n. "sum": each is the sum of the
        three over n, so that n equal channels give what an equal RGB image gave. "mean": each is
        their mean. "copy": red, green, blue, red, ...
    scaling: what the weights were trained to receive, where the model's trunk receives 2 x - 1 of x
        in 0..1, as a classifier's does. "imagenet": (x - mean) / deviation by channel (torchvision,
        timm); "caffe": 255 x less the mean, in the order blue, green, red (keras.applications). It
        is folded into the stem: exact but for the zeros around the image. None: as they are.
    partial: True loads what fits and reports the rest; False raises WeightsError that lists the
        differences.

    A 2D kernel is inflated to 3D by repeating it along the depth, divided by that depth (Carreira
    and Zisserman 2017). Biases of convolutions that the model lacks are folded into the following
    normalisation. A head of another size is skipped.
    """
    if rgb not in RGB:
        raise WeightsError(f"rgb {rgb!r} is unknown: choose from {', '.join(RGB)}")
    if scaling not in (None, *SCALINGS):
        raise WeightsError(
            f"scaling {scaling!r} is unknown: choose from {', '.join(SCALINGS)}, or None"
        )
    source = Path(path_or_mapping) if isinstance(path_or_mapping, str | Path) else None
    raw = read_weights(source) if source else _given(path_or_mapping)
    weights = translate(raw)
    _check_version(model, weights)
    plan = _Plan(model, weights, rgb, scaling)
    plan.check(partial=partial)
    for variable, value in plan.values:
        variable.assign(value)
    difference, why = probe(model, weights, source, plan.rgb) if scaling is None else (None, SCALED)
    return ParityReport(
        source=source.name if source else "mapping",
        kind=weights.kind,
        loaded=tuple(plan.loaded),
        adapted=tuple(plan.adapted.items()),
        skipped=tuple(plan.skipped.items()),
        missing=tuple(plan.missing),
        probe_difference=difference,
        probe_missing=why,
    )


def _given(mapping: Any) -> dict[str, np.ndarray]:
    """The arrays of a mapping, such as a state dict of torch on the CPU."""
    if not isinstance(mapping, Mapping):
        raise WeightsError(
            f"weights of type {type(mapping).__name__}: give a path, or a mapping of names to "
            f"arrays"
        )
    arrays = {}
    for name, value in mapping.items():
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"weight {name!r} cannot be made a numpy array ({error}); give numbers in numpy "
                f"arrays"
            ) from error
        if array.dtype.name == "bfloat16":
            array = array.astype("float32")
        if array.dtype.kind not in "fiub":
            raise WeightsError(
                f"weight {name!r} is of type {array.dtype}: give numbers in numpy arrays"
            )
        arrays[str(name)] = array
    return arrays


def _check_version(model: keras.Model, weights: SourceWeights) -> None:
    """What the shapes do not tell: where the stride is (versions 1 and 1.5), and where option A
    puts its zeros.
    """
    names = {layer.name for layer in model.layers}
    zeros = [layer.padding[-1] for layer in model.layers if layer.name.endswith("_shortcut_pad")]
    if weights.kind == "torch" and zeros and (zeros[0][0] == 0) != _is_3d(weights):
        whose, side = (
            ("MedicalNet's", "behind") if _is_3d(weights) else ("akamaster's CIFAR", "both")
        )
        raise WeightsError(
            f'{whose} weights of shortcut A need zero_side="{side}": build the model with it'
        )
    strides = [
        layer.strides[0]
        for layer in model.layers
        if layer.name in ("stage2_block1_conv1", "stage2_block1_conv2")
    ]
    if weights.kind == "medres" or "stage2_block1_conv3" not in names or max(strides) == 1:
        return
    here, theirs = (
        "1" if strides[0] > 1 else "1.5",
        "1" if weights.kind == "keras.applications" else "1.5",
    )
    if here != theirs:
        raise WeightsError(
            f"{weights.kind} weights are of version {theirs}, the model of version {here}: build "
            f'it with version="{theirs}"'
        )


def _is_3d(weights: SourceWeights) -> bool:
    return np.ndim(weights.arrays.get("stem_conv/kernel", 0)) == 5


NO_HEAD = "not part of a ResNet's trunk"
NO_PLACE = "the model has no such weight"


class _Plan:
    """Each variable of the model with its new value, and the differences."""

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
            if v.name != SEED
        }
        absorbed = (
            absorb_scaling(weights.arrays, scaling, self.adapted) if scaling else weights.arrays
        )
        arrays = fold_biases(absorbed, set(variables), self.adapted)
        for name, variable in variables.items():
            self._place(name, variable, arrays.pop(name, None), rgb)
        self.skipped = dict.fromkeys(weights.foreign, NO_HEAD) | dict.fromkeys(arrays, NO_PLACE)

    def _place(self, name: str, variable: Any, array: np.ndarray | None, rgb: str) -> None:
        shape = tuple(variable.shape)
        if array is None and "conv" in name and name.endswith("/bias"):
            self.adapted[name] = "the source has no bias: 0"
            self.values.append((variable, np.zeros(shape)))
            return
        if array is None:
            self.missing.append(name)
            return
        array, how = adapt_shape(array, shape, rgb if STEM.match(name) else None)
        if array.shape != shape:
            self.unfit[name] = f"{array.shape} for {shape}"
        elif not np.isfinite(array).all():
            self.unfit[name] = "values that are not finite"
        else:
            self.adapted.update({name: how} if how else {})
            self.rgb = rgb if "channels" in how else self.rgb
            self.loaded.append(name)
            self.values.append((variable, array))

    def check(self, *, partial: bool) -> None:
        """Raise WeightsError where a weight of the trunk is missing, left over or unfit; then count
        the unfit as skipped.
        """
        parts = {
            "missing in the file": self.missing,
            "not in the model": [name for name, why in self.skipped.items() if why == NO_PLACE],
            "unfit": [f"{name}: {why}" for name, why in self.unfit.items()],
        }
        trunk = {
            what: [name for name in names if not name.startswith(f"{HEAD}/")]
            for what, names in parts.items()
        }
        if not self.loaded or (any(trunk.values()) and not partial):
            lists = "; ".join(f"{what}: {_shown(names)}" for what, names in trunk.items() if names)
            raise WeightsError(
                f"the weights do not fit the model. {lists}. Build the matching variant, or pass "
                f"partial=True to load the rest"
            )
        self.skipped |= self.unfit
        self.missing = [name for name in self.missing if name not in self.unfit]


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
