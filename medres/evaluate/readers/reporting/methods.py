"""A reader study in words: the methods section, the variance, and what the design can claim."""

from __future__ import annotations

from medres.evaluate.readers.analysis import ANALYSES
from medres.evaluate.readers.outcome import ReaderStudy

FIGURES = {
    "auc": "area under the ROC curve (trapezoid)",
    "pauc": "partial area under the ROC curve",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "wafroc": "weighted AFROC area (lesions of a case weigh 1 together; false marks on "
    "non-diseased cases only)",
    "afroc": "AFROC area (all lesions weigh equally; false marks on non-diseased cases only)",
    "hrauc": "ROC area of the highest mark of each case",
    "pcl": "share of diseased cases that are marked in the right place, at a false-positive rate",
    "alroc": "area under the LROC curve up to a false-positive rate",
    "lroc": "area under the LROC curve (right location and higher rating)",
}
COVARIANCES = {
    "delong": "DeLong 1988",
    "jackknife": "the jackknife over patients",
    "unbiased": "the unbiased estimator of Gallas 2007",
}
METHODS = {
    "or": "Modalities were compared by the analysis of variance of Obuchowski and Rockette (1995) "
    "with the degrees of freedom of Hillis (2007), ",
    "ustat": "Modalities were compared by U-statistics over readers and cases (Gallas and others "
    "2009), ",
}
CLAIMS = {
    "rrrc": "The conclusions hold for readers and cases like these.",
    "frrc": "The conclusions hold for these readers only, and for cases like these.",
    "rrfc": "The conclusions hold for these cases only, and for readers like these.",
}
CANNOT = {
    "rrrc": "Readers and cases that were picked (by experience, or because they are hard) stand "
    "for others like them only.",
    "frrc": "Nothing follows for other readers.",
    "rrfc": "Nothing follows for other cases, and p-values do not allow for their choice.",
}
NESTED = {
    "readers_nested_in_modalities": "Each reader read in one modality, so a difference between "
    "modalities is also one between groups of readers; it is fair only if readers were "
    "assigned at random.",
    "cases_nested_in_modalities": "Each case was read in one modality, so a difference between "
    "modalities is also one between groups of cases; it is fair only if cases were assigned at "
    "random.",
    "cases_nested_in_readers": "Each reader read other cases, so readers differ by their cases "
    "too.",
    "unbalanced": "Not every reader read every case in every modality; this is fair only if the "
    "missing readings have nothing to do with the cases.",
}


def figure_words(study: ReaderStudy) -> str:
    """The figure of merit, spelled out."""
    return FIGURES[study.figure.partition("@")[0]]


def claims(study: ReaderStudy, margin: float | None) -> list[str]:
    """What the design can claim, then what it cannot."""
    words = [CLAIMS[study.analysis], CANNOT[study.analysis]]
    if study.design in NESTED:
        words.append(NESTED[study.design])
    if study.contrasts and margin is None:
        words.append(
            "No margin was stated, so a difference that is not significant does not show that "
            "modalities are equal."
        )
    if study.n.modalities > 1:
        words.append(
            "Readers knew that they were in a study and saw another share of diseased cases than "
            "in daily work, so sensitivity and specificity there may differ from these."
        )
    if study.standalone is not None:
        words.append(
            "The model alone was compared with the readers. This does not say what readers do with "
            "its help: that takes readings with and without it."
        )
    if study.model_at_readers is not None:
        words.append(
            "The model at the specificity of a reader is exploratory: its threshold was chosen on "
            "these cases. A threshold that was frozen before leads."
        )
    return words


def variance_words(study: ReaderStudy) -> str | None:
    """Where the uncertainty of a difference comes from, and what would make it smaller."""
    shares = study.variance_shares
    if shares is None:
        return None
    parts = {
        "more readers only": shares.readers,
        "more cases only": shares.cases,
        "either": shares.both,
    }
    most = max(parts, key=lambda key: parts[key])
    advice = {
        "more readers only": "A further study gains most by more readers.",
        "more cases only": "A further study gains most by more cases.",
        "either": "A further study gains by more readers as well as by more cases.",
    }
    return (
        "Of the variance of a difference between modalities, "
        + ", ".join(f"{share:.0%} becomes smaller with {what}" for what, share in parts.items())
        + f". {advice[most]}"
    )


def study_methods(study: ReaderStudy, level: float, margin: float | None) -> str:
    """Sentences for the methods section of a paper."""
    n = study.n
    words = [
        f"{n.readers} reader{'s' if n.readers > 1 else ''} read {n.cases} cases "
        f"({n.diseased} diseased, {n.nondiseased} not) in {n.modalities} "
        f"modalit{'ies' if n.modalities > 1 else 'y'}; the design is "
        f"{study.design.replace('_', ' ')}.",
        f"The figure of merit is the {figure_words(study)}.",
        METHODS[study.method]
        + f"{ANALYSES[study.analysis]}, covariances by {COVARIANCES[study.covariance]}.",
        CLAIMS[study.analysis],
        f"Intervals are two-sided at {level:.0%}; p-values of several contrasts are also given "
        "after Holm's adjustment.",
    ]
    if margin is not None:
        words.append(
            f"The margin of non-inferiority and equivalence is {margin:g}, judged by the limits of "
            "the interval of the difference."
        )
    return " ".join([*words, *_further(study)])


def _further(study: ReaderStudy) -> list[str]:
    """One sentence for each analysis beside the main one."""
    words = []
    if study.rates is not None:
        words.append(
            f"Sensitivity and specificity (positive: a rating of at least {study.rates[0].at:g}) "
            "were compared by the same analysis of variance, covariances by the jackknife over "
            "patients."
        )
    if study.standalone is not None:
        words.append(
            "The model alone was compared with the readers by a single-modality test of the "
            "differences reader minus model, whose covariances include the model (Hillis 2007)."
        )
    if study.model_at_readers is not None:
        words.append(
            "The sensitivity of the model at the specificity of each reader has an interval from a "
            "bootstrap of patients that chooses the threshold anew (exploratory)."
        )
    if study.froc is not None:
        words.append(
            f"FROC: a lesion is marked if {study.froc.hit_rule.replace('the mark', 'a mark')}; "
            "sensitivities are at 1/8 to 8 false marks per image, readers fixed, with BCa "
            "intervals from a bootstrap of patients."
        )
    if study.agreement is not None:
        words.append(
            "Agreement within modalities: Cohen's kappa (plain, linear and quadratic weights) of "
            "pairs, Fleiss' kappa and Gwet's AC1 with intervals from the influence of each "
            "patient, and ICC(2,1) and ICC(3,1) of Shrout and Fleiss."
        )
    if study.reading_time is not None:
        words.append(
            "Reading times were compared as logarithms by the same analysis of variance, and are "
            "given as geometric means and ratios."
        )
    if study.sample_size is not None:
        words.append(
            f"Sample sizes for a difference of {study.sample_size.effect:g} follow Hillis, "
            "Obuchowski and Berbaum (2011)."
        )
    return words
