"""A result as FHIR R4: a Bundle with one DiagnosticReport and its Observations.

It names the study by its UID, and no patient: who files it adds the subject.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from medres.results.result import CLASS, NOTICE, RESEARCH_USE, Result, summary_lines

_UCUM = "http://unitsofmeasure.org"
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_SERVICE = "http://terminology.hl7.org/CodeSystem/v2-0074"
Resource = dict[str, Any]


def fhir_bundle(result: Result, *, subject: Mapping[str, Any] | None = None) -> Resource:
    """The Bundle (type collection) as a JSON object. Ids follow from the key of the result.

    subject: a FHIR Reference to the patient, such as {"reference": "Patient/12"}; None leaves it
    out, as R4 allows. Status is `preliminary` always: nobody has verified the result.
    """
    observations = [
        _entry(result, f"observation {name}", _observation(result, name, subject))
        for name in _names(result)
    ]
    observations += [
        _entry(result, f"observation size {name}", _size(result, name, subject))
        for name in _sized(result)
    ]
    report = _report(result, subject)
    report["result"] = [{"reference": entry["fullUrl"]} for entry in observations]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": _instant(result),
        "entry": [_entry(result, "diagnostic report", report), *observations],
    }


def _names(result: Result) -> list[str]:
    prediction = result.prediction
    if prediction.refused is not None:
        return [""]
    return [*prediction.probabilities, *([CLASS] if CLASS in prediction.decisions else [])]


def _sized(result: Result) -> list[str]:
    """The classes of which the size is known, in a study with one label map."""
    masks = result.prediction.masks
    return list(masks[0].volumes) if len(masks) == 1 else []


def _size(result: Result, name: str, subject: Mapping[str, Any] | None) -> Resource:
    """The volume (or area) of a class, with its conformal interval."""
    size = result.prediction.masks[0].volumes[name]
    unit, code = ("mL", "ml") if "ml" in size else ("mm2", "mm2")
    bounds = [
        _component(text, valueQuantity=_quantity(value, *measure))
        for text, value, measure in (
            ("lower bound of the volume", size.get("ml_low"), ("mL", "mL")),
            ("upper bound of the volume", size.get("ml_high"), ("mL", "mL")),
            ("conformal error rate alpha", size.get("alpha"), ("1", "1")),
        )
        if value is not None
    ]
    return {
        **_frame(result, f"{name}: {'volume' if code == 'ml' else 'area'}", subject),
        "valueQuantity": _quantity(float(size[code] or 0.0), unit, unit),
        **({"component": bounds} if bounds else {}),
    }


def _report(result: Result, subject: Mapping[str, Any] | None) -> Resource:
    lines = [RESEARCH_USE, *summary_lines(result), *result.notes]
    if result.prediction.refused is not None:
        lines.append(result.prediction.refused)
    if result.boxes:
        lines.append(f"{len(result.boxes)} boxes: see the DICOM structured report")
    return {
        "resourceType": "DiagnosticReport",
        "identifier": [_uid_identifier(result.uid("report 1"))],
        "status": "preliminary",
        "category": [_coded(_SERVICE, "RAD", "Radiology")],
        "code": _coded("http://loinc.org", "18748-4", "Diagnostic imaging study"),
        **_subject(subject),
        "issued": _instant(result),
        "imagingStudy": [_study(result)],
        "conclusion": "\n".join(lines),
    }


def _observation(result: Result, name: str, subject: Mapping[str, Any] | None) -> Resource:
    """name: of a finding or class, `class` for the chosen class, '' for a refusal."""
    return {
        **_frame(result, name or "Prediction of a model", subject),
        **_value(result, name),
        **_components(result, name),
    }


def _frame(result: Result, text: str, subject: Mapping[str, Any] | None) -> Resource:
    """What all observations share. text: what was observed."""
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [_coded(_CATEGORY, "imaging", "Imaging")],
        "code": {"text": text},
        **_subject(subject),
        "issued": _instant(result),
        "note": [{"text": text} for text in (NOTICE, *result.notes)],
        "device": _device(result),
        "derivedFrom": [_study(result)],
    }


def _value(result: Result, name: str) -> Resource:
    prediction = result.prediction
    if prediction.refused is not None:
        reason = _coded(_ABSENT, "not-performed", "Not Performed")
        return {"dataAbsentReason": {**reason, "text": prediction.code or "refused"}}
    decision = prediction.decisions.get(name)
    if isinstance(decision, str):
        return {"valueCodeableConcept": {"text": decision}}
    value: Resource = {"valueQuantity": _quantity(prediction.probabilities[name])}
    if decision is not None:
        code, display = ("POS", "Positive") if decision else ("NEG", "Negative")
        value["interpretation"] = [_coded(_INTERPRETATION, code, display)]
    return value


def _components(result: Result, name: str) -> Resource:
    prediction, components = result.prediction, []
    if name in prediction.thresholds:
        components.append(
            _component("threshold", valueQuantity=_quantity(prediction.thresholds[name]))
        )
    if name in prediction.sets:
        text = ", ".join(_label_text(label) for label in prediction.sets[name]) or "none"
        components.append(_component("conformal prediction set", valueString=text))
        if prediction.conformal is not None:
            alpha = _quantity(prediction.conformal["alpha"])
            components.append(_component("conformal error rate alpha", valueQuantity=alpha))
    return {"component": components} if components else {}


def _label_text(label: int | str) -> str:
    return label if isinstance(label, str) else ("negative", "positive")[label]


def _component(name: str, **value: Any) -> Resource:
    return {"code": {"text": name}, **value}


def _quantity(value: float, unit: str = "1", code: str = "1") -> Resource:
    return {"value": float(value), "unit": unit, "system": _UCUM, "code": code}


def _coded(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _subject(subject: Mapping[str, Any] | None) -> Resource:
    return {} if subject is None else {"subject": dict(subject)}


def _device(result: Result) -> Resource:
    model = result.model
    return {
        "type": "Device",
        "identifier": {"system": "urn:medres:model-sha256", "value": model.sha256},
        "display": f"medres {model.name} {model.version}",
    }


def _study(result: Result) -> Resource:
    uid = str(result.sources.first.StudyInstanceUID)
    return {"type": "ImagingStudy", "identifier": _uid_identifier(uid)}


def _uid_identifier(uid: str) -> Resource:
    return {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}


def _entry(result: Result, role: str, resource: Resource) -> Resource:
    identity = uuid.UUID(int=int(result.uid(f"fhir {role}").removeprefix("2.25.")))
    return {"fullUrl": f"urn:uuid:{identity}", "resource": {**resource, "id": str(identity)}}


def _instant(result: Result) -> str:
    created = result.created if result.created.tzinfo else result.created.astimezone()
    return created.isoformat(timespec="milliseconds")
