"""An extension of Sphinx, which makes the page from the notebook as it is stored.

The notebook is copied into Sphinx's source folder. On the way, its folded cells get the tags
that fold them on the page. Nothing is executed.
"""

import base64
import io
import json
import os
import re
from html import escape
from pathlib import Path

import numpy as np
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from myst_nb.sphinx_ import HideCodeCellNode
from PIL import Image

NOTEBOOK = Path(__file__).resolve().parents[2] / "alexnet_cifar10.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
COLAB = "https://colab.research.google.com/"


def slug(title):
    """Returns JupyterLab's address of a heading, which the notebook's links use."""
    return title.replace(" ", "-")


def text_of(cell):
    """Returns the source of a cell."""
    return "".join(cell["source"])


def cell(name):
    """Returns the cell with this id."""
    return next(cell for cell in CELLS if cell["id"] == name)


def pictures():
    """Yields the id of the cell, the PNG file, and the description of each stored figure."""
    for cell in CELLS:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                file = base64.b64decode("".join(output["data"]["image/png"]))
                yield cell["id"], file, output["metadata"]["image/png"]["alt"]


def copy_notebook(app, config):
    """Writes the notebook into the source folder, with tags for what JupyterLab folds."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        folded, data = cell["metadata"].get("jupyter", {}), cell["metadata"]
        tags = ["hide-input"] * folded.get("source_hidden", False)
        tags += ["hide-output"] * folded.get("outputs_hidden", False)
        if tags:
            data["tags"] = data.get("tags", []) + tags
            title = text_of(cell).split("\n")[0].removeprefix("# @title ")
            data["mystnb"] = {"code_prompt_show": title}
    first = notebook["cells"][0]
    text = re.sub(r"!\[(Open in Colab)\]\([^)]*\)", r"\1", text_of(first))
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        here = f"({COLAB}github/{repository}/blob/main/{NOTEBOOK.name})"
        text = re.sub(rf"\({COLAB}\)[^\n]*", here, text)
    first["source"] = text
    Path(app.srcdir, "index.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


def runs(ink):
    """Returns the first and the last run of True in a list, as positions."""
    parts = np.split(np.arange(len(ink)), np.flatnonzero(np.diff(ink)) + 1)
    parts = [part for part in parts if ink[part[0]]]
    return parts[0], parts[-1]


def gray_ship():
    """Returns the ship's 32 x 32 gray values, and where the window of `window` lies.

    The values come from the stored figure of `stages`: its first image, below the titles.
    """
    file = next(file for name, file, _ in pictures() if name == "stages")
    figure = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), dtype=int)
    ink = (figure < 250).any(axis=-1)
    _, rows = runs(ink.any(axis=1))
    columns, _ = runs(ink[rows].any(axis=0))
    middle = (np.arange(32) + 0.5) / 32
    ship = figure[
        np.ix_(rows[(middle * len(rows)).astype(int)], columns[(middle * len(columns)).astype(int)])
    ]
    gray = ship.mean(axis=-1).round().astype(int)
    window = cell("window")
    y, x = map(int, re.search(r"y, x = (\d+), (\d+)", text_of(window)).groups())
    printed = np.array(re.findall(r"-?\d+", "".join(window["outputs"][0]["text"]))[:9], int)
    if np.abs(gray[y : y + 3, x : x + 3].ravel() - printed).max() > 1:
        raise ValueError("the figure of `stages` does not show the image of `window`")
    return gray, y, x


def complete_figures(app, doctree):
    """Gives each figure its description, and the convolution what makes it live."""
    images, stored = list(doctree.findall(nodes.image)), list(pictures())
    if len(images) != len(stored):
        raise ValueError(f"{len(images)} images on the page, {len(stored)} in the notebook")
    for image, (name, _, alt) in zip(images, stored):
        image["alt"] = alt
        if name == "check-convolve":
            gray, y, x = gray_ship()
            pixels = " ".join(map(str, gray.ravel()))
            live = f'<div id="live" data-y="{y}" data-x="{x}" data-pixels="{pixels}"></div>'
            while image.get("nb_element") != "cell_code":
                image = image.parent
            image.append(nodes.raw("", live, format="html"))


def complete_page(app, page, template, context, doctree):
    """Lists the sections in the sidebar, and lets the keyboard scroll what is wide."""
    context["furo_hide_toc"] = True
    wide = r'<(?=div class="table-wrapper|pre style="white-space:pre;overflow-x:auto)(div|pre)'
    context["body"] = re.sub(wide, r'<\1 tabindex="0"', context.get("body", ""))
    context["parts"] = parts = {"The path": [], "Deeper": []}
    title = doctree and next(doctree.findall(nodes.section))
    for section in title.findall(nodes.section) if title else []:
        name = section[0].astext()
        if section.parent is title and name != "Contents":
            deeper = parts["Deeper"] or re.match(r"[A-Z]\. ", name)
            parts["Deeper" if deeper else "The path"].append((section["ids"][0], name))


def fold(writer, node):
    """Begins a fold, whose label is the title of the cell."""
    label = "Its output" if "below-input" in node["classes"] else node["prompt_show"]
    writer.body.append(f'<details class="fold"><summary>{escape(label)}</summary>\n')


def end_fold(writer, node):
    """Ends a fold."""
    writer.body.append("</details>\n")


def formula(writer, node):
    """Writes a formula as MathML, which browsers draw by themselves."""
    writer.body.append(tex2mathml(node.astext().replace(r"\dots", r"\ldots")))
    raise nodes.SkipNode


def setup(app):
    """Connects all this with Sphinx."""
    app.connect("config-inited", copy_notebook)
    app.connect("doctree-read", complete_figures)
    app.connect("html-page-context", complete_page, priority=900)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.add_node(HideCodeCellNode, override=True, html=(fold, end_fold))
