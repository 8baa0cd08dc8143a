"""Says in plain English why pydantic refused a value that a user gave."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError

#: kind of error -> what the field must be; the names in braces are those of the error's context
_REASONS = {
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "greater_than": "must be more than {gt}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "finite_number": "must be a finite number",
    "too_short": "has too few values: at least {min_length} are needed",
    "too_long": "has too many values: at most {max_length} are allowed",
    "value_error": "is not allowed: {error}",
}
#: start of the kind of error (int_parsing, int_type ...) -> the same
_TYPES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "tuple": "must be a list of values",
    "list": "must be a list of values",
    "dict": "must be a mapping of names to values",
    "model": "must be a mapping of names to values",
    "path": "must be a path",
}


class FieldError(NamedTuple):
    """The first value that was refused. field: its name, '' for the fields together. reason: a
    predicate, such as "must be 1 or more". received: "; received VALUE", or '' where there is none.
    """

    field: str
    reason: str
    received: str

    def sentence(self, what: str) -> str:
        """`what`, the field and the reason as one sentence."""
        subject = f"{what} {self.field}".strip() if self.field else what
        return f"{subject} {self.reason}{self.received}"


def first_field_error(error: ValidationError) -> FieldError:
    """The first error, in plain English.

    >>> from pydantic import BaseModel, Field
    >>> class Settings(BaseModel):
    ...     epochs: int = Field(1, ge=1)
    >>> try:
    ...     Settings(epochs=-1)
    ... except ValidationError as error:
    ...     print(first_field_error(error).sentence("setting"))
    setting epochs must be 1 or more; received -1
    """
    first = error.errors()[0]
    kind, context = first["type"], dict(first.get("ctx", {}))
    reason = (
        _REASONS.get(kind) or _TYPES.get(kind.split("_")[0]) or "has a value that is not allowed"
    )
    field = ".".join(str(part) for part in first["loc"])
    is_whole = kind in ("missing", "value_error") and not first["loc"]
    received = "" if kind == "missing" or is_whole else f"; received {_short(first['input'])}"
    return FieldError(field, reason.format(**context), received)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
