"""Pictures and pages of runs. Matplotlib is imported only when one of its figures is drawn."""

from krrdistill.apps.report.compare import compare_page, comparison, run_names
from krrdistill.apps.report.figures import distilled_figure, lambda_path_figure, save_figure
from krrdistill.apps.report.page import write_page
from krrdistill.apps.report.record import RunRecord, read_run, write_figure_data

__all__ = [
    "RunRecord",
    "compare_page",
    "comparison",
    "distilled_figure",
    "lambda_path_figure",
    "read_run",
    "run_names",
    "save_figure",
    "write_figure_data",
    "write_page",
]
