"""Two runs are compared as .ci/compare.py says: by what they printed, within tolerances."""

import copy
import re
import runpy

import pytest
from notebook_cells import NOTEBOOK, code_cells_by_id

compare = runpy.run_path(str(NOTEBOOK.parent / ".ci" / "compare.py"))
rows = compare["tolerances"]()


def printed(old, new):
    """A change of what a cell printed; there must be something to change."""

    def change(cell):
        for output in cell.outputs:
            output.text, count = re.subn(old, new, output.text)
            assert count, "nothing to change: no full training run"

    return change


WRONG = [
    ("count-weights", printed(r"\d", "7")),
    ("fit", printed("Epoch 1/.*\n", "")),
    ("fit", printed(r"(?<=acy: )\d\.\d+", "0.1000")),
    ("fit", printed(r"(?<=acy: )\d\.\d+", "0.9990")),
    ("evaluate", lambda cell: cell.outputs.clear()),
    ("summary", lambda cell: cell.outputs[0].data.update({"text/plain": "42"})),
    ("curves", lambda cell: cell.update(execution_count=None)),
    ("curves", lambda cell: cell.update(id="other")),
]
TRAINED = "evaluate find-neighbors muon-or-sgd saturated take-out solution-2 solution-3 solution-4"
for bad in ("10.0%", "99.9%"):
    WRONG += [(cell, printed(r"\d+\.\d%", bad)) for cell in (*TRAINED.split(), "solution-5")]


@pytest.mark.parametrize(("cell", "change"), WRONG)
def test_another_output_or_a_bad_training_is_found(notebook, cell, change):
    other = copy.deepcopy(notebook)
    change(code_cells_by_id(other)[cell])
    assert compare["differences"](notebook, other, rows)


def test_each_tolerance_holds_a_stored_output(code_cells):
    for cell, *row in rows:
        text = "\n".join(compare["lines"](code_cells[cell], []))
        assert compare["hide"](text, *row) != text, f"{cell}, {row}: no full training run"
