"""Ten crops, accuracy and confusion, captions, mistakes, own images, maps, neighbors."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image


def test_ten_crops_are_the_corners_the_center_and_their_mirror_images(nb, images):
    crops = nb.ten_crops(images)
    corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    for crop, mirrored, (y, x) in zip(crops[:5], crops[5:], corners, strict=True):
        assert (crop == images[:, y : y + 28, x : x + 28]).all()
        assert (mirrored == crop[:, :, ::-1]).all()


class Oracle:
    """Sees class 3 in the center crop, with a probability of 0.55, and 4 in the others."""

    def __init__(self, images):
        self.center = images[:, 2:30, 2:30]

    def predict(self, data, **options):
        crops = np.concatenate(list(data.as_numpy_iterator()))
        found = 3 if (crops == self.center).all() else 4
        return np.tile(np.eye(10)[found] * 0.5 + 0.05, (len(crops), 1))


def test_accuracies_and_their_interval(run_cell, images, labels, capsys):
    """Class 3 has 30 images, class 4 has 60: 20% +- 4.5 points. The ten are averaged."""
    truth = np.where(labels == 5, 4, labels)
    data = {"trained": Oracle(images), "x_test": images, "y_test": truth, "is_cifar10": True}
    names = run_cell("evaluate", **data)
    text = capsys.readouterr().out
    assert "center crop: 10.0%" in text
    assert "ten crops: 20.0% (95% interval 15.5% to 24.5%)" in text
    assert names["center_predicted"].tolist() == 300 * [3]
    assert names["predicted"].tolist() == 300 * [4]
    assert names["confidence"] == pytest.approx(0.5, abs=1e-6)


def ticks(labels):
    return [tick.get_text() for tick in labels]


def test_confusion_matrix_counts_errors_with_the_truth_in_rows(nb, run_cell, drawn, labels):
    """By the names on the axes: 30 cats taken for dogs, 12 ships for trucks, 7 back."""
    predicted = labels.copy()
    for truth, said, count in ((3, 5, 30), (8, 9, 12), (9, 8, 7)):
        predicted[np.flatnonzero(labels == truth)[:count]] = said
    run_cell("confusion", y_test=labels, predicted=predicted)
    axis = drawn[0].axes[0]
    rows, columns = ticks(axis.get_yticklabels()), ticks(axis.get_xticklabels())
    assert "True" in axis.get_ylabel() and "Predicted" in axis.get_xlabel()
    seen = {}
    for text in axis.texts:
        x, y = text.get_position()
        seen[rows[round(y)], columns[round(x)]] = text.get_text()
    assert len(seen) == 100 and all(seen[name, name] == "" for name in nb.class_names)
    found = {pair: int(count) for pair, count in seen.items() if count not in ("", "0")}
    assert found == {("cat", "dog"): 30, ("ship", "truck"): 12, ("truck", "ship"): 7}
    vehicles, animals = (box for box in axis.patches if not box.get_fill())
    assert set(rows[: round(vehicles.get_height())]) == {"airplane", "automobile", "ship", "truck"}
    assert (vehicles.get_y(), animals.get_y(), animals.get_height()) == (-0.5, 3.5, 6)


def test_accuracy_of_each_class_stands_beside_its_name(nb, run_cell, drawn, labels):
    """Of 30 images, as many are wrong as the number of the class."""
    predicted = np.where(np.tile(np.arange(30), 10) < labels, (labels + 1) % 10, labels)
    run_cell("class-accuracy", y_test=labels, predicted=predicted)
    axis = drawn[0].axes[0]
    assert ticks(axis.get_yticklabels()) == nb.class_names[::-1]  # sorted
    widths = [bar.get_width() for bar in axis.patches]
    assert widths == pytest.approx([100 * (1 - n / 30) for n in range(9, -1, -1)])
    assert ticks(axis.texts) == [f"{width:.0f}%" for width in widths]


def tiles(figure):
    """The image, title, and color of the frame of each tile of a figure (C0: blue)."""
    for axis in figure.axes:
        frame = to_hex(axis.spines["top"].get_edgecolor())
        yield np.asarray(axis.images[0].get_array()), axis.get_title(), frame


def test_captions_say_who_is_right_and_mistakes_are_the_surest(nb, run_cell, drawn, images, labels):
    """Five predictions are wrong, and the confidence grows with the number of the image."""
    wrong = [10, 100, 200, 250, 290]
    predicted = labels.copy()
    predicted[wrong] = (labels[wrong] + 1) % 10
    data = {"x_test": images, "y_test": labels, "predicted": predicted}
    names = run_cell("predictions", confidence=np.linspace(0, 1, 300), **data)
    run_cell("mistakes", **names)
    shown = [*zip([*range(8), *wrong[:4]], tiles(drawn[0]), strict=True)]
    shown += zip(wrong[::-1], tiles(drawn[1]), strict=True)
    for n, (image, title, frame) in shown:
        truth, said = nb.class_names[labels[n]], nb.class_names[predicted[n]]
        assert f"{said} {n / 299:.0%}" in title and title.strip()[0] == "✓✗"[n in wrong]
        assert (f"label: {truth}" in title) == (n in wrong)
        assert (image == images[n]).all() and frame == to_hex("C1" if n in wrong else "C0")


def test_feature_maps_are_the_strongest_of_each_convolution(
    run_cell, small_model, nb, drawn, images
):
    """In each row the image, then maps; a title names layer and size."""
    run_cell("feature-maps", trained=small_model, x_test=images)
    shown, crop = list(tiles(drawn[0])), images[1, 2:30, 2:30]
    assert len(shown) == 5 * 8
    for row in range(5):
        (first, *_), *maps = shown[8 * row : 8 * row + 8]
        assert (first == crop).all()
        layer = small_model.get_layer(f"conv{row + 1}")
        values = np.array(nb.keras.Model(small_model.inputs[0], layer.output)(crop[None]))[0]
        values = np.maximum(values, 0)
        assert maps[3][1] == "{}: {} x {}".format(layer.name, *values.shape)
        for (image, *_), channel in zip(maps, np.argsort(-values.max(axis=(0, 1)))):
            np.testing.assert_allclose(image, values[..., channel], rtol=1e-3, atol=1e-3)


def test_neighbors_are_near_and_framed_by_their_class(
    nb, run_cell, small_model, drawn, images, labels, capsys
):
    """Each query is among the images that are searched: the nearest is itself."""
    order = np.random.default_rng(0).permutation(300)
    sets = {"x_val": images, "y_val": labels, "x_test": images[order]}
    names = run_cell("find-neighbors", y_test=labels[order], trained=small_model, **sets)
    text = capsys.readouterr().out
    for name, nearest in names["nearest"].items():
        assert (nearest[:, 0] == order).all()
        share = np.mean(labels[nearest] == labels[order][:, None])
        assert f"by {name}: {share:.1%}\n" in text
    run_cell("show-neighbors", **names)
    shown = list(tiles(drawn[0]))
    known = {image.tobytes(): label for image, label in zip(images, labels)}
    for row in range(len(shown) // 6):
        query, *found = shown[6 * row : 6 * row + 6]
        label = known[query[0].tobytes()]
        assert query[1] == f"{nb.class_names[label]},\nby {('network', 'pixels')[row % 2]}"
        assert (query[0] == found[0][0]).all()
        for image, mark, frame in found:
            same = known[image.tobytes()] == label
            assert (mark, frame) == (("✓", to_hex("C0")) if same else ("✗", to_hex("C1")))


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["missing", "text", "folder", "cut", "bomb"])
def test_file_that_is_no_image(nb, tmp_path, kind):
    path = tmp_path / "image.png"
    if kind == "text":
        path.write_text("not an image", encoding="utf-8")
    if kind == "folder":
        path.mkdir()
    if kind == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype="uint8")
        Image.fromarray(noise).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:5000])
    if kind == "bomb":
        Image.new("1", (20_000, 20_000)).save(path, "PNG")
    with pytest.raises(ValueError, match=r"image\.png cannot be opened as an image"):
        nb.load_image(str(path))


@pytest.mark.fault
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK", "L", "1", "I;16", "F"])
def test_image_of_any_kind_becomes_its_central_square(nb, tmp_path, mode):
    """A wide image, black but for its central square, which is bright."""
    pixels = np.zeros((50, 150), "uint16" if mode == "I;16" else "uint8")
    pixels[:, 50:100] = 65535 if mode == "I;16" else 255
    image = Image.fromarray(pixels)
    image = image if mode == "I;16" else image.convert("RGB").convert(mode)
    path = tmp_path / ("image.tiff" if mode in ("CMYK", "F") else "image.png")
    image.save(path)
    small = nb.load_image(f' "{path}"')  # as Windows copies a path
    assert small.shape == (32, 32, 3) and small.dtype == np.uint8
    assert small[2:30, 2:30].min() >= 250


def test_transparent_pixels_are_white(nb, tmp_path):
    Image.new("RGBA", (40, 40), (9, 9, 9, 0)).save(tmp_path / "logo.png")
    assert (nb.load_image(tmp_path / "logo.png") == 255).all()


@pytest.mark.fault
def test_photograph_that_was_taken_sideways_is_turned_upright(nb, tmp_path):
    """EXIF orientation 6: the stored pixels have to be turned to the right."""
    pixels = np.zeros((64, 64, 3), "uint8")
    pixels[32:, :32] = (255, 0, 0)  # lower left as stored, upper left as seen
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    small = nb.load_image(str(tmp_path / "photo.jpg"))
    assert small[8, 8, 0] > 200 and small[24, 8, 0] < 50 and small[8, 24, 0] < 50


def test_own_image_is_used_where_there_is_one(run_cell, small_model, nb, drawn, tmp_path):
    """Under it, its three most probable classes."""
    Image.new("RGB", (64, 64), (10, 200, 30)).save(tmp_path / "mine.png")
    run_cell("own-image", MY_IMAGE=str(tmp_path / "mine.png"), trained=small_model)
    ((image, title, _),) = tiles(drawn[0])
    assert (image == (10, 200, 30)).all()
    (p,) = nb.predict_ten_crops(small_model, image[None])
    best = sorted(zip(p, nb.class_names), reverse=True)[:3]
    assert title == "\n".join(f"{name} {share:.0%}" for share, name in best)
    run_cell("own-image", MY_IMAGE="", trained=small_model)
    samples = [image for image, _, _ in tiles(drawn[1])]
    assert len(samples) == 2 and min(image.std() for image in samples) > 10
