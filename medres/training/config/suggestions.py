"""What a misspelt or foreign name of a setting probably means."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

# Names of other libraries, without underscores and in lower case.
FOREIGN = {
    "lr": "learning_rate",
    "learningrate": "learning_rate",
    "maxlr": "learning_rate",
    "baselr": "learning_rate",
    "batch": "batch_size",
    "bs": "batch_size",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "l2": "weight_decay",
    "nepochs": "epochs",
    "numepochs": "epochs",
    "maxepochs": "epochs",
    "opt": "optimizer",
    "optim": "optimizer",
    "scheduler": "schedule",
    "lrschedule": "schedule",
    "lrscheduler": "schedule",
    "labelsmoothing": "smoothing",
    "earlystopping": "patience",
    "gradclip": "clip",
    "clipnorm": "clip",
    "gradientclip": "clip",
    "globalclipnorm": "clip",
    "accumulation": "accumulate",
    "gradientaccumulation": "accumulate",
    "gradientaccumulationsteps": "accumulate",
    "gamma": "focal",
    "focalgamma": "focal",
    "droppath": "stochastic_depth",
    "droppathrate": "stochastic_depth",
    "classweight": "class_weights",
    "augmentation": "augment",
    "augmentations": "augment",
    "randomstate": "seed",
    "randomseed": "seed",
    "backbone": "model",
    "network": "model",
    "architecture": "model",
    "arch": "model",
    "pretrained": "weights",
    "dtype": "precision",
    "mixedprecision": "precision",
    "imagesize": "preset",
    "size": "preset",
    "resolution": "preset",
    "window": "windows",
    "metric": "monitor",
    "tta": "views",
}


# Arguments of medres.train that are no settings: they do not stand in a file.
ARGUMENTS = ("callbacks", "metrics", "time_budget", "checkpoint_steps", "mlflow")


def unknown_setting(name: str, names: Sequence[str]) -> str:
    """The sentence about a setting that is not among `names`.

    >>> unknown_setting("lr", ["learning_rate", "epochs"])
    "setting 'lr' is unknown: did you mean 'learning_rate'?"
    """
    if name in ARGUMENTS:
        return (
            f"setting {name!r} is unknown: it is an argument of medres.train alone, not of a file "
            f"of settings or of a cross-validation"
        )
    plain = name.lower().replace("_", "").replace("-", "")
    meant = FOREIGN.get(plain)
    if meant not in names:
        similar = difflib.get_close_matches(name.lower(), [*names, *ARGUMENTS], 1)
        meant = similar[0] if similar else None
    advice = f"did you mean {meant!r}?" if meant else f"use one of {', '.join(names)}"
    return f"setting {name!r} is unknown: {advice}"
