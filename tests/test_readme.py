"""What the README promises: its figure, its commands, its numbers, its length."""

import json
import re

import pytest
import seeds
from notebook_cells import NOTEBOOK

ROOT = NOTEBOOK.parent


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text()


def test_figure_is_the_notebooks(readme, notebook):
    assert (ROOT / ".github" / "networks.png").read_bytes() == seeds.figure(notebook)
    assert "(.github/networks.png)" in readme


@pytest.mark.parametrize("file", ["README.md", "tests/benchmarks/README.md"])
def test_results_are_the_measured_ones(file, notebook):
    """What stands between the marks was written by tests/benchmarks/seeds.py."""
    rows = json.loads(seeds.RESULTS.read_text())
    text = (ROOT / file).read_text()
    assert seeds.written_anew(text, notebook, rows) == text
    assert seeds.result(notebook, seeds.STORED) in rows
    assert "<!-- end -->" in text


def test_one_command_to_run_and_one_to_test(readme):
    commands = re.findall(r"^```sh\n(.*?)\n```$", readme, re.MULTILINE | re.DOTALL)
    assert len(commands) == 2 and "nbconvert" in commands[0] and "pytest" in commands[1]
    assert all(command.startswith("python3 -m venv .venv") for command in commands)
    assert len(readme.splitlines()) <= 95


def test_numbers_are_the_notebooks(readme, stored):
    parameters = re.search(r"([\d,]+) parameters", stored("build"))[1]
    assert f"| {parameters} |" in readme
    without_groups = re.search(r"[\d,]+", stored("solution-2"))[0]
    assert f"60,965,224 ({without_groups} without the two groups)" in readme


def test_title_states_the_time_of_reading(notebook, code_cells):
    """200 words, or 20 shown lines of code, a minute; within a quarter of what is said."""
    words = sum(len(c.source.split()) for c in notebook.cells if c.cell_type == "markdown")
    shown = [c for c in code_cells.values() if not c.metadata.get("jupyter")]
    lines = sum(bool(line.strip()) for c in shown for line in c.source.splitlines())
    title = notebook.cells[0].source
    said = int(re.search(r"(\d+) of reading", title)[1])
    assert said == pytest.approx(words / 200 + lines / 20, rel=0.25)
