"""What people see: the notebook in JupyterLab, as a web page, as slides.

Skipped where Playwright or a browser is missing; `.ci/browser` installs both and runs this.
"""

import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from notebook_cells import NOTEBOOK

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: .ci/browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core")
ROOT = NOTEBOOK.parent
NAMES = ("chromium", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
FROM_NPM = {  # what slides load from the web, and where .ci/browser has put it
    r"unpkg\.com/reveal\.js@[\d.]+/(.*)": "reveal.js",
    r"ajax/libs/mathjax/[\d.]+/([^?]*)": "mathjax",
    r"ajax/libs/require\.js/[\d.]+/(require)\.min\.js": "requirejs",
}


def answer(route):
    """Lets pages reach this machine, and in place of the web the packages of npm."""
    url = route.request.url
    for pattern, package in FROM_NPM.items():
        if found := re.search(pattern, url):
            file = ROOT / ".browser" / "node_modules" / package / found[1]
            file = file.with_suffix(".js") if package == "requirejs" else file
            return route.fulfill(path=file) if file.is_file() else route.abort()
    here = url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:"))
    return route.continue_() if here else route.abort()


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on this machine: .ci/browser installs one")
    options = [f"--{name}" for name in QUIET.split()]
    with playwright.sync_playwright() as engine:
        window = engine.chromium.launch(executable_path=BROWSER, args=options)
        yield window
        window.close()


@pytest.fixture
def screen(browser):
    """A window of 1280 x 720."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.route("**/*", answer)
    yield page
    page.close()


def made_by(command, folder):
    """Runs a command of .ci/ in a folder, with a copy of the notebook. Returns page/."""
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copy(NOTEBOOK, folder)
    jupyter = folder / ".venv" / "bin" / "jupyter"
    jupyter.parent.mkdir(parents=True)
    jupyter.symlink_to(Path(sys.executable).with_name("jupyter"))
    environment = {**os.environ, "GITHUB_REPOSITORY": "someone/alexnet"}
    command = ["bash", *f".ci/{command}".split()]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder / "page"


def test_students_copy_has_neither_outputs_nor_solutions(tmp_path, notebook):
    made_by("class student", tmp_path)
    copy = nbformat.read(tmp_path / "class" / "lesson" / "student.ipynb", as_version=4)
    left = [cell.id for cell in notebook.cells if not cell.id.startswith("solution-")]
    assert [cell.id for cell in copy.cells] == left
    assert not any(cell.get("outputs") for cell in copy.cells)


def test_page_is_accessible_and_folds_what_the_notebook_folds(screen, tmp_path, code_cells):
    page = made_by("page", tmp_path) / "index.html"
    colab = "https://colab.research.google.com/github/someone/alexnet/blob/main/"
    assert f'href="{colab}alexnet_cifar10.ipynb"' in page.read_text()
    screen.goto(page.as_uri(), wait_until="domcontentloaded")
    hidden = [c for c in code_cells.values() if c.metadata.get("jupyter")]
    titles = [c.source.splitlines()[0].removeprefix("# @title ") for c in hidden]
    summaries = screen.locator("summary").all_inner_texts()
    others = ("Its output", "Answers", "Check your answers")
    assert [text for text in summaries if text not in others] == titles
    screen.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = axe.Axe().run(screen, options={"runOnly": WCAG}).response
    assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []
    assert len(found["passes"]) > 10
    described = screen.evaluate("[...document.images].map(i => i.alt)")
    assert len(described) > 10 and min(map(len, described)) > 10
    headings = screen.locator("h1, h2, h3").all()
    levels = [heading.evaluate("h => Number(h.tagName[1])") for heading in headings]
    assert levels[0] == 1
    assert all(next <= last + 1 for last, next in itertools.pairwise(levels))
    screen.set_viewport_size({"width": 400, "height": 800})  # a telephone
    assert screen.evaluate("document.documentElement.scrollWidth") <= 400


MEASURE = """() => {
  const slide = document.querySelector('section.present:not(.stack)');
  const scale = document.querySelector('.slides').getBoundingClientRect().width / 1280;
  const boxes = [...slide.querySelectorAll('img')].map(i => i.getBoundingClientRect());
  const sizes = [];
  const texts = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, range = document.createRange();
    if (!text.data.trim() || text.parentElement.closest('aside, .anchor-link')) continue;
    if (text.parentElement.closest('.MJX_Assistive_MathML, .MathJax_CHTML')) continue;
    range.selectNodeContents(text);
    if (!range.getBoundingClientRect().width) continue;
    boxes.push(range.getBoundingClientRect());
    sizes.push(scale * parseFloat(getComputedStyle(text.parentElement).fontSize));
  }
  const out = boxes.filter(
    b => b.top < 0 || b.left < 0 || b.bottom > 720 || b.right > 1280);
  return {things: boxes.length, outside: out.length, smallest: Math.min(999, ...sizes)};
}"""


def test_each_slide_fits_the_screen_and_can_be_read(screen, tmp_path):
    page = made_by("slides", tmp_path) / "talk.slides.html"
    screen.goto(page.as_uri())
    screen.wait_for_selector(".reveal.ready", state="attached")
    count = len(screen.query_selector_all(".slides > section > section"))
    assert 25 <= count <= 35
    for number in range(count):
        if number:
            screen.keyboard.press("Space")
        screen.wait_for_timeout(100)
        seen = screen.evaluate(MEASURE)
        assert seen["things"] and not seen["outside"], (number, seen)
        assert seen["smallest"] >= 18, (number, seen)


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab that runs in a folder with a copy of the notebook."""
    shutil.copy(NOTEBOOK, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jupyter = str(Path(sys.executable).with_name("jupyter"))
    command = [jupyter, "lab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token=", NOTEBOOK.name]
    copy = ROOT.parent / "shared" / "data" / "cifar10.npz"
    environment = {**os.environ, "SMOKE_TEST": "1"}
    environment.pop("MPLBACKEND", None)  # the tests' own; a reader has Jupyter's
    settings = tmp_path / "settings"
    tracker = settings / "@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}')  # all cells are in the page, always
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
    if copy.exists():
        environment.setdefault("CIFAR10_NPZ", str(copy))
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}/"
    for _ in range(60):
        time.sleep(1)
        try:
            urllib.request.urlopen(address + "api", timeout=5).close()
            break
        except OSError:
            continue
    yield address
    server.terminate()
    server.wait(60)


WATCH = """() => {
  window.seen = new Set();
  const note = () => document.querySelectorAll('.jp-OutputArea-output').forEach(
    output => (output.textContent.match(/2\\/2 .*\\d+s .*/) || []).forEach(
      line => window.seen.add(line)));
  setInterval(note, 200);
}"""
WIDE = """() => [...document.querySelectorAll('.jp-Notebook .jp-Cell *')].filter(
  e => e.getBoundingClientRect().right > 1280).map(e => e.className)"""


def test_all_cells_run_in_jupyterlab(screen, lab, tmp_path, notebook, code_cells):
    """As the README says: opened in JupyterLab, all cells run in their order."""
    screen.goto(f"{lab}lab/tree/{NOTEBOOK.name}")
    screen.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    screen.wait_for_selector("text=Python 3 (ipykernel)", timeout=120_000)
    hidden = [c for c in code_cells.values() if c.metadata.get("jupyter")]
    folded = screen.locator(".jp-InputPlaceholder")
    playwright.expect(folded).to_have_count(len(hidden), timeout=60_000)
    for _ in range(2):  # JupyterLab draws what it passes, and lands too high at first
        screen.click(".jp-Notebook a:has-text('The network')")
        screen.wait_for_timeout(3000)
    heading = screen.locator("h2:has-text('3. The network')")
    playwright.expect(heading).to_be_in_viewport()
    screen.evaluate(WATCH)
    screen.click("#jp-MainMenu >> text=Run")
    screen.click(".lm-Menu >> text=Run All Cells")
    for _ in range(60):
        screen.wait_for_timeout(10_000)
        screen.keyboard.press("Control+s")
        ran = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
        cells = [cell for cell in ran.cells if cell.cell_type == "code"]
        counts = [cell.execution_count for cell in cells]
        if counts == list(range(1, len(cells) + 1)) and ran != notebook:
            break
    assert screen.evaluate("[...window.seen]"), "no line on the training's two steps"
    assert screen.evaluate(WIDE) == []
    assert counts == list(range(1, len(cells) + 1))
    outputs = [out for cell in cells for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    assert sum("image/png" in out.get("data", {}) for out in outputs) > 10
