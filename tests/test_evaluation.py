"""Ten crops, the confusion matrix, pictures of one's own, neighbours, exercises."""

import numpy as np
import pytest
from PIL import Image


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images(nb, images):
    crops = nb.ten_crops(images)
    assert len(crops) == 10 and all(crop.shape == (300, 28, 28, 3) for crop in crops)
    corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    for crop, (y, x) in zip(crops[:5], corners, strict=True):
        assert (crop == images[:, y : y + 28, x : x + 28]).all()
    for crop, mirrored in zip(crops[:5], crops[5:], strict=True):
        assert (mirrored == crop[:, :, ::-1]).all()
    assert (crops[4] == nb.centre_crop(images)).all()


def test_ten_crop_prediction_is_the_mean_of_ten(nb, small_model, images):
    some = images[:20]
    one_by_one = [small_model.predict(crop, verbose=0) for crop in nb.ten_crops(some)]
    together = nb.predict_ten_crops(small_model, some)
    np.testing.assert_allclose(together, np.mean(one_by_one, axis=0), rtol=1e-4, atol=1e-6)


class Oracle:
    """Predicts class 3 for each picture, with a probability of 0.55."""

    def predict(self, images, **options):
        return np.tile(np.eye(10)[3] * 0.5 + 0.05, (len(images), 1))


def test_accuracy_and_its_interval(run_cell, images, labels, capsys):
    """30 of 300 are right: 10%, and 1.96 standard errors are 3.4 points."""
    data = {"model": Oracle(), "x_test": images, "y_test": labels, "is_cifar10": True}
    names = run_cell("evaluate", **run_cell("answer", **data))
    text = capsys.readouterr().out
    assert "centre crop: 10.0%" in text
    assert "ten crops: 10.0% (95% interval 6.6% to 13.4%)" in text
    assert names["predicted"].tolist() == 300 * [3]


def test_confusion_matrix_shows_errors_only_with_the_truth_in_rows(nb, run_cell, labels):
    predicted = labels.copy()
    predicted[labels == 3] = 5  # all cats are taken for dogs
    shown = {}

    def keep(figure, description):
        texts = [text.get_text() for text in figure.axes[0].texts]
        shown["cells"] = np.reshape(texts, (10, 10))
        nb.plt.close(figure)

    run_cell("confusion", y_test=labels, predicted=predicted, show=keep)
    assert (shown["cells"].diagonal() == "").all()
    assert shown["cells"][3, 5] == "30"
    assert sorted(set(shown["cells"].ravel())) == ["", "0", "30"]


def test_nearest_finds_the_nearest(nb):
    library = np.arange(10.0).reshape(-1, 1)
    found = nb.nearest(library, np.array([[2.2], [8.9]]))
    assert found.tolist() == [[2, 3, 1, 4, 0], [9, 8, 7, 6, 5]]


def test_top5_chart_marks_the_truth_and_shows_the_five_best(nb, images):
    probabilities = np.array([[0.0, 0.1, 0.5, 0.2, 0.0, 0.05, 0.15, 0.0, 0.0, 0.0]])
    figure = nb.plot_top5(images[:1], ["cat"], probabilities)
    picture, bars = figure.axes
    assert picture.get_title() == "cat"
    names = [tick.get_text() for tick in bars.get_yticklabels()]
    assert names[::-1] == ["bird", "cat *", "frog", "automobile", "dog"]
    widths = [bar.get_width() for bar in bars.patches]
    assert widths[::-1] == [0.5, 0.2, 0.15, 0.1, 0.05]
    nb.plt.close(figure)


def test_mistakes_are_the_most_confident_wrong_ones(run_cell, nb, images, labels):
    predicted = labels.copy()
    predicted[[10, 100, 200, 250, 290]] = (labels[[10, 100, 200, 250, 290]] + 1) % 10
    confidence = np.linspace(0, 1, 300)
    names = {"y_test": labels, "x_test": images, "predicted": predicted}
    names |= {"confidence": confidence, "probabilities": np.eye(10)[predicted]}
    run = run_cell("mistakes", **names, show=lambda figure, text: nb.plt.close(figure))
    assert run["worst"].tolist() == [290, 250, 200, 100]
    assert run["truths"] == [nb.class_names[labels[i]] for i in (290, 250, 200, 100)]


def write_no_picture(path, kind):
    """Writes a file that is no picture, in one of many ways."""
    if kind == "text":
        path.write_text("not a picture")
    if kind == "folder":
        path.mkdir()
    if kind == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype="uint8")
        Image.fromarray(noise).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:5000])
    if kind == "bomb":
        Image.new("1", (20_000, 20_000)).save(path, "PNG")


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["missing", "text", "folder", "cut", "bomb"])
def test_file_that_is_no_picture(nb, tmp_path, kind):
    path = tmp_path / "picture.png"
    write_no_picture(path, kind)
    with pytest.raises(ValueError, match=r"picture\.png cannot be opened as a picture"):
        nb.load_picture(str(path))


@pytest.mark.fault
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "L", "1"])
def test_picture_of_any_kind_becomes_its_central_square(nb, tmp_path, mode):
    """A wide picture, black but for its central square, which is bright."""
    pixels = np.zeros((50, 150), "uint8")
    pixels[:, 50:100] = 255
    picture = Image.fromarray(pixels).convert("RGB").convert(mode)
    path = tmp_path / ("picture.tiff" if mode == "CMYK" else "picture.png")
    picture.save(path)
    small = nb.load_picture(str(path))
    assert small.shape == (32, 32, 3) and small.dtype == np.uint8
    assert small[2:30, 2:30].min() >= 250


@pytest.mark.fault
def test_photograph_that_was_taken_sideways_is_turned_upright(nb, tmp_path):
    """EXIF orientation 6: the stored pixels have to be turned to the right."""
    pixels = np.zeros((64, 64, 3), "uint8")
    pixels[32:, :32] = (255, 0, 0)  # lower left as stored, upper left as seen
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    small = nb.load_picture(str(tmp_path / "photo.jpg"))
    assert small[8, 8, 0] > 200 and small[24, 8, 0] < 50 and small[8, 24, 0] < 50


def test_own_picture_is_used_where_there_is_one(run_cell, small_model, nb, tmp_path):
    Image.new("RGB", (64, 64), (10, 200, 30)).save(tmp_path / "mine.png")
    options = {"model": small_model, "show": lambda figure, text: nb.plt.close(figure)}
    mine = run_cell("own-picture", MY_PICTURE=str(tmp_path / "mine.png"), **options)
    assert (mine["picture"] == (10, 200, 30)).all()
    flower = run_cell("own-picture", MY_PICTURE="", **options)
    assert flower["picture"].shape == (32, 32, 3) and flower["picture"].std() > 10


def test_answers_are_checked(run_cell, capsys):
    names = ("side", "weights", "loss")
    for answers, said in (((None,) * 3, 0), ((14, 4800, 6.91), 3), ((15, 4864, 2.3), 0)):
        run_cell("check-answers", mine=dict(zip(names, answers)))
        text = capsys.readouterr().out
        assert text.count("right") == said and text.count("not yet") == 3 - said
