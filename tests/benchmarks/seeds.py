"""Trains and tests the notebook's network with other seeds, by the notebook's own cells.

    python tests/benchmarks/seeds.py 1 2
    EPOCHS=5 python tests/benchmarks/seeds.py 2012
    TF_NUM_INTRAOP_THREADS=1 taskset -c 1 python tests/benchmarks/seeds.py 2012

runs the notebook up to its test, in a fresh kernel for each seed, and adds what its cells
"fit" and "evaluate" print to seeds.json beside this file. It also adds what two cells around
"fit" measure there: seconds, busy cores, and the speed of a matrix product before and after.
The run that the notebook stores counts as one of the seeds. No choice depends on any of them.

Then, or at once if no seed is given, the command writes what both READMEs say of these
results, each between its two marks, and takes the figure of the main one from the notebook.
"""

import ast
import base64
import itertools
import os
import re
import sys

import common
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

RESULTS = common.HERE / "seeds.json"
STORED = "2012"  # the seed of the run that the notebook stores
SETTINGS = "BATCH_SIZE DROPOUT PEAK_RATE WEIGHT_DECAY KERAS_BACKEND TF_NUM_INTRAOP_THREADS"
BEFORE_FIT = f"""
import sys
sys.path.append({str(common.HERE)!r})
import common
meter = common.Meter()
"""
AFTER_FIT = "print(meter.stop())"


def printed(cell):
    """Returns what an executed cell printed, without colors."""
    texts = [o.text for o in cell.outputs if o.get("name") == "stdout"]
    return re.sub(r"\x1b\[[\d;]*m", "", "".join(texts))


def result(notebook, seed, settings=""):
    """Returns what an executed notebook printed on its training and its test."""
    cells = common.code_cells_by_id(notebook)
    device = re.search(r"devices: \['(\w+):", printed(cells["identify"]))[1]
    # Keras overwrites the line of an epoch many times: the last seconds in it count.
    lines = [re.findall(r"(\d+)s \S+/step", line) for line in printed(cells["fit"]).split("\n")]
    seconds = [int(found[-1]) for found in lines if found]
    center, ten = re.findall(r"test accuracy, [\w ]+: ([\d.]+)%", printed(cells["evaluate"]))
    return {
        "edition": common.EDITION,
        "device": device.upper(),
        "seed": int(seed),
        "epochs": len(seconds),
        "settings": settings,
        "center": float(center),
        "ten": float(ten),
        "minutes": round(sum(seconds) / 60, 1),  # of the machine as it was
    }


def run(seed):
    """Runs the notebook's cells up to its test with a seed. Returns the result."""
    os.environ["SEED"] = seed
    notebook, after = common.read_notebook(), new_code_cell(AFTER_FIT)
    ids = [cell.id for cell in notebook.cells]
    notebook.cells = notebook.cells[: ids.index("evaluate") + 1]
    notebook.cells.insert(ids.index("fit") + 1, after)
    notebook.cells.insert(ids.index("fit"), new_code_cell(BEFORE_FIT))
    folder = {"metadata": {"path": common.ROOT}}
    NotebookClient(notebook, timeout=None, resources=folder).execute()
    changed = [f"{name}={os.environ[name]}" for name in SETTINGS.split() if name in os.environ]
    return result(notebook, seed, " ".join(changed)) | {"fit": ast.literal_eval(printed(after))}


def key(row):
    """Returns what tells one result from another."""
    return row["edition"], row["epochs"], row["settings"], row["device"], row["seed"]


def groups(rows, edition):
    """Yields the rows of an edition that differ in their seed alone."""
    rows = sorted((row for row in rows if row["edition"] == edition), key=key)
    for _, group in itertools.groupby(rows, lambda row: key(row)[:-1]):
        yield list(group)


def every_seed(rows, work):
    """Returns all results of this edition as a table, with means over three seeds or more."""
    heading = "settings | seed | center crop | ten crops | minutes | busy cores | speed"
    lines = []
    for group in groups(rows, common.EDITION):
        epochs, settings, device = key(group[0])[1:4]
        name = f"`EPOCHS={epochs} {settings}".strip() + f"` on a {device}"
        operations = (6 * common.TRAINING + 2 * common.VALIDATION) * work * epochs
        for row in group:
            line = f"{name} | {row['seed']} | {row['center']}% | {row['ten']}%"
            if "fit" in row:
                minutes = row["fit"]["seconds"] / 60
                line += f" | {minutes:.1f} | {row['fit']['busy_cores']}"
                line += f" | {common.share_of_product(operations, row['fit']):.2f}"
            lines.append(line)
        if len(group) >= 3:
            center, ten = common.means(group)
            lines.append(f"{name} | **mean** | **{center:.2f}%** | **{ten:.2f}%**")
    return common.markdown(heading, lines)


def overview(rows, work, edition=common.EDITION):
    """Returns a table of the lengths of training, with the notebook's other settings."""
    heading = "training | arithmetic | test accuracy, ten crops: mean | lowest to highest"
    lines = []
    for group in groups(rows, edition):
        epochs, settings, device = key(group[0])[1:4]
        if settings:
            continue
        ten = [row["ten"] for row in group]
        seeds = f"{len(ten)} seeds" if ten[1:] else "1 seed"
        ends = f"{min(ten)}% to {max(ten)}%" if ten[1:] else ""
        petaflop = 6 * work * common.TRAINING * epochs / 1e15
        line = f"{epochs} epochs, {seeds}, {device} | {petaflop:.2f} PFLOP"
        lines.append(f"{line} | {common.means(group)[1]:.1f}% | {ends}")
    return common.markdown(heading, lines)


def blocks(notebook, rows):
    """Returns what the READMEs say of these results, by the names of their marks."""
    stored, nb = result(notebook, STORED), common.functions(notebook)
    work = common.multiply_adds(nb, nb.build_alexnet())
    as_stored = [row for row in rows if row["epochs"] == stored["epochs"]]
    return {
        "result": f"**Result**: **{stored['ten']}%** of the 10,000 test images, each shown "
        f"in ten crops, after {stored['epochs']} epochs.",
        "overview": overview(as_stored, work),
        "epochs": overview(rows, work),
        "second-edition": overview(rows, work, edition=2),
        "seeds": every_seed(rows, work),
    }


def written_anew(text, notebook, rows):
    """Returns a README in which what stands between two marks is from these results."""
    return common.filled(text, blocks(notebook, rows))


def figure(notebook):
    """Returns the notebook's drawing of both networks, a PNG file's bytes."""
    outputs = common.code_cells_by_id(notebook)["draw-networks"].outputs
    drawing = next(output for output in outputs if "image/png" in output.get("data", {}))
    return base64.b64decode(drawing.data["image/png"])


def main():
    notebook = common.read_notebook()
    rows = {key(row): row for row in common.read(RESULTS)}
    for seed in [*sys.argv[1:], None]:  # the stored run comes last: it is the one shown
        row = run(seed) if seed else result(notebook, STORED)
        print(row, flush=True)
        rows[key(row)] = row
        common.write(RESULTS, [rows[k] for k in sorted(rows)])
    common.write_into_readmes(blocks(notebook, list(rows.values())))
    (common.FIGURES / "networks.png").write_bytes(figure(notebook))


if __name__ == "__main__":
    main()
