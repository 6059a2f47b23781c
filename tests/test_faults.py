"""The faults that people met elsewhere, each produced for real."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock
from zipfile import ZipFile

import keras
import nbformat
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.fault
unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
START = ("check-packages", "imports", "settings", "apply-settings")
# what the programs do that `start` starts, after some cells of the notebook
LOAD = """
checked = lambda loaded: loaded  # these are not CIFAR-10
module = sys.modules[tf.keras.datasets.cifar10.load_data.__module__]
get_file = module.get_file
module.get_file = lambda **options: get_file(**options | {"file_hash": SHA256})
for turn in input("ready\\n"):
    shutil.rmtree(Path(os.environ["KERAS_HOME"], "datasets"), ignore_errors=True)
    exec(LOAD_CELL)
    same = all((images == labels[:, :, None, None]).all() for images, labels in loaded)
    print("FOUND", *np.unique(loaded[0][1]), "and", *np.unique(loaded[1][1]), same)
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
ANOTHER_VERSION = """
import shutil
from types import SimpleNamespace
pixel_mean, pixel_std, is_cifar10, RUN_FILE = np.zeros(3), np.ones(3), True, "run.keras"
model = build_alexnet()
compile_model(model, 10)
print("FOUND", load_run(model), model.layers[-1].bias.numpy().mean())
model.layers[-1].bias.assign(np.full(10, 7))
save_run(model, SimpleNamespace(history={"loss": [7.0]}))
"""
MEMORY = """
import os, resource
os.fork() and (os.wait(), os._exit(0))  # else the peak would start at that of the tests
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert abs(load_image("large.jpg") - 150.0).max() < 5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture
def start(code_cells, tmp_path):
    """A function that starts a program of cells of the notebook and other lines."""

    def run(*parts, python=sys.executable, argument="", **settings):
        unset = ("SHARED_KERAS_HOME", "CIFAR10_NPZ", "TF_CPP_MIN_LOG_LEVEL", "REQUIRE_CIFAR10")
        unset += ("TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= {"KERAS_HOME": str(tmp_path / "home")} | settings
        source = "\n".join(code_cells[p].source if p in code_cells else p for p in parts)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        options = {"env": environment, "cwd": tmp_path, "encoding": "utf-8"} | streams
        return subprocess.Popen([python, "-c", source, argument], **options)

    return run


def one_sentence(error):
    """Whether an error is short enough for a reader, with nothing raw in it."""
    return len(str(error)) < 350 and "\n" not in str(error)


def test_four_kernels_load_the_same(start, nb, archive, tmp_path, code_cells):
    """From a cold home, then from a warm one; every kernel's own home is empty each time."""
    known = nb.SHA256, [archive.as_uri()], code_cells["load"].source
    parts = [*START, "get-data", f"SHA256, MIRRORS, LOAD_CELL = {known}", LOAD]
    kernels = [start(*parts, SHARED_KERAS_HOME=str(tmp_path / "shared")) for _ in range(4)]
    for kernel in kernels:
        assert kernel.stdout.readline() == "ready\n", kernel.communicate()[1]
    for kernel in kernels:
        kernel.stdin.write("1234\n")
        kernel.stdin.flush()
    for out, error in [kernel.communicate() for kernel in kernels]:
        assert out.count("FOUND 0 1 2 3 4 and 5 True\n") == 4, out + error
    assert len(list(Path(tmp_path, "shared", "datasets").iterdir())) == 1  # nothing half-written


@pytest.mark.parametrize("legacy", ["0", "1"])  # 1: tf.keras is Keras 2, which is not here
def test_old_keras_json_and_a_quiet_start(start, tmp_path, code_cells, legacy):
    """A reader's own file stays as it is, and nothing stands on file descriptor 2."""
    settings = '{"backend": "theano", "image_data_format": "channels_first", "floatx": "float16"}'
    file = tmp_path / "home" / "keras.json"
    file.parent.mkdir()
    file.write_text(settings, encoding="utf-8")
    code = f"IDENTIFY = {code_cells['identify'].source!r}"
    kernel = start(*START, "get-data", code, START_KERAS, TF_USE_LEGACY_KERAS=legacy)
    out, error = kernel.communicate()
    assert out.endswith("FOUND tensorflow channels_last float32\n") and error == ""
    assert file.read_text(encoding="utf-8") == settings


def test_a_gpu_is_shared_unless_its_user_decides_otherwise(start):
    """By both engines: memory is taken as needed, from before either of them starts."""
    names = "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE"
    for given, said in (({}, "true false"), (dict.fromkeys(names, "mine"), "mine mine")):
        kernel = start("check-packages", f"print(*map(os.environ.get, {names}))", **given)
        assert kernel.communicate()[0].strip() == said


@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_an_engine_that_is_not_here_is_named_with_its_variable(start, engine):
    if engine == "jax" and importlib.util.find_spec("jax"):
        pytest.skip("it is here")
    last = start("check-packages", KERAS_BACKEND=engine).communicate()[1].splitlines()[-1]
    assert last.startswith("ImportError") and "KERAS_BACKEND" in last and "%pip" not in last


@pytest.mark.parametrize("module", [None, SimpleNamespace(__version__="3.9.1")])
def test_missing_or_old_package_ends_in_one_sentence(run_cell, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "matplotlib", module)
    with pytest.raises(ImportError, match=r"matplotlib.+ Run %pip install .*kernel\.$"):
        run_cell("check-packages")


BAD = [("EPOCHS", bad) for bad in ("abc", "2.5", "0", "99999")] + [("DROPOUT", "nan")]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_setting_ends_in_one_sentence(run_cell, monkeypatch, name, value):
    sentence = f"^{name} must be a .*number .*, not '?{value}'?"
    with pytest.raises(ValueError, match=sentence):  # as edited in the cell above
        run_cell("apply-settings", **{name: value})
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=sentence):
        run_cell("apply-settings")


def test_parameters_of_papermill_and_the_environment_count(code_cells, run_cell, monkeypatch):
    """Those of papermill come in a cell of their own, behind the first one with the tag."""
    tagged = [name for name, cell in code_cells.items() if "parameters" in str(cell.metadata)]
    given = {"SMOKE_TEST": 1, "EPOCHS": 3, "MY_IMAGE": "a.png"}
    for name in given:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DROPOUT", "0.25")
    names = run_cell("apply-settings", **run_cell(tagged[0]) | given)
    assert (given | {"DROPOUT": 0.25, "SEED": 2012}).items() <= names.items()


@pytest.mark.parametrize("message", ["No data. Check the network.", "line 1\\nline 2"])
def test_the_console_ends_with_the_notebooks_own_sentence(execute, tmp_path, message):
    """And with the whole traceback, if the error has no such sentence."""
    cells = [nbformat.v4.new_code_cell(f"raise OSError('{message}')")]
    done = execute(nbformat.v4.new_notebook(cells=cells))
    assert done.returncode and not (tmp_path / "executed.ipynb").exists()
    short = "\\n" not in message
    assert (done.stderr.strip().splitlines()[-1] == f"OSError: {message}") == short
    assert ("Traceback" in done.stderr) != short


@unix
def test_a_folder_that_cannot_be_written_is_named(nb, run_cell, run_file, images, labels):
    run_file.parent.chmod(0o555)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may write everywhere
    try:
        with pytest.raises(OSError, match="This folder cannot be written") as error:
            data = {"x_all": images, "y_all": labels, "x_test": images, "y_test": labels}
            run_cell("identify", loaded=2 * [(images, labels)], **data)
    finally:
        os.seteuid(user)
        run_file.parent.chmod(0o755)
    assert one_sentence(error.value)


def save(nb, model, mark):
    """Saves a network and curves with one mark. Returns the curves."""
    model.layers[-1].bias.assign(np.full(10, mark))
    return nb.save_run(model, SimpleNamespace(history={"loss": [float(mark)]}))


@unix
@pytest.mark.parametrize("missing", [100, None])
def test_a_full_disk_leaves_the_earlier_network(nb, small_model, run_file, capsys, missing):
    """With room for all but so many bytes, or for none."""
    import resource

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


@pytest.mark.filterwarnings("error:Skipping variable")  # no red lines
def test_a_network_with_an_optimizer_of_elsewhere_is_loaded(nb, small_model, run_file):
    small_model.compile(type("Elsewhere", (keras.optimizers.Adam,), {})(), "mse")
    small_model.optimizer.build(small_model.trainable_variables)
    save(nb, small_model, 3)
    with ZipFile(run_file, "a") as file:  # as if another version of Keras had saved it
        file.writestr("config.json", '{"class_name": "Elsewhere"}')
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
    nb.compile_model(small_model, 10)
    save(nb, small_model, 3)
    there = start(*cells, ANOTHER_VERSION, python=os.environ["OTHER_PYTHON"])
    out, error = there.communicate()
    assert out.endswith("FOUND {'loss': [3.0]} 3.0\n"), error
    assert nb.load_run(small_model) == {"loss": [7]}
    assert (small_model.layers[-1].bias.numpy() == 7).all()


@pytest.mark.parametrize("content", ["none", "cut", "other network"])
@pytest.mark.parametrize("is_cifar10", [True, False])
def test_no_trained_network(nb, small_model, run_file, monkeypatch, content, is_cifar10):
    monkeypatch.setattr(nb, "is_cifar10", is_cifar10)
    if content == "cut":
        save(nb, small_model, 1)
        run_file.write_bytes(run_file.read_bytes()[:100_000])
    if content == "other network":
        save(nb, keras.Sequential([keras.Input((3,)), keras.layers.Dense(10)]), 1)
    with pytest.raises(OSError, match=r"run\.keras holds no .*START_TRAINED") as error:
        nb.load_run(small_model)
    assert ("CIFAR-10 is missing" in str(error.value)) is not is_cifar10
    assert one_sentence(error.value)


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
    assert nb.load_run(small_model)["loss"] == [small_model.layers[-1].bias.numpy()[0]]


@pytest.mark.parametrize("moment", ["training", "saving", "loading"])
def test_interruption_leaves_the_first_pair(session, code_cells, run_file, monkeypatch, moment):
    names = session(EPOCHS=1)
    trained, curves, kept = names["trained"], names["curves"], run_file.read_bytes()
    stop = mock.Mock(side_effect=KeyboardInterrupt)
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


def test_loss_that_becomes_no_number_ends_in_one_sentence(session, run_file, capsys):
    with pytest.raises(ArithmeticError, match="Lower PEAK_RATE"):
        session(PEAK_RATE=1e35, EPOCHS=9)
    assert "invalid loss" in capsys.readouterr().out.lower()
    assert not list(run_file.parent.iterdir())  # a broken network is not saved


@pytest.mark.parametrize("form", ["~/my a.jpg", '"~/my a.jpg"', " '{}/my a.jpg' "])
@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_the_central_square_is_taken_upright(nb, tmp_path, monkeypatch, form, mode):
    """From a path as people type it. The camera was turned: the image's left side is its top."""
    for name in ("HOME", "USERPROFILE"):  # the second on Windows
        monkeypatch.setenv(name, str(tmp_path))
    image, exif = Image.new("RGB", (150, 50)), Image.Exif()
    image.paste("white", (50, 0, 75, 50))
    exif[0x0112] = 6
    image.convert(mode).save(tmp_path / "my a.jpg", exif=exif)
    small = nb.load_image(form.format(tmp_path))
    assert small.shape == (32, 32, 3) and small[2:14].min() > 230 and small[18:].max() < 25


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame_is_taken(nb, tmp_path, ending):
    first, second = (Image.new("RGB", (40, 40), color) for color in ("red", "blue"))
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=[second])
    assert abs(nb.load_image(tmp_path / f"a.{ending}").astype(int) - [255, 0, 0]).max() < 5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_lie_on_white(nb, tmp_path, mode):
    """A black square with a transparent rim."""
    image = Image.new("RGBA", (64, 64))
    image.paste("black", (16, 16, 48, 48))
    image = image.quantize() if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png")
    found = nb.load_image(tmp_path / "a.png")
    assert (found[:7] == 255).all() and (found[9:23, 9:23] <= 2).all()


@pytest.mark.parametrize("name", ["16.png", "16.pgm", "32.tif", "1.tif", "255.tif"])
def test_deep_images_are_scaled(nb, tmp_path, name):
    """A ramp of 16 or 32 bits, or of floats up to 1 or 255: neither black nor white."""
    forms = {"16": (65535, "uint16"), "32": (2**31 - 129, "int32")}
    top, kind = forms.get(name[:2], (float(name[:-4]), "float32"))
    ramp = np.broadcast_to(np.linspace(0, top, 256), (256, 256)).astype(kind)
    Image.fromarray(ramp).save(tmp_path / name)
    means = nb.load_image(tmp_path / name).mean(axis=(0, 2))
    np.testing.assert_allclose(means, np.linspace(4, 251, 32), atol=4)


@unix
@pytest.mark.parametrize("size", [(12000, 9000), (16000, 12500)])
def test_a_photograph_of_108_or_200_megapixels_needs_little_memory(start, tmp_path, size):
    Image.new("L", size, 150).save(tmp_path / "large.jpg")
    imports = "import numpy as np\nfrom pathlib import Path\nfrom sklearn import datasets"
    out, error = start(imports, "load-image", MEMORY).communicate()
    assert out and int(out) * (1 if sys.platform == "darwin" else 1024) < 0.3e9, error


@pytest.mark.parametrize("name", ["a.heic", "cut.jpg", "large.png", "no.png", "~nobody-here/a"])
def test_what_is_no_image_is_one_sentence_with_advice(nb, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    Image.effect_noise((200, 200), 99).save("cut.jpg")
    Path("cut.jpg").write_bytes(Path("cut.jpg").read_bytes()[:5000])
    Image.new("1", (12000, 9000)).save("large.png")
    with pytest.raises(ValueError, match="PNG or JPEG") as error:
        nb.load_image(name)
    assert one_sentence(error.value) and Path(name).name in str(error.value)
