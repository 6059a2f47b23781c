"""Which learning rate brings each network of claim 1 soonest to a training error of 25%?

    python tests/benchmarks/rates.py

trains the four networks of section 9's first claim at each rate, with the notebook's seeds
and epochs, and writes rates.json beside this file. As in the paper's Figure 1, what counts
is the training error; test images are used for nothing.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "rates.json"
RATES = {
    "ReLU, 2012": [0.0005, 0.001, 0.002, 0.005],
    "tanh, 2012": [0.005, 0.01, 0.015, 0.02],
    "ReLU": [0.005, 0.01, 0.02, 0.05],
    "tanh": [0.005, 0.01, 0.02, 0.05],
}
sys.path.append(str(HERE.parent))

from notebook_cells import (  # noqa: E402
    code_cells_by_id,
    notebook_functions,
    read_notebook,
)


def prepare():
    """Returns the notebook's functions, with what its cells of sections 1 to 3 make."""
    cells = code_cells_by_id(read_notebook())
    nb = notebook_functions(cells)
    for cell in ("seed", "load", "shapes", "use-names", "do-split", "normalization"):
        exec(cells[cell].source, vars(nb))
    exec(cells["make-batches"].source, vars(nb))
    return nb


def main():
    nb = prepare()
    rows = []
    for name, rates in RATES.items():
        for rate in rates:
            found = nb.train_variant(**nb.ACTIVATIONS[name] | {"rate": rate})
            epochs = float(np.mean(nb.epochs_needed(found)))
            end = round(100 - float(np.mean(found["training"][:, -1])), 1)
            reached = None if epochs == np.inf else round(epochs, 2)
            rows.append({"network": name, "rate": rate, "epochs": reached, "end": end})
            print(rows[-1], flush=True)
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
