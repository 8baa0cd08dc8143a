"""Which of several models answers for a study: the only one whose training domain has an image of
it. Where there is none, or more than one, the study is refused; nothing is guessed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NO_MODEL, SEVERAL_MODELS = "no_model", "several_models"
_FACTS = {"modality": "modalities", "body_part": "body_parts", "view": "views"}


@dataclass(frozen=True)
class ServedModel:
    """What the server knows of a model that runs in a process of its own.

    signer: fingerprint of the key that signed the file, None if it is not signed. domain: the
    training domain of the card, in JSON form. card: its JSON form.
    """

    sha256: str
    preprocessing_sha256: str
    signer: str | None
    card: Mapping[str, Any]

    @property
    def domain(self) -> Mapping[str, Any]:
        return self.card["domain"]


def choose_model(
    models: Sequence[ServedModel], images: Iterable[sqlite3.Row | Mapping[str, str]]
) -> ServedModel | str:
    """The model that answers, or the code of the refusal: no_model or several_models.

    A single model always answers: it refuses by itself what lies outside its domain. images: with
    modality, body_part and view, '' if absent.
    """
    if len(models) == 1:
        return models[0]
    listed = list(images)
    fitting = [model for model in models if any(_fits(image, model.domain) for image in listed)]
    if len(fitting) == 1:
        return fitting[0]
    return SEVERAL_MODELS if fitting else NO_MODEL


def _fits(image: sqlite3.Row | Mapping[str, str], domain: Mapping[str, Any]) -> bool:
    """Whether the domain lists each property of the image; an empty list has no opinion."""
    return all(not domain[names] or image[fact] in domain[names] for fact, names in _FACTS.items())
