"""The notebook's own cells, for the tests and the benchmarks: no code stands twice."""

import ast
import hashlib
import json
import os
import re
from pathlib import Path
from types import ModuleType

import nbformat

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the notebook: before TensorFlow
NOTEBOOK = Path(__file__).parent.parent / "alexnet_cifar10.ipynb"
REQUIREMENTS = NOTEBOOK.with_name("requirements.txt")


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


def plain(node):
    """Returns a syntax tree as lists without docstrings, the same on Python 3.11 to 3.13."""
    if isinstance(node, list):
        return [plain(part) for part in node]
    if isinstance(node, ast.Constant):
        return ["Constant", ascii(node.value)]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        if ast.get_docstring(node) is not None:
            fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # 3.12 may end an f-string with an empty part
        fields["values"] = [part for part in node.values if getattr(part, "value", 0) != ""]
    fields = {name: plain(value) for name, value in fields.items()}  # newer versions have more
    return [type(node).__name__, {n: v for n, v in fields.items() if v not in (None, [])}]


def fingerprint(notebook, requirements=None):
    """Returns a hash of the code, without comments, of its outputs, and of the pins."""
    requirements = requirements or REQUIREMENTS.read_text(encoding="utf-8")
    pins = sorted(re.findall(r"^[^\s#]+==[^\s#]+", requirements, re.MULTILINE))
    code, outputs = [], []
    for cell in code_cells_by_id(notebook).values():
        code.append(plain(ast.parse(cell.source)))
        outputs.append([{**out, "execution_count": None} for out in cell.outputs])
    text = json.dumps([code, outputs, pins], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
