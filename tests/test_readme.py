"""What the README promises: its figure, its commands, its numbers, its length."""

import json
import re

import pytest
import seeds
from notebook_cells import NOTEBOOK

ROOT = NOTEBOOK.parent


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_figure_is_the_notebooks(readme, notebook):
    assert (ROOT / ".github" / "networks.png").read_bytes() == seeds.figure(notebook)
    assert "(.github/networks.png)" in readme


@pytest.mark.parametrize("file", ["README.md", "tests/benchmarks/README.md"])
def test_results_are_the_measured_ones(file, notebook):
    """What stands between the marks was written by tests/benchmarks/seeds.py."""
    rows = json.loads(seeds.RESULTS.read_text(encoding="utf-8"))
    text = (ROOT / file).read_text(encoding="utf-8")
    assert seeds.written_anew(text, notebook, rows) == text
    assert seeds.result(notebook, seeds.STORED) in rows
    assert "<!-- end -->" in text


def test_one_command_to_run_and_one_to_test(readme):
    commands = re.findall(r"^```sh\n(.*?)\n```$", readme, re.MULTILINE | re.DOTALL)
    assert len(commands) == 2 and "nbconvert" in commands[0] and "pytest" in commands[1]
    assert all(command.startswith("python3 -m venv .venv") for command in commands)
    here = [command.replace("python3", "python").split(" && ") for command in commands]
    windows = re.findall(r"^```powershell\n(.*?)\n```$", readme, re.MULTILINE | re.DOTALL)
    there = [block.replace("\\Scripts\\", "/bin/").splitlines() for block in windows]
    assert there == here  # the same steps, a line each


def test_numbers_are_the_notebooks(readme, stored, small_model):
    assert f"| {small_model.count_params():,} |" in readme
    without_groups = re.search(r"[\d,]+", stored("solution-1"))[0]
    assert f"60,965,224 ({without_groups} without the two groups)" in readme


def minutes(cells):
    """By two first readings: 70 words or 5.6 shown lines a minute, 1.4 minutes a figure."""
    words = lines = figures = 0
    for cell in cells:
        if cell.cell_type == "markdown":
            words += len(cell.source.split())
            continue
        if not cell.metadata.get("jupyter"):
            lines += sum(bool(line.strip()) for line in cell.source.splitlines())
        figures += sum("image/png" in out.get("data", {}) for out in cell.outputs)
    return 1.4 * (words / 100 + lines / 8 + figures)


def test_title_states_the_time_of_both_parts(notebook):
    """Within a quarter of what is said."""
    title = notebook.cells[0].source
    starts = [
        next(n for n, cell in enumerate(notebook.cells) if cell.source.startswith(heading))
        for heading in ("## 1. ", "## 7. ", "## A. ")
    ]
    for part, start, end in zip(("Part I", "Part II"), starts, starts[1:]):
        said = re.search(rf"{part}\b(?!I)[^.]*?\babout (\d+)", title.split("## Contents")[0])
        assert said, f"the title does not say how long {part} takes"
        expected = minutes(notebook.cells[start:end])
        assert int(said[1]) == pytest.approx(expected, rel=0.25), (part, expected)
