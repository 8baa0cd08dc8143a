"""What people read: the page, CSV tables, checklists, the methods text. Computes no statistic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.evaluate.reporting.checklists import crosswalks
    from medres.evaluate.reporting.csv_tables import tables
    from medres.evaluate.reporting.html import embedded, page
    from medres.evaluate.reporting.methods_text import methods
    from medres.evaluate.reporting.model_card import model_card_markdown
    from medres.evaluate.reporting.narrative import interval, report_warnings, summary
    from medres.evaluate.reporting.save import check_target, save_report

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.evaluate.reporting.checklists": "crosswalks",
        "medres.evaluate.reporting.csv_tables": "tables",
        "medres.evaluate.reporting.html": "embedded page",
        "medres.evaluate.reporting.methods_text": "methods",
        "medres.evaluate.reporting.model_card": "model_card_markdown",
        "medres.evaluate.reporting.narrative": "interval report_warnings summary",
        "medres.evaluate.reporting.save": "check_target save_report",
    },
)
