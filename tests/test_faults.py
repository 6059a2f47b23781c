"""The faults that people met elsewhere, each produced for real."""

import hashlib
import importlib.util
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import keras
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

try:
    import resource
except ModuleNotFoundError:
    resource = None

pytestmark = pytest.mark.fault
SETTINGS = Path(__file__).parent.parent / ".ci" / "execute.py"
unix = pytest.mark.skipif(resource is None, reason="Windows has no such limits and users")
START = ("check-packages", "imports", "settings", "apply-settings")
LABELS = np.arange(60000, dtype="uint8")[:, None] % 10
# what the programs do that `start` starts, after some cells of the notebook
LOAD = """
checked = lambda loaded: loaded  # these are not CIFAR-10
module = sys.modules[tf.keras.datasets.cifar10.load_data.__module__]
get_file = module.get_file
module.get_file = lambda **options: get_file(**options | {"file_hash": SHA256})
for place in input("ready\\n").split():
    os.environ["SHARED_KERAS_HOME"] = place
    shutil.rmtree(Path(os.environ["KERAS_HOME"], "datasets"), ignore_errors=True)
    exec(LOAD_CELL)
    checksum = hashlib.sha256()
    for part in (*loaded[0], *loaded[1]):
        checksum.update(np.ascontiguousarray(part))
    print("FOUND", checksum.hexdigest())
"""
START_KERAS = """
loaded = (x_all, y_all), (x_test, y_test) = digits("no data")
exec(IDENTIFY)
network = keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(10)])
network.compile("sgd", "mse")
data = tf.data.Dataset.from_tensor_slices((x_all[:64] / 255, np.eye(10)[y_all[:64]])).batch(32)
network.fit(data.map(lambda x, y: (x, y)).prefetch(2), shuffle=False, verbose=0)
print("FOUND", keras.backend.backend(), keras.config.image_data_format(), keras.config.floatx())
tf.keras.datasets.cifar10.load_data.__module__.startswith("keras.src") or print("KERAS 2")
"""
SAVE = """
from types import SimpleNamespace
pixel_mean, pixel_std = np.zeros(3), np.ones(3)
model = build_alexnet()
for mark in range(1000):
    model.layers[-1].bias.assign(np.full(10, mark))
    save_run(model, SimpleNamespace(history={"loss": [float(mark)]}))
    print(mark, flush=True)
"""
LOAD_RUN = """
import shutil
pixel_mean, pixel_std, is_cifar10, RUN_FILE = np.zeros(3), np.ones(3), True, "run.keras"
model = build_alexnet()
compile_model(model, 10)
print("FOUND", load_run(model), model.layers[-1].bias.numpy().mean())
"""
MEMORY = """
import numpy as np, resource
from pathlib import Path
from sklearn import datasets
exec(CELL)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert abs(load_image(LARGE) - np.float32([200, 100, 0])).max() < 5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture
def start(code_cells, tmp_path):
    """A function that starts a program: some cells of the notebook, then more lines."""

    def run(cells, code, python=sys.executable, **settings):
        unset = ("SHARED_KERAS_HOME", "CIFAR10_NPZ", "TF_CPP_MIN_LOG_LEVEL", "REQUIRE_CIFAR10")
        unset += ("TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= {"KERAS_HOME": str(tmp_path / "home")} | settings
        source = "\n".join([*(code_cells[cell].source for cell in cells), code])
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        options = {"env": environment, "cwd": tmp_path, "encoding": "utf-8"} | streams
        return subprocess.Popen([python, "-c", source], **options)

    return run


def one_sentence(error):
    """Whether an error is short enough for a reader, with nothing raw in it."""
    return len(str(error)) < 350 and "\n" not in str(error)


def test_four_kernels_load_the_same(start, nb, archive, tmp_path, code_cells, mirror):
    """From two cold homes, each then warm; every kernel's own home is empty each time."""
    urls = [f"{mirror}good/{archive.name}"]
    code = f"SHA256, MIRRORS, LOAD_CELL = {(nb.SHA256, urls, code_cells['load'].source)}"
    kernels = [start([*START, "get-data"], code + LOAD) for _ in range(4)]
    for kernel in kernels:
        assert kernel.stdout.readline() == "ready\n", kernel.communicate()[1]
    for kernel in kernels:
        kernel.stdin.write(f"{tmp_path}/one {tmp_path}/one {tmp_path}/two {tmp_path}/two\n")
        kernel.stdin.flush()
    expected = hashlib.sha256()
    for batches in (range(5), [5]):  # each has pixels and labels of its number
        expected.update(np.repeat(np.uint8(batches), 10000 * 3072))
        expected.update(np.repeat(np.uint8(batches), 10000))
    for out, error in [kernel.communicate() for kernel in kernels]:
        assert re.findall("FOUND (.*)", out) == 4 * [expected.hexdigest()], out + error
    for home in ("one", "two"):  # and nothing half-written stays
        assert len(list(Path(tmp_path, home, "datasets").iterdir())) == 1


def arrays(pixel=np.uint8([125, 123, 114]), side=(32, 32), labels=LABELS, train=50000):
    """Arrays in the form of load_data()'s."""
    pixels = np.broadcast_to(pixel, (60000, *side, len(pixel)))
    return (pixels[:train], labels[:train]), (pixels[train:], labels[train:])


OTHER = {
    "labels up to 99": {"labels": np.arange(60000)[:, None] % 100},
    "labels + 256": {"labels": LABELS.astype(int) + 256},
    "shuffled": {"labels": np.roll(LABELS, 1)},
    "floats to 1": {"pixel": np.float32([0, 0.3, 1])},
    "whole pixels to 1": {"pixel": np.uint8([0, 0, 1])},
    "gray": {"pixel": np.uint8([120])},
    "blue first": {"pixel": np.uint8([114, 123, 125])},
    "channels first": {"side": (3, 32), "pixel": np.uint8(range(0, 256, 8))},
    "swapped": {"train": 10000},
}


@pytest.mark.parametrize("kind", OTHER)
def test_other_arrays_do_not_pass_for_cifar10(nb, monkeypatch, kind):
    monkeypatch.setattr(nb, "SHA256_LABELS", hashlib.sha256(LABELS.tobytes()).hexdigest())
    train, test = nb.checked(arrays())
    other, last = arrays(**OTHER[kind])
    for pair in ((other, last), (other, test), (train, last)):
        with pytest.raises(ValueError, match="not those of CIFAR-10") as refused:
            nb.checked(pair)
        assert one_sentence(refused.value)


@pytest.mark.parametrize("legacy", ["0", "1"])  # 1: tf.keras is Keras 2, which is not here
def test_old_keras_json_and_a_quiet_start(start, tmp_path, code_cells, legacy):
    """A reader's own file stays as it is, and nothing stands on file descriptor 2."""
    settings = '{"backend": "theano", "image_data_format": "channels_first", "floatx": "float16"}'
    file = tmp_path / "home" / "keras.json"
    file.parent.mkdir()
    file.write_text(settings, encoding="utf-8")
    code = f"IDENTIFY = {code_cells['identify'].source!r}" + START_KERAS
    kernel = start([*START, "get-data"], code, TF_USE_LEGACY_KERAS=legacy)
    out, error = kernel.communicate()
    assert out.endswith("FOUND tensorflow channels_last float32\n") and error == ""
    assert file.read_text(encoding="utf-8") == settings


def test_a_gpu_is_shared_unless_its_user_decides_otherwise(start):
    """By both engines: memory is taken as needed, from before either of them starts."""
    names = "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE"
    code = f"print(*map(os.environ.get, {names}))"
    for given, said in (({}, "true false"), (dict.fromkeys(names, "mine"), "mine mine")):
        kernel = start(START[:1], code, **given)
        assert kernel.communicate()[0].strip() == said


@pytest.mark.parametrize("engine", ["torch", "theano", "jax"])
def test_an_engine_that_is_not_here_is_named_with_its_variable(start, engine):
    if engine == "jax" and importlib.util.find_spec("jax"):
        pytest.skip("it is here")
    last = start(START[:1], "", KERAS_BACKEND=engine).communicate()[1].splitlines()[-1]
    assert last.startswith("ImportError") and "KERAS_BACKEND" in last and "%pip" not in last


@pytest.mark.parametrize("backend", ["Agg", "svg", "nonsense"])
def test_figures_are_shown_whatever_matplotlib_is_told(code_cells, tmp_path, backend):
    cells = [code_cells[name].copy() for name in (*START, "plotting", "relu-tanh")]
    short = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(short, timeout=300, kernel_name="python3")
    client.execute(env={**os.environ, "MPLBACKEND": backend, "KERAS_HOME": str(tmp_path)})
    (figure,) = cells[-1].outputs
    assert figure.data["image/png"] and "slope" in figure.metadata["image/png"]["alt"]


def test_parameters_of_papermill_count(code_cells, monkeypatch):
    """They come in a cell of their own, behind the first one with the tag."""
    tagged = [cell.id for cell in code_cells.values() if "parameters" in str(cell.metadata)]
    given = {"SMOKE_TEST": 1, "EPOCHS": 3, "DROPOUT": 0.3, "MY_IMAGE": "a.png"}
    names = {"os": os, "np": np}
    for name in given:
        monkeypatch.delenv(name, raising=False)
    exec(code_cells[tagged[0]].source, names)
    names |= given
    exec(code_cells["apply-settings"].source, names)
    assert given.items() <= names.items()


@pytest.fixture
def run_file(nb, tmp_path, monkeypatch):
    """The file of a training run, the only one in its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nb, "RUN_FILE", "run.keras", raising=False)
    monkeypatch.setattr(nb, "is_cifar10", True, raising=False)
    return tmp_path / "run.keras"


def save(nb, model, mark):
    """Saves a network and curves with one mark. Returns the curves."""
    model.layers[-1].bias.assign(np.full(10, mark))
    return nb.save_run(model, SimpleNamespace(history={"loss": [float(mark)]}))


@pytest.mark.parametrize("message", ["No data. Check the network.", "line 1\\nline 2"])
def test_the_console_ends_with_the_notebooks_own_sentence(tmp_path, message):
    """And with the whole traceback, if the error has no such sentence."""
    cells = [nbformat.v4.new_code_cell(f"raise OSError('{message}')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    command = [Path(sys.executable).with_name("jupyter"), "nbconvert", "--to", "notebook"]
    command += ["--execute", "--output", "b", "--config", SETTINGS, "a.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode and not (tmp_path / "b.ipynb").exists()
    lines = done.stderr.strip().splitlines()
    short = "\\n" not in message
    assert (lines[-1] == f"OSError: {message}") == short
    assert ("Traceback" in done.stderr) != short


@unix
def test_a_folder_that_cannot_be_written_is_named(nb, run_cell, run_file, images, labels):
    run_file.parent.chmod(0o555)
    user, pair = os.geteuid(), (images, labels)
    names = dict(zip(("x_all", "y_all", "x_test", "y_test"), 2 * pair, strict=True))
    os.seteuid(user or 65534)  # root may write everywhere
    try:
        with pytest.raises(OSError, match="This folder cannot be written") as error:
            run_cell("identify", loaded=(pair, pair), **names)
    finally:
        os.seteuid(user)
        run_file.parent.chmod(0o755)
    assert one_sentence(error.value)


@unix
@pytest.mark.parametrize("missing", [100, 5_000_000, None])
def test_a_full_disk_leaves_the_earlier_network(nb, small_model, run_file, capsys, missing):
    """With room for all but so many bytes, or for none."""
    save(nb, small_model, 1)
    before, (room, limit) = run_file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - missing if missing else 0, limit))
    try:
        curves = save(nb, small_model, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit))
    assert "THE NETWORK WAS NOT SAVED" in capsys.readouterr().out
    assert curves == {"loss": [2]}  # those of the network in memory
    assert run_file.read_bytes() == before and len(list(run_file.parent.iterdir())) == 1


def test_sigkill_leaves_a_whole_run(start, nb, small_model, run_file, monkeypatch):
    """That of before, or the new one: at three random moments of saving."""
    cells = [*START, "get-data", "blocks", "build", "muon", "compile", "keep-run"]
    kernels = [start(cells, f"RUN_FILE = 'run{n}.keras'\n{SAVE}") for n in range(3)]
    for n, kernel in enumerate(kernels):
        assert kernel.stdout.readline() == "0\n", kernel.communicate()[1]
        time.sleep(random.random())
        kernel.kill()
        before = int(["0", *kernel.communicate()[0].split()][-1])
        monkeypatch.setattr(nb, "RUN_FILE", f"run{n}.keras")
        (loss,) = nb.load_run(small_model)["loss"]
        assert loss in (before, before + 1) and (small_model.layers[-1].bias.numpy() == loss).all()


@pytest.mark.filterwarnings("error:Skipping variable")  # no red lines
def test_a_network_with_an_optimizer_of_elsewhere_is_loaded(nb, small_model, run_file):
    small_model.compile(type("Elsewhere", (keras.optimizers.Adam,), {})(), "mse")
    small_model.optimizer.build(small_model.trainable_variables)
    save(nb, small_model, 3)
    with pytest.raises(TypeError, match="Elsewhere"):
        keras.saving.load_model(run_file)
    model = nb.build_alexnet()
    nb.compile_model(model, 10)
    assert nb.load_run(model) == {"loss": [3]}
    for ours, theirs in zip(model.get_weights(), small_model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_networks_of_another_version_of_keras_are_loaded(start, nb, small_model, run_file):
    """Upward and downward: saved here and loaded there, and saved there and loaded here."""
    if "OTHER_PYTHON" not in os.environ:
        pytest.skip("no other version of Keras: .ci/colab has one")
    cells = [*START, "blocks", "build", "muon", "compile", "keep-run"]
    other = {"python": os.environ["OTHER_PYTHON"]}
    nb.compile_model(small_model, 10)
    save(nb, small_model, 3)
    out, error = start(cells, LOAD_RUN, **other).communicate()
    assert out.endswith("FOUND {'loss': [3.0]} 3.0\n"), error
    saving = SAVE.replace("range(1000)", "[7]")
    out, error = start(cells, f"RUN_FILE = 'run.keras'\n{saving}", **other).communicate()
    assert out == "7\n", error
    assert nb.load_run(small_model) == {"loss": [7]}
    assert (small_model.layers[-1].bias.numpy() == 7).all()


@pytest.mark.parametrize("content", ["none", "cut", "no curves", "other network"])
@pytest.mark.parametrize("is_cifar10", [True, False])
def test_no_trained_network(nb, small_model, run_file, monkeypatch, content, is_cifar10):
    monkeypatch.setattr(nb, "is_cifar10", is_cifar10)
    if content in ("cut", "no curves"):
        small_model.save(run_file)
    if content == "cut":
        run_file.write_bytes(run_file.read_bytes()[:100_000])
    if content == "other network":
        save(nb, keras.Sequential([keras.Input((3,)), keras.layers.Dense(10)]), 1)
    with pytest.raises(OSError, match=r"run\.keras holds no trained network") as error:
        nb.load_run(small_model)
    assert ("CIFAR-10 is missing" in str(error.value)) is not is_cifar10
    assert "START_TRAINED" in str(error.value) and one_sentence(error.value)


def test_another_kernel_saves_while_this_one_loads(nb, small_model, run_file, monkeypatch):
    """Curves and network that are read come from one training run."""
    load_weights = keras.Model.load_weights
    for mark in (2, 1):
        save(nb, small_model, mark)
        run_file.replace(str(mark))
    Path("1").replace(run_file)

    def late(model, path, **options):
        Path("2").replace(run_file)
        return load_weights(model, path, **options)

    monkeypatch.setattr(keras.Model, "load_weights", late)
    curves = nb.load_run(small_model)
    assert curves["loss"] == [small_model.layers[-1].bias.numpy()[0]]


@pytest.mark.parametrize("moment", ["training", "saving", "loading"])
def test_an_interrupted_second_run_leaves_the_first_pair(
    nb, code_cells, pixels, images, labels, run_file, monkeypatch, moment
):
    monkeypatch.setattr(nb, "BATCH_SIZE", 50)
    data = nb.make_batches(images[:100], labels[:100], seed=1)
    names = {**vars(nb), "EPOCHS": 1, "START_TRAINED": 0, "training_data": data}
    names["validation_data"] = nb.make_batches(nb.center_crop(images[:50]), labels[:50])
    names["strategy"] = nb.tf.distribute.get_strategy()
    exec(code_cells["fit"].source, names)
    stop = mock.Mock(side_effect=KeyboardInterrupt)
    trained, curves, kept = names["trained"], names["curves"], run_file.read_bytes()
    if moment == "training":
        interrupt = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        monkeypatch.setattr(keras.callbacks, "TerminateOnNaN", lambda: interrupt)
    if moment == "saving":
        monkeypatch.setattr(Path, "replace", stop)
    if moment == "loading":
        names["START_TRAINED"] = 1
        monkeypatch.setattr(keras.Model, "load_weights", stop)
    with pytest.raises(KeyboardInterrupt):
        exec(code_cells["fit"].source, names)
    assert names["trained"] is trained and names["curves"] is curves
    assert run_file.read_bytes() == kept and len(list(run_file.parent.iterdir())) == 1


def test_transparent_images_lie_on_white(nb, tmp_path):
    """A black square with a transparent rim, in each way that a format has for it."""
    alpha = np.zeros((64, 64), "uint8")
    alpha[16:48, 16:48] = 255
    rgba = Image.fromarray(np.dstack([np.zeros((64, 64, 3), "uint8"), alpha]))
    palette, gray = Image.fromarray(alpha // 255), Image.fromarray(255 - alpha)
    palette.putpalette([0, 0, 0, 1, 1, 1])
    files = {name: (rgba, {}) for name in ("a.png", "a.webp", "a.tif", "a.ico")}
    files |= {name: (palette, {"transparency": 0}) for name in ("p.png", "p.gif")}
    files |= {"la.png": (rgba.convert("LA"), {}), "l.png": (gray, {"transparency": 255})}
    files["rgb.png"] = gray.convert("RGB"), {"transparency": (255, 255, 255)}
    for name, (image, options) in files.items():
        image.save(tmp_path / name, **options)
        found = nb.load_image(tmp_path / name)
        assert (found[:7] == 255).all() and (found[9:23, 9:23] <= 2).all(), name


@pytest.mark.parametrize("name", ["16.png", "16.tif", "16.pgm", "32.tif", "1.tif", "255.tif"])
def test_deep_images_are_scaled(nb, tmp_path, name):
    """A ramp of 16 or 32 bits, or of floats up to 1 or 255: neither black nor white."""
    forms = {"16": (65535, "uint16"), "32": (2**31 - 129, "int32")}
    top, kind = forms.get(name[:2], (float(name[:-4]), "float32"))
    ramp = np.broadcast_to(np.linspace(0, top, 256), (256, 256)).astype(kind)
    Image.fromarray(ramp).save(tmp_path / name)
    means = nb.load_image(tmp_path / name).mean(axis=(0, 2))
    np.testing.assert_allclose(means, np.linspace(4, 251, 32), atol=4)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_rotated_and_animated_images(nb, tmp_path, ending):
    """Turned upright if the format says how; of an animation the first frame."""
    photograph, exif = Image.new("RGB", (640, 480)), Image.Exif()
    photograph.paste("white", (0, 0, 320, 480))
    exif[0x0112] = 6  # the camera was turned: the image's left side is its top
    photograph.save(tmp_path / f"a.{ending}", exif=exif)
    found = nb.load_image(tmp_path / f"a.{ending}")
    assert (found[:14] > 250).all() and (found[18:] < 5).all()
    path = tmp_path / f"b.{ending.replace('jpg', 'gif')}"
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert abs(nb.load_image(path).astype(int) - [255, 0, 0]).max() < 5


@unix
def test_a_photograph_of_108_megapixels_needs_little_memory(start, code_cells, tmp_path):
    large = str(tmp_path / "large.jpg")
    Image.new("RGB", (12000, 9000), (200, 100, 0)).save(large)
    code = f"CELL, LARGE = {(code_cells['load-image'].source, large)}{MEMORY}"
    out, error = start([], code).communicate()
    assert out and int(out) * (1 if sys.platform == "darwin" else 1024) < 0.3e9, error


@pytest.mark.parametrize(
    "name", ["a.heic", "a.svg", "a.png", "no.png", "large.png", "~nobody-here/a"]
)
def test_what_is_no_image_is_one_sentence_with_advice(nb, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    Path("a.svg").write_text(svg, encoding="utf-8")
    Path("a.png").touch()
    Image.new("1", (12000, 9000)).save("large.png")
    with pytest.raises(ValueError, match="PNG or JPEG") as error:
        nb.load_image(name)
    assert one_sentence(error.value) and Path(name).name in str(error.value)


@pytest.mark.parametrize("form", ["~/my a.png", '"~/my a.png"', "'{}/my a.png'", " {}/my a.png "])
def test_a_path_as_people_type_it(nb, tmp_path, monkeypatch, form):
    for name in ("HOME", "USERPROFILE"):  # the second on Windows
        monkeypatch.setenv(name, str(tmp_path))
    Image.new("RGB", (32, 32), (1, 2, 3)).save(tmp_path / "my a.png")
    assert (nb.load_image(form.format(tmp_path)) == [1, 2, 3]).all()
