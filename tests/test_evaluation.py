"""The test and the looks inside: each figure shows what its titles, axes, and legend say."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image


def texts(labels):
    return [label.get_text() for label in labels]


def tiles(figure):
    """The image, title, and color of the frame of each tile of a figure (C0: blue)."""
    for axis in figure.axes:
        frame = to_hex(axis.spines["top"].get_edgecolor())
        yield np.asarray(axis.images[0].get_array()), axis.get_title(), frame


def test_curves_stand_under_their_name_in_the_legend(run_cell, drawn):
    names = ("loss", "val_loss", "accuracy", "val_accuracy")
    curves = {name: [n + 0.1, n + 0.2] for n, name in enumerate(names)}
    run_cell("curves", curves=curves)
    loss, accuracy = drawn[0].axes
    for line, name in zip((*loss.lines[:2], *accuracy.lines), names, strict=True):
        factor = 100 if "accuracy" in name else 1
        assert line.get_ydata() == pytest.approx(factor * np.array(curves[name]))
        assert line.get_label() == ("validation" if "val" in name else "training")
    assert texts(loss.get_legend().get_texts())[:2] == ["training", "validation"]
    assert "Loss" in loss.get_title() and "Accuracy" in accuracy.get_title()


def test_ten_crops_are_the_corners_the_center_and_their_mirror_images(nb, images):
    crops = nb.ten_crops(images)
    corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    for crop, mirrored, (y, x) in zip(crops[:5], crops[5:], corners, strict=True):
        assert (crop == images[:, y : y + 28, x : x + 28]).all()
        assert (mirrored == crop[:, :, ::-1]).all()


def test_accuracies_and_their_interval(nb, run_cell, images, labels, capsys):
    """Class 3, seen in the center, has 30 images, and 4, in the others, 60: 20% +- 4.5 points."""

    def predict(data, **options):
        crops = np.concatenate(list(data.as_numpy_iterator()))
        found = 3 if (crops == nb.center_crop(images)).all() else 4
        return np.tile(np.eye(10)[found] * 0.5 + 0.05, (len(crops), 1))

    data = {"x_test": images, "y_test": np.where(labels == 5, 4, labels), "data_name": "CIFAR-10"}
    names = run_cell("evaluate", trained=SimpleNamespace(predict=predict), **data)
    printed = capsys.readouterr().out
    assert "data: CIFAR-10" in printed and "center crop: 10.0%" in printed
    assert "ten crops: 20.0% (95% interval 15.5% to 24.5%)" in printed
    assert names["center_predicted"].tolist() == 300 * [3]
    assert names["predicted"].tolist() == 300 * [4]
    assert names["confidence"] == pytest.approx(0.5, abs=1e-6)  # the mean of the ten


def test_errors_stand_in_the_row_of_the_truth_and_lower_its_class(nb, run_cell, drawn, labels):
    """By the names on the axes: 30 cats taken for dogs, 12 ships for trucks, 7 back."""
    predicted = labels.copy()
    for truth, said, count in ((3, 5, 30), (8, 9, 12), (9, 8, 7)):
        predicted[np.flatnonzero(labels == truth)[:count]] = said
    for cell in ("confusion", "class-accuracy"):
        run_cell(cell, y_test=labels, predicted=predicted, is_cifar10=True)
    axis, *_, bars = (axis for figure in drawn for axis in figure.axes)
    rows, columns = texts(axis.get_yticklabels()), texts(axis.get_xticklabels())
    places = {text.get_position(): text.get_text() for text in axis.texts}
    numbers = {place: text for place, text in places.items() if text.strip("0").isdigit()}
    found = {(rows[y], columns[x]): text for (x, y), text in numbers.items()}
    assert found == {("cat", "dog"): "30", ("ship", "truck"): "12", ("truck", "ship"): "7"}
    assert "True" in axis.get_ylabel() and rows[3:5] == ["truck", "bird"]
    boxes = [(*box.xy, box.get_height()) for box in axis.patches if not box.get_fill()]
    assert boxes == [(-0.4, -0.4, 3.8), (3.6, 3.6, 5.8)]  # vehicles, animals
    names = {text: y for (_, y), text in places.items() if text.isalpha()}
    assert names["vehicles"] < 3.5 < names["animals"]
    expected = dict.fromkeys(nb.class_names, "100%") | {"cat": "0%", "ship": "60%", "truck": "77%"}
    assert dict(zip(texts(bars.get_yticklabels()), texts(bars.texts), strict=True)) == expected


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


def test_feature_maps_are_of_the_named_layer(nb, run_cell, small_model, drawn, images):
    """In each row the image, then maps; a title names layer and size."""
    run_cell("feature-maps", trained=small_model, x_test=images)
    shown, crop = list(tiles(drawn[0])), images[1, 2:30, 2:30]
    assert len(shown) == 5 * 8
    for row in range(5):
        (first, *_), *maps = shown[8 * row : 8 * row + 8]
        layer = small_model.get_layer(f"conv{row + 1}")
        values = np.array(nb.keras.Model(small_model.inputs[0], layer.output)(crop[None]))[0]
        values = np.maximum(values, 0)
        assert (first == crop).all()
        assert maps[3][1] == "{}: {} x {}".format(layer.name, *values.shape)
        for (image, *_), channel in zip(maps, np.argsort(-values.max(axis=(0, 1)))):
            np.testing.assert_allclose(image, values[..., channel], rtol=1e-3, atol=1e-3)


def test_neighbors_and_their_frames(nb, run_cell, small_model, drawn, images, labels, capsys):
    """Each query is among the images that are searched: the nearest is itself."""
    order = np.random.default_rng(0).permutation(300)
    sets = {"x_val": images, "y_val": labels, "x_test": images[order]}
    names = run_cell("find-neighbors", y_test=labels[order], trained=small_model, **sets)
    printed = capsys.readouterr().out
    for name, nearest in names["nearest"].items():
        assert (nearest[:, 0] == order).all()
        share = np.mean(labels[nearest] == labels[order][:, None])
        assert f"by {name}: {share:.1%}\n" in printed
    run_cell("show-neighbors", **names)
    known = {image.tobytes(): label for image, label in zip(images, labels)}
    for n, (image, title, frame) in enumerate(tiles(drawn[0])):
        if n % 6 == 0:
            label = known[image.tobytes()]
            assert title == f"{nb.class_names[label]},\nby {('pixels', 'network')[n // 6 % 2]}"
        else:
            same = known[image.tobytes()] == label
            assert (title, frame) == (("✓", to_hex("C0")) if same else ("✗", to_hex("C1")))


def test_own_image_has_its_three_classes(nb, run_cell, small_model, drawn, tmp_path):
    Image.new("RGB", (64, 64), (10, 200, 30)).save(tmp_path / "mine.png")
    run_cell("own-image", MY_IMAGE=str(tmp_path / "mine.png"), trained=small_model)
    ((image, title, _),) = tiles(drawn[0])
    assert (image == (10, 200, 30)).all()
    (p,) = nb.predict_ten_crops(small_model, image[None])
    best = sorted(zip(p, nb.class_names), reverse=True)[:3]
    assert title == "\n".join(["mine.png", *(f"{name} {share:.0%}" for share, name in best)])
