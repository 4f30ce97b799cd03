# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How the documentation is built."""

from __future__ import annotations

import importlib.metadata
import pathlib
import sys

import cliff.sphinxext

from xenpool_driver.cli import main

sys.path.insert(0, str(pathlib.Path(__file__).parent / 'ext'))

# The table of commands is the program's own, not an entry point namespace.
cliff.sphinxext.commandmanager.CommandManager = main.Commands

project = 'xenpool-driver'
author = 'The xenpool-driver developers'
project_copyright = author
release = version = importlib.metadata.version('xenpool-driver')

extensions = [
    'sphinx.ext.autodoc',
    'oslo_config.sphinxext',
    'cliff.sphinxext',
    'tables',
]
exclude_patterns = ['_generated']
html_theme = 'alabaster'
html_theme_options = {
    'description': 'Host aggregates for XenServer and XCP-ng pools',
    'fixed_sidebar': True,
    'page_width': '1100px',
    'sidebar_width': '240px',
}
html_sidebars = {'**': ['about.html', 'navigation.html', 'searchbox.html']}
html_show_sourcelink = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
autodoc_class_signature = 'separated'
nitpicky = False
autoprogram_cliff_application = 'xenpool'
