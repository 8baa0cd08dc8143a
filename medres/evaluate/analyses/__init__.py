"""One question per file: who was evaluated, a finding, its subgroups, a comparison of models, human
readers, the worst errors, and where the numbers come from.

Combines metrics into the parts of the report that schema.py defines. May import metrics, scores,
statistics and the schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.evaluate.analyses.finding import finding_report
    from medres.evaluate.analyses.model_comparison import (
        adjust,
        align,
        comparison_report,
        global_comparisons,
    )
    from medres.evaluate.analyses.provenance import provenance_of, table_source
    from medres.evaluate.analyses.readers import load_readers, reader_points
    from medres.evaluate.analyses.sample_description import participant_flow, sample_size
    from medres.evaluate.analyses.secondary_unit import (
        other_unit_report,
        other_unit_reports,
        other_units,
    )
    from medres.evaluate.analyses.subgroups import subgroup_report
    from medres.evaluate.analyses.unpaired_comparison import check_disjoint, unpaired_report
    from medres.evaluate.analyses.worst_errors import Pictures, draw_worst, hashed

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.evaluate.analyses.finding": "finding_report",
        "medres.evaluate.analyses.model_comparison": "adjust align comparison_report "
        "global_comparisons",
        "medres.evaluate.analyses.provenance": "provenance_of table_source",
        "medres.evaluate.analyses.readers": "load_readers reader_points",
        "medres.evaluate.analyses.sample_description": "participant_flow sample_size",
        "medres.evaluate.analyses.secondary_unit": "other_unit_report other_unit_reports "
        "other_units",
        "medres.evaluate.analyses.subgroups": "subgroup_report",
        "medres.evaluate.analyses.unpaired_comparison": "check_disjoint unpaired_report",
        "medres.evaluate.analyses.worst_errors": "Pictures draw_worst hashed",
    },
)
