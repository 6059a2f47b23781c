"""The notebook's own cells, for the tests and the benchmarks: no code stands twice."""

import os
from pathlib import Path
from types import ModuleType

import nbformat

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the notebook: before TensorFlow
NOTEBOOK = Path(__file__).parent.parent / "alexnet_cifar10.ipynb"


def read_notebook():
    """Returns the notebook as a file."""
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells_by_id(notebook):
    """Returns the notebook's code cells by id."""
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def notebook_functions(code_cells):
    """Returns the notebook's settings and functions (cells tagged so) as a module."""
    module = ModuleType("notebook")
    for cell in code_cells.values():
        if "functions" in cell.metadata.get("tags", []):
            exec(compile(cell.source, cell.id, "exec"), module.__dict__)
    return module
