"""How Sphinx builds the site: `make docs`. Extensions of our own are in _ext; nothing is fetched, from no network."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpydoc.xref import DEFAULT_LINKS

import krrdistill

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

project = "krrdistill"
author = "krrdistill developers"
project_copyright = author
version = release = krrdistill.__version__
REPOSITORY = "https://github.com/krrdistill/krrdistill"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "formulas",
    "public_names",
    "repository_links",
    "self_contained",
    "templates",
]
exclude_patterns = ["_ext", "_templates"]
templates_path = ["_templates"]
nitpicky = True
smartquotes = False  # two dashes begin an option

# ---- Markdown
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_dmath_double_inline = True  # formulas in lists
myst_heading_anchors = 4
repository_url = f"{REPOSITORY}/blob/main"

# ---- the API, from docstrings
autodoc_typehints = "none"  # the sections of the docstrings have the types
autodoc_member_order = "bysource"
autosummary_generate = True
# Frameworks that are large and optional: their modules are read without them, too.
autodoc_mock_imports = [name for name in ("dask", "distributed", "ray", "torch") if find_spec(name) is None]
numpydoc_show_class_members = False
# In the types of parameters public names become links. All other words stay words, those of Python and NumPy, too: to
# link them takes the lists of their pages, from the network.
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {word: word for word in DEFAULT_LINKS} | {
    name: f"krrdistill.{name}" for name in krrdistill.__all__
}

# ---- the gallery: every file is run, and can be had as a notebook
sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "doc_module": ("krrdistill",),
    "reference_url": {"krrdistill": None},
    "write_computation_times": False,  # a page that loads scripts from elsewhere; every example says its time
    "remove_config_comments": True,
}

# ---- the pages
html_theme = "furo"
html_title = f"krrdistill {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_dark_style = "github-dark"
html_show_sourcelink = False
html_math_renderer = "svg"
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# ---- `make docs-links`: what lies in this repository was checked by the build
linkcheck_ignore = [rf"{REPOSITORY}/(blob|tree|edit)/"]
