"""What identifies a patient, a study and a series, and what only looks like it."""

from __future__ import annotations

import re
import unicodedata

_UID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
#: identifiers in normal form (see normalise_patient_id) that anonymizers and consoles write
_PLACEHOLDER = re.compile(
    r"[\W_]*((anon|de-?ident)[a-z]*|unknown|none|null|nil|n/?a|test|tbd|dummy|default|removed|"
    r"redacted|masked|hidden|confidential|blank|empty|unnamed|noname|no-?id|patient(-?id)?|x{3,}|"
    r"0{6,})?[\W_]*"
)


def is_placeholder_id(person: str) -> bool:
    """Whether a PatientID in normal form (see `normalise_patient_id`) stands for nobody: a word
    such as "anon", or nothing but punctuation.

    >>> [is_placeholder_id(person) for person in ("anon", "anonymized", "000000", "---", "p-17")]
    [True, True, True, True, False]
    """
    return bool(_PLACEHOLDER.fullmatch(person))


def is_unique_uid(uid: str) -> bool:
    """Whether a UID can identify one study or series: it is well formed (PS3.5 section 9), it does
    not come from the standard itself, and it is no counted or constant dummy.

    >>> [is_unique_uid(uid) for uid in ("1.2.840.113619.2.5", "1.2.3.4.5", "0.0.0", "", "2.25.0")]
    [True, False, False, False, False]
    """
    if len(uid) > 64 or not _UID.fullmatch(uid) or uid.startswith("1.2.840.10008."):
        return False
    arcs = [int(arc) for arc in uid.split(".")]
    counted = len(arcs) > 3 and arcs == list(range(1, len(arcs) + 1))
    return len(arcs) > 2 and len(set(arcs)) > 1 and not counted and uid != "2.25.0"


def name_key(name: str) -> str:
    """Return family and given name of a PatientName in the form in which two spellings are equal.

    >>> name_key("Doe^John^^Dr") == name_key("DOE^JOHN") == name_key(" doe ^ john")
    True
    """
    first = next((group for group in name.split("=") if group.strip("^ ")), "")
    folded = unicodedata.normalize("NFKC", "^".join(first.split("^")[:2])).casefold()
    return re.sub(r"[\W_]+", " ", folded).strip()
