"""Two runs are compared as .ci/compare.py says: by what they printed, within tolerances."""

import copy
import re
import runpy

import pytest
from nbval.plugin import get_sanitize_patterns
from notebook_cells import NOTEBOOK, code_cells_by_id

compare = runpy.run_path(str(NOTEBOOK.parent / ".ci" / "compare.py"))
rules = dict(get_sanitize_patterns(compare["TOLERANCES"].read_text(encoding="utf-8")))


@pytest.fixture
def changed(notebook):
    """A function that compares the stored run with one in which a cell's outputs changed."""

    def differences(cell, change):
        other = copy.deepcopy(notebook)
        change(code_cells_by_id(other)[cell])
        return compare["differences"](notebook, other, rules)

    return differences


def printed(old, new):
    """A change of what a cell printed; there must be something to change."""

    def change(cell):
        for output in cell.outputs:
            found = re.sub(old, new, output.get("text", ""))
            assert found != output.text
            output.text = found

    return change


def test_equal_runs_other_times_and_other_figures_agree(changed):
    assert changed("fit", lambda cell: None) == []
    assert changed("fit", printed(r"\d+s\x1b\[0m \d+ms/step", "1s\x1b[0m 2ms/step")) == []
    assert changed("curves", lambda cell: cell.outputs[0].data.update({"image/png": ""})) == []


@pytest.mark.parametrize(
    ("cell", "change"),
    [
        ("evaluate", printed(r"ten crops: \d\d", "ten crops: 10")),
        ("count-weights", printed(r"\d", "7")),
        ("fit", printed("Epoch 3/.*\n", "")),
        ("evaluate", lambda cell: cell.outputs.clear()),
        ("summary", lambda cell: cell.outputs[0].data.update({"text/plain": "42"})),
        ("curves", lambda cell: cell.update(execution_count=None)),
        ("curves", lambda cell: cell.update(id="other")),
    ],
)
def test_another_output_is_found(changed, cell, change):
    assert changed(cell, change)
