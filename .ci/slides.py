"""Settings of `jupyter nbconvert --to slides`: a talk of what fits on a screen.

Of a text the slide shows headings, questions, lists and formulas; all of it stands in the
speaker's notes (key S). Code is shown unless its cell has the tag "slide-without-code".
"""

import re

from nbconvert.preprocessors import Preprocessor, TagRemovePreprocessor
from nbformat.v4 import new_markdown_cell

c = get_config()  # noqa: F821


def on_screen(paragraph):
    """Returns what a slide shows of a paragraph: all, its questions, or nothing."""
    if paragraph.startswith(("#", "$$", "- ", "1. ")) or re.fullmatch(
        r"\*[^*]+\*", paragraph
    ):
        return paragraph
    sentences = re.split(r"(?<=[.?!)])\s+", paragraph)
    return " ".join(sentence for sentence in sentences if sentence.endswith("?"))


class ShortTexts(Preprocessor):
    """Cuts each text to what a slide shows, and puts the whole into the notes."""

    def preprocess(self, notebook, resources):
        cells = []
        for cell in notebook.cells:
            cells.append(cell)
            kind = cell.metadata.get("slideshow", {}).get("slide_type", "skip")
            if cell.cell_type == "markdown" and kind != "skip":
                notes = {"slideshow": {"slide_type": "notes"}}
                cells.append(new_markdown_cell(cell.source, metadata=notes))
                shown = map(on_screen, cell.source.split("\n\n"))
                cell.source = "\n\n".join(filter(None, shown))
        notebook.cells = cells
        return notebook, resources


c.TagRemovePreprocessor.remove_input_tags = {"slide-without-code"}
c.SlidesExporter.preprocessors = [ShortTexts, TagRemovePreprocessor]
c.TagRemovePreprocessor.enabled = True
c.TemplateExporter.extra_template_basedirs = [".ci/templates"]
c.SlidesExporter.template_name = "talk"
c.SlidesExporter.reveal_theme = "white"
c.SlidesExporter.reveal_transition = "none"
c.SlidesExporter.reveal_width, c.SlidesExporter.reveal_height = "1280", "720"
c.SlidesExporter.reveal_number = "c/t"
