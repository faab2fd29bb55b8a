"""The documentation site: sphinx-build -W docs build/docs."""

import importlib.metadata

project = "shmexec"
author = "the shmexec developers"
release = version = importlib.metadata.version("shmexec")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["internals/model/*"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]

nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]

autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"shmexec {release}"
