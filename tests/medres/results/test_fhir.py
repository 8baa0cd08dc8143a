"""FHIR R4: the structure of the Bundle by the elements of the specification, and its values."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import pytest
from result_objects import MODEL, Box, prediction, radiograph, refusal

from medres.results import fhir_bundle, results_of
from medres.results.result import Result

CREATED = dt.datetime(2026, 11, 30, 12, 1, 2, 345000, dt.UTC)
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
#: R4 elements that are used: name -> (required, is a list, type)
REPORT = {
    "resourceType": (True, False, "DiagnosticReport"),
    "id": (True, False, "id"),
    "identifier": (False, True, "Identifier"),
    "status": (True, False, "code"),
    "category": (False, True, "CodeableConcept"),
    "code": (True, False, "CodeableConcept"),
    "subject": (False, False, "Reference"),
    "issued": (False, False, "instant"),
    "result": (False, True, "Reference"),
    "imagingStudy": (False, True, "Reference"),
    "conclusion": (False, False, "string"),
}
VALUES = {
    "valueQuantity": (False, False, "Quantity"),
    "valueCodeableConcept": (False, False, "CodeableConcept"),
    "valueString": (False, False, "string"),
    "dataAbsentReason": (False, False, "CodeableConcept"),
}
OBSERVATION = VALUES | {
    "resourceType": (True, False, "Observation"),
    "id": (True, False, "id"),
    "status": (True, False, "code"),
    "category": (False, True, "CodeableConcept"),
    "code": (True, False, "CodeableConcept"),
    "subject": (False, False, "Reference"),
    "issued": (False, False, "instant"),
    "interpretation": (False, True, "CodeableConcept"),
    "note": (False, True, "Annotation"),
    "device": (False, False, "Reference"),
    "derivedFrom": (False, True, "Reference"),
    "component": (False, True, "Component"),
}
TYPES: dict[str, dict[str, tuple[bool, bool, str]]] = {
    "DiagnosticReport": REPORT,
    "Observation": OBSERVATION,
    "Component": VALUES | {"code": (True, False, "CodeableConcept")},
    "CodeableConcept": {"coding": (False, True, "Coding"), "text": (False, False, "string")},
    "Coding": dict.fromkeys(("system", "code", "display"), (True, False, "string")),
    "Reference": {
        "reference": (False, False, "string"),
        "type": (False, False, "string"),
        "identifier": (False, False, "Identifier"),
        "display": (False, False, "string"),
    },
    "Identifier": {"system": (True, False, "string"), "value": (True, False, "string")},
    "Quantity": {
        "value": (True, False, "decimal"),
        **dict.fromkeys(("unit", "system", "code"), (True, False, "string")),
    },
    "Annotation": {"text": (True, False, "string")},
}
PATTERNS = {
    "id": r"[A-Za-z0-9\-.]{1,64}",
    "code": r"preliminary",
    "string": r"(?s).*\S.*",
    "instant": INSTANT,
    "DiagnosticReport": "DiagnosticReport",
    "Observation": "Observation",
}


def check(value: Any, kind: str) -> None:
    """Whether a JSON value is of this type: nothing unknown, nothing missing, nothing empty."""
    if kind == "decimal":
        assert isinstance(value, float)
    elif isinstance(value, str):
        assert re.fullmatch(PATTERNS[kind], value), (kind, value)
    else:
        elements = TYPES[kind]
        assert value
        assert value.keys() <= elements.keys()
        assert {name for name, rule in elements.items() if rule[0]} <= value.keys()
        assert sum(name in value for name in VALUES) <= 1  # value[x]; obs-6
        for name, content in value.items():
            _, is_list, inner = elements[name]
            assert isinstance(content, list) == is_list, name
            assert content
            for entry in content if is_list else [content]:
                check(entry, inner)


def bundle(answer: Any = None, *, subject: dict | None = None, **options: Any) -> dict:
    value = fhir_bundle(result(answer, **options), subject=subject)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    return value


def result(answer: Any = None, **options: Any) -> Result:
    image = radiograph()
    return results_of(
        answer or prediction(image), [image], MODEL, **{"created": CREATED, **options}
    )


def resources(value: dict) -> list[dict]:
    return [entry["resource"] for entry in value["entry"]]


CLASSES = prediction(
    probabilities={"a": 0.7, "b": 0.3},
    decisions={"class": "a"},
    thresholds={},
    sets={"class": ["a"]},
)


@pytest.mark.parametrize("answer", [None, refusal(), CLASSES])
@pytest.mark.parametrize("subject", [None, {"reference": "Patient/12"}])
def test_the_structure_is_that_of_r4(answer: Any, subject: dict | None) -> None:
    value = bundle(answer, subject=subject)
    assert (value["resourceType"], value["type"]) == ("Bundle", "collection")
    assert re.fullmatch(INSTANT, value["timestamp"])
    report, *observations = resources(value)
    check(report, "DiagnosticReport")
    for observation in observations:
        check(observation, "Observation")
        assert observation.get("subject") == subject
    urls = [entry["fullUrl"] for entry in value["entry"]]
    assert len(set(urls)) == len(urls)
    assert [f"urn:uuid:{resource['id']}" for resource in resources(value)] == urls
    assert [reference["reference"] for reference in report["result"]] == urls[1:]


def test_the_values_are_those_of_the_prediction() -> None:
    report, nodule, effusion = resources(bundle(notes=["UNSIGNED model"]))
    assert nodule["code"] == {"text": "nodule"}
    assert nodule["valueQuantity"]["value"] == 0.8125431
    assert nodule["interpretation"][0]["coding"][0]["code"] == "POS"
    assert effusion["interpretation"][0]["coding"][0]["code"] == "NEG"
    components = {c["code"]["text"]: c for c in nodule["component"]}
    assert components["threshold"]["valueQuantity"]["value"] == 0.5
    assert components["conformal prediction set"]["valueString"] == "negative, positive"
    assert components["conformal error rate alpha"]["valueQuantity"]["value"] == 0.1
    assert nodule["device"]["identifier"]["value"] == MODEL.sha256
    assert report["conclusion"].startswith("RESEARCH USE ONLY\nnodule: p = 0.813")
    assert report["conclusion"].endswith("UNSIGNED model")
    study = report["imagingStudy"][0]["identifier"]["value"]
    assert study == f"urn:oid:{radiograph().StudyInstanceUID}"


def test_a_refusal_has_no_value_but_a_reason() -> None:
    report, observation = resources(bundle(refusal()))
    assert observation["dataAbsentReason"]["text"] == "modality"
    assert "valueQuantity" not in observation
    assert "REFUSED: modality" in report["conclusion"]


def test_exclusive_classes() -> None:
    *_, chosen = resources(bundle(CLASSES))
    assert chosen["code"] == {"text": "class"}
    assert chosen["valueCodeableConcept"] == {"text": "a"}


def test_ids_follow_from_the_key_and_boxes_are_counted() -> None:
    box = Box("nodule", 0.5, 0, 0, 4, 4, str(radiograph().SOPInstanceUID))
    first, again = bundle(), bundle(boxes=[box])
    assert [r["id"] for r in resources(first)] == [r["id"] for r in resources(again)]
    assert "1 boxes" in resources(again)[0]["conclusion"]
