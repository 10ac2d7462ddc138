"""Pictures of a run. Matplotlib is imported only when a figure is drawn."""

from krrdistill.report.figures import distilled_figure, lambda_path_figure, save_figure

__all__ = ["distilled_figure", "lambda_path_figure", "save_figure"]
