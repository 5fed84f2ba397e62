"""Reports of an evaluation: `report.json` for programs, a table for the terminal, `report.html` for people.

The page is one file, images included, and needs no network. Baselines (predictions of the same questions by other
models, or before training) stand beside: what was learned, what was lost, and whether that may be chance.
"""

from vlm_jax.evaluation.report.examples import thumbnail
from vlm_jax.evaluation.report.page import page, plots_of
from vlm_jax.evaluation.report.summary import Baselines, summarise
from vlm_jax.evaluation.report.terminal_table import closing_lines, table

__all__ = ["Baselines", "closing_lines", "page", "plots_of", "summarise", "table", "thumbnail"]
