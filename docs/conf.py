"""The documentation site: `make docs` builds it, and a warning fails."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from mindcv_mnasnet import __version__

project = "mindcv_mnasnet"
author = "the authors of mindcv_mnasnet"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference_pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "reference/_*.md"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # included tables begin below the page's own heading
autodoc_typehints = "description"
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "mindcv_mnasnet"
