"""Schedule, optimizer, training, saving; one device, several, and a GPU's kernels."""

import ast
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
    """A step at the peak along a gradient of zero: what changes is decay."""
    nb.compile_model(small_model, 10)
    weights, optimizer = small_model.trainable_variables, small_model.optimizer
    for weight in weights:
        weight.assign(np.ones(weight.shape))
    optimizer.build(weights)
    optimizer.iterations.assign(2)  # a fifth of 10
    optimizer.apply([nb.tf.zeros(w.shape) for w in weights])
    shrunk = 1 - nb.PEAK_RATE * nb.WEIGHT_DECAY
    for weight in weights:
        expected = shrunk if weight.path.endswith("kernel") else 1
        np.testing.assert_allclose(weight, expected, rtol=1e-6, err_msg=weight.path)
    loss = small_model.loss(np.eye(10)[[2]], 0.05 + 0.5 * np.eye(10)[[2]])  # targets 0.91, 0.01
    assert float(loss) == pytest.approx(-0.91 * np.log(0.55) - 0.09 * np.log(0.05), rel=1e-5)


def steps(optimizer, gradients):
    """What an optimizer does to a kernel and to a matrix in each step."""
    weights = [keras.Variable(np.zeros(g.shape, "float32")) for g in gradients[0]]
    optimizer.build(weights)
    for step in gradients:
        before = [np.array(weight) for weight in weights]
        optimizer.apply([keras.ops.cast(gradient, "float32") for gradient in step])
        yield [np.array(w).reshape(72, 16) - b.reshape(72, 16) for w, b in zip(weights, before)]


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_steps_of_convolutions_are_orthogonal_all_others_sgds(nb, momentum):
    """Along the directions of SGD's step, about equally far; without momentum, it is SGD."""
    random, unequal = np.random.default_rng(0), np.linspace(1, 9, 16)
    shapes = (3, 3, 8, 16), (72, 16)
    gradients = [[random.normal(size=s) * unequal for s in shapes] for _ in range(2)]
    settings = {"momentum": momentum, "nesterov": momentum > 0}
    ours = steps(nb.KernelMuon(0.5, **settings), gradients)
    sgds = steps(keras.optimizers.SGD(0.5, **settings), gradients)
    for (kernel, matrix), (sgds_kernel, sgds_matrix) in zip(ours, sgds, strict=True):
        np.testing.assert_allclose(matrix, sgds_matrix, rtol=1e-4)
        if not momentum:
            np.testing.assert_allclose(kernel, sgds_kernel, rtol=1e-4)
            continue
        left, _, right = np.linalg.svd(sgds_kernel, full_matrices=False)
        along = left.T @ kernel @ right.T / (0.5 * nb.KernelMuon.share)
        lengths = along.diagonal()
        assert 0.6 < lengths.min() and lengths.max() < 1.3
        np.testing.assert_allclose(along, np.diag(lengths), atol=0.02)


def train(nb, images, labels, seed, between=lambda: None):
    """Trains the notebook's network for two epochs and returns its weights."""
    data = nb.make_batches(images, labels, seed)
    between()
    keras.utils.set_random_seed(seed)
    model = nb.build_alexnet()
    nb.compile_model(model, 4)
    model.fit(data, epochs=2, shuffle=False, verbose=0)
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
        nb.pixel_mean, nb.pixel_std = np.full(3, 128.0), np.full(3, 73.5)
        """
    program = textwrap.dedent(head) + textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=300)


def test_training_twice_gives_the_same_weights_bit_by_bit(tmp_path):
    """In a process of its own, since determinism cannot be switched off again.

    In between, views are drawn, as section 4 does, and the data are read once.
    """
    code = """
        from test_training import train
        nb.tf.config.experimental.enable_op_determinism()
        def between():
            nb.augmentation(1)(images[:7], training=True)
            next(iter(nb.make_batches(images, labels, 1)))
        first, again = train(nb, images, labels, 1), train(nb, images, labels, 1, between)
        other = train(nb, images, labels, 2)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
        """
    start_python(code, tmp_path)


def test_training_learns_to_tell_bright_from_dark(nb, pixels, monkeypatch):
    """A task that a few steps suffice for: a broken loss or label order would fail it."""
    monkeypatch.setattr(nb, "BATCH_SIZE", 32)
    keras.utils.set_random_seed(0)
    labels = np.arange(256) % 2
    noise = np.random.default_rng(0).normal(0, 20, (256, 32, 32, 3))
    images = np.clip(80 + 90 * labels[:, None, None, None] + noise, 0, 255).astype("uint8")
    model = nb.build_alexnet()
    nb.compile_model(model, 48, 0.05)
    model.fit(nb.make_batches(images, labels, 0), epochs=6, shuffle=False, verbose=0)
    assert np.mean(nb.predict_ten_crops(model, images).argmax(axis=1) == labels) > 0.95


@pytest.fixture
def session(nb, run_cell, pixels, images, labels, tmp_path, monkeypatch):
    """A function that runs the cell "fit" on the small images, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nb, "RUN_FILE", "alexnet_cifar10.keras", raising=False)
    monkeypatch.setattr(nb, "is_cifar10", True, raising=False)

    def run(**settings):
        defaults = {"EPOCHS": 2, "PEAK_RATE": 0.01, "START_TRAINED": 0}
        for name, value in (defaults | settings).items():
            monkeypatch.setattr(nb, name, value)
        data = {"training_data": nb.make_batches(images, labels, seed=1)}
        data["validation_data"] = nb.make_batches(nb.center_crop(images), labels)
        return run_cell("fit", strategy=nb.tf.distribute.get_strategy(), **data)

    return run


def test_a_class_can_start_from_the_trained_network(session, images, run_cell, nb, capsys, drawn):
    """And fit run again starts again, from the seed: else the weights would differ."""
    first = session()
    assert "Epoch 2/2" in capsys.readouterr().out
    for a, b in zip(first["model"].weights, session()["model"].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01)
    second = session()
    again = session(START_TRAINED=1)
    assert capsys.readouterr().out.count("Epoch 1/2") == 2
    loaded = keras.saving.load_model("alexnet_cifar10.keras")  # KernelMuon is registered
    assert type(loaded.optimizer).__name__ == "KernelMuon" and loaded.optimizer.iterations == 4
    crops = nb.center_crop(images)
    for model in (again["trained"], loaded):
        np.testing.assert_array_equal(nb.predict(model, crops), nb.predict(second["model"], crops))
    predicts_the_same_elsewhere(nb, loaded, crops)
    run_cell("curves", curves=again["curves"])
    for line, name in zip(drawn[0].axes[0].lines, ("loss", "val_loss"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), second["curves"][name])
        assert line.get_label() == ("validation" if "val" in name else "training")


@pytest.mark.fault
def test_loss_that_becomes_no_number_ends_in_one_sentence(session, tmp_path, capsys):
    with pytest.raises(ArithmeticError, match="Lower PEAK_RATE"):
        session(PEAK_RATE=1e35, EPOCHS=9)
    assert "invalid loss" in capsys.readouterr().out.lower()
    assert not list(tmp_path.iterdir())  # a broken network is not saved


def predicts_the_same_elsewhere(nb, model, crops):
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
    expected = nb.predict(model, crops)
    np.testing.assert_allclose(np.load("found.npy"), expected, rtol=1e-4, atol=1e-6)


def test_data_sets_are_made_outside_of_the_strategy(code_cells):
    """Inside of it, tf.device("CPU") is ignored: the data would lie on each GPU."""
    scopes = 0
    for cell in code_cells.values():
        for block in ast.walk(ast.parse(cell.source)):
            if isinstance(block, ast.With) and "strategy.scope" in ast.unparse(block.items[0]):
                scopes += 1
                assert "make_batches" not in ast.unparse(block), cell.id
    assert scopes


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
    """Simulated ones, chosen by the notebook; the same batches of five gray levels.

    On TensorFlow each device normalizes its own part of a batch: losses agree to a third.
    """
    code = """
        from test_training import predicts_the_same_elsewhere
        labels, losses = np.arange(300) % 5, []
        images = (images // 8 + 45 * labels[:, None, None, None]).astype("uint8")
        nb.x_all, nb.y_all, nb.x_test, nb.y_test = images, labels, images, labels
        nb.loaded = (images, labels), (images, labels)
        exec(code_cells["identify"].source, vars(nb))
        nb.RUN_FILE, nb.BATCH_SIZE = "alexnet_cifar10.keras", 60
        nb.SEED, nb.EPOCHS, nb.PEAK_RATE, nb.DROPOUT = 1, 8, 0.02, 0.0
        nb.validation_data = nb.make_batches(nb.center_crop(images[:60]), labels[:60])
        for nb.strategy in (nb.tf.distribute.get_strategy(), nb.strategy):
            nb.training_data = nb.make_batches(images, labels, seed=1)
            exec(code_cells["fit"].source, vars(nb))
            assert nb.curves["accuracy"][-1] > 0.9, nb.curves["accuracy"]
            losses.append(nb.curves["loss"][-1])
        assert nb.devices[1:] and abs(losses[1] / losses[0] - 1) < 1 / 3, losses
        predicts_the_same_elsewhere(nb, nb.trained, nb.center_crop(images))
        """
    start_python(code, tmp_path, SIMULATED.replace("COUNT", str(count)))


def without_gpu_kernel(function):
    """The operations of a traced function for which TensorFlow has no GPU kernel.

    The kernels are registered in the CPU's package too, so no GPU is needed to see this.
    """
    from tensorflow.python.framework import kernels

    def fits(kernel, node):  # "DEFAULT": on any device
        return kernel.device_type in ("GPU", "DEFAULT") and all(
            node.attr[rule.name].type in rule.allowed_values.list.type for rule in kernel.constraint
        )

    definition = function.graph.as_graph_def()
    inner = [node for part in definition.library.function for node in part.node_def]
    missing = set()
    for node in (*definition.node, *inner):
        registered = kernels.get_registered_kernels_for_op(node.op).kernel
        if registered and not any(fits(kernel, node) for kernel in registered):
            missing.add(node.op)
    return missing


@pytest.mark.parametrize("idea", [None, "ReLU", "batch normalization", "overlapping pools"])
def test_each_operation_of_a_training_step_has_a_gpu_kernel(nb, small_model, idea):
    """On what the data sets give: numbers of training, and raw pixels of validation."""
    if not nb.tf.test.is_built_with_cuda():
        pytest.skip("this TensorFlow was built without CUDA, so it has no such kernels")
    model = nb.without(small_model, idea) if idea else small_model
    nb.compile_model(model, 10)
    model.optimizer.build(model.trainable_variables)
    for call, kind in ((model.train_step, "float32"), (model.test_step, "uint8")):
        batch = nb.tf.zeros((8, 28, 28, 3), kind), nb.tf.zeros((8, 10))
        step = nb.tf.function(call).get_concrete_function(batch)
        assert len(step.graph.get_operations()) > 50
        assert not without_gpu_kernel(step)
