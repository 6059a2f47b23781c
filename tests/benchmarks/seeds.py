"""Trains and tests the notebook's network with other seeds, by the notebook's own cells.

    python tests/benchmarks/seeds.py 1 2
    EPOCHS=80 CUTOUT=10 python tests/benchmarks/seeds.py 2012
    TF_NUM_INTRAOP_THREADS=1 taskset -c 1 python tests/benchmarks/seeds.py 2012

runs the notebook from the top to the end of its test, in a fresh kernel for each seed, adds
what its cells "fit" and "evaluate" print to seeds.json beside this file, and prints the
table that the README shows. The run stored in the notebook counts as one of the seeds. The
test images take no part in any choice: this comes after the choices.
"""

import json
import os
import re
import statistics
import sys
from pathlib import Path

from nbclient import NotebookClient

HERE = Path(__file__).parent
RESULTS = HERE / "seeds.json"
THREADS = "TF_NUM_INTRAOP_THREADS"  # how many TensorFlow uses for one operation
sys.path.append(str(HERE.parent))

from notebook_cells import (  # noqa: E402
    NOTEBOOK,
    code_cells_by_id,
    notebook_functions,
    read_notebook,
)


def changed_settings(notebook):
    """Returns what the environment changes, but for seed and epochs."""
    names = set(notebook_functions(code_cells_by_id(notebook)).LIMITS) | {THREADS}
    names -= {"SEED", "EPOCHS"}
    return " ".join(f"{name}={os.environ[name]}" for name in sorted(names & {*os.environ}))


def result(notebook, seed, settings=""):
    """Returns what an executed notebook printed on its training and its test."""
    cells = code_cells_by_id(notebook)
    text = "".join(
        out.get("text", "") for name in ("fit", "evaluate") for out in cells[name].outputs
    )
    epochs, minutes, cpu = re.search(
        r"trained (\d+) epochs in ([\d.]+) minutes, (\d+) CPU", text
    ).groups()
    centre, ten = re.findall(r"test accuracy, [\w ]+: ([\d.]+)%", text)
    row = {
        "seed": int(seed),
        "epochs": int(epochs),
        "settings": settings,
        "centre": float(centre),
        "ten": float(ten),
    }
    return row | {"minutes": float(minutes), "cpu": int(cpu)}


def run(seed):
    """Runs the notebook's cells up to its test with a seed, returns the result."""
    os.environ["SEED"] = seed
    notebook = read_notebook()
    last = [cell.id for cell in notebook.cells].index("evaluate")
    notebook.cells = notebook.cells[: last + 1]
    folder = {"metadata": {"path": NOTEBOOK.parent}}
    NotebookClient(notebook, timeout=None, resources=folder).execute()
    return result(notebook, seed, changed_settings(notebook))


def report(rows):
    """Returns the results as a table in Markdown, with means over seeds."""
    lines = ["| settings | seed | centre crop | ten crops | minutes | CPU seconds |"]
    lines.append("|---" * 6 + "|")
    for epochs, settings in sorted({(row["epochs"], row["settings"]) for row in rows}):
        group = [r for r in rows if (r["epochs"], r["settings"]) == (epochs, settings)]
        name = f"`EPOCHS={epochs} {settings}".strip() + "`"
        for row in group:
            line = "| {seed} | {centre}% | {ten}% | {minutes} | {cpu} |"
            lines.append(f"| {name} " + line.format(**row))
        if len(group) > 1:
            keys = ("centre", "ten", "minutes", "cpu")
            mean = {key: statistics.mean(row[key] for row in group) for key in keys}
            line = "| **mean** | **{centre:.2f}%** | **{ten:.2f}%** "
            line = f"| {name} " + line + "| {minutes:.1f} | {cpu:.0f} |"
            lines.append(line.format(**mean))
    return "\n".join(lines)


def main():
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = {(row["epochs"], row["settings"], row["seed"]): row for row in known}
    for row in [result(read_notebook(), "2012"), *map(run, sys.argv[1:])]:
        print(row, flush=True)
        rows[row["epochs"], row["settings"], row["seed"]] = row
        RESULTS.write_text(json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n")
    print(report([rows[key] for key in sorted(rows)]))


if __name__ == "__main__":
    main()
