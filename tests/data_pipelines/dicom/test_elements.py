"""Typed element values: tolerant of what vendors write, silent about what they wrote."""

from __future__ import annotations

import pytest
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.reader import silence_pydicom
from data_pipelines.pseudonyms import normalise_patient_id


def raw(keyword_tag: int, vr: str | None, value: bytes, *, little: bool = True) -> Dataset:
    """A data set with one element as it comes from a file, not yet converted."""
    dataset = Dataset()
    tag = Tag(keyword_tag)
    dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, vr is None, little)
    return dataset


AGE, ROWS, SPACING, KERNEL, MODALITY = 0x00101010, 0x00280010, 0x00280030, 0x00181210, 0x00080060


@pytest.mark.parametrize(
    ("written", "years", "repairs"),
    [
        (b"060Y", 60.0, []),
        (b"006M", 0.5, []),
        (b"010W", 70 / 365.25, []),
        (b"100D", 100 / 365.25, []),
        (b"0060", 60.0, ["age_without_unit"]),
        (b"089Y", 89.0, []),
        (b"090Y", 90.0, []),
        (b"117Y", 90.0, []),
        (b"900Y", None, ["invalid_PatientAge"]),
        (b"sixt", None, ["invalid_PatientAge"]),
        (b"", None, []),
        (b"    ", None, []),
    ],
)
def test_ages(written, years, repairs):
    elements = Elements(raw(AGE, "AS", written))
    assert elements.age_years() == (None if years is None else pytest.approx(years))
    assert elements.repairs == repairs


@pytest.mark.parametrize("vr", ["DS", None])
def test_numbers_from_text(vr):
    assert Elements(raw(SPACING, vr, b"0.5\\ 0.25 ")).numbers("PixelSpacing", 2) == (0.5, 0.25)


@pytest.mark.parametrize("written", [b"0.5", b"nan\\1", b"inf\\1", b"a\\b", b"0.5\\0", b"-1\\1"])
def test_a_spacing_that_is_no_pair_of_lengths_is_absent_and_named(written):
    elements = Elements(raw(SPACING, "DS", written))
    assert elements.numbers("PixelSpacing", 2, positive=True) is None
    assert elements.repairs == ["invalid_PixelSpacing"]


@pytest.mark.parametrize("written", [b"", b" ", b"\\"[:0]])
def test_an_empty_element_is_absent_and_no_repair(written):
    elements = Elements(raw(SPACING, "DS", written))
    assert elements.numbers("PixelSpacing", 2) is None
    assert elements.repairs == []


def test_binary_integers_of_both_byte_orders():
    assert Elements(raw(ROWS, "US", b"\x00\x02")).integer("Rows") == 512
    assert Elements(raw(ROWS, "US", b"\x02\x00", little=False)).integer("Rows") == 512
    assert Elements(raw(ROWS, None, b"\x00\x02")).integer("Rows") == 512
    broken = Elements(raw(ROWS, "US", b"\x02"))
    assert broken.integer("Rows") is None
    assert broken.repairs == ["invalid_Rows"]


def test_code_strings_are_upper_case_and_hold_no_free_text():
    assert Elements(raw(MODALITY, "CS", b"ct")).code("Modality") == "CT"
    assert Elements(raw(MODALITY, "CS", b"Doe^Jane")).code("Modality") == ""
    assert Elements(raw(MODALITY, "CS", b"")).codes("Modality") == ()
    assert Elements(raw(0x00080008, "CS", b"ORIGINAL\\PRIMARY\\<b>\\AXIAL ")).codes(
        "ImageType"
    ) == (
        "ORIGINAL",
        "PRIMARY",
        "",
        "AXIAL",
    )


def test_texts_are_short_printable_and_joined():
    assert Elements(raw(KERNEL, "SH", b"B30f\\2 ")).text("ConvolutionKernel") == "B30f\\2"
    assert Elements(raw(KERNEL, "SH", b"a\x07b\n")).text("ConvolutionKernel") == "ab"
    assert len(Elements(raw(KERNEL, "SH", b"x" * 400)).text("ConvolutionKernel")) == 64


def test_converted_elements_read_like_raw_ones():
    dataset = Dataset()
    dataset.PixelSpacing, dataset.Rows, dataset.Modality, dataset.PatientAge = (
        [0.5, 0.25],
        512,
        "CT",
        "060Y",
    )
    elements = Elements(dataset)
    assert elements.numbers("PixelSpacing", 2) == (0.5, 0.25)
    assert (elements.integer("Rows"), elements.code("Modality"), elements.age_years()) == (
        512,
        "CT",
        60.0,
    )


def test_texts_in_other_character_sets_are_converted():
    dataset = raw(0x00100020, "LO", "Äb1".encode("latin-1"))
    dataset.SpecificCharacterSet = "ISO_IR 100"
    with silence_pydicom():
        assert Elements(dataset).text("PatientID") == "Äb1"


def test_items_of_sequences():
    dataset, item = Dataset(), Dataset()
    item.CodeValue = "R-10206"
    dataset.ViewCodeSequence = [item]
    assert Elements(dataset).item("ViewCodeSequence") == item
    dataset.ViewCodeSequence = []
    assert Elements(dataset).item("ViewCodeSequence") is None
    assert Elements(Dataset()).items("ViewCodeSequence") == []


def test_an_element_that_cannot_be_converted_is_absent_and_named():
    elements = Elements(raw(0x00280120, "US", b"\x01"))
    with silence_pydicom():
        assert elements.integer("PixelPaddingValue") is None
    assert elements.repairs == ["invalid_PixelPaddingValue"]


# ---- character sets (PS3.5 6.1.2)

PATIENT, NAME, ACCESSION = 0x00100020, 0x00100010, 0x00080050


def text_in(charset: str | list[str], tag: int, value: bytes) -> Elements:
    """An element of a data set in this Specific Character Set, as it comes from a file."""
    dataset = raw(tag, None, value)
    dataset.SpecificCharacterSet = charset
    dataset.set_original_encoding(True, True, convert_encodings(charset))
    return Elements(dataset)


@pytest.mark.parametrize(
    ("charset", "value", "text"),
    [
        (["", "ISO 2022 IR 87"], b"\x1b$B;3ED\x1b(B1", "山田1"),
        ("ISO_IR 192", "山田1".encode(), "山田1"),
        ("GB18030", "山田1".encode("gb18030"), "山田1"),
        ("GBK", "王小东".encode("gbk"), "王小东"),
        (["", "ISO 2022 IR 149"], b"\x1b$)C" + "김희중7".encode("euc_kr"), "김희중7"),
        (["", "ISO 2022 IR 58"], b"\x1b$)A" + "王小".encode("gb2312"), "王小"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], b"\xd4\xcf\xc0\xde", "ヤマダ"),
        (["ISO 2022 IR 6", "ISO 2022 IR 100"], b"\x1b-AM\xfcller", "Müller"),
        ("ISO_IR 100", b"M\xfcller", "Müller"),
        ("ISO_IR 144", "Люкс".encode("iso8859_5"), "Люкс"),
        (["", "ISO 2022 IR 87"], b"\x1b$BI=\x1b(B1", "表1"),  # its second byte is not ASCII text
        (["", "ISO 2022 IR 87"], b"\x1b$B%\\\x1b(B", "ボ"),  # a backslash inside kanji
        ("", b"\x1b$B;3ED\x1b(B1", "山田1"),  # the declaration is missing
    ],
)
def test_identifiers_are_decoded_by_their_character_set(charset, value, text):
    for tag, keyword in (
        (PATIENT, "PatientID"),
        (ACCESSION, "AccessionNumber"),
        (NAME, "PatientName"),
    ):
        with silence_pydicom():
            decoded = normalise_patient_id(text_in(charset, tag, value).text(keyword))
        assert decoded == normalise_patient_id(text)


def test_names_are_decoded_group_by_group():
    value = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
    elements = text_in(["", "ISO 2022 IR 87"], NAME, value)
    assert elements.text("PatientName") == "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_bytes_that_are_no_text_stay_apart():
    texts = []
    for value in (b"P\xff1", b"P\xfe1"):
        elements = text_in("ISO_IR 192", PATIENT, value)
        with silence_pydicom():
            texts.append(elements.text("PatientID"))
        assert elements.repairs == ["undecodable_PatientID"]
    assert len(set(texts)) == 2
