"""The stored outputs belong to the code and the packages beside them."""

import copy

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_cells import REQUIREMENTS, fingerprint


def test_stored_outputs_are_of_this_code_and_these_packages(notebook):
    if "==" not in REQUIREMENTS.read_text(encoding="utf-8"):
        pytest.skip("the newest versions are being tried")
    assert notebook.metadata.get("fingerprint") == fingerprint(notebook), (
        "The notebook's outputs belong to other code or other packages, or were edited. "
        "Run `python .github/classroom.py refresh`, which stores new ones and their fingerprint."
    )


CODE = '''
# Doubles.
def double(x):
    """Returns twice x."""
    return 2 * x


class Doubler:
    """Doubles."""


double(21)
'''
PINS = "# Python 3.11\n-c constraints.txt\nkeras==3.15.1\nnumpy==2.4.6  # arrays\n"


@pytest.fixture
def small():
    """A notebook of one cell that printed and returned something."""
    printed = new_output("stream", name="stdout", text="hello\n")
    picture = {"text/plain": "42", "image/png": "iVBORw0K"}
    described = {"image/png": {"alt": "forty-two"}}
    options = {"data": picture, "metadata": described, "execution_count": 1}
    outputs = [printed, new_output("execute_result", **options)]
    return new_notebook(cells=[new_code_cell(CODE, outputs=outputs, execution_count=1)])


def changed(notebook, **parts):
    """Returns a copy of a small notebook whose cell has other parts."""
    other = copy.deepcopy(notebook)
    other.cells[0].update(parts)
    return other


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2 * x", "3 * x"),
        ("    return", "    x += 0\n    return"),
        ("Doubler:", "Doubler(list):"),
        ("double(x)", "double(x, y=None)"),
        ("double(21)", "'''Said at the end.'''"),
    ],
)
def test_changed_code_changes_it(small, old, new):
    assert old in CODE
    other = changed(small, source=CODE.replace(old, new))
    assert fingerprint(other, PINS) != fingerprint(small, PINS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Doubles.", "# @title Folded: twice"),
        ('"""Returns twice x."""', '"""Returns a number."""'),
        ('    """Returns twice x."""\n', ""),
        ('"""Doubles."""', '"""Is a class."""'),
        ("2 * x", "(2 * x)  # a comment"),
        ("double(21)", "double(\n    21\n)"),
    ],
)
def test_changed_comment_docstring_or_space_does_not(small, old, new):
    assert old in CODE
    other = changed(small, source=CODE.replace(old, new))
    assert fingerprint(other, PINS) == fingerprint(small, PINS)


def test_changed_output_changes_it_but_not_its_number(small):
    outputs = {"text": "Hello\n"}, {"data": {"text/plain": "42"}}, {"metadata": {}}
    for number, part in zip((0, 1, 1), outputs, strict=True):
        other = copy.deepcopy(small)
        other.cells[0].outputs[number].update(part)
        assert fingerprint(other, PINS) != fingerprint(small, PINS), part
    assert fingerprint(changed(small, outputs=[]), PINS) != fingerprint(small, PINS)
    other = changed(small, execution_count=7)
    other.cells[0].outputs[1].execution_count = 7
    assert fingerprint(other, PINS) == fingerprint(small, PINS)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("2.4.6", "2.4.7", False),
        ("keras==3.15.1\n", "", False),
        ("# arrays", "# numbers", True),
        ("-c constraints.txt\n", "", True),
    ],
)
def test_changed_pin_changes_it(small, old, new, same):
    assert old in PINS
    found = fingerprint(small, PINS.replace(old, new))
    assert (found == fingerprint(small, PINS)) is same


def test_it_is_the_same_on_each_python():
    """What versions 3.11 to 3.13 gave for this code."""
    notebook = new_notebook(cells=[new_code_cell(CODE + 'f"{1 + 1!r:>{9}}ä", ..., 1e400')])
    assert fingerprint(notebook, PINS).startswith("c9c09fbb287d")
