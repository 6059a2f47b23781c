"""The faults that people met elsewhere: each kind of ../shared/faults/README.md, produced here."""

import hashlib
import importlib.util
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

pytestmark = pytest.mark.fault
START = ("check-packages", "imports", "settings", "apply-settings")
NOBODY = 65534  # a user who owns nothing


@pytest.fixture
def start(code_cells, tmp_path):
    """A function that starts a program: some cells of the notebook, then more lines."""

    def run(cells, code, **environment):
        home = {"KERAS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        keep = {
            k: v for k, v in os.environ.items() if k not in {"SHARED_KERAS_HOME", "CIFAR10_NPZ"}
        }
        keep.pop("TF_CPP_MIN_LOG_LEVEL", None)
        path = tmp_path / f"program{len(list(tmp_path.iterdir()))}.py"
        path.write_text("\n".join([*(code_cells[cell].source for cell in cells), code]))
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, str(path)]
        environment = {**keep, **home, **environment}
        return subprocess.Popen(command, env=environment, cwd=tmp_path, text=True, **streams)

    return run


def one_sentence(error):
    """Whether an error is short enough for a reader, with nothing raw in it."""
    return len(str(error)) < 300 and "\n" not in str(error)


# Two kernels of one user, the data, and what passes for them


LOAD = """
import json
module = sys.modules[tf.keras.datasets.cifar10.load_data.__module__]
SHA256, SHA256_LABELS, MIRRORS = CHECKS
get_file = module.get_file
module.get_file = lambda **options: get_file(**options | {"file_hash": SHA256})
for place in json.loads(input("ready\\n")):
    os.environ["SHARED_KERAS_HOME"] = place
    shutil.rmtree(Path(os.environ["KERAS_HOME"], "datasets"), ignore_errors=True)
    exec(LOAD_CELL)
    parts = b"".join(part.tobytes() for pair in loaded for part in pair)
    print(hashlib.sha256(parts).hexdigest(), *(len(pair[0]) for pair in loaded))
"""


def test_four_kernels_load_the_same_arrays_from_cold_and_warm_homes(
    start, tmp_path, code_cells, mirror
):
    """Each starts as a new kernel, whose own home is empty: two cold homes, each then warm."""
    from conftest import pack

    files, images = {}, np.random.default_rng(0).integers(0, 256, (6, 3072), dtype="uint8")
    for n, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        data = np.broadcast_to(images[n], (10000, 3072)).copy()
        files[name] = pickle.dumps({b"data": data, b"labels": [n] * 10000})
    checksum = pack(tmp_path / "good" / "cifar-10-python.tar.gz", files)
    labels = hashlib.sha256(np.repeat(np.arange(6, dtype="uint8"), 10000).tobytes()).hexdigest()
    checks = checksum, labels, [mirror + "good/cifar-10-python.tar.gz"]
    code = f"CHECKS, LOAD_CELL = {checks!r}, {code_cells['load'].source!r}\n{LOAD}"
    kernels = [start([*START, "get-data"], code) for _ in range(4)]
    for kernel in kernels:
        assert kernel.stdout.readline() == "ready\n", kernel.communicate()[1]
    places = [str(tmp_path / name) for name in ("one", "one", "two", "two")]
    for kernel in kernels:
        kernel.stdin.write(json.dumps(places) + "\n")
        kernel.stdin.flush()
    lines = []
    for kernel in kernels:
        out, error = kernel.communicate()
        assert kernel.returncode == 0 and "NOT CIFAR-10" not in out, out + error
        lines += re.findall("^[0-9a-f]{64} .*", out, re.MULTILINE)
    rows = [np.repeat(images[n].reshape(1, 3, 32, 32), 10000, 0) for n in range(6)]
    x, y = np.concatenate(rows).transpose(0, 2, 3, 1), np.repeat(np.arange(6, dtype="uint8"), 10000)
    expected = hashlib.sha256()
    for part in (slice(50000), slice(50000, None)):
        expected.update(np.ascontiguousarray(x[part]))
        expected.update(y[part].tobytes())
    assert lines == [f"{expected.hexdigest()} 50000 10000"] * 16
    for name in ("one", "two"):  # and nothing half-written stays
        assert len(list(Path(tmp_path, name, "datasets").iterdir())) == 1


@pytest.fixture
def like_cifar10(nb, monkeypatch):
    """Arrays that count as CIFAR-10: 10 labels in turn, and pixels up to 255."""
    labels = np.arange(60000, dtype="uint8")[:, None] % 10
    monkeypatch.setattr(nb, "SHA256_LABELS", hashlib.sha256(labels.tobytes()).hexdigest())
    pixels = np.broadcast_to(np.uint8(range(0, 256, 85))[:3], (60000, 32, 32, 3)) + np.uint8(85)
    return [(pixels[:50000], labels[:50000]), (pixels[50000:], labels[50000:])]


OTHER = {
    "labels up to 99": lambda x, y: (x, np.arange(len(y))[:, None] % 100),
    "labels from 1": lambda x, y: (x, y + 1),
    "one-hot labels": lambda x, y: (x, np.eye(10)[y.ravel()]),
    "float pixels to 1": lambda x, y: (x / np.float32(255), y),
    "whole pixels to 1": lambda x, y: (x // 255, y),
    "centered pixels": lambda x, y: (x.astype("int16") - 128, y),
    "channels first": lambda x, y: (x.transpose(0, 3, 1, 2), y),
    "gray": lambda x, y: (x[..., :1], y),
    "fewer": lambda x, y: (x[1:], y[1:]),
}


@pytest.mark.parametrize("kind", ["right", "swapped", "shuffled", *OTHER])
def test_other_arrays_do_not_pass_for_cifar10(nb, like_cifar10, kind):
    train, test = like_cifar10
    if kind == "right":
        assert nb.checked((train, test)) == (train, test)
        return
    if kind == "swapped":
        pairs = [(test, train)]
    elif kind == "shuffled":
        pairs = [((train[0], np.roll(train[1], 1)), test)]
    else:  # all arrays, or those of one set
        other = OTHER[kind]
        pairs = [(other(*train), other(*test)), (other(*train), test), (train, other(*test))]
    for pair in pairs:
        with pytest.raises(ValueError, match="not those of CIFAR-10") as refused:
            nb.checked(pair)
        assert one_sentence(refused.value)


# The environment


def test_old_keras_json_and_a_quiet_start(start, tmp_path):
    """In a home with an old keras.json; a reader's own file stays as it is."""
    settings = {"backend": "theano", "image_data_format": "channels_first", "floatx": "float16"}
    file = tmp_path / "home" / "keras.json"
    file.parent.mkdir()
    file.write_text(json.dumps(settings))
    code = """
(x_all, y_all), (x_test, y_test) = digits("no data")
exec(IDENTIFY)
network = keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(10)])
network.compile("sgd", "mse")
data = tf.data.Dataset.from_tensor_slices((x_all[:64] / 255, np.eye(10)[y_all[:64]])).batch(32)
network.fit(data.map(lambda x, y: (x, y)).prefetch(2), verbose=0)
network.predict(data, verbose=0)
print("FOUND", keras.backend.backend(), keras.config.image_data_format(), keras.config.floatx())
"""
    identify = read_source("identify")
    kernel = start([*START, "get-data"], f"IDENTIFY = {identify!r}\n{code}")
    out, error = kernel.communicate()
    assert "FOUND tensorflow channels_last float32" in out, error
    assert error == ""  # nothing on file descriptor 2, where JupyterLab takes its red lines
    assert json.loads(file.read_text()) == settings


def read_source(name):
    """Returns the source of a cell."""
    from notebook_cells import code_cells_by_id, read_notebook

    return code_cells_by_id(read_notebook())[name].source


@pytest.mark.parametrize("engine", ["torch", "theano", "jax"])
def test_an_engine_that_is_not_here_is_named_with_its_variable(start, engine):
    if engine == "jax" and importlib.util.find_spec("jax"):
        pytest.skip("it is here")
    _, error = start(START[:1], "", KERAS_BACKEND=engine).communicate()
    last = error.splitlines()[-1]
    assert last.startswith("ImportError") and "KERAS_BACKEND" in last and "%pip" not in last


def test_keras_2_in_the_environment_does_not_lead_to_other_data(start):
    """TF_USE_LEGACY_KERAS=1 makes tf.keras an older package, which is not here."""
    code = "print(tf.keras.datasets.cifar10.load_data is keras.datasets.cifar10.load_data)"
    out, error = start(START, code, TF_USE_LEGACY_KERAS="1").communicate()
    assert out == "True\n", error


@pytest.mark.parametrize("backend", ["Agg", "svg", "TkAgg"])
def test_figures_are_shown_whatever_matplotlib_is_told(notebook, code_cells, tmp_path, backend):
    cells = [code_cells[name].copy() for name in (*START, "plotting", "relu-tanh")]
    for cell in cells:
        cell.outputs = []
    short = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    client = NotebookClient(short, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**os.environ, "MPLBACKEND": backend, "KERAS_HOME": str(tmp_path)})
    (figure,) = cells[-1].outputs
    assert figure.data["image/png"] and "slope" in figure.metadata["image/png"]["alt"]


# Writing and reading a trained network


@pytest.fixture
def run_file(nb, tmp_path, monkeypatch):
    """The path of the file of a training run, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nb, "RUN_FILE", "run.keras", raising=False)
    monkeypatch.setattr(nb, "is_cifar10", True, raising=False)
    return tmp_path / "run.keras"


class History:
    """What fit returns, with one mark."""

    def __init__(self, mark):
        self.history = {"loss": [float(mark)]}


def test_a_folder_that_cannot_be_written_is_named_before_the_training(
    nb, run_cell, tmp_path, monkeypatch, images, labels
):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(NOBODY)
        with pytest.raises(OSError, match="This folder cannot be written") as error:
            run_cell("identify", x_all=images, y_all=labels, x_test=images, y_test=labels)
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)
    assert one_sentence(error.value)


@pytest.mark.parametrize("room", [0, 1_000_000, "all but the curves"])
def test_a_full_disk_leaves_the_earlier_network_untouched(
    nb, small_model, run_file, capsys, room, monkeypatch
):
    nb.save_run(small_model, History(1))
    before = run_file.read_bytes()
    if isinstance(room, str):
        plain = run_file.stat().st_size
        room = plain - 100  # the directory at the file's end no longer fits
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        curves = nb.save_run(small_model, History(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "THE NETWORK WAS NOT SAVED" in capsys.readouterr().out
    assert curves == History(2).history  # those of the network in memory
    assert run_file.read_bytes() == before
    assert [path.name for path in run_file.parent.iterdir()] == ["run.keras"]


KILL = """
import random, signal, time
pixel_mean, pixel_std = np.zeros(3), np.ones(3)
RUN_FILE, is_cifar10, model = "run.keras", True, build_alexnet()
class History:
    def __init__(self, mark):
        self.history = {"loss": [float(mark)]}
def save(mark):
    model.layers[-1].bias.assign(np.full(10, mark))
    save_run(model, History(mark))
save(0)
begin = time.time()
save(1)
duration, moments = time.time() - begin, random.Random(SEED)
for mark in range(2, 12):
    child = os.fork()
    if not child:
        save(mark)
        os._exit(0)
    time.sleep(1.2 * duration * moments.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    curves = load_run(model)
    print("FOUND", mark, curves["loss"][0], *np.unique(model.layers[-1].bias.numpy()))
"""


def test_sigkill_while_saving_leaves_the_old_run_or_the_new_one(start):
    cells = [*START, "blocks", "build", "muon", "compile", "keep-run"]
    out, error = start(cells, KILL).communicate(timeout=300)
    found = [[float(n) for n in line.split()[1:]] for line in out.splitlines() if "FOUND" in line]
    assert len(found) == 10, error
    last = 1.0
    for mark, curves, network in found:
        assert curves == network and network in (last, mark)
        last = network


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_a_network_of_another_keras_and_optimizer_is_loaded(nb, small_model, run_file, optimizer):
    """Its description has words that this Keras does not know; its weights are the same."""
    elsewhere = type("Elsewhere", (optimizer,), {})
    small_model.compile(elsewhere(), "mse")
    small_model.optimizer.build(small_model.trainable_variables)
    nb.save_run(small_model, History(3))
    with zipfile.ZipFile(run_file) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["config.json"] = parts["config.json"].replace(b'"name"', b'"newer_word": 1, "name"')
    with zipfile.ZipFile(run_file, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    model = nb.build_alexnet()
    nb.compile_model(model, 10)
    model.layers[-1].bias.assign(np.ones(10))
    assert nb.load_run(model) == History(3).history
    for ours, theirs in zip(model.get_weights(), small_model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("content", ["none", "text", "empty", "cut", "no curves", "folder"])
@pytest.mark.parametrize("is_cifar10", [True, False])
def test_no_trained_network_is_one_sentence(
    nb, small_model, run_file, monkeypatch, content, is_cifar10
):
    monkeypatch.setattr(nb, "is_cifar10", is_cifar10)
    if content in ("cut", "no curves"):
        small_model.save(run_file)
    if content == "cut":
        run_file.write_bytes(run_file.read_bytes()[:100_000])
    if content in ("text", "empty"):
        run_file.write_text("no network" * (content == "text"))
    if content == "folder":
        run_file.mkdir()
    with pytest.raises(OSError, match=r"run\.keras holds no trained network") as error:
        nb.load_run(small_model)
    assert one_sentence(error.value) and "START_TRAINED" in str(error.value)
    assert ("CIFAR-10 is missing" in str(error.value)) is not is_cifar10


def test_another_kernel_that_saves_while_this_one_loads(nb, small_model, run_file, monkeypatch):
    """Curves and network that are read come from one training run."""
    last, load_weights = small_model.layers[-1].bias, keras.Model.load_weights
    for mark in (2, 1):
        last.assign(np.full(10, mark))
        nb.save_run(small_model, History(mark))
        if mark == 2:
            run_file.replace("other.keras")

    def late(model, path, **options):
        Path("other.keras").replace(run_file)
        return load_weights(model, path, **options)

    monkeypatch.setattr(keras.Model, "load_weights", late)
    assert nb.load_run(small_model)["loss"] == [float(np.array(last)[0])]


@pytest.mark.parametrize("moment", ["training", "saving", "diverged", "loading"])
def test_an_interrupted_second_run_leaves_the_first_pair(
    nb, code_cells, pixels, images, labels, run_file, monkeypatch, moment
):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(nb, "BATCH_SIZE", 50)
    data = nb.make_batches(images[:100], labels[:100], seed=1)
    few = nb.make_batches(nb.center_crop(images[:50]), labels[:50])
    names = {**vars(nb), "EPOCHS": 1, "START_TRAINED": 0, "training_data": data}
    names |= {"validation_data": few, "strategy": nb.tf.distribute.get_strategy()}
    exec(code_cells["fit"].source, names)
    trained, curves, kept = names["trained"], names["curves"], run_file.read_bytes()
    if moment == "training":
        monkeypatch.setattr(keras.callbacks, "TerminateOnNaN", Stop)
    if moment == "saving":
        monkeypatch.setattr(nb, "ZipFile", stop)
    if moment == "diverged":
        names["training_data"] = data.map(lambda x, y: (x * np.nan, y))
    if moment == "loading":
        names["START_TRAINED"] = 1
        monkeypatch.setattr(keras.Model, "load_weights", stop)
    with pytest.raises((KeyboardInterrupt, ArithmeticError)):
        exec(code_cells["fit"].source, names)
    assert names["trained"] is trained and names["curves"] is curves
    assert names["model"] is not trained and run_file.read_bytes() == kept
    assert [path.name for path in run_file.parent.iterdir()] == ["run.keras"]


def test_parameters_of_papermill_count(notebook, code_cells, monkeypatch):
    """It puts its cell after the only one with the tag, and nothing overrides it."""
    tagged = [c.id for c in code_cells.values() if "parameters" in c.metadata.get("tags", [])]
    order = list(code_cells)
    after = order.index(tagged[0]) + 1
    assert len(tagged) == 1 and order.index("apply-settings") >= after
    given = {"SMOKE_TEST": 1, "EPOCHS": 3, "DROPOUT": 0.3, "MY_IMAGE": "a.png"}
    names = {"os": os, "np": np}
    for name in given:
        monkeypatch.delenv(name, raising=False)
    for source in (
        *(code_cells[name].source for name in order[order.index("settings") : after]),
        "\n".join(f"{name} = {value!r}" for name, value in given.items()),
        *(code_cells[name].source for name in order[after : order.index("apply-settings") + 1]),
    ):
        exec(source, names)
    assert given.items() <= names.items()


# Images of one's own


def test_transparent_images_lie_on_white(nb, tmp_path):
    """Black with a transparent rim of black, in each way that a format has for it."""
    alpha = np.zeros((64, 64), "uint8")
    alpha[16:48, 16:48] = 255
    rgba = Image.fromarray(np.dstack([np.zeros((64, 64, 3), "uint8"), alpha]))
    palette = Image.fromarray(alpha // 255, "P")
    palette.putpalette([0, 0, 0, 1, 1, 1])
    gray = Image.fromarray(255 - alpha)  # 255 is what is transparent
    files = [(rgba, name, {}) for name in ("a.png", "a.webp", "a.tif", "a.ico")]
    files += [(rgba.convert("LA"), "la.png", {})]
    files += [(palette, name, {"transparency": 0}) for name in ("p.png", "p.gif")]
    files += [(gray, "l.png", {"transparency": 255})]
    files += [(gray.convert("RGB"), "rgb.png", {"transparency": (255, 255, 255)})]
    for image, name, options in files:
        image.save(tmp_path / name, **options)
        found = nb.load_image(tmp_path / name)
        assert (found[:7] == 255).all() and (found[9:23, 9:23] <= 2).all(), name


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "32.tif", "1.tif", "255.tif"])
def test_deep_images_are_scaled(nb, tmp_path, name):
    """A ramp of 16 or 32 bits, or of floats up to 1 or 255: gray, neither black nor white."""
    top = {"32.tif": 2**31 - 1, "1.tif": 1.0, "255.tif": 255.0}.get(name, 65535)
    kind = {int: "uint16", float: "float32"}[type(top)] if top < 2**31 - 1 else "int32"
    ramp = np.broadcast_to(np.linspace(0, top, 256), (256, 256)).astype(kind)
    Image.fromarray(ramp).save(tmp_path / name)
    means = nb.load_image(tmp_path / name).mean(axis=(0, 2))
    np.testing.assert_allclose(means, np.linspace(4, 251, 32), atol=4)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_rotated_images_are_turned_upright(nb, tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the image's left side is its top
    half = np.zeros((640, 480, 3), "uint8")
    half[:, :240] = 255
    Image.fromarray(half).save(tmp_path / f"a.{ending}", exif=exif)
    found = nb.load_image(tmp_path / f"a.{ending}")
    assert (found[:12] > 250).all() and (found[20:] < 5).all()


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame(nb, tmp_path, ending):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    path = tmp_path / f"a.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert abs(nb.load_image(path).astype(int) - [255, 0, 0]).max() < 5


LOAD_IMAGE = """
import os, resource, sys
from pathlib import Path
import numpy as np
from sklearn import datasets
exec(CELL)
load_image(SMALL)  # all that it needs is in memory now
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(load_image(LARGE).mean((0, 1)).round())
except ValueError as error:
    print(error)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
print(peak * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_photograph_of_108_megapixels_needs_little_memory(start, code_cells, tmp_path, ending):
    path, small = str(tmp_path / f"large.{ending}"), str(tmp_path / "small.jpg")
    Image.new("RGB", (12000, 9000), (200, 100, 0)).save(path)
    Image.new("RGB", (100, 100)).save(small)
    names = f"CELL, SMALL, LARGE = {(code_cells['load-image'].source, small, path)!r}\n"
    out, error = start([], names + LOAD_IMAGE).communicate()
    text, memory = out.splitlines()
    assert int(memory) < 0.3e9, error
    assert text == "[200. 100.   0.]" if ending == "jpg" else "too large, save it" in text


HEADERS = {
    "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "a.HEIF": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100),
    "a.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "a.pdf": b"%PDF-1.7\n",
    "cut.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1",
    "empty.png": b"",
}


@pytest.mark.parametrize("name", [*HEADERS, "missing.png", "folder", "~nobody-here/a.png"])
def test_a_file_that_is_no_image_here_is_one_sentence_with_advice(nb, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    if name in HEADERS:
        Path(name).write_bytes(HEADERS[name])
    with pytest.raises(ValueError, match="PNG or JPEG") as error:
        nb.load_image(name)
    assert one_sentence(error.value) and Path(name).name in str(error.value)


@pytest.mark.parametrize("form", ["~/my a.png", '"~/my a.png"', "'{}/my a.png'", " {}/my a.png "])
def test_a_path_as_people_type_it(nb, tmp_path, monkeypatch, form):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (32, 32), (1, 2, 3)).save(tmp_path / "my a.png")
    assert (nb.load_image(form.format(tmp_path)) == [1, 2, 3]).all()
