"""How Sphinx builds these pages: `sphinx-build -W docs docs/_build`."""

import sys
from pathlib import Path

import transferscope

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "transferscope"
version = release = transferscope.__version__
html_title = "transferscope"
html_theme = "furo"
html_show_copyright = False
html_show_sourcelink = False
templates_path: list[str] = []
exclude_patterns = ["_build"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "plain_docstrings", "mathml"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Batches", "Evaluate", "Metrics", "Modules", "State")}
add_module_names = False
napoleon_custom_sections = [("Attributes", "params_style")]
default_role = "py:obj"  # code in single backticks; a link where it names something that is documented
