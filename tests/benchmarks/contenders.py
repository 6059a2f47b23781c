"""The contenders of time_to_accuracy.py: five networks, each with its own recipe.

Each function takes the notebook's functions `nb`, the training images, (n, 32, 32, 3)
uint8, and labels, (n,), and returns a Contender. A recipe with a schedule is told how many
steps fit into the time. A recipe with a constant learning rate runs until the time is over.
"""

from collections.abc import Callable
from dataclasses import dataclass

import common
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from keras.optimizers.schedules import LearningRateSchedule

SEED = 2012


@dataclass
class Contender:
    """A model with its recipe. With `scheduled`, compile() is given the number of steps."""

    model: keras.Model
    compile: Callable  # steps -> None
    batches: Callable  # () -> a tf.data.Dataset of one epoch, new each time it is read
    predict: Callable  # images -> (n, 10) scores, with the recipe's own test-time averaging
    scheduled: bool = False


def this_notebook(nb, images, labels):
    """The notebook's network and recipe, from its own cells."""
    model = nb.build_alexnet()
    return Contender(
        model,
        lambda steps: nb.compile_model(model, steps),
        lambda: nb.make_batches(images, labels, seed=SEED),
        lambda x: nb.predict_ten_crops(model, x),
        scheduled=True,
    )


def plain_batches(images, labels, size):
    """Returns shuffled batches without augmentation, as model.fit(x, y) would make them."""
    with tf.device("CPU"):
        data = tf.data.Dataset.from_tensor_slices((images, labels.astype("int32")))
    data = data.shuffle(len(images), seed=SEED).batch(size)
    return common.without_autotuner(data.prefetch(2))


def constant_rate(nb, stages, images, labels, size, optimizer):
    """A tutorial's recipe: a constant learning rate and no augmentation."""
    model = keras.Sequential([keras.Input((32, 32, 3)), *stages])
    return Contender(
        model,
        lambda steps: model.compile(optimizer, "sparse_categorical_crossentropy"),
        lambda: plain_batches(images, labels, size),
        lambda x: nb.predict(model, x),
    )


def tensorflow_tutorial(nb, images, labels):
    """The CNN of https://www.tensorflow.org/tutorials/images/cnn: Adam, batches of 32."""
    stages = [layers.Rescaling(1 / 255), layers.Conv2D(32, 3, activation="relu")]
    for _ in range(2):
        stages += [layers.MaxPooling2D(2), layers.Conv2D(64, 3, activation="relu")]
    stages += [layers.Flatten(), layers.Dense(64, activation="relu")]
    stages.append(layers.Dense(10, activation="softmax"))
    return constant_rate(nb, stages, images, labels, 32, keras.optimizers.Adam())


def published_stages(first, pool):
    """AlexNet at full width, without groups, with batch normalization.

    Batch normalization follows the ReLU here, as it mostly does in tutorials.
    """

    def block(kernels, size):
        convolution = layers.Conv2D(kernels, size, padding="same", activation="relu")
        return [convolution, layers.BatchNormalization()]

    def hidden():
        return [layers.Dense(4096, activation="relu"), layers.Dropout(0.5)]

    stages = [first, layers.BatchNormalization(), layers.MaxPooling2D(pool, 2)]
    stages += [*block(256, 5), layers.MaxPooling2D(3, 2), *block(384, 3), *block(384, 3)]
    stages += [*block(256, 3), layers.MaxPooling2D(3, 2), layers.Flatten()]
    return [*stages, *hidden(), *hidden(), layers.Dense(10, activation="softmax")]


def alexnet_32(nb, images, labels):
    """AlexNet as tutorials fit it to 32 x 32 pixels: only the first layer is changed.

    After http://cswithjames.com/keras-9-1-buildtrain-alexnet-cifar10-dataset-keras/ (first
    kernels 3 x 3, stride 2; all widths as published); Adam at its default learning rate.
    """
    first = layers.Conv2D(96, 3, strides=2, padding="same", activation="relu")
    stages = [layers.Rescaling(1 / 255), *published_stages(first, 2)]
    return constant_rate(nb, stages, images, labels, 128, keras.optimizers.Adam())


def alexnet_227(nb, images, labels):
    """AlexNet on images enlarged to 227 x 227: SGD at a learning rate of 0.001.

    The recipe of many tutorials, for one
    https://github.com/keshavsingh4522/hacktoberfest/blob/master/Python/alexnet_architecture.py
    """
    first = layers.Conv2D(96, 11, strides=4, activation="relu")
    enlarge = [layers.Resizing(227, 227), layers.Rescaling(1 / 255)]
    stages = [*enlarge, *published_stages(first, 3)]
    return constant_rate(nb, stages, images, labels, 32, keras.optimizers.SGD(0.001))


# airbench94, written anew in Keras after https://arxiv.org/abs/2404.00498 and
# https://github.com/KellerJordan/cifar10-airbench (94.0% in 9.9 epochs of 50,000 images).
AIRBENCH_EPOCHS = 9.9
BIAS_SCALER = 64  # the learning rate of the normalizations' biases over the weights'
MOMENTUM = 0.85
SCALE = 1 + 1 / (1 - MOMENTUM)
RATE = 11.5 / SCALE  # for the mean of the loss over a batch of 1024
DECAY = 0.0153 / SCALE


class Triangle(LearningRateSchedule):
    """From a fifth of the peak up to all of it at 23% of the steps, then down to 7%."""

    def __init__(self, peak, steps):
        self.peak, self.steps = peak, steps

    def __call__(self, step):
        done = keras.ops.cast(step, "float32") / self.steps
        up = 0.2 + 0.8 * done / 0.23
        down = 1 - 0.93 * (done - 0.23) / 0.77
        return self.peak * keras.ops.minimum(up, down)


def uniform():
    """PyTorch's default initialization of convolutions and dense layers."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


class Dirac(keras.initializers.Initializer):
    """PyTorch's uniform kernels, but the first ones pass their input channel on."""

    def __call__(self, shape, dtype=None):
        kernel = np.array(uniform()(shape))
        size, _, inputs, outputs = shape
        for channel in range(min(inputs, outputs)):
            kernel[:, :, :, channel] = 0
            kernel[size // 2, size // 2, channel, channel] = 1
        return tf.constant(kernel, dtype)


def group(width):
    """Convolution, pool, normalization, GELU; then the same without the pool."""
    convolution = {"padding": "same", "use_bias": False, "kernel_initializer": Dirac()}
    norm = {"momentum": 0.6, "epsilon": 1e-12, "scale": False}
    stages = []
    for pool in ([layers.MaxPooling2D(2)], []):
        stages += [layers.Conv2D(width, 3, **convolution), *pool]
        stages += [layers.BatchNormalization(**norm), layers.Activation("gelu")]
    return stages


class Airbench(keras.Sequential):
    """The network with its own training step: two learning rates and Lookahead."""

    def prepare(self, steps):
        """Sets what depends on the number of steps, once the model is compiled."""
        self.steps = steps
        self.whiten_steps = steps * 3 / AIRBENCH_EPOCHS
        self.slow = [(w.value, tf.Variable(w.value)) for w in self.weights]

    def train_step(self, data):
        images, labels = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=labels, y_pred=self(images, training=True))
        variables = self.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        step = tf.cast(self.optimizer.iterations.value, "float32")
        pairs = []
        for variable, gradient in zip(variables, gradients):
            decayed = DECAY / RATE * variable.value
            if variable.path.endswith("beta"):
                gradient = BIAS_SCALER * gradient
            if "whiten" in variable.path:
                on = tf.cast(step < self.whiten_steps, "float32")
                gradient, decayed = on * gradient, on * decayed
            pairs.append((gradient + decayed, variable))
        self.optimizer.apply_gradients(pairs)
        self.look_ahead(step + 1)
        return {"loss": loss}

    def look_ahead(self, step):
        """Every fifth step, pulls the weights back to their slow average (Lookahead)."""

        def pull():
            keep = tf.where(step >= self.steps, 1.0, 0.95**5 * (step / self.steps) ** 3)
            for fast, slow in self.slow:
                fast.assign(slow.assign(keep * slow + (1 - keep) * fast))
            return 0

        tf.cond((step % 5 == 0) | (step >= self.steps), pull, lambda: 0)


def airbench94(nb, images, labels):
    """airbench94: whitened first layer, alternating flips, Lookahead, triangular rate."""
    pixels = (images[:5000] - nb.pixel_mean) / nb.pixel_std
    patches = np.concatenate(
        [pixels[:, y : 31 + y, x : 31 + x] for y in (0, 1) for x in (0, 1)], axis=-1
    ).reshape(-1, 12)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    whitening = (vectors / np.sqrt(values + 5e-4)).reshape(2, 2, 3, 12)

    normalize = layers.Normalization(mean=nb.pixel_mean, variance=nb.pixel_std**2)
    whiten = layers.Conv2D(24, 2, use_bias=False, trainable=False, name="fixed")
    stages = [normalize, whiten, Bias(name="whiten_bias"), layers.Activation("gelu")]
    stages += [*group(64), *group(256), *group(256), layers.MaxPooling2D(3), layers.Flatten()]
    stages.append(layers.Dense(10, use_bias=False, kernel_initializer=uniform()))
    model = Airbench([keras.Input((32, 32, 3)), *stages, layers.Rescaling(1 / 9)])
    whiten.set_weights([np.concatenate([whitening, -whitening], axis=-1)])

    def compile_for(steps):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
        optimizer = keras.optimizers.SGD(Triangle(RATE, steps), MOMENTUM, nesterov=True)
        model.compile(optimizer, loss)
        model.prepare(steps)

    return Contender(
        model,
        compile_for,
        lambda: airbench_batches(images, labels),
        lambda x: predict_airbench(nb, model, x),
        scheduled=True,
    )


class Bias(layers.Layer):
    """A trainable bias for each channel."""

    def build(self, shape):
        self.bias = self.add_weight(shape=shape[-1:], initializer="zeros", name="bias")

    def call(self, inputs):
        return inputs + self.bias


def airbench_batches(images, labels):
    """Endless batches of 1024, moved by up to 2 pixels, mirrored every other epoch."""
    with tf.device("CPU"):
        images, labels = tf.constant(images), tf.one_hot(labels, 10)
    shift = layers.RandomTranslation(2.5 / 36, 2.5 / 36, interpolation="nearest", seed=SEED)
    augment = layers.Pipeline([shift, layers.CenterCrop(32, 32)])

    def view(numbers, mirrored):
        padded = tf.pad(tf.gather(images, numbers), [[0, 0], [2, 2], [2, 2], [0, 0]], "REFLECT")
        moved = augment(padded, training=True)
        views = tf.where(mirrored[:, None, None, None], moved[:, :, ::-1], moved)
        return views, tf.gather(labels, numbers)

    def epoch(mirrored, seed):
        data = tf.data.Dataset.from_tensor_slices((np.arange(len(mirrored)), mirrored))
        return data.shuffle(len(mirrored), seed=seed).batch(1024, drop_remainder=True)

    mirrored = np.random.default_rng(SEED).random(len(images)) < 0.5
    two = epoch(mirrored, SEED).concatenate(epoch(~mirrored, SEED + 1))
    return common.without_autotuner(two.repeat().map(view).prefetch(2))


def predict_airbench(nb, model, images):
    """Scores over six views: the image, half of the weight, two shifts, all mirrored."""
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], "reflect")
    views = [(0.5, images), (0.25, padded[:, :32, :32]), (0.25, padded[:, 2:, 2:])]
    return sum(
        weight / 2 * nb.predict(model, side)
        for weight, view in views
        for side in (view, view[:, :, ::-1])
    )


CONTENDERS = {
    "this notebook": this_notebook,
    "airbench94, in Keras": airbench94,
    "AlexNet at full width, 32 x 32": alexnet_32,
    "TensorFlow's CNN tutorial": tensorflow_tutorial,
    "AlexNet on images of 227 x 227": alexnet_227,
}
