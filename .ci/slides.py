"""Settings of `jupyter nbconvert --to slides`: a talk of 45 minutes from the stored outputs.

The words on a slide stand in the metadata of a text cell, under "slide". The cell's own text
becomes the speaker's notes (key S). Code is shown unless its cell has the tag
"slide-without-code".
"""

import re

from nbconvert.preprocessors import Preprocessor, TagRemovePreprocessor
from nbformat.v4 import new_markdown_cell

c = get_config()  # noqa: F821


class SlideWords(Preprocessor):
    """Shows a text cell's words for its slide, and puts its own text into the notes."""

    def preprocess(self, notebook, resources):
        cells = []
        for cell in notebook.cells:
            cells.append(cell)
            if "slide" in cell.metadata:
                notes = {"slideshow": {"slide_type": "notes"}}
                text = re.sub(r"!\[(.*?)\]\(https:.*?\)", r"\1", cell.source)  # no image of the web
                cells.append(new_markdown_cell(text, metadata=notes))
                cell.source = cell.metadata["slide"]
        notebook.cells = cells
        return notebook, resources


c.TagRemovePreprocessor.remove_input_tags = {"slide-without-code"}
c.SlidesExporter.preprocessors = [SlideWords, TagRemovePreprocessor]
c.TagRemovePreprocessor.enabled = True
c.TemplateExporter.extra_template_basedirs = [".github/page"]
c.SlidesExporter.template_name = "talk"
c.SlidesExporter.reveal_theme = "white"
c.SlidesExporter.reveal_url_prefix = "reveal"
