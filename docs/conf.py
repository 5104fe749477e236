"""Sphinx configuration of the documentation; `make docs` builds it with warnings as errors."""

from importlib import metadata

project = "prsr"
author = "The prsr contributors"
copyright = author
release = metadata.version("prsr")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "prsr"

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"  # types beside what the docstring describes
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
