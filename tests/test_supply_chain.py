"""What is downloaded is what was meant, and nothing runs before that is known."""

import re

import pytest
from notebook_cells import NOTEBOOK

ROOT = NOTEBOOK.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def pinned(text):
    """The packages and versions that a requirements file pins."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))


def test_constraints_have_the_versions_of_the_requirements():
    """Users, CI and workflows install the same, with all that the packages need."""
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    if "==" not in required:
        pytest.skip("the newest versions are being tried")
    constraints = pinned((ROOT / ".github" / "constraints.txt").read_text(encoding="utf-8"))
    assert len(constraints) > 50 and pinned(required).items() <= constraints.items()
    lines = [line for line in required.splitlines() if not line.startswith("#")]
    assert len(lines) == len(pinned(required))  # it refers to no other file


def test_commands_install_packages_of_known_versions():
    """By the file of constraints, or by a version in the command."""
    files = [*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("tests/**/*.md")]
    files += [*WORKFLOWS, *(file for file in ROOT.glob(".ci/*") if file.is_file())]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    commands = re.findall(r"pip install (?:-q )?([^\n`&]*)", text.replace("\\\n", " "))
    assert len(commands) > 10
    for command in commands:
        for file in re.findall(r"-r (\S+/\S+\.txt)", command):
            lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
            pins = [line for line in lines if line and line[0] not in "#-"]
            assert pins and all("==" in pin for pin in pins), file
            command = f"{command} {' '.join(pins)}"
        if "-c .github/constraints.txt" not in command and "--no-index" not in command:
            words = [word for word in command.split() if word[0] not in "-."]
            assert words and all("==" in word for word in words), command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_read_only_and_run_pinned_actions(workflow):
    text = workflow.read_text(encoding="utf-8")
    allowed = re.findall(r"^( *)permissions:\n((?:\1  .*\n)*)", text, re.MULTILINE)
    publishes = [("    ", "      pages: write\n      id-token: write\n")]
    expected = publishes if workflow.stem == "page" else []
    assert allowed == [("", "  contents: read\n"), *expected]
    actions = re.findall(r"uses: (.*)", text)
    assert actions and "continue-on-error" not in text  # a failure is red
    for action in actions:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action
