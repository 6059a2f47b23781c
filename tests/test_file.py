"""The notebook as a file: its form, its size, its names, and its stored outputs."""

import builtins
import contextlib
import dis
import re
import sys
import types

import nbformat
import numpy as np
import pytest
from notebook_cells import NOTEBOOK

ROOT = NOTEBOOK.parent
MACHINE_PATH = re.compile(r"/(home|root|tmp|work|Users|content)/|site-packages|[A-Z]:\\")
PATH = {*"0123456789", "While it trains"}  # the parts that every reader goes through


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


@pytest.fixture(scope="session")
def parts(notebook):
    """The code cells of each part: "1" to "9", "While it trains", "A" to "F"."""
    part, found = "0", {}
    for cell in notebook.cells:
        if heading := re.match(r"## (?:(\w)\. )?(.*)", cell.source):
            part = heading[1] or heading[2]
        if cell.cell_type == "code":
            found.setdefault(part, []).append(cell)
    assert set(found) - PATH == set("ABCDEF")
    return found


@pytest.fixture(scope="session")
def path(parts):
    """The code cells that every reader meets."""
    return [cell for part, cells in parts.items() if part in PATH for cell in cells]


def test_format_and_that_outputs_are_from_one_run(notebook, code_cells):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert NOTEBOOK.stat().st_size < 3 * 2**20
    counts = [cell.execution_count for cell in code_cells.values()]
    assert counts == list(range(1, len(counts) + 1))


def test_nothing_holds_an_error_noise_or_a_path_of_a_machine(notebook, code_cells):
    assert not outputs(code_cells, "error")
    for name, out in outputs(code_cells, "stream"):
        assert out.name == "stdout", f"{name} stored {out.name}: {out.text[:200]}"
        assert not MACHINE_PATH.search(out.text), name
        assert "\r" not in out.text and "\b" not in out.text, name
    assert not any(MACHINE_PATH.search(cell.source) for cell in notebook.cells)


def test_figures_have_alternative_text(code_cells):
    """A sentence each, long enough to say something and short enough to be read aloud."""
    figures = [out for _, out in outputs(code_cells, "display_data") if "image/png" in out.data]
    described = [out.metadata["image/png"]["alt"] for out in figures]
    assert len(set(described)) == len(described) > 10
    for alt in described:
        assert 30 <= len(alt) <= 120 and re.match(r"[A-Z].*\.$", alt), alt


def test_budgets(path):
    """A lesson, not a report: what is added has to replace something."""
    assert len(path) <= 52
    shown = [cell for cell in path if not folded(cell)]
    assert sum(len(lines(cell)) for cell in shown) <= 250
    for cell in path:
        assert len(lines(cell)) <= (45 if folded(cell) else 15), cell.id
    before = 0  # the first figure
    for cell in path:
        before += 0 if folded(cell) else len(lines(cell))
        if any("image/png" in out.get("data", {}) for out in cell.outputs):
            break
    assert before <= 25


def test_contents_link_to_the_sections(notebook):
    text = prose(notebook)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    headings = [title for title in headings if title not in ("Contents", "Further reading")]
    contents = text.split("## Contents")[1].split("\n## ")[0]
    links = re.findall(r"\[[^]]*\]\(#(.*?)\)(?=$|[,.\s])", contents, re.MULTILINE)
    assert sorted(links) == sorted(title.replace(" ", "-") for title in headings)


def test_solutions_are_folded_and_end_in_what_they_show(code_cells):
    solutions = [c for name, c in code_cells.items() if name.startswith("solution-")]
    assert len(solutions) >= 5
    for cell in solutions:
        assert cell.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}
        assert cell.metadata.cellView == "form" and cell.source.startswith("# @title")
        assert "solution" in cell.metadata.tags
        last = cell.outputs[-1].text.splitlines()[-1]
        assert re.search(r"[A-Z][^.]* [^.]+\.$", last), (cell.id, last)


def names(cell):
    """Global names: those that a cell takes, those that its functions take, those it makes."""
    codes, taken, later, made = [compile(cell.source, cell.id, "exec")], None, set(), set()
    for code in codes:  # the cell, then its functions, and theirs
        needs, makes = set(), set()
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and step.argval not in makes:
                needs.add(step.argval)
            elif step.opname in ("STORE_NAME", "STORE_GLOBAL"):
                makes.add(step.argval)
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        if taken is None:
            taken, made = needs - set(dir(builtins)), makes
        else:
            later |= needs - set(dir(builtins))
    return taken, later, made


def test_each_cell_needs_only_what_came_before(parts):
    """Of the path, for the path; of sections 1 to 6 (F: 7) and its own, for a side trip.

    What only a function needs may come until the end of the section, or of the side trip.
    """
    made_in = {part: set().union(*(names(c)[2] for c in cells)) for part, cells in parts.items()}
    for number, (part, cells) in enumerate(parts.items()):
        on_path = [*parts][:number] if part in PATH else [*"0123456"] + ["7"] * (part == "F")
        known = set().union(*(made_in.get(other, set()) for other in on_path))
        for cell in cells:
            taken, later, made = names(cell)
            missing = taken - known | later - known - made_in[part]
            assert not missing, f"{cell.id} of part {part} needs {missing}"
            known |= made


@pytest.mark.fault
def test_cell_out_of_order_says_which_name_is_missing(nb, code_cells, drawn, tmp_path, monkeypatch):
    """Or works; any other error would lead a reader astray."""
    monkeypatch.chdir(tmp_path)
    for name, cell in code_cells.items():
        tags = cell.metadata.get("tags", [])
        if name not in ("load", "identify") and "functions" not in tags:
            with contextlib.suppress(NameError):
                exec(cell.source, dict(vars(nb)))


def percent(text):
    """All percentages in a text, and the accuracies that Keras prints, as percent."""
    found = re.findall(r"(\d+\.\d)%|accuracy: (\d\.\d+)", text)
    return [float(percent or 100 * float(share)) for percent, share in found]


def test_stored_accuracy_is_what_is_promised(stored):
    assert stored("identify").startswith("CIFAR-10: 50,000 training images, 10,000")
    center, ten, low, high = percent(stored("evaluate"))
    assert ten >= 90 and ten > center
    assert low < ten < high and high - low == pytest.approx(1.2, abs=0.3)


def test_prose_on_results_agrees_with_the_stored_outputs(stored):
    """What the text says was seen, in the order of the notebook."""
    assert np.subtract(*percent(stored("fit"))[-2:]) > 0  # training above validation
    assert np.subtract(*percent(stored("find-neighbors"))) > 30  # network, pixels
    muon, sgd = percent(stored("muon-or-sgd"))
    assert muon > sgd + 5  # "the difference is large"
    errors = [
        {float(rate): int(error) for error, rate in re.findall(r"(\d+)% at ([\d.]+)", line)}
        for line in stored("relu-and-tanh").splitlines()
    ]
    relu, tanh, small_relu, small_tanh = (min(by_rate.values()) for by_rate in errors)
    assert 30 < relu < tanh < small_tanh < small_relu  # and not near 25%
    rates = [float(rate) for rate in re.findall(r"rate ([\d.]+):", stored("saturated"))]
    assert rates == [min(errors[1], key=errors[1].get), max(errors[1])]  # best, largest
    assert errors[0][rates[1]] == 90  # pure guessing, with ReLU
    saturated = percent(stored("saturated"))  # error and three layers, twice
    assert max(saturated[1:4]) < 30 and min(saturated[5:]) > 80
    whole, changed = percent(stored("take-out"))
    assert abs(whole - changed) < 15
    won, lost = map(int, re.findall(r"\d+", stored("crops-gain"))[:2])
    assert won - lost > 2 * (won + lost) ** 0.5
    center, two, ten = percent(stored("solution-4"))
    assert two - center > 0.3 * (ten - center) > 0  # "a large part of what ten bring"
    before, right, after, _ = percent(stored("solution-5"))
    assert abs(after - right) < 3 < right - before  # modest, and close together


def test_prose_names_no_number_that_training_moves(notebook, stored):
    text = prose(notebook)
    for cell in ("fit", "evaluate", "find-neighbors", "muon-or-sgd", "take-out"):
        for number in re.findall(r"\d+\.\d%", stored(cell)):
            assert number not in text, f"{number} from {cell}"


@pytest.fixture
def rules():
    """The tolerances of the full check, as nbval reads them."""
    from nbval.plugin import get_sanitize_patterns

    return dict(
        get_sanitize_patterns((ROOT / "tests" / "tolerances.cfg").read_text(encoding="utf-8"))
    )


def test_each_tolerance_holds_a_stored_output(rules, code_cells):
    text = "".join(out.text for _, out in outputs(code_cells, "stream"))
    for rule in rules:
        assert re.search(rule, text), rule


TRAINED = "fit evaluate find-neighbors muon-or-sgd saturated take-out solution-2 solution-3"


@pytest.mark.parametrize("cell", [*TRAINED.split(), "solution-4", "solution-5"])
def test_a_bad_training_is_outside_the_tolerances(rules, code_cells, cell):
    """Inside, no number is left to compare; outside, some number is."""

    def sanitized(text):
        for rule, token in rules.items():
            text = re.sub(rule, token, text)
        return percent(text)

    text = "".join(out.text for out in code_cells[cell].outputs)
    assert percent(text) and not sanitized(text)
    for bad in ("10.0", "99.9"):
        worse = re.sub(r"\d+\.\d%", f"{bad}%", text)
        worse = re.sub(r"(acy: )\d\.\d+", rf"\g<1>{float(bad) / 100:.4f}", worse)
        assert sanitized(worse), bad


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
    sentence = f"^{name} must be a .*number .*, not '?{value}'?"
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=sentence):
        run_cell("apply-settings")
    monkeypatch.delenv(name)
    with pytest.raises(ValueError, match=sentence):
        run_cell("apply-settings", **{name: value})  # as edited in the cell above


def test_settings_come_from_the_environment(run_cell, monkeypatch):
    monkeypatch.setenv("DROPOUT", "0.25")
    names = run_cell("apply-settings", EPOCHS=3)
    assert (names["EPOCHS"], names["DROPOUT"], names["SEED"]) == (3, 0.25, 2012)
