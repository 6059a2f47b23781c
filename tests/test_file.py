"""The notebook as a file: its form, its size, its stored outputs and their tolerances."""

import contextlib
import re
import statistics
import subprocess
import sys
import types

import nbformat
import numpy as np
import pytest
from notebook_cells import NOTEBOOK

ROOT = NOTEBOOK.parent
MACHINE_PATH = re.compile(r"/(home|root|tmp|work|Users|content)/|site-packages|[A-Z]:\\")


def prose(notebook):
    """All text cells of the notebook as one."""
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def lines(cell):
    """The lines of a cell that are not blank."""
    return [line for line in cell.source.splitlines() if line.strip()]


def folded(cell):
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def outputs(code_cells, kind):
    """All stored outputs of a kind, with the id of their cell."""
    return [
        (name, out)
        for name, cell in code_cells.items()
        for out in cell.outputs
        if out.output_type == kind
    ]


def test_format(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert NOTEBOOK.stat().st_size < 3 * 2**20


def test_outputs_are_from_one_run_from_top_to_bottom(code_cells):
    counts = [cell.execution_count for cell in code_cells.values()]
    assert counts == list(range(1, len(counts) + 1))


def test_nothing_holds_an_error_noise_or_a_path_of_a_machine(notebook, code_cells):
    assert not outputs(code_cells, "error")
    for name, out in outputs(code_cells, "stream"):
        assert out.name == "stdout", f"{name} stored {out.name}: {out.text[:200]}"
        assert not MACHINE_PATH.search(out.text), name
        assert "\r" not in out.text, name
    assert not any(MACHINE_PATH.search(cell.source) for cell in notebook.cells)


def test_figures_have_alternative_text(code_cells):
    figures = outputs(code_cells, "display_data")
    described = [out.metadata["image/png"]["alt"] for _, out in figures]
    assert len(set(described)) == len(described) > 10
    assert min(map(len, described)) > 30


def test_budgets(notebook, code_cells):
    """A lesson, not a report: what is added has to replace something."""
    sizes = {name: len(lines(cell)) for name, cell in code_cells.items()}
    assert len(sizes) <= 80 and sum(sizes.values()) <= 620
    assert len(prose(notebook).split()) <= 6000
    assert sizes.pop("load-data") <= 30
    assert max(sizes.values()) <= 15
    assert statistics.median(sizes.values()) <= 6
    shown = 0  # until the first picture
    for cell in code_cells.values():
        shown += 0 if folded(cell) else len(lines(cell))
        if any("image/png" in out.get("data", {}) for out in cell.outputs):
            break
    assert shown <= 45


def test_one_title_and_never_four_code_cells_in_a_row(notebook):
    assert len(re.findall(r"^# ", prose(notebook), re.MULTILINE)) == 1
    shown = [c for c in notebook.cells if c.cell_type == "markdown" or not folded(c)]
    assert "cccc" not in "".join(cell.cell_type[0] for cell in shown)


def test_contents_link_to_the_sections(notebook):
    headings = re.findall(r"^## (\d+\. .*)$", prose(notebook), re.MULTILINE)
    links = re.findall(r"^\d+\. \[.*\]\(#(.*)\)$", prose(notebook), re.MULTILINE)
    assert links == [heading.replace(" ", "-") for heading in headings]


def test_solutions_are_folded_and_were_run(code_cells):
    solutions = [c for name, c in code_cells.items() if name.startswith("solution-")]
    assert len(solutions) >= 5
    for cell in solutions:
        assert cell.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}
        assert cell.metadata.cellView == "form" and cell.source.startswith("# @title")
        assert cell.outputs and cell.execution_count


@pytest.mark.fault
def test_cell_out_of_order_says_which_name_is_missing(
    nb, code_cells, tmp_path, monkeypatch
):
    """Or works; any other error would lead a reader astray."""
    monkeypatch.chdir(tmp_path)
    names = {**vars(nb), "show": lambda figure, text: nb.plt.close(figure)}
    for name, cell in code_cells.items():
        tags = cell.metadata.get("tags", [])
        if name not in ("load", "device") and "functions" not in tags:
            with contextlib.suppress(NameError):
                exec(cell.source, dict(names))


def percent(text):
    """All percentages in a text, and the accuracies that Keras prints, as percent."""
    found = re.findall(r"(\d+\.\d)%|accuracy: (0\.\d+)", text)
    return [float(percent or 100 * float(share)) for percent, share in found]


def test_stored_accuracy_is_what_is_promised(stored):
    centre, ten, low, high = percent(stored("evaluate"))
    assert "NOT CIFAR-10" not in stored("answer")
    assert ten >= 89 and ten > centre
    assert low < ten < high and high - low == pytest.approx(1.2, abs=0.3)


def test_prose_on_results_agrees_with_the_stored_outputs(stored):
    """What the text says was seen, in the order of the notebook."""
    assert np.subtract(*percent(stored("fit"))[-2:]) > 0  # training above validation
    assert np.subtract(*percent(stored("find-neighbours"))) > 30  # network, pixels
    found = re.findall(r"(\d+)% at 0\.0[28]", stored("figure-1"))  # with weights of He
    relu, relu_fast, tanh, tanh_fast = map(int, found[:4])
    assert relu < tanh - 3 and tanh_fast - tanh > relu_fast - relu + 8
    saturated = percent(stored("saturated"))  # error and three layers, twice
    assert max(saturated[1:4]) < 20 and min(saturated[4:]) > 50
    assert np.subtract(*percent(stored("take-out"))) > 8  # without Muon
    won, lost = map(int, re.findall(r"\d+", stored("crops-gain"))[:2])
    assert won - lost > 2 * (won + lost) ** 0.5


def test_prose_names_no_number_that_training_moves(notebook, stored):
    text = prose(notebook)
    for cell in ("fit", "evaluate", "find-neighbours", "take-out"):
        for number in re.findall(r"\d+\.\d%", stored(cell)):
            assert number not in text, f"{number} from {cell}"


@pytest.fixture
def rules():
    """The tolerances of the full check, as nbval reads them."""
    from nbval.plugin import get_sanitize_patterns

    return dict(get_sanitize_patterns((ROOT / "tests" / "tolerances.cfg").read_text()))


def test_each_tolerance_holds_a_stored_output(rules, code_cells):
    text = "".join(out.text for _, out in outputs(code_cells, "stream"))
    for rule in rules:
        assert re.search(rule, text), rule


def test_a_bad_training_is_outside_the_tolerances(rules, stored):
    def sanitise(text):
        for rule, token in rules.items():
            text = re.sub(rule, token, text)
        return text

    for cell in ("fit", "evaluate", "find-neighbours", "take-out", "solution-3"):
        text = stored(cell)
        assert not percent(sanitise(text)), cell
        worse = re.sub(r"\d\d\.\d%", "61.0%", re.sub(r"cy: 0\.\d+", "cy: 0.61", text))
        assert percent(sanitise(worse)), cell


def test_top_level_holds_what_a_visitor_expects():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    files = subprocess.run(
        ["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    seen = {file.split("/")[0] for file in files if file and not file.startswith(".")}
    assert seen == {"alexnet_cifar10.ipynb", "requirements.txt", "README.md", "tests"}


@pytest.mark.fault
@pytest.mark.parametrize("module", [None, types.SimpleNamespace(__version__="3.9.1")])
def test_missing_or_old_package_ends_in_one_sentence(run_cell, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "matplotlib", module)
    with pytest.raises(ImportError, match=r"matplotlib.+ Run %pip install .*kernel\.$"):
        run_cell("check-packages")


BAD = [("EPOCHS", bad) for bad in ("abc", "", "-3", "1e3", "2.5", "0", "99999")]
BAD += [("DROPOUT", bad) for bad in ("nan", "inf", "-0.1", "0,5")]


@pytest.mark.fault
@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_setting_ends_in_one_sentence(run_cell, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name} must be a .*number .*, not '{value}'"):
        run_cell("settings")


def test_settings_come_from_the_environment(run_cell, monkeypatch):
    monkeypatch.setenv("EPOCHS", "7")
    monkeypatch.setenv("DROPOUT", "0.25")
    names = run_cell("settings")
    assert (names["EPOCHS"], names["DROPOUT"], names["SEED"]) == (7, 0.25, 2012)
