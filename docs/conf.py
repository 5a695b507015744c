"""Sphinx configuration. Build with ``make docs``; the result is docs/_build/html/index.html."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

project = "pmp_ref"
author = "pmp_ref contributors"
copyright = "pmp_ref contributors, MIT licence"
version = release = next(
    line.split('"')[1]
    for line in (HERE.parent / "pmp_ref" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

extensions = ["myst_nb", "mathml", "annotate"]  # myst_nb is myst_parser, and reads notebooks
root_doc = "index"
exclude_patterns = ["_build", "_ext", "_static", "figures"]
nitpicky = True

myst_enable_extensions = ["dollarmath", "deflist"]
myst_dmath_double_inline = True
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks show what they keep; the tests run them
suppress_warnings = ["misc.highlighting_failure"]  # blocks of shell output are not shell

html_theme = "pmp"
html_theme_path = ["_ext"]
html_title = "pmp_ref"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_domain_indices = False
language = "en"
