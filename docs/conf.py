"""Builds the documentation: python -m sphinx -W -c docs . build/docs"""

import pnoise_jax

project = "pnoise_jax"
author = "The pnoise_jax authors"
version = release = pnoise_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/api/*.md"]
exclude_patterns = [".*", "build", "results", "tests", "pnoise_jax"]
html_theme = "sphinx_book_theme"
html_title = f"pnoise_jax {version}"
html_theme_options = {"show_toc_level": 1, "navbar_persistent": []}  # one search box is enough

myst_heading_anchors = 3  # pages link to one another's headings, as on GitHub
suppress_warnings = ["myst.xref_missing"]  # of folders; tests/test_docs.py checks links
default_role = "py:obj"  # `Name` in a docstring links to it where it has an entry
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
