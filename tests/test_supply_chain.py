"""What is downloaded is what was meant, and nothing runs before that is known."""

import re

import pytest
from notebook_cells import NOTEBOOK

ROOT = NOTEBOOK.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def pinned(text):
    """The packages and versions that a requirements file pins."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))


def test_lock_file_has_the_versions_of_the_requirements():
    required = pinned((ROOT / "requirements.txt").read_text())
    locked = pinned((ROOT / ".github" / "requirements.lock").read_text())
    assert required and required.items() <= locked.items()


def test_lock_file_has_a_hash_for_each_package():
    text = (ROOT / ".github" / "requirements.lock").read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:60]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_read_only_and_run_pinned_actions(workflow):
    text = workflow.read_text()
    assert re.findall(r"^ *permissions:\n +(.*)$", text, re.MULTILINE) == ["contents: read"]
    assert "--require-hashes -r .github/requirements.lock" in text
    actions = re.findall(r"uses: (.*)", text)
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action


def test_packages_are_audited_weekly():
    text = (ROOT / ".github" / "workflows" / "full.yml").read_text()
    assert "cron:" in text and "pip-audit --require-hashes" in text


def test_notebook_loads_nothing_that_could_run_code(code_cells):
    """No pickles, models in Keras's own format with safe mode on, archives by checksum."""
    source = "\n".join(cell.source for cell in code_cells.values())
    assert "np.load(path, allow_pickle=False)" in source
    for word in ("allow_pickle=True", "safe_mode", "import pickle", "eval(", "exec("):
        assert word not in source, word
    assert re.search(r'MODEL_FILE = ".*\.keras"', source)
