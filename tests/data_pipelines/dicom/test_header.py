"""The technical header: allow-listed, tolerant, without identifiers in sight; and what makes a file
eligible.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage, SecondaryCaptureImageStorage

from data_pipelines.dicom.eligibility import eligible_kind, non_slice_reason
from data_pipelines.dicom.header import PHASE_KEYWORDS, Header, Identifiers, read_header
from data_pipelines.errors import Ineligible, NotDicom

PIXELS = np.arange(48, dtype=np.int16).reshape(6, 8)


def code_of(header: Header, **options) -> str:
    with pytest.raises(Ineligible) as caught:
        eligible_kind(header, **options)
    return caught.value.code


@pytest.fixture
def ct(grey, to_bytes) -> Header:
    return read_header(to_bytes(grey(PIXELS)))


@pytest.fixture
def cr(grey, to_bytes) -> Header:
    return read_header(to_bytes(grey(PIXELS, Modality="CR")))


def test_what_kind_of_image_a_header_describes(ct, cr):
    assert (ct.is_ct, ct.is_radiograph, ct.is_grayscale, ct.has_image) == (True, False, True, True)
    assert (cr.is_ct, cr.is_radiograph, cr.is_grayscale, cr.has_image) == (False, True, True, True)
    assert replace(cr, sop_class_uid="1.2.840.10008.5.1.4.1.1.2.1").is_ct
    assert replace(ct, photometric="MONOCHROME1").is_grayscale
    assert not replace(ct, photometric="PALETTE COLOR").is_grayscale
    assert not replace(ct, samples_per_pixel=3).is_grayscale
    assert not replace(ct, rows=None).has_image


def test_every_field_of_a_full_ct_header(grey, to_bytes):
    elements = {
        "PixelSpacing": [0.7, 0.6],
        "ImagePositionPatient": [1.5, -2, 3],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "Manufacturer": "ACME",
        "ManufacturerModelName": "One",
        "ConvolutionKernel": "B30f",
        "PatientSex": "F",
        "PatientAge": "060Y",
        "BodyPartExamined": "chest",
        "LossyImageCompression": "01",
        "RescaleType": "HU",
        "AcquisitionNumber": 4,
        "TemporalPositionIndex": 2,
        "FrameOfReferenceUID": "9.8.7",
        "IssuerOfPatientID": "SITE",
        "BurnedInAnnotation": "NO",
    }
    header = read_header(to_bytes(grey(PIXELS, **elements)))
    assert (header.rows, header.columns, header.frames, header.samples_per_pixel) == (6, 8, 1, 1)
    assert (
        header.bits_allocated,
        header.bits_stored,
        header.high_bit,
        header.pixel_representation,
    ) == (16, 16, 15, 1)
    assert header.pixel_spacing == (0.7, 0.6)
    assert header.imager_pixel_spacing is None
    assert header.position == (1.5, -2.0, 3.0)
    assert header.orientation == (1, 0, 0, 0, 1, 0)
    assert header.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert (header.manufacturer, header.model_name, header.convolution_kernel) == (
        "ACME",
        "One",
        "B30f",
    )
    assert (header.patient_sex, header.patient_age_years, header.body_part) == ("F", 60.0, "CHEST")
    assert (header.lossy, header.rescale_type, header.burned_in) == (True, "HU", "NO")
    assert (header.acquisition_number, header.temporal_index, header.frame_of_reference) == (
        4,
        2,
        "9.8.7",
    )
    assert (header.identifiers.patient_id, header.identifiers.issuer_of_patient_id) == (
        "P1",
        "SITE",
    )
    assert header.transfer_syntax == "1.2.840.10008.1.2.1"
    assert header.repairs == ()
    assert header.flags == ("lossy",)


def test_bytes_path_and_data_set_give_the_same_header(grey, to_bytes, tmp_path):
    dataset = grey(PIXELS, PixelSpacing=[0.5, 0.5], PatientAge="044Y")
    path = tmp_path / "one.dcm"
    path.write_bytes(to_bytes(dataset))
    assert (
        read_header(path)
        == read_header(str(path))
        == read_header(to_bytes(dataset))
        == read_header(dataset)
    )


def test_what_is_absent_is_none_or_empty_and_never_guessed(ct):
    unknown = {f.name: getattr(ct, f.name) for f in fields(ct)}
    for name in (
        "pixel_spacing",
        "position",
        "orientation",
        "patient_age_years",
        "acquisition_number",
        "magnification",
    ):
        assert unknown[name] is None
    for name in (
        "view_position",
        "laterality",
        "body_part",
        "patient_sex",
        "burned_in",
        "rescale_type",
    ):
        assert unknown[name] == ""
    assert ct.lossy is False


def test_repr_shows_no_identifier(grey, to_bytes):
    header = read_header(
        to_bytes(
            grey(PIXELS, PatientID="CANARY-7", StudyInstanceUID="1.99.7", PatientName="CANARY^X")
        )
    )
    assert header.identifiers.patient_id == "CANARY-7"
    assert "CANARY" not in repr(header) + str(header)
    assert "1.99.7" not in repr(header)
    assert repr(header.identifiers) == "Identifiers()"
    assert {f.name for f in fields(Identifiers)} == {
        "sop_instance_uid",
        "series_instance_uid",
        "study_instance_uid",
        "patient_id",
        "issuer_of_patient_id",
        "accession_number",
        "patient_name",
        "birth_date",
    }


def test_no_date_name_or_free_text_is_a_field(grey, to_bytes):
    texts = {
        "PatientName": "CANARY^Jane",
        "StudyDate": "19990101",
        "StudyDescription": "CANARY",
        "InstitutionName": "CANARY",
        "BodyPartExamined": "Canary^Jane",
        "OperatorsName": "CANARY",
        "PatientSex": "canary",
    }
    header = read_header(to_bytes(grey(PIXELS, **texts)))
    assert "CANARY" not in repr(vars(header)).upper()
    assert "1999" not in repr(vars(header))


def test_malformed_optional_fields_are_absent_and_named(grey, to_bytes):
    data = to_bytes(grey(PIXELS, PixelSpacing=[0.5, 0.5], PatientAge="060Y", AcquisitionNumber=4))
    data = data.replace(b"0.5\\0.5 ", b"x.5\\0.5 ").replace(b"060Y", b"??0Y")
    header = read_header(data)
    assert header.pixel_spacing is None
    assert header.patient_age_years is None
    assert set(header.repairs) == {"invalid_PixelSpacing", "invalid_PatientAge"}


@pytest.mark.parametrize(
    ("frames", "expected", "repairs"),
    [(None, 1, ()), (3, 3, ()), (0, 1, ("invalid_NumberOfFrames",))],
)
def test_number_of_frames(grey, to_bytes, frames, expected, repairs):
    header = read_header(to_bytes(grey(PIXELS, NumberOfFrames=frames)))
    assert (header.frames, header.repairs) == (expected, repairs)


@pytest.mark.parametrize(
    ("code", "position", "expected"),
    [
        ("R-10214", "AP", "PA"),
        ("272479007", "", "PA"),
        ("R-10206", "", "AP"),
        ("399348003", "", "AP"),
        ("399173006", "", "LL"),
        ("399067008", "", "LATERAL"),
        ("399368009", "", "MLO"),
        ("unheard-of", "LL", "LL"),
        (None, "PA", "PA"),
        (None, "", ""),
    ],
)
def test_the_view_comes_from_its_code_then_from_its_position(
    grey, to_bytes, code, position, expected
):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code or "", "SCT", "x"
    header = read_header(
        to_bytes(grey(PIXELS, ViewPosition=position, ViewCodeSequence=[item] if code else None))
    )
    assert header.view_position == expected


def test_enhanced_objects_give_what_all_frames_share(grey, to_bytes):
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.4, 0.3]
    plane.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    stack = np.stack([PIXELS, PIXELS])
    header = read_header(to_bytes(grey(stack, SharedFunctionalGroupsSequence=[shared])))
    assert (header.pixel_spacing, header.orientation, header.position) == (
        (0.4, 0.3),
        (0, 1, 0, 0, 0, -1),
        None,
    )


def test_a_dicomdir_is_no_image():
    directory = Dataset()
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    with pytest.raises(Ineligible) as caught:
        read_header(directory)
    assert caught.value.code == "not_an_image"


def test_a_broken_meta_element_that_nothing_needs_is_passed_over(grey, to_bytes):
    whole = to_bytes(grey(PIXELS))
    broken = whole.replace(b"\x02\x00\x02\x00UI", b"\x02\x00\x02\x00U\xff")
    assert broken != whole
    assert read_header(broken).rows == 6


def test_text_is_not_dicom(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_text("hello" * 100)
    with pytest.raises(NotDicom):
        read_header(path)


def test_ct_and_radiographs_are_eligible(ct, cr):
    assert eligible_kind(ct) == "ct"
    for modality in ("CR", "DX", "MG", "PX", "IO", "RG"):
        assert eligible_kind(replace(cr, modality=modality)) == "radiograph"


@pytest.mark.parametrize(
    "image_type", [("DERIVED", "PRIMARY", "AXIAL"), ("DERIVED", "SECONDARY", "MPR")]
)
def test_derived_slices_and_wrapped_pictures_are_accepted_and_flagged(ct, cr, image_type):
    assert eligible_kind(replace(ct, image_type=image_type)) == "ct"
    wrapped = replace(cr, image_type=("DERIVED", "SECONDARY"), lossy=True)
    assert eligible_kind(wrapped) == "radiograph"
    assert wrapped.flags == ("derived", "secondary", "lossy")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rows": None}, "no_image"),
        ({"columns": 0}, "no_image"),
        ({"bits_allocated": None}, "no_image"),
        ({"modality": "MR", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, "modality"),
        ({"samples_per_pixel": 3, "photometric": "RGB"}, "colour"),
        ({"photometric": "PALETTE COLOR"}, "colour"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer"),
        ({"image_type": ("DERIVED", "SECONDARY", "REF_SURVIEW")}, "localizer"),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "CSA MIP")}, "projection"),
        ({"image_type": ("DERIVED", "SECONDARY", "VRT")}, "rendering"),
        ({"image_type": ("DERIVED", "PRIMARY", "SUBTRACTION")}, "subtraction"),
        ({"image_type": ("DERIVED", "PRIMARY", "PERFUSION", "RCBF")}, "parametric_map"),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, "screen_capture"),
        ({"burned_in": "YES"}, "burned_in"),
        ({"sop_class_uid": SecondaryCaptureImageStorage}, "burned_in"),
        ({"sop_class_uid": SecondaryCaptureImageStorage, "burned_in": "NO"}, "screen_capture"),
        ({"rescale_type": "Z_EFF"}, "not_hu"),
        ({"rescale_type": "MGML"}, "not_hu"),
    ],
)
def test_reasons_against_a_ct(ct, change, code):
    assert code_of(replace(ct, **change)) == code


def test_reasons_against_a_radiograph(cr):
    secondary = replace(cr, sop_class_uid=SecondaryCaptureImageStorage)
    assert code_of(secondary) == "burned_in"
    assert eligible_kind(replace(secondary, burned_in="NO")) == "radiograph"
    raw = replace(cr, modality="DX", presentation_intent="FOR PROCESSING")
    assert code_of(raw) == "for_processing"
    assert eligible_kind(raw, for_processing=True) == "radiograph"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.13.1.3", "frames": 60}, "tomosynthesis"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.13.1.4", "frames": 15}, "tomosynthesis"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.13.1.5"}, "tomosynthesis"),
        ({"image_type": ("DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE")}, "tomosynthesis"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "TOMO_PROJ", "RIGHT")}, "tomosynthesis"),
        (
            {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "image_type": ("DERIVED", "P", "TOMO")},
            "tomosynthesis",
        ),
        ({"frames": 2}, "multiframe_projection"),
        ({"modality": "XA", "frames": 30}, "multiframe_projection"),
        ({"modality": "RF", "frames": 30}, "multiframe_projection"),
        ({"modality": "XA"}, "modality"),
    ],
)
def test_tomosynthesis_and_several_projections_are_refused_by_name(cr, change, code):
    assert code_of(replace(cr, **{"modality": "MG", **change})) == code


def test_a_2d_image_computed_from_a_tomosynthesis_is_a_derived_radiograph(cr):
    image_type = ("DERIVED", "PRIMARY", "TOMO", "GENERATED_2D")
    synthetic = replace(cr, modality="MG", image_type=image_type)
    assert eligible_kind(synthetic) == "radiograph"
    assert "derived" in synthetic.flags


def test_words_inside_other_words_do_not_count():
    assert non_slice_reason(("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI")) is None
    assert non_slice_reason(("ORIGINAL", "PRIMARY", "AXIAL", "MIPPED")) is None
    assert non_slice_reason(()) is None


def test_phase_tags_and_technique_are_read(grey):
    header = read_header(
        grey(
            np.zeros((4, 4), np.int16),
            TemporalPositionIdentifier=2,
            TriggerTime="300",
            SliceThickness="2.5",
            KVP="120",
            RescaleSlope="1",
            RescaleIntercept="-1024",
        )
    )
    assert dict(zip(PHASE_KEYWORDS, header.phases, strict=True)) == {
        **dict.fromkeys(PHASE_KEYWORDS),
        "TemporalPositionIdentifier": 2,
        "TriggerTime": 300,
    }
    assert (header.slice_thickness, header.kvp, header.rescale) == (2.5, 120, (1, -1024))
