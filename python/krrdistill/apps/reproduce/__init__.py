"""The published tables, run here: what ``krrdistill reproduce`` does, without the printing."""

from krrdistill.apps.reproduce.options import ReproduceOptions
from krrdistill.apps.reproduce.run import TABLES, publication, reproduce
from krrdistill.apps.reproduce.sections import to_markdown, to_page

__all__ = ["TABLES", "ReproduceOptions", "publication", "reproduce", "to_markdown", "to_page"]
