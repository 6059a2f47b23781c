"""Settings of Sphinx for the page; notebook_page.py, beside this, does the work."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

project = html_title = "AlexNet on CIFAR-10"
language = "en"
extensions = ["myst_nb", "notebook_page"]
root_doc = "index"
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_heading_slug_func = "notebook_page.slug"
html_theme = "furo"
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["page.css"]
html_js_files = [("convolution.js", {"defer": "defer"})]
html_sidebars = {"**": ["sidebar/brand.html", "path.html"]}
html_copy_source = html_show_sourcelink = html_show_sphinx = html_use_index = False
html_math_renderer = "mathml"
