"""Pictures and pages of runs. Importing it imports Matplotlib, Pillow and Jinja2."""

from krrdistill.apps.report.charts import save_figure
from krrdistill.apps.report.compare import compare_page, comparison, run_names
from krrdistill.apps.report.page import accuracy_figure, write_page
from krrdistill.apps.report.run_folder import RunFolder, read_run, write_figure_data, write_record
from krrdistill.apps.report.sheet import distilled_sheet, save_sheet

__all__ = [
    "RunFolder",
    "accuracy_figure",
    "compare_page",
    "comparison",
    "distilled_sheet",
    "read_run",
    "run_names",
    "save_figure",
    "save_sheet",
    "write_figure_data",
    "write_page",
    "write_record",
]
