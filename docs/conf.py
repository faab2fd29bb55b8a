"""The documentation site: sphinx-build -W docs build/docs."""

import importlib.metadata
import os

from docutils import nodes
from docutils.parsers.rst import Directive

from shmexec.__main__ import _parser

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

os.environ.update(COLUMNS="100", NO_COLOR="1")  # for argparse


class CommandHelp(Directive):
    """`.. shmexec-help:: NAME`: what `shmexec NAME --help` says."""

    required_arguments = 1

    def run(self):
        commands = _parser()._subparsers._group_actions[0].choices
        text = commands[self.arguments[0]].format_help()
        return [nodes.literal_block(text, text, language="text")]


def setup(app):
    app.add_directive("shmexec-help", CommandHelp)
