"""Compares what two runs of the notebook printed.

    python .ci/compare.py alexnet_cifar10.ipynb executed.ipynb
    python .ci/compare.py alexnet_cifar10.ipynb executed.ipynb tests/same_machine.cfg

The numbers that training moves have tolerances. Prints each difference, and fails then.
"""

import difflib
import re
import sys
from pathlib import Path

import nbformat
from nbval.plugin import get_sanitize_patterns

TOLERANCES = Path(__file__).resolve().parent.parent / "tests" / "tolerances.cfg"


def texts(cell, rules):
    """Returns the lines that a cell put out, with a word for each number within its tolerance."""
    text = ""
    for output in cell.outputs:
        data = {
            kind: value for kind, value in output.get("data", {}).items() if kind[:5] == "text/"
        }
        parts = [output.get("text", ""), *(data[kind] for kind in sorted(data))]
        text += "".join(parts) + "".join(output.get("traceback", []))
    for rule, word in rules.items():
        text = re.sub(rule, word, text)
    return text.splitlines()


def differences(stored, executed, rules):
    """Returns the cells and lines in which two notebooks differ."""
    found = []
    cells = [
        [c for c in notebook.cells if c.cell_type == "code"] for notebook in (stored, executed)
    ]
    if [cell.id for cell in cells[0]] != [cell.id for cell in cells[1]]:
        return ["The notebooks have other cells."]
    for old, new in zip(*cells, strict=True):
        ignored = "nbval-ignore-output" in old.metadata.get("tags", [])
        if new.execution_count is None:
            found.append(f"{new.id}: not executed")
        if not ignored and (lines := [texts(cell, rules) for cell in (old, new)])[0] != lines[1]:
            found += difflib.unified_diff(*lines, old.id, "executed", lineterm="", n=0)
    return found


if __name__ == "__main__":
    stored, executed = (nbformat.read(path, as_version=4) for path in sys.argv[1:3])
    config = Path(sys.argv[3]) if sys.argv[3:] else TOLERANCES
    rules = dict(get_sanitize_patterns(config.read_text(encoding="utf-8")))
    found = differences(stored, executed, rules)
    print("\n".join(found) or "The outputs agree.")
    sys.exit(bool(found))
