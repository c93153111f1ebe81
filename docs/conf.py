"""How Sphinx builds these pages: `sphinx-build -W docs docs/_build`."""

import sys
from pathlib import Path

import transferscope

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "transferscope"
version = release = transferscope.__version__
html_title = "transferscope"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_copyright = False
html_show_sourcelink = False
templates_path: list[str] = []
exclude_patterns = ["_build", "api/modules.rst"]

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "indexed_names",
    "plain_docstrings",
    "mathml",
    "table_schemas",
]

# The reference: a page per package, written by Sphinx into docs/api, which is not kept in git.
apidoc_modules = [
    {
        "path": "../src/transferscope",
        "destination": "api",
        "exclude_patterns": [
            f"../src/transferscope/{name}" for name in ("framework", "pipelines", "settings.py", "__main__.py")
        ],
        "automodule_options": {"members", "undoc-members"},
        "max_depth": 2,
        "module_first": True,
    }
]

# Notebooks are shown without outputs unless `kedro site` executes them (`nb_execution_mode=force`).
nb_execution_mode = "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config, CheckpointOfTask, GroupColumn",
}
autodoc_typehints_format = "short"
autodoc_use_type_comments = False  # there are none; to look for them takes a seventh of the build
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Batches", "Evaluate", "Metrics", "Modules", "State")}
add_module_names = False
toc_object_entries = False  # contents beside a page name its modules; with all functions each page takes a third longer
napoleon_custom_sections = [("Attributes", "params_style")]
default_role = "py:obj"  # code in single backticks; a link where it names something that is documented
