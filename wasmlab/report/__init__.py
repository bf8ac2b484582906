"""Turn results into something to read: tables and pictures of one set, a verdict about two."""

from wasmlab.report.pages import write
from wasmlab.report.render import Table, as_html, markdown, plain
from wasmlab.report.tables import (
    arm_table,
    conditions_table,
    engine_table,
    headline_table,
    ratio_table,
    scale_table,
    summary_table,
)

__all__ = [
    "Table",
    "arm_table",
    "as_html",
    "conditions_table",
    "engine_table",
    "headline_table",
    "markdown",
    "plain",
    "ratio_table",
    "scale_table",
    "summary_table",
    "write",
]
