"""What people see: the notebook in JupyterLab, as a web page, as slides.

Skipped where Playwright or a browser is missing; `.ci/browser` installs both and runs this.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from notebook_cells import NOTEBOOK

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: .ci/browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core")
ROOT = NOTEBOOK.parent
NAMES = ("chromium", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
LIGHT, DARK = {"color_scheme": "light"}, {"color_scheme": "dark"}


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on this machine: .ci/browser installs one")
    options = [f"--{name}" for name in QUIET.split()]
    with playwright.sync_playwright() as engine:
        window = engine.chromium.launch(executable_path=BROWSER, args=options)
        yield window
        window.close()


def open_window(browser, **options):
    """Opens a window without a network. Returns it and a list of what goes wrong in it."""
    page, wrong = browser.new_page(viewport={"width": 1280, "height": 720}, **options), []

    def answer(route):
        url = route.request.url
        if url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:")):
            return route.continue_()
        wrong.append(url)
        route.abort()

    page.route("**/*", answer)
    page.on("console", lambda note: wrong.append(note.text) if note.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return page, wrong


@pytest.fixture
def screen(browser):
    """A window of 1280 x 720 for Jupyter, whose own requests and notes are not ours."""
    page, _ = open_window(browser)
    yield page
    page.close()


@pytest.fixture
def reader(browser, request):
    """A window of 1280 x 720 for page and talk, where no request and no error is allowed."""
    page, wrong = open_window(browser, reduced_motion="reduce", **getattr(request, "param", {}))
    yield page
    page.close()
    assert wrong == []


def made_by(command, folder):
    """Runs a command of .ci/ in a folder, with a copy of the notebook. Returns page/."""
    for part in (".ci", ".github"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(NOTEBOOK, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    environment = {**os.environ, "GITHUB_REPOSITORY": "someone/alexnet"}
    command = ["bash", *f".ci/{command}".split()]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder / "page"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of the page."""
    return (made_by("page", tmp_path_factory.mktemp("page")) / "index.html").as_uri()


BEYOND = """() => [...document.querySelectorAll('article *')].filter(
  e => e.getBoundingClientRect().right > innerWidth && !e.closest('[tabindex]')
).map(e => e.outerHTML.slice(0, 99))"""


@pytest.mark.parametrize("width, reader", [(1280, LIGHT), (390, DARK)], indirect=["reader"])
def test_page_is_accessible_and_fits(reader, page, width):
    reader.set_viewport_size({"width": width, "height": 800})
    reader.goto(page)
    reader.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert reader.evaluate("document.documentElement.scrollWidth") <= width
    assert reader.evaluate(BEYOND) == []
    found = axe.Axe().run(reader, options={"runOnly": WCAG, "preload": False}).response
    assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []
    assert len(found["passes"]) > 10


def test_page_folds_what_the_notebook_folds(reader, page, code_cells):
    reader.goto(page)
    hidden = [c for c in code_cells.values() if c.metadata.get("jupyter")]
    titles = [c.source.splitlines()[0].removeprefix("# @title ") for c in hidden]
    summaries = reader.locator("details.fold > summary").all_inner_texts()
    assert [text for text in summaries if text != "Its output"] == titles
    outputs = [c for c in hidden if c.metadata.jupyter.get("outputs_hidden")]
    assert summaries.count("Its output") == len(outputs)
    folds = reader.locator("details").all()
    assert len(folds) > len(summaries)  # the others hold answers
    for fold in folds:
        inside = fold.locator("> :not(summary)").first
        playwright.expect(inside).not_to_be_visible()
        fold.locator("summary").click()
        playwright.expect(inside).to_be_visible()


def test_links_of_the_page_land(reader, page):
    reader.goto(page)
    colab = "https://colab.research.google.com/github/someone/alexnet/blob/main/"
    assert reader.locator(f"a[href='{colab}{NOTEBOOK.name}']").count() == 1
    for links, fewest in (("#contents a[href^='#']:not(.headerlink)", 16), (".path a", 17)):
        links = reader.locator(links).all()
        assert len(links) >= fewest
        for link in links:
            link.click()
            name = link.inner_text()
            heading = reader.locator(":target > h2")
            playwright.expect(heading).to_contain_text(name, ignore_case=True)
            playwright.expect(heading).to_be_in_viewport()


def test_page_describes_its_figures(reader, page, code_cells):
    reader.goto(page)
    outputs = [out for cell in code_cells.values() for out in cell.outputs]
    stored = [o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
    assert reader.evaluate("[...document.images].map(i => i.alt)") == stored


@pytest.mark.parametrize("reader", [{"java_script_enabled": False}], indirect=True)
def test_convolution_stands_still_without_javascript(reader, page):
    reader.goto(page)
    playwright.expect(reader.locator(".cell:has(#live) img")).to_be_visible()


PIXELS = """canvas => [...Array(1024).keys()].map(n => canvas.getContext('2d').getImageData(
  10 * (n % 32) + 5, 10 * Math.floor(n / 32) + 5, 1, 1).data[0])"""


def test_live_convolution_by_keyboard(reader, page):
    """The sum is what NumPy computes from the pixels on the screen."""
    reader.goto(page)
    pixels = np.reshape(reader.locator("#image").evaluate(PIXELS), (32, 32))
    kernels = [[[-1, 0, 1]] * 3, np.transpose([[-1, 0, 1]] * 3), np.full((3, 3), 1 / 9)]
    y, x = 12, 19
    reader.focus("#live input:checked")
    for kernel in kernels:
        reader.keyboard.press("Tab")
        for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowRight"):
            seen = reader.locator("#sum").inner_text()
            number = np.sum(pixels[y : y + 3, x : x + 3] * kernel)
            end = f" {number:.1f}.".replace(".0.", ".")
            assert seen == f"Row {y}, column {x}: the sum of the nine products is{end}"
            reader.keyboard.press(key)
            x += {"ArrowLeft": -1, "ArrowRight": 1}.get(key, 0)
            y -= key == "ArrowUp"
        reader.keyboard.press("Shift+Tab")
        reader.keyboard.press("ArrowDown")
    reader.keyboard.press("Tab")
    for _ in range(40):  # the border holds the window
        reader.keyboard.press("ArrowUp")
    assert "Row 0," in reader.locator("#sum").inner_text()


MEASURE = """() => {
  const slide = document.querySelector('section.present:not(.stack)');
  const scale = document.querySelector('.slides').getBoundingClientRect().width / 1280;
  const boxes = [...slide.querySelectorAll('img')].map(i => i.getBoundingClientRect());
  const sizes = [];
  const texts = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, range = document.createRange();
    if (!text.data.trim() || text.parentElement.closest('aside, .anchor-link')) continue;
    range.selectNodeContents(text);
    if (!range.getBoundingClientRect().width) continue;
    boxes.push(range.getBoundingClientRect());
    sizes.push(scale * parseFloat(getComputedStyle(text.parentElement).fontSize));
  }
  const out = boxes.filter(
    b => b.top < 0 || b.left < 0 || b.bottom > 720 || b.right > 1280);
  return {things: boxes.length, outside: out.length, smallest: Math.min(999, ...sizes)};
}"""


def test_each_slide_fits_the_screen_and_can_be_read(reader, tmp_path):
    page = made_by("slides", tmp_path) / "talk.slides.html"
    reader.goto(page.as_uri())
    reader.wait_for_selector(".reveal.ready", state="attached")
    count = len(reader.query_selector_all(".slides > section > section"))
    assert 25 <= count <= 35
    for number in range(count):
        if number:
            reader.keyboard.press("Space")
        reader.wait_for_timeout(100)
        seen = reader.evaluate(MEASURE)
        assert seen["things"] and not seen["outside"], (number, seen)
        assert seen["smallest"] >= 18, (number, seen)


@pytest.fixture
def lab(tmp_path, request):
    """The address of a JupyterLab that runs in a folder with a copy of the notebook."""
    shutil.copy(NOTEBOOK, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jupyter = str(Path(sys.executable).with_name("jupyter"))
    command = [jupyter, getattr(request, "param", "lab"), "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--IdentityProvider.token=", NOTEBOOK.name]
    copy = ROOT.parent / "shared" / "data" / "cifar10.npz"
    environment = {**os.environ, "SMOKE_TEST": "1"}
    environment.pop("MPLBACKEND", None)  # the tests' own; a reader has Jupyter's
    settings = tmp_path / "settings"
    tracker = settings / "@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(
        '{"windowingMode": "none"}', encoding="utf-8"
    )  # all cells are in the page, always
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
    if copy.exists():
        environment.setdefault("CIFAR10_NPZ", str(copy))
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
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
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:  # Notebook 7 may wait for its kernel
        server.kill()


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


@pytest.mark.parametrize("lab", ["notebook"], indirect=True)
def test_notebook_7_folds_what_the_notebook_folds(screen, lab, code_cells):
    screen.goto(f"{lab}notebooks/{NOTEBOOK.name}")
    hidden = [c for c in code_cells.values() if c.metadata.get("jupyter")]
    folded = screen.locator(".jp-InputPlaceholder")
    playwright.expect(folded).to_have_count(len(hidden), timeout=120_000)
