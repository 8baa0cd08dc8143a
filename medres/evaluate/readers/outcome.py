"""What a reader study found, as typed objects; the names of the fields are the keys of
report.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medres.evaluate.readers.measures.agreement import Agreement
from medres.evaluate.readers.measures.froc import Froc
from medres.evaluate.readers.measures.roc_curves import ReaderCurve
from medres.evaluate.readers.variances.obuchowski_rockette import Components, VarianceShares
from medres.evaluate.readers.variances.sizing import SampleSizes
from medres.evaluate.schema import SCHEMA
from medres.evaluate.serialization import ABSENT, JsonObject, to_plain
from medres.evaluate.statistics.estimate import Estimate


@dataclass(frozen=True)
class ReaderValue:
    """The figure of merit of one reader in one modality."""

    reader: str
    modality: str
    estimate: Estimate


@dataclass(frozen=True)
class ModalityMean:
    """The figure of merit of one modality, averaged over the readers."""

    modality: str
    estimate: Estimate


@dataclass(frozen=True)
class ModalityContrast:
    """The difference a - b between two modalities.

    f, df1, df2, p_value: of the test of no difference; df2 is None where the distribution is normal
    or chi-square. p_adjusted: Holm's, over all contrasts. margin: stated before, else None, and
    then noninferior and equivalent are None. noninferior: the lower limit of a - b is above
    -margin. equivalent: both limits lie within the margin. why: what is None, and the reason.
    """

    a: str
    b: str
    difference: Estimate
    f: float | None
    df1: float | None
    df2: float | None
    p_value: float | None
    level: float
    alternative: str = "two-sided"
    p_adjusted: float | None = None
    margin: float | None = None
    noninferior: bool | None = None
    equivalent: bool | None = None
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class ReaderContrast:
    """The difference a - b of one reader, with the reader fixed."""

    reader: str
    a: str
    b: str
    difference: Estimate
    p_value: float | None


@dataclass(frozen=True)
class GlobalTest:
    """Whether all modalities have one figure of merit."""

    f: float | None
    df1: float | None
    df2: float | None
    p_value: float | None
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class StudyCounts:
    """readings: (reader, modality, case) that took place."""

    readers: int
    modalities: int
    cases: int
    diseased: int
    nondiseased: int
    patients: int
    readings: int
    lesions: int | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class StandaloneReader:
    """A reader against the model: reader - model, with the reader fixed."""

    reader: str
    modality: str
    difference: Estimate
    p_value: float | None


@dataclass(frozen=True)
class StandaloneModel:
    """The model alone, against the readers.

    contrasts: the mean of the readers (`a`, a modality) minus the model (`b`). There `noninferior`
    means that the model is not worse than the readers by the margin or more.
    """

    name: str
    estimate: Estimate
    contrasts: list[ModalityContrast]
    per_reader: list[StandaloneReader]


@dataclass(frozen=True)
class RateComparison:
    """Sensitivity or specificity of the readers, where positive is a rating of at least `at`, by
    Obuchowski-Rockette with covariances by jackknife. threshold: of the stand-alone model, from
    which it is positive. standalone: the model at its threshold; None without either.
    """

    figure: str
    at: float
    values: list[ReaderValue]
    modalities: list[ModalityMean]
    contrasts: list[ModalityContrast]
    per_reader: list[ReaderContrast]
    threshold: float | None = field(default=None, metadata=ABSENT)
    standalone: StandaloneModel | None = None


@dataclass(frozen=True)
class ModelAtReader:
    """The model at the specificity of a reader (None: the mean over the readers). Exploratory: its
    threshold comes from these cases. difference: sensitivity of the reader minus that of the model.
    """

    reader: str | None
    modality: str
    specificity: Estimate
    sensitivity: Estimate
    model_sensitivity: Estimate
    difference: Estimate


@dataclass(frozen=True)
class TimeRatio:
    """Seconds of a reading in a, divided by those in b; reader None: over all readers."""

    reader: str | None
    a: str
    b: str
    ratio: Estimate
    p_value: float | None


@dataclass(frozen=True)
class ModalityTime:
    """Geometric mean of the seconds of a reading."""

    modality: str
    seconds: Estimate


@dataclass(frozen=True)
class BlockTime:
    """Readings of one block in one modality. seconds: geometric mean."""

    block: str
    modality: str
    readings: int
    seconds: float


@dataclass(frozen=True)
class ReadingTimes:
    """Analyzed as logarithms. readings: with a time; missing: without one. why: what is left out,
    and the reason.
    """

    readings: int
    missing: int
    modalities: list[ModalityTime]
    ratios: list[TimeRatio]
    blocks: list[BlockTime]
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True, kw_only=True)
class ReaderStudy:
    """All results. figure: of merit. analysis: rrrc, frrc or rrfc. covariance: delong, jackknife or
    unbiased. method: or (Obuchowski-Rockette) or ustat (U-statistics, without `components`).
    design: crossed, readers_nested_in_modalities, cases_nested_in_readers,
    cases_nested_in_modalities or unbalanced. sample_size: None unless a difference that matters was
    stated; standalone: None without a model; agreement: None where it is not defined.
    """

    figure: str
    analysis: str
    covariance: str
    method: str
    design: str
    n: StudyCounts
    values: list[ReaderValue]
    modalities: list[ModalityMean]
    contrasts: list[ModalityContrast]
    overall: GlobalTest | None = field(default=None, metadata=ABSENT)
    per_reader: list[ReaderContrast]
    components: Components | None
    variance_shares: VarianceShares | None = field(default=None, metadata=ABSENT)
    rates: list[RateComparison] | None = field(default=None, metadata=ABSENT)
    agreement: Agreement | None = None
    reading_time: ReadingTimes | None = field(default=None, metadata=ABSENT)
    curves: list[ReaderCurve] | None = field(default=None, metadata=ABSENT)
    froc: Froc | None = field(default=None, metadata=ABSENT)
    standalone: StandaloneModel | None = None
    model_at_readers: list[ModelAtReader] | None = field(default=None, metadata=ABSENT)
    sample_size: SampleSizes | None = None
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class ReaderStudyResult:
    """What report.json of a reader study holds."""

    schema: str = SCHEMA
    title: str
    task: str = "reader_study"
    reader_study: ReaderStudy
    provenance: Mapping[str, object]
    methods: str

    def to_json(self) -> JsonObject:
        """Dicts, lists, texts, numbers and None, in the order of report.json."""
        return dict(to_plain(self))
