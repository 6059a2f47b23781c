"""Compares what two runs of the notebook printed.

    python .ci/compare.py alexnet_cifar10.ipynb executed.ipynb
    python .ci/compare.py alexnet_cifar10.ipynb executed.ipynb --exact

The numbers that training moves may lie anywhere inside the limits of tests/tolerances.csv. With
--exact, as for two runs on one machine, only times may differ. Prints each difference, and
fails then.
"""

import csv
import difflib
import re
import sys
from pathlib import Path

import nbformat

TOLERANCES = Path(__file__).resolve().parent.parent / "tests" / "tolerances.csv"
COLOR, TIMES = r"\x1b\[[\d;]*m", r"\d+s \d+m?s/step"


def tolerances(path=TOLERANCES):
    """Returns the rows of the table: cell, pattern of one number, low, and high."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (row["cell"], row["pattern"], float(row["low"]), float(row["high"]))
            for row in csv.DictReader(file)
        ]


def hide(text, pattern, low, high):
    """Returns the text with a mark for each number of the pattern from low to high."""

    def mark(match):
        if not low <= float(match[1]) <= high:
            return match[0]
        start, end = (place - match.start() for place in match.span(1))
        return f"{match[0][:start]}#{match[0][end:]}"

    return re.sub(pattern, mark, text)


def lines(cell, rows):
    """Returns the lines that a cell put out, with a mark for each number inside its limits."""
    text = ""
    for output in cell.outputs:
        data = output.get("data", {})
        parts = [data[kind] for kind in sorted(data) if kind.startswith("text/")]
        text += "".join([output.get("text", ""), *parts, *output.get("traceback", [])])
    text = re.sub(TIMES, "some time", re.sub(COLOR, "", text))
    for name, *row in rows:
        if name == cell.id:
            text = hide(text, *row)
    return text.splitlines()


def differences(stored, executed, rows):
    """Returns the cells and lines in which two notebooks differ."""
    found = []
    cells = [
        [c for c in notebook.cells if c.cell_type == "code"] for notebook in (stored, executed)
    ]
    if [cell.id for cell in cells[0]] != [cell.id for cell in cells[1]]:
        return ["The notebooks have other cells."]
    for old, new in zip(*cells, strict=True):
        if new.execution_count is None:
            found.append(f"{new.id}: not executed")
        if "nbval-ignore-output" not in old.metadata.get("tags", []):
            texts = [lines(cell, rows) for cell in (old, new)]
            found += difflib.unified_diff(*texts, old.id, "executed", lineterm="", n=0)
    return found


if __name__ == "__main__":
    stored, executed = (nbformat.read(path, as_version=4) for path in sys.argv[1:3])
    found = differences(stored, executed, [] if "--exact" in sys.argv else tolerances())
    print("\n".join(found) or "The outputs agree.")
    sys.exit(bool(found))
