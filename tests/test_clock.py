"""No call of Keras waits for a clock after its last batch.

With tf.data's autotuner on, the end of a data set can wait for the autotuner's next tick,
and its period doubles from 10 ms to a minute. So all data sets switch it off.
"""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from notebook_cells import check_data, watch_data

pytestmark = pytest.mark.filterwarnings("ignore:.shuffle=True. was passed:UserWarning")
KINDS = {"fit": (True, 1), "evaluate": (True, None), "predict": (False, None)}


@pytest.fixture
def batches(nb, monkeypatch):
    """A function that makes the data set of a call: some batches of ten random images."""
    monkeypatch.setattr(nb, "BATCH_SIZE", 10)

    def make(call, count):
        with_labels, seed = KINDS[call]
        side = 32 if seed else 28
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (10 * count, side, side, 3), dtype="uint8")
        labels = np.arange(10 * count) % 10 if with_labels else None
        return nb.make_batches(images, labels, seed)

    return make


@pytest.fixture
def tiny_model():
    """A network that takes next to no time."""
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((28, 28, 3)), *layers])
    model.compile("sgd", "categorical_crossentropy")
    return model


@pytest.mark.parametrize("call", KINDS)
def test_each_kind_of_data_set_has_the_autotuner_off(batches, call):
    assert batches(call, 3).options().autotune.enabled is False
    check_data(batches(call, 31))


def test_data_that_would_wait_is_found(batches, tiny_model, code_cells, monkeypatch):
    """What conftest.py has the notebook's kernel check in each call, after the imports."""
    assert "import keras" in code_cells["imports"].source
    for name in KINDS:
        monkeypatch.setattr(keras.Model, name, getattr(keras.Model, name))
    watch_data()
    many, few = np.zeros((301, 28, 28, 3)), np.zeros((300, 28, 28, 3))
    plain = tf.data.Dataset.from_tensor_slices((few, np.zeros((300, 10)))).batch(100)
    tiny_model.predict(few, verbose=0)
    tiny_model.fit(batches("fit", 3), validation_data=batches("evaluate", 3), verbose=0)
    for bad in (many, plain, tf.constant(many)):
        with pytest.raises(AssertionError, match="make_batches"):
            tiny_model.predict(bad, verbose=0)
    with pytest.raises(AssertionError, match="make_batches"):
        tiny_model.evaluate(plain, verbose=0)
    with pytest.raises(AssertionError, match="make_batches"):
        tiny_model.fit(plain, verbose=0)
    with pytest.raises(AssertionError, match="make_batches"):
        tiny_model.fit(batches("fit", 3), validation_data=plain, verbose=0)


SECONDS, BATCHES = 6.5, 65  # the autotuner's ticks are at 5.1 and 10.2 s


class Pace(keras.callbacks.Callback):
    """Spreads the batches of a call over SECONDS, on any machine; notes the end."""

    def __init__(self):
        super().__init__()
        self.start = self.end = time.monotonic()

    def on_batch(self, batch, logs=None):
        wait = self.start + (batch + 1) * SECONDS / BATCHES - time.monotonic()
        time.sleep(max(0, wait))
        self.end = time.monotonic()

    on_train_batch_end = on_test_batch_end = on_predict_batch_end = on_batch


@pytest.mark.slow
@pytest.mark.parametrize("call", KINDS)
def test_call_returns_soon_after_its_last_batch(batches, tiny_model, call):
    run = getattr(tiny_model, call)
    run(batches(call, 2), verbose=0)  # what is compiled is compiled now
    for _ in range(5):
        data, pace = batches(call, BATCHES), Pace()
        run(data, callbacks=[pace], verbose=0)
        late, took = time.monotonic() - pace.end, pace.end - pace.start
        assert took >= 6 and late < took / 5, f"{late:.1f} s late after {took:.1f} s"
