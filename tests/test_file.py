"""The notebook as a file, its stored outputs, and what the text and the README say of them."""

import ast
import copy
import json
import re

import nbformat
import pytest
import seeds
from notebook_cells import NOTEBOOK, REQUIREMENTS, code_cells_by_id, fingerprint

ROOT = NOTEBOOK.parent
MACHINE_PATH = re.compile(r"/(home|root|tmp|work|Users|content)/|site-packages|[A-Z]:\\")


def test_outputs_are_from_one_run_without_error_noise_or_a_path(notebook, code_cells):
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 3 * 2**20
    for count, (name, cell) in enumerate(code_cells.items(), 1):
        assert cell.execution_count == count, name
        assert all(out.get("name", "stdout") == "stdout" for out in cell.outputs), name
        assert not any(out.output_type == "error" for out in cell.outputs), name
        printed = "".join(out.get("text", "") for out in cell.outputs)
        assert not re.search(r"[\r\b]", printed), name
        assert not MACHINE_PATH.search(cell.source + printed), name


def test_side_trips_go_in_any_order(notebook):
    """None needs a name that only another one makes: in each, cells of the path are known."""
    part, made, taken = "1", {}, {}
    for cell in notebook.cells:
        part = (re.match(r"## (\w)\. ", cell.source) or [0, part])[1]
        for node in ast.walk(ast.parse(cell.source if cell.cell_type == "code" else "")):
            if isinstance(node, ast.Name):
                (taken if isinstance(node.ctx, ast.Load) else made).setdefault(part, set()).add(
                    node.id
                )
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.alias):
                made.setdefault(part, set()).add(node.name)
    assert [*made] == [*"123456789ABCDEF"]
    for part in "ABCDEF":
        known = made[part].union(*(made[other] for other in "123456789"))
        elsewhere = set().union(*(made[other] for other in "ABCDEF")) - known
        assert not taken[part] & elsewhere, part


def test_prose_names_no_number_that_training_moves(notebook, code_cells):
    prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for cell in ("evaluate", "find-neighbors", "muon-or-sgd", "take-out"):
        for number in re.findall(r"\d+\.\d%", code_cells[cell].outputs[0].text):
            assert number not in prose, f"{number} from {cell}"


def test_what_the_text_says_was_seen_is_in_the_stored_outputs(code_cells):
    """In the order of the notebook."""

    def percent(name):
        text = "".join(out.get("text", "") for out in code_cells[name].outputs)
        return [float(number) for number in re.findall(r"(\d+(?:\.\d+)?)%", text)]

    center, ten, *_ = percent("evaluate")
    losses = re.findall(r"val_loss: ([\d.]+)", code_cells["fit"].outputs[0].text)
    assert losses[-1] == min(losses), "the text says that the validation loss falls to the end"
    pixels, network = percent("find-neighbors")
    good = ten - center > 1 and 89 < ten < 93 and network > 50 > pixels  # "about nine of ten"
    assert good, "no full training run, or the text is wrong"
    muon, sgd = percent("muon-or-sgd")
    rows = re.findall(r"(\d+)% at", code_cells["relu-and-tanh"].outputs[0].text)
    relu, tanh, small_relu, small_tanh = (rows[n : n + 4] for n in range(0, 16, 4))
    assert muon - sgd > 10 and relu[3] == "90"  # at the largest rate: pure guessing
    assert 30 < int(min(relu)) < int(min(tanh)) < int(min(small_tanh)) < int(min(small_relu))
    saturated = percent("saturated")  # an error and three layers, four times
    assert max(saturated[5:8]) < 30 and min(saturated[13:]) > 80
    center, two, ten = percent("solution-4")
    assert two - center > 0.3 * (ten - center) > 0  # "a large part of what ten bring"
    before, right, after, _ = percent("solution-5")
    assert abs(after - right) < 3 < right - before  # modest, and close together


def test_figure_of_the_readme_is_the_notebooks(notebook):
    assert (ROOT / ".github" / "networks.png").read_bytes() == seeds.figure(notebook)


@pytest.mark.parametrize("file", ["README.md", "tests/benchmarks/README.md"])
def test_results_are_the_measured_ones(file, notebook):
    rows = json.loads(seeds.RESULTS.read_text(encoding="utf-8"))
    text = (ROOT / file).read_text(encoding="utf-8")
    assert seeds.written_anew(text, notebook, rows) == text and "<!-- end -->" in text
    assert seeds.result(notebook, seeds.STORED) in rows


def test_sizes_in_the_readme_are_the_notebooks(code_cells, small_model):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| {small_model.count_params():,} |" in readme
    without_groups = re.search(r"[\d,]+", code_cells["solution-1"].outputs[0].text)[0]
    assert f"60,965,224 ({without_groups} without the two groups)" in readme


def test_stored_outputs_are_of_this_code_and_these_packages(notebook):
    if "==" not in REQUIREMENTS.read_text(encoding="utf-8"):
        pytest.skip("the newest versions are being tried")
    assert notebook.metadata.get("fingerprint") == fingerprint(notebook), (
        "The notebook's outputs belong to other code or other packages, or were edited. "
        "Run `python .github/classroom.py refresh`, which stores new ones and their fingerprint."
    )


def test_fingerprint_is_of_code_outputs_and_pins_and_of_nothing_else(notebook):
    pins, other = "numpy==2.4.6  # arrays\nkeras==3.15.1\n", copy.deepcopy(notebook)
    cells, stored = code_cells_by_id(other), fingerprint(notebook, pins)
    muon, output = cells["muon"], cells["evaluate"].outputs[0]
    for ignored in ("  # of the learning rate", "SGD with Nesterov momentum; "):
        assert ignored in muon.source
        muon.source = muon.source.replace(ignored, "")
    output.execution_count = 7
    assert fingerprint(other, pins.replace("# arrays", "")) == stored
    muon.source = muon.source.replace("0.15", "0.3")
    changed = {stored, fingerprint(other, pins), fingerprint(other, pins.replace("2.4.6", "2.4.7"))}
    output.text = output.text.replace("8", "9")
    assert len(changed | {fingerprint(other, pins)}) == 4
