"""What is downloaded is what was meant, and nothing runs before that is known."""

import re

import pytest
from notebook_cells import NOTEBOOK

ROOT = NOTEBOOK.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_commands_install_packages_of_known_versions():
    """By the file of constraints, or by a version in the command or in a file of its own."""
    files = [*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("tests/**/*.md")]
    files += [*WORKFLOWS, *(file for file in ROOT.glob(".ci/*") if file.is_file())]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    commands = re.findall(r"pip install (?:-q )?([^\n`&]*)", text.replace("\\\n", " "))
    assert len(commands) > 10
    page = (ROOT / ".github" / "page" / "requirements.txt").read_text(encoding="utf-8")
    commands.append(" ".join(line for line in page.splitlines() if line[:1] not in "#-"))
    for command in commands:
        command = command.replace("-r .github/page/requirements.txt", "")
        if "-c .github/constraints.txt" not in command and "--no-index" not in command:
            assert all("==" in word for word in command.split() if word[0] not in "-."), command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_read_only_and_run_pinned_actions(workflow):
    text = workflow.read_text(encoding="utf-8")
    allowed = re.findall(r"^( *)permissions:\n((?:\1  .*\n)*)", text, re.MULTILINE)
    publishes = [("    ", "      pages: write\n      id-token: write\n")]
    assert allowed == [("", "  contents: read\n"), *publishes * (workflow.stem == "page")]
    actions = re.findall(r"uses: (.*)", text)
    assert actions and "continue-on-error" not in text  # a failure is red
    for action in actions:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action
