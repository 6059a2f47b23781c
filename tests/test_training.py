"""Schedule, optimizer, training, saving; one device, several, and a GPU's kernels."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from notebook_cells import NOTEBOOK


def test_schedule_rises_for_a_fifth_and_ends_at_zero(nb):
    schedule = nb.warmup_cosine(0.5, 1000)
    rates = np.array([float(schedule(step)) for step in range(1002)])
    assert rates[0] == 0 and rates.argmax() == 200
    assert rates[[100, 200, 600]] == pytest.approx([0.25, 0.5, 0.25])
    assert rates[1000:] == pytest.approx(0, abs=1e-7)


def test_weight_decay_shrinks_kernels_only(nb, small_model):
    """A step at rate 0.1 along a gradient of zero: what changes is decay."""
    nb.compile_model(small_model, 0.1, 10)
    weights = small_model.trainable_variables
    for weight in weights:
        weight.assign(np.ones(weight.shape))
    small_model.optimizer.build(weights)
    small_model.optimizer.iterations.assign(2)  # a fifth of 10: the peak
    small_model.optimizer.apply([nb.tf.zeros(w.shape) for w in weights])
    for weight in weights:
        expected = 1 - 0.1 * nb.WEIGHT_DECAY if weight.path.endswith("kernel") else 1
        np.testing.assert_allclose(weight, expected, rtol=1e-6, err_msg=weight.path)


def test_steps_of_convolutions_are_orthogonal_all_others_sgds(nb):
    """Along very unequal directions of the gradient: the same ones, of length 1 or so."""
    random, scales = np.random.default_rng(0), np.linspace(1, 9, 16)
    gradients = [random.normal(size=s) * scales for s in ((3, 3, 8, 16), (72, 16))]
    weights = [keras.Variable(np.zeros(g.shape, "float32")) for g in gradients]
    ours = nb.KernelMuon(0.5, momentum=0.9, nesterov=True)
    ours.build(weights)
    ours.apply([keras.ops.cast(gradient, "float32") for gradient in gradients])
    kernel, matrix = (np.reshape(weight, (72, 16)) for weight in weights)
    np.testing.assert_allclose(matrix, -0.5 * 1.9 * gradients[1], rtol=1e-4)
    left, _, right = np.linalg.svd(gradients[0].reshape(72, 16), full_matrices=False)
    along = -left.T @ kernel @ right.T / (0.5 * ours.share)
    lengths = along.diagonal()
    assert 0.6 < lengths.min() and lengths.max() < 1.3
    np.testing.assert_allclose(along, np.diag(lengths), atol=1e-3)


def train(nb, pixels, images, labels, seed):
    """Trains the notebook's network for two epochs and returns its weights."""
    keras.utils.set_random_seed(seed)
    model = nb.build_alexnet(pixels)
    nb.compile_model(model, 0.4, 2)
    model.fit(nb.training_batches(images, labels, seed), epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


def start_python(code, folder, before=""):
    """Runs code in a process of its own that has the notebook's functions as `nb`."""
    head = f"""
        import sys
        sys.path[:0] = [{str(NOTEBOOK.parent / "tests")!r}]
        import numpy as np
        from notebook_cells import code_cells_by_id, notebook_functions, read_notebook
        exec({before!r})
        code_cells = code_cells_by_id(read_notebook())
        nb = notebook_functions(code_cells)
        images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype="uint8")
        labels = np.repeat(np.arange(10), 30)
        pixels = nb.layers.Normalization(mean=3 * [128], variance=3 * [5400], name="pixels")
        """
    program = textwrap.dedent(head) + textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=300)


def test_training_twice_gives_the_same_weights_bit_by_bit(tmp_path):
    """In a process of its own, since determinism cannot be switched off again."""
    code = """
        from test_training import train
        nb.tf.config.experimental.enable_op_determinism()
        data = pixels, images, labels
        first, again, other = (train(nb, *data, seed) for seed in (1, 1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
        """
    start_python(code, tmp_path)


def test_training_learns_to_tell_bright_from_dark(nb, monkeypatch):
    """A task that a few steps suffice for: a broken loss or label order would fail it."""
    monkeypatch.setattr(nb, "BATCH_SIZE", 32)
    keras.utils.set_random_seed(0)
    labels = np.arange(256) % 2
    noise = np.random.default_rng(0).normal(0, 20, (256, 32, 32, 3))
    images = np.clip(80 + 90 * labels[:, None, None, None] + noise, 0, 255).astype("uint8")
    pixels = nb.layers.Normalization(mean=3 * [128], variance=3 * [5400], name="pixels")
    model = nb.build_alexnet(pixels)
    nb.compile_model(model, 0.05, 48)
    model.fit(nb.training_batches(images, labels, 0), epochs=6, shuffle=False, verbose=0)
    assert np.mean(nb.predict_ten_crops(model, images).argmax(axis=1) == labels) > 0.95


@pytest.fixture
def session(nb, run_cell, pixels, images, labels, tmp_path, monkeypatch):
    """A function that runs the cell "fit" on the small images, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    data = {"pixels": pixels, "steps_per_epoch": 1, "x_train": images, "y_train": labels}
    data["strategy"] = nb.tf.distribute.get_strategy()
    validation = nb.centre_crop(images), keras.utils.to_categorical(labels, 10)
    monkeypatch.setattr(nb, "validation_data", validation, raising=False)
    files = {"MODEL_FILE": "alexnet_cifar10.keras", "CURVES_FILE": "alexnet_cifar10.npz"}
    for name, file in files.items():
        monkeypatch.setattr(nb, name, file, raising=False)
    defaults = {"EPOCHS": 2, "PEAK_RATE": 0.01, "SMOKE_TEST": 0, "START_TRAINED": 0}
    return lambda **settings: run_cell("fit", **data, **defaults | settings)


def test_a_class_can_start_from_the_trained_network(session, images, run_cell, nb, capsys):
    """And fit run again starts again."""
    first = session()
    assert "Epoch 2/2" in capsys.readouterr().out
    again = session(START_TRAINED=1)
    assert "Epoch" not in capsys.readouterr().out
    crops = nb.centre_crop(images)
    before, after = (s["model"].predict(crops, verbose=0) for s in (first, again))
    np.testing.assert_array_equal(before, after)
    run_cell("curves", show=lambda figure, description: nb.plt.close(figure))
    for a, b in zip(first["model"].weights, session()["model"].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.fault
def test_start_from_a_network_that_was_never_trained(session):
    with pytest.raises(ValueError, match="File not found"):
        session(START_TRAINED=1)


@pytest.mark.fault
def test_loss_that_becomes_no_number_ends_in_one_sentence(session, tmp_path, capsys):
    with pytest.raises(ArithmeticError, match="Lower PEAK_RATE"):
        session(PEAK_RATE=1e35, EPOCHS=9)
    assert "invalid loss" in capsys.readouterr().out.lower()
    assert not list(tmp_path.glob("*.keras"))  # a broken network is not saved


def predicts_the_same_elsewhere(model, crops):
    """Loads the saved model where only TensorFlow is, without the notebook."""
    np.save("crops.npy", crops)
    code = """
        import keras, numpy as np
        model = keras.saving.load_model("alexnet_cifar10.keras", compile=False)
        np.save("found.npy", model.predict(np.load("crops.npy"), verbose=0))
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    elsewhere = os.environ | {"KERAS_BACKEND": "tensorflow"}
    subprocess.run(command, check=True, timeout=300, env=elsewhere)
    expected = model.predict(crops, verbose=0)
    np.testing.assert_allclose(np.load("found.npy"), expected, rtol=1e-4, atol=1e-6)


SIMULATED = """
import os
os.environ |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=COUNT", "NPROC": "8"}
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(8)  # they wait for one another
cpu = tf.config.list_physical_devices("CPU")[0]
each = COUNT * [tf.config.LogicalDeviceConfiguration()]
tf.config.set_logical_device_configuration(cpu, each)
"""


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_devices_learn_what_one_learns(tmp_path, count):
    """Simulated ones, chosen by the notebook; the same batches of five grey levels.

    On TensorFlow each device normalises its own part of a batch: losses agree to a third.
    """
    code = """
        from test_training import predicts_the_same_elsewhere
        exec(code_cells["device"].source, vars(nb))
        labels, losses = np.arange(300) % 5, []
        images = (images // 8 + 45 * labels[:, None, None, None]).astype("uint8")
        nb.MODEL_FILE, nb.CURVES_FILE = "alexnet_cifar10.keras", "curves.npz"
        nb.pixels, nb.x_train, nb.y_train = pixels, images, labels
        nb.validation_data = nb.centre_crop(images[:60]), np.eye(10)[labels[:60]]
        nb.SEED, nb.EPOCHS, nb.PEAK_RATE, nb.DROPOUT = 1, 8, 0.02, 0.0
        nb.BATCH_SIZE, nb.steps_per_epoch, nb.SMOKE_TEST = 60, 5, 0
        for nb.strategy in (nb.tf.distribute.get_strategy(), nb.strategy):
            exec(code_cells["fit"].source, vars(nb))
            curves = np.load("curves.npz")
            assert curves["accuracy"][-1] > 0.9, curves["accuracy"]
            losses.append(curves["loss"][-1])
        assert nb.devices[1:] and abs(losses[1] / losses[0] - 1) < 1 / 3, losses
        predicts_the_same_elsewhere(nb.model, nb.centre_crop(images))
        """
    start_python(code, tmp_path, SIMULATED.replace("COUNT", str(count)))


def without_gpu_kernel(function):
    """The operations of a traced function for which TensorFlow has no GPU kernel.

    The kernels are registered in the CPU's package too, so no GPU is needed to see this.
    """
    from tensorflow.python.framework import kernels

    definition = function.graph.as_graph_def()
    inner = [node for part in definition.library.function for node in part.node_def]
    missing = set()
    for node in [*definition.node, *inner]:
        registered = kernels.get_registered_kernels_for_op(node.op).kernel
        fitting = [
            kernel
            for kernel in registered
            if kernel.device_type in ("GPU", "DEFAULT")  # "DEFAULT": on any device
            and all(
                node.attr[rule.name].type in rule.allowed_values.list.type
                for rule in kernel.constraint
            )
        ]
        if registered and not fitting:
            missing.add(node.op)
    return missing


@pytest.mark.parametrize("idea", [None, "ReLU", "batch normalisation", "overlapping pools"])
def test_each_operation_of_a_training_step_has_a_gpu_kernel(nb, small_model, idea):
    model = nb.without(small_model, idea) if idea else small_model
    nb.compile_model(model, 0.1, 10)
    model.optimizer.build(model.trainable_variables)
    batch = nb.tf.zeros((8, 28, 28, 3), "uint8"), nb.tf.zeros((8, 10))
    step = nb.tf.function(model.train_step).get_concrete_function(batch)
    assert len(step.graph.get_operations()) > 100
    assert not without_gpu_kernel(step)
