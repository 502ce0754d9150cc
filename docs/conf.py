"""How the pages are built: Sphinx reads Markdown (MyST), runs what is a notebook, and dresses it in furo."""

import os
from importlib.metadata import version as installed

project = "onelayer"
author = "onelayer contributors"
release = version = installed("onelayer")

extensions = ["myst_nb"]
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "furo"
html_title = "onelayer"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a page runs again when it changed
nb_execution_raise_on_error = True
nb_execution_timeout = 300
os.environ.setdefault("PLOTLY_RENDERER", "notebook")  # figures as HTML with the script inlined: pages open offline
