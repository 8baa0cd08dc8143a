from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_pipelines.runtime.field_errors import first_field_error


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=1, le=9)
    share: float = Field(0.5, gt=0, lt=1)
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (1, 2)

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.kind == "b" and self.count > 2:
            raise ValueError("b goes with two at most")
        return self


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"count": 0}, "setting count must be 1 or more; received 0"),
        ({"count": 10}, "setting count must be 9 or less; received 10"),
        ({"count": "x"}, "setting count must be a whole number; received 'x'"),
        ({"count": 1, "share": 0}, "setting share must be more than 0.0; received 0"),
        ({"count": 1, "share": 1}, "setting share must be less than 1.0; received 1"),
        ({"count": 1, "kind": "c"}, "setting kind must be 'a' or 'b'; received 'c'"),
        ({"count": 1, "pair": 3}, "setting pair must be a list of values; received 3"),
        ({"count": 1, "pair": [1, None]}, "setting pair.1 must be a whole number; received None"),
        ({}, "setting count is missing"),
        ({"count": 1, "color": 2}, "setting color is not known; received 2"),
        ({"count": 3, "kind": "b"}, "setting is not allowed: b goes with two at most"),
    ],
)
def test_plain_sentences(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**values)
    assert first_field_error(caught.value).sentence("setting") == sentence
