"""What goes wrong, produced for real, and what the reader sees then.

Each test here is a row of the table: a fault or a bad input, what must happen, and that the
next good run works without anyone deleting a file by hand.
"""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import NOT_CIFAR10, run_settings
from nbclient import NotebookClient
from notebook_cells import NOTEBOOK, notebook_functions
from PIL import Image

ROOT = NOTEBOOK.parent
NO_NETWORK = "http://127.0.0.1:9"  # a proxy that nobody runs: every download fails at once
CACHED = "cifar-10-batches-py-target_archive"

pytestmark = pytest.mark.fault


def start_python(code, folder, **variables):
    """Starts a Python of its own in a folder; `nb` has the notebook's functions there."""
    head = f"""
        import sys
        sys.path[:0] = [{str(ROOT / "tests")!r}]
        from notebook_cells import code_cells_by_id, notebook_functions, read_notebook
        code_cells = code_cells_by_id(read_notebook())
        nb = notebook_functions(code_cells)
        """
    program = textwrap.dedent(head) + textwrap.dedent(code)
    environment = {**os.environ, **variables}
    environment.pop("CIFAR10_NPZ", None)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


# --- the data ---------------------------------------------------------------------------


def corrupt(archive, fault):
    """Puts what a bad mirror would serve beside the good archive."""
    bad = archive.parent.parent / fault / archive.name
    bad.parent.mkdir()
    content = archive.read_bytes()
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 1])
    bad.write_bytes(
        {
            "html": b"<html><body>Please log in to this network.</body></html>",
            "flipped": content[:middle] + flipped + content[middle + 1 :],
            "empty": b"",
        }[fault]
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("dead", "refused"),
        ("missing", "404"),
        ("silent", "timed out"),
        ("drip", "slower than 50 kB a second"),
        ("cut", "broken off"),
        ("empty", "another file"),
        ("html", "another file"),
        ("flipped", "another file"),
    ],
)
def test_bad_mirror_is_left_for_the_next(
    nb, cache, archive, mirror, monkeypatch, fault, reason
):
    monkeypatch.setattr(nb.fetch, "__defaults__", (1, 50_000))  # seconds, bytes a second
    if fault in ("html", "flipped", "empty"):
        corrupt(archive, fault)
    bad = NO_NETWORK + "/" if fault == "dead" else f"{mirror}{fault}/"
    with pytest.raises(OSError, match=rf"(?s)could not be downloaded.*{reason}"):
        nb.fill_cache([bad])
    assert not list(cache.iterdir())  # nothing half-written is left
    nb.fill_cache([bad, mirror + "good/"])
    assert (cache / CACHED).read_bytes() == archive.read_bytes()


def test_wrong_file_in_the_cache_is_replaced(nb, cache, archive, mirror):
    cache.mkdir()
    (cache / CACHED).write_bytes(archive.read_bytes()[:1000])
    nb.fill_cache([mirror + "good/"])
    assert (cache / CACHED).read_bytes() == archive.read_bytes()


def test_download_that_was_killed(nb, cache, archive, mirror):
    code = f"""
        nb.ARCHIVE_SHA256 = {nb.ARCHIVE_SHA256!r}
        nb.fetch.__defaults__ = (100, 0)
        print("begins", flush=True)
        nb.fill_cache([{mirror + "drip/"!r}])
        """
    process = start_python(code, cache.parent)
    assert process.stdout.readline() == "begins\n"
    while not list(cache.glob("*.part")):
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    nb.fill_cache([mirror + "good/"])
    assert (cache / CACHED).read_bytes() == archive.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(nb, cache, archive, mirror):
    cache.mkdir()
    part = cache / f"{CACHED}.{os.getpid()}.part"
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"(?s)disk space.*No space left on device"):
        nb.fill_cache([mirror + "good/"])
    nb.fill_cache([mirror + "good/"])
    assert (cache / CACHED).read_bytes() == archive.read_bytes()


def test_cache_folder_that_cannot_be_written(nb, cache, archive, mirror, monkeypatch):
    (cache.parent / "file").write_text("not a folder")
    monkeypatch.setenv("KERAS_HOME", str(cache.parent / "file"))
    with pytest.raises(OSError, match="could not be downloaded"):
        nb.fill_cache([mirror + "good/"])


def test_two_notebooks_fill_one_cache_at_once(nb, cache, real_size, mirror):
    code = f"""
        import keras
        from keras.src.datasets import cifar10
        nb.ARCHIVE_SHA256 = {real_size!r}
        get_file = keras.utils.get_file
        cifar10.get_file = lambda **a: get_file(**a | {{"file_hash": {real_size!r}}})
        nb.fill_cache.__defaults__ = ([{mirror + "good/"!r}],)
        print("ready", flush=True)
        sys.stdin.readline()
        (x, y), (x_test, y_test), is_cifar10 = nb.load_data()
        print(is_cifar10, int(x.sum()), int(y.sum()), int(x_test.sum()), int(y_test.sum()))
        """
    programs = [start_python(code, cache.parent, REQUIRE_CIFAR10="1") for _ in range(2)]
    for program in programs:
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        program.stdin.write("go\n")
        program.stdin.flush()
    answers = {program.communicate()[0].splitlines()[-1] for program in programs}
    expected = f"True {30720000 * 10} {10000 * 10} {30720000 * 5} {10000 * 5}"
    assert answers == {expected}


def test_another_notebook_in_the_way_of_unpacking(nb, cache, real_size, mirror):
    """As when two unpack at once: for some seconds, no file can be written there."""
    nb.fill_cache([mirror + "good/"])
    obstacle = (
        cache / CACHED.removesuffix("_archive") / "cifar-10-batches-py" / "test_batch"
    )
    (obstacle / "full").mkdir(parents=True)
    threading.Timer(2, shutil.rmtree, [obstacle]).start()
    (x_train, _), (_, y_test) = nb.load_cached()
    assert x_train.shape == (50000, 32, 32, 3) and (y_test == 5).all()


def test_without_a_network_each_cell_runs_on_digits_and_runs_twice(notebook, tmp_path):
    """Each cell is run twice in a row, as an impatient reader does."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    twice = [copy.deepcopy(cell) for cell in cells for _ in range(2)]
    for number, cell in enumerate(twice):
        cell.id, cell.outputs = str(number), []
    offline = nbformat.v4.new_notebook(cells=twice, metadata=notebook.metadata)
    environment = {**os.environ, "SMOKE_TEST": "1", "KERAS_HOME": str(tmp_path)}
    environment |= {"http_proxy": NO_NETWORK, "https_proxy": NO_NETWORK}
    for name in ("CIFAR10_NPZ", "REQUIRE_CIFAR10"):
        environment.pop(name, None)
    folder = tmp_path / "a" / "b"  # with no shared folder beside it
    folder.mkdir(parents=True)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(offline, timeout=300, resources=resources).execute(env=environment)
    source = [cell.source for cell in twice]
    for first_line in ("(x_all, y_all)", "centre = model.predict"):
        number = next(n for n, text in enumerate(source) if text.startswith(first_line))
        printed = "".join(out.get("text", "") for out in twice[number].outputs)
        assert NOT_CIFAR10 in printed


# --- the settings -----------------------------------------------------------------------


@pytest.mark.parametrize("value", ["-1", "0", "10**9", "'many'", "2.5", "None", "[20]"])
@pytest.mark.parametrize("setting", ["EPOCHS = 20", "BATCH_SIZE = 256"])
def test_setting_that_cannot_be_used(code_cells, setting, value):
    name = setting.split()[0]
    with pytest.raises(
        ValueError, match=rf"^{name} must be a whole number from \d+ to \d+"
    ):
        run_settings(code_cells, setting, f"{name} = {value}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SEED = 2012", "SEED = -1"),
        ("SEED = 2012", "SEED = 2**40"),
        ("SEED = 2012", "SEED = 'luck'"),
        ("DROPOUT = 0.5", "DROPOUT = 50"),
        ("DROPOUT = 0.5", "DROPOUT = float('nan')"),
        ("PEAK_LEARNING_RATE = 0.4", "PEAK_LEARNING_RATE = -0.4"),
        ("WEIGHT_DECAY = 5e-3", "WEIGHT_DECAY = '5e'"),
        ("LABEL_SMOOTHING = 0.1", "LABEL_SMOOTHING = 1"),
        ("CROP = 28", "CROP = 227"),
    ],
)
def test_other_setting_that_cannot_be_used(code_cells, old, new):
    with pytest.raises(ValueError, match=f"^{new.split()[0]} must be a"):
        run_settings(code_cells, old, new)


@pytest.mark.parametrize("name", ["EPOCH", "EPOCS", "BATCHSIZE", "LEARNING_RATE", "SEEDS"])
def test_misspelt_setting(code_cells, monkeypatch, name):
    with pytest.raises(NameError, match=f"no setting {name}. Did you mean"):
        run_settings(code_cells, "EPOCHS = 20", f"{name} = 20")
    monkeypatch.setenv(name, "20")
    with pytest.raises(NameError, match=f"no setting {name}. Did you mean"):
        run_settings(code_cells)


@pytest.mark.parametrize("value", ["abc", "", "-3", "1e3", "2.5"])
def test_bad_setting_from_the_environment(code_cells, monkeypatch, value):
    monkeypatch.setenv("EPOCHS", value)
    with pytest.raises(ValueError, match=f"^EPOCHS must be .*, not '{value}'"):
        run_settings(code_cells)


# --- the kernel -------------------------------------------------------------------------


def start_session(code_cells, **settings):
    """Starts a fresh, small session of the notebook and brings it up to the training.

    Returns the session's names as a module and a function that runs one of the cells.
    """
    module = notebook_functions(code_cells)
    settings = {"EPOCHS": 4, "BATCH_SIZE": 16, "PEAK_LEARNING_RATE": 0.01} | settings
    vars(module).update(settings)
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype="uint8")
    labels = np.arange(64) % 10
    module.keras.utils.set_random_seed(1)
    module.model = module.alexnet_eighth(module.layers.Rescaling(1 / 255))
    module.training_data = module.training_batches(images, labels, 1)
    validation = module.centre_crop(images), module.tf.one_hot(labels, 10)
    module.validation_data = module.fixed_batches(*validation)
    module.steps_per_epoch = len(module.training_data)
    steps = module.EPOCHS * module.steps_per_epoch
    module.schedule = module.OneCycle(module.PEAK_LEARNING_RATE, steps)
    return module, lambda cell: exec(code_cells[cell].source, module.__dict__)


@pytest.fixture
def session(code_cells, tmp_path, monkeypatch):
    """A function that starts a small session, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda **settings: start_session(code_cells, **settings)


def signal_in_epoch(module, number, which):
    """Makes the session send itself a signal while an epoch (from 0) runs."""

    class Signals(module.Progress):
        def on_train_batch_end(self, batch, logs=None):
            if self.title.startswith(f"\repoch {number + 1:2}") and batch == 1:
                os.kill(os.getpid(), which)

    module.Progress = Signals


def test_interrupted_training_goes_on_after_the_last_epoch(session):
    module, run = session()
    calm = module.Progress
    signal_in_epoch(module, 2, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run("fit")
    assert int(module.model.optimizer.iterations) >= 2 * module.steps_per_epoch
    module.Progress = calm
    run("fit")
    assert module.training.epoch == [2, 3]
    assert int(module.model.optimizer.iterations) == 4 * module.steps_per_epoch
    run("curves")
    module, run = session()  # "run all" once more: no backup is left, so it trains anew
    run("fit")
    assert module.training.epoch == [0, 1, 2, 3]


def test_killed_training_goes_on_in_a_new_kernel(session, tmp_path):
    code = """
        import signal
        from test_faults import signal_in_epoch, start_session
        module, run = start_session(code_cells)
        signal_in_epoch(module, 2, signal.SIGKILL)
        run("fit")
        """
    assert start_python(code, tmp_path).wait() == -signal.SIGKILL
    module, run = session()
    run("fit")
    assert module.training.epoch == [2, 3]
    assert int(module.model.optimizer.iterations) == 4 * module.steps_per_epoch


@pytest.mark.parametrize("change", [{"DROPOUT": 0.1}, {"SEED": 3}, {"EPOCHS": 6}])
def test_backup_of_other_settings_is_not_mixed_in(session, change):
    module, run = session()
    signal_in_epoch(module, 2, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run("fit")
    module, run = session(**change)
    run("fit")
    assert module.training.epoch == list(range(module.EPOCHS))


def other_network(module):
    """Gives a session a network of one layer."""
    scaled = [module.keras.Input((28, 28, 3)), module.layers.Rescaling(1 / 255)]
    last = [module.layers.Flatten(), module.layers.Dense(10, "softmax")]
    module.model = module.keras.Sequential([*scaled, *last])


def other_optimizer(module):
    """Gives a session another schedule, as a reader does who edits that cell."""
    module.schedule = module.OneCycle(0.02, 100)


@pytest.mark.parametrize("change", [other_network, other_optimizer])
def test_backup_of_another_training_is_not_mixed_in(session, change):
    module, run = session()
    signal_in_epoch(module, 2, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run("fit")
    module, run = session()
    change(module)
    run("fit")
    assert module.training.epoch == [0, 1, 2, 3]


def test_each_cell_alone_works_or_names_what_is_missing(code_cells, tmp_path, monkeypatch):
    """A reader who runs cells out of order is told which name is not there yet."""
    monkeypatch.chdir(tmp_path)
    functions = notebook_functions(code_cells).__dict__
    for name, cell in code_cells.items():
        if name in ("fill-cache", "load") or "functions" in cell.metadata.get("tags", []):
            continue
        try:
            exec(cell.source, dict(functions))
        except NameError as error:
            missing = re.search("name '(\\w+)' is not defined", str(error))[1]
            assert any(re.search(rf"\b{missing}\b", c.source) for c in code_cells.values())
        except ValueError as error:  # there is no saved model yet
            assert name == "load-again" and "File not found" in str(error)


# --- the training -----------------------------------------------------------------------


def test_loss_that_becomes_no_number_ends_the_training(session):
    _, run = session(PEAK_LEARNING_RATE=1e35)
    with pytest.raises(ArithmeticError, match=r"loss has become .*PEAK_LEARNING_RATE"):
        run("fit")


def test_network_that_learns_nothing_is_noticed_after_an_epoch(session):
    _, run = session(PEAK_LEARNING_RATE=1e-6, BATCH_SIZE=1)
    with pytest.raises(ArithmeticError, match=r"still guessing.*PEAK_LEARNING_RATE"):
        run("fit")


# --- the reader's own picture -----------------------------------------------------------


def write_no_picture(path, kind):
    """Writes a file that is no picture, in one of many ways."""
    if kind == "text":
        path.write_text("not a picture")
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "folder":
        path.mkdir()
    if kind == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype="uint8")
        Image.fromarray(noise).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:5000])
    if kind == "bomb":
        Image.new("1", (20_000, 20_000)).save(path, "PNG")


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "folder", "cut", "bomb"])
def test_file_that_is_no_picture(nb, tmp_path, kind):
    path = tmp_path / "picture.png"
    write_no_picture(path, kind)
    with pytest.raises(ValueError, match=r"picture\.png cannot be opened as a picture"):
        nb.load_picture(str(path))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "L", "LA", "1", "I;16", "I"])
def test_picture_of_any_kind_is_converted(nb, tmp_path, mode):
    """A wide picture, black but for its central square, which is bright."""
    pixels = np.zeros((50, 150), "uint8")
    pixels[:, 50:100] = 255
    if mode.startswith("I"):
        kind = "uint16" if mode == "I;16" else "int32"
        picture = Image.fromarray(pixels.astype(kind) * 257)
        assert picture.mode == mode
    else:
        picture = Image.fromarray(pixels).convert("RGB").convert(mode)
    path = tmp_path / ("picture.tiff" if mode in ("CMYK", "I") else "picture.png")
    picture.save(path)
    small = nb.load_picture(str(path))
    assert small.shape == (32, 32, 3) and small.dtype == np.uint8
    assert small[2:30, 2:30].min() >= 250


def test_picture_of_sixteen_bits_keeps_its_shades(nb, tmp_path):
    shades = np.tile(np.linspace(0, 65535, 64).astype("uint16"), (64, 1))
    Image.fromarray(shades).save(tmp_path / "shades.png")
    small = nb.load_picture(str(tmp_path / "shades.png"))
    assert (
        np.abs(small[16, :, 0] - np.linspace(0, 255, 64).reshape(32, 2).mean(1)).max() < 4
    )


def test_transparent_parts_become_white(nb, tmp_path):
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (nb.load_picture(str(tmp_path / "clear.png")) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photograph_is_turned_upright(nb, tmp_path, orientation):
    """EXIF orientation n says how to turn the stored pixels; all eight end the same way."""
    from PIL import ImageOps

    pixels = np.zeros((64, 64, 3), "uint8")
    pixels[:32, :32] = (255, 0, 0)
    pixels[:32, 32:] = (0, 255, 0)
    upright = Image.fromarray(pixels)
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    exif = upright.getexif()
    exif[0x0112] = inverse
    stored = ImageOps.exif_transpose(with_exif(upright, exif, tmp_path / "inverse.png"))
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    small = nb.load_picture(str(tmp_path / "photo.jpg")).astype(int)
    assert small[8, 8].argmax() == 0 and small[8, 24].argmax() == 1
    assert small[24:].max() < 60


def with_exif(picture, exif, path):
    """Returns a picture as if it had been read from a file with these data."""
    picture.save(path, exif=exif)
    return Image.open(path)


@pytest.mark.parametrize("size", [(1, 1), (5000, 2), (2, 5000), (1, 300)])
def test_tiny_and_very_wide_pictures(nb, tmp_path, size):
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "odd.png")
    small = nb.load_picture(str(tmp_path / "odd.png"))
    assert (small == (10, 200, 30)).all() and small.shape == (32, 32, 3)
