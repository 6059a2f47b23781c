"""Which of its parts makes airbench94 so good? Changes for search.py.

    python tests/benchmarks/search.py --pflop 0.05 --seeds 1 -- \\
        airbench94 "airbench94 + kernels of its first layer at random"

trains airbench94 (contenders.py) in place of the notebook's network, on the same images and
for the same arithmetic, as it is and with one of its parts replaced.
"""


def airbench94(nb):
    """Puts airbench94 with its own recipe in the place of the notebook's functions."""
    import contenders

    contenders.SEED, nb.BATCH_SIZE = nb.SEED, 1024
    batches, made = contenders.airbench_batches, []

    def build(pixels):
        made.append(contenders.airbench94(nb, nb.training_images, None))
        return nb.prepared(made[0].model)

    def views(images):
        """Its six views of an image; the unmoved ones count twice, so they come twice."""
        padded = nb.np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], "reflect")
        some = [padded[:, :32, :32], padded[:, 2:, 2:], images, images]
        return [view[:, :, ::-1] for view in some] + some[::-1]

    nb.prepared = lambda model: model
    nb.build_alexnet = build
    nb.compile_model = lambda model, peak, steps: made[0].compile(steps)
    nb.training_batches = lambda *data: nb.mirrored(batches(nb, *data[:2]))
    nb.mirrored, nb.ten_crops = lambda batches: batches, views


def random_first_kernels(nb):
    """A trained first layer that starts at random, in place of fixed whitening kernels."""
    import contenders

    def prepared(model):
        first = model.get_layer("fixed")
        first.trainable = True
        first.set_weights([contenders.uniform()(first.kernel.shape)])
        return model

    nb.prepared = prepared


def random_kernels(nb):
    """All other kernels start at random, none passes its inputs on."""
    import contenders

    contenders.Dirac = contenders.uniform


def random_mirror(nb):
    """Half of the images mirrored, drawn anew in each epoch."""
    flip = nb.tf.image.random_flip_left_right
    nb.mirrored = lambda batches: batches.map(lambda x, y: (flip(x), y))


def no_lookahead(nb):
    """The weights are not pulled back to their slow average."""
    import contenders

    contenders.Airbench.look_ahead = lambda model, step: None


def one_rate(nb):
    """The biases of the normalisations learn at the rate of the weights."""
    import contenders

    contenders.BIAS_SCALER = 1


def relu(nb):
    """ReLU for GELU."""
    import contenders

    contenders.gelu = nb.keras.activations.relu


def three_convolutions_less(nb):
    """Each of the three groups has one convolution, so more epochs fit in."""
    import contenders

    whole = contenders.group
    contenders.group = lambda width: whole(width)[:4]


def hidden_layers(nb):
    """AlexNet's two hidden dense layers, with dropout, in front of the last layer."""
    import contenders
    from search import replaced

    def flatten():
        return nb.keras.Sequential(
            [nb.layers.Flatten(), *nb.hidden("fc6", 512), *nb.hidden("fc7", 512)]
        )

    contenders.layers = replaced(contenders.layers, Flatten=flatten)


CHANGES = {
    "airbench94": airbench94,
    "kernels of its first layer at random": random_first_kernels,
    "its other kernels at random": random_kernels,
    "its mirror images at random": random_mirror,
    "without its Lookahead": no_lookahead,
    "one rate for its biases and weights": one_rate,
    "ReLU for its GELU": relu,
    "three of its six convolutions less": three_convolutions_less,
    "AlexNet's hidden layers added to it": hidden_layers,
}
