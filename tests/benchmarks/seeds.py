"""Trains and tests the notebook's network with other seeds, by the notebook's own cells.

    python tests/benchmarks/seeds.py 1 2
    EPOCHS=10 python tests/benchmarks/seeds.py 2012
    TF_NUM_INTRAOP_THREADS=1 taskset -c 1 python tests/benchmarks/seeds.py 2012

runs the notebook from the top to the end of its test, in a fresh kernel for each seed, and
adds what its cells "fit" and "evaluate" print to seeds.json beside this file. The run that
the notebook stores counts as one of the seeds. The test images take no part in any choice:
this comes after the choices.

Then, or at once where no seed is given, it writes anew what README.md and the README.md
beside this file say of these results, each between its two marks, draws the lengths of
training, and takes the README's figure from the notebook.
"""

import base64
import json
import os
import re
import statistics
import sys
from pathlib import Path

from nbclient import NotebookClient

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RESULTS = HERE / "seeds.json"
STORED = "2012"  # the seed of the run that the notebook stores
THREADS = "TF_NUM_INTRAOP_THREADS"  # how many TensorFlow uses for one operation
sys.path.append(str(HERE.parent))

import ablation  # noqa: E402
import search  # noqa: E402
from notebook_cells import NOTEBOOK, code_cells_by_id, read_notebook  # noqa: E402

SETTINGS = ("BATCH_SIZE", "DROPOUT", "PEAK_RATE", "WEIGHT_DECAY", "KERAS_BACKEND", THREADS)


def changed_settings():
    """Returns what the environment changes, but for seed and epochs."""
    return " ".join(f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ)


def result(notebook, seed, settings=""):
    """Returns what an executed notebook printed on its training and its test."""
    cells = code_cells_by_id(notebook)
    text = "".join(
        out.get("text", "")
        for name in ("device", "fit", "evaluate")
        for out in cells[name].outputs
    )
    seconds = re.findall(r"\d - (\d+)s - ", text)  # one for each epoch
    centre, ten = re.findall(r"test accuracy, [\w ]+: ([\d.]+)%", text)
    return {
        "device": re.search(r"devices: \['(\w+):", text)[1].upper(),
        "seed": int(seed),
        "epochs": len(seconds),
        "settings": settings,
        "centre": float(centre),
        "ten": float(ten),
        # of the machine as it was: compare within an hour only
        "minutes": round(sum(map(int, seconds)) / 60, 1),
    }


def run(seed):
    """Runs the notebook's cells up to its test with a seed, returns the result."""
    os.environ["SEED"] = seed
    notebook = read_notebook()
    last = [cell.id for cell in notebook.cells].index("evaluate")
    notebook.cells = notebook.cells[: last + 1]
    folder = {"metadata": {"path": NOTEBOOK.parent}}
    NotebookClient(notebook, timeout=None, resources=folder).execute()
    return result(notebook, seed, changed_settings())


def key(row):
    """Returns what tells one result from another."""
    return row["epochs"], row["settings"], row["device"], row["seed"]


def groups(rows):
    """Yields epochs, settings, device, and the results that were had with them."""
    for found in sorted({key(row)[:3] for row in rows}):
        yield *found, [row for row in rows if key(row)[:3] == found]


def every_seed(rows):
    """Returns all results as a table in Markdown, with means over seeds."""
    lines = ["| settings | seed | centre crop | ten crops |", "|---" * 4 + "|"]
    for epochs, settings, device, group in groups(rows):
        name = f"`EPOCHS={epochs} {settings}".strip() + f"` on a {device}"
        for row in group:
            line = "| {seed} | {centre}% | {ten}% |"
            lines.append(f"| {name} " + line.format(**row))
        if len(group) > 1:
            mean = {k: statistics.mean(row[k] for row in group) for k in ("centre", "ten")}
            line = "| **mean** | **{centre:.2f}%** | **{ten:.2f}%** |"
            lines.append(f"| {name} " + line.format(**mean))
    return "\n".join(lines)


def overview(rows, multiply_adds):
    """Returns what the notebook's own settings give as a table, a line for each length.

    A length is shown once three seeds or more have been trained.
    """
    lines = [
        "| training | arithmetic | test accuracy, ten crops: mean | lowest to highest |",
        "|---" * 4 + "|",
    ]
    for epochs, settings, device, group in groups(rows):
        ten = [row["ten"] for row in group]
        if len(ten) >= 3 and not settings:
            work = 6 * multiply_adds * 45_000 * epochs / 1e15
            lines.append(
                f"| {epochs} epochs, {len(ten)} seeds, {device} | {work:.2f} PFLOP "
                f"| {statistics.mean(ten):.1f}% | {min(ten)}% to {max(ten)}% |"
            )
    return "\n".join(lines)


def draw_lengths(rows, path):
    """Draws the test accuracy with ten crops against the epochs, a point for each seed."""
    import matplotlib.pyplot as plt

    plt.style.use("tableau-colorblind10")
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for device, marker in (("CPU", "o"), ("GPU", "^")):
        own = [row for row in rows if not row["settings"] and row["device"] == device]
        epochs, ten = [row["epochs"] for row in own], [row["ten"] for row in own]
        axis.semilogx(epochs, ten, marker, label=device)
    axis.set(xlabel="epochs", ylabel="test accuracy, ten crops, %")
    lengths = sorted({row["epochs"] for row in rows})
    axis.set_xticks(lengths, lengths)
    axis.minorticks_off()
    axis.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def filled(text, blocks):
    """Returns a text in which what stands between the marks of each name is its block."""
    for name, block in blocks.items():
        marks = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(marks, rf"\g<1>{block}\n\g<2>", text, flags=re.DOTALL)
    return text


def written_anew(text, notebook, rows):
    """Returns a README in which what stands between two marks is from these results."""
    stored = result(notebook, STORED)
    table = code_cells_by_id(notebook)["table"].outputs[0].text
    work = re.search(r"multiply-adds then, ([\d,]+) in ours", table)[1].replace(",", "")
    work, as_stored = int(work), [r for r in rows if r["epochs"] == stored["epochs"]]
    blocks = {
        "result": f"**Result**: **{stored['ten']}%** of the 10,000 test images, each shown "
        f"in ten crops, after {stored['epochs']} epochs.",
        "overview": overview(as_stored, work),
        "epochs": overview(rows, work),
        "seeds": every_seed(rows),
        "search": search.table(json.loads(search.RESULTS.read_text())),
        "ablation": ablation.table(json.loads(ablation.RESULTS.read_text())),
    }
    return filled(text, blocks)


def figure(notebook):
    """Returns the notebook's drawing of both networks, a PNG file's bytes."""
    drawing = code_cells_by_id(notebook)["draw"].outputs[0]
    return base64.b64decode(drawing.data["image/png"])


def main():
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = {key(row): row for row in known}
    notebook = read_notebook()
    for seed in [None, *sys.argv[1:]]:
        row = run(seed) if seed else result(notebook, STORED)
        print(row, flush=True)
        rows[key(row)] = row
        RESULTS.write_text(json.dumps([rows[k] for k in sorted(rows)], indent=1) + "\n")
    rows = [rows[k] for k in sorted(rows)]
    for readme in (ROOT / "README.md", HERE / "README.md"):
        text = readme.read_text()
        readme.write_text(written_anew(text, notebook, rows))
    (ROOT / ".github" / "networks.png").write_bytes(figure(notebook))
    draw_lengths(rows, ROOT / ".github" / "epochs.png")


if __name__ == "__main__":
    main()
