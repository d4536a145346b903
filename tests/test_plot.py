"""amstel.plot: what is drawn is what was given, on the axes that were given, and nonsense is refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import amstel
from amstel import plot

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
import matplotlib.pyplot  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

FRAME = torch.randint(256, (48, 64, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture
def axes():
    return Figure().subplots()


def colors(collection):
    return [matplotlib.colors.to_hex(c).upper() for c in collection.get_facecolors()]


def test_matplotlib_waits_for_the_first_plot():
    code = "import sys, amstel.plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_embedding(axes):
    points, labels = torch.rand(5, 2), torch.tensor([0, 1, 1, 9, 0])
    edges = torch.tensor([[0, 1], [1, 4]])
    assert plot.embedding(points, labels, edges, marked=[3]) is not axes
    assert plot.embedding(points, labels, edges, marked=[3], axes=axes) is axes
    lines, *dots = axes.collections
    np.testing.assert_allclose(lines.get_segments(), points.numpy()[edges.numpy().T])
    for label, color in ((0, plot.COLORS[0]), (1, plot.COLORS[1]), (9, plot.COLORS[1])):
        drawn = np.concatenate([d.get_offsets() for d in dots if colors(d)[:1] == [color]])
        for point in points[labels == label].numpy():
            assert (drawn == point).all(1).any()
    large = [d for d in dots if len(d.get_offsets()) and d.get_sizes()[0] > 100]
    np.testing.assert_allclose(large[0].get_offsets(), points[3:4].numpy())


def marks(dots):
    return sorted(
        tuple(p) for d in dots if len(d.get_offsets()) and d.get_sizes()[0] > 100 for p in d.get_offsets()
    )


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list], ids=["tensor", "array", "list"])
def test_a_mask_marks_the_same_points_as_their_numbers(kind, axes, tmp_path):
    points, mask = torch.arange(8.0).view(4, 2), kind([True, False, False, True])
    plot.embedding(points, marked=mask, axes=axes)
    assert marks(axes.collections) == [(0, 1), (6, 7)]
    for by in (mask, kind([3, 0])):
        file = amstel.draw.svg(tmp_path / "a.svg", points[None], torch.tensor([0, 1, 2, 3]), marked=by)
        large = [line for line in file.read_text().splitlines() if 'r="8"' in line]
        assert [line.split('fill="')[1][:7] for line in large] == [plot.COLORS[0], plot.COLORS[3]]
    pictures = [tmp_path / "mask.png", tmp_path / "numbers.png"]
    for path, by in zip(pictures, (mask, [0, 3]), strict=True):
        amstel.draw.raster(path, points[None], torch.tensor([0, 1, 2, 3]), marked=by)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_embedding_legend(axes):
    plot.embedding(torch.rand(3, 2), torch.tensor([0, 2, 2]), names=["a", "b", "c"], axes=axes)
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a", "c"]


def test_attention(axes):
    weights = torch.zeros(6, 8)
    weights[2, 5] = 1
    assert (
        plot.attention(FRAME, weights, box=[40, 16, 48, 24], truth=torch.full((4,), torch.nan), axes=axes)
        is axes
    )
    picture, heat = axes.images
    np.testing.assert_array_equal((picture.get_array() * 255).round(), FRAME)
    assert tuple(heat.get_extent()) == tuple(picture.get_extent()) == (0, 64, 48, 0)
    np.testing.assert_array_equal(heat.get_array(), weights)
    # The cell with all the attention lies under the box that was given: rows 16 to 24, columns 40 to 48.
    (box,) = axes.patches
    assert box.get_bbox().extents.tolist() == [40, 16, 48, 24]


def test_tracks(axes):
    way = torch.tensor([[0.0, 0, 10, 10], [torch.nan] * 4, [20, 10, 10, 20]])
    assert plot.tracks(FRAME, {"SINT": way, "truth": way[2]}, axes=axes) is axes
    np.testing.assert_allclose(axes.lines[0].get_xydata()[[0, 2]], [[5, 5], [25, 20]])
    assert [p.get_bbox().extents.tolist() for p in axes.patches] == [[20, 10, 30, 30]] * 2
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["SINT", "truth"]
    assert axes.get_xlim() == (0, 64) and axes.get_ylim() == (48, 0)


def test_success_and_precision():
    truth = torch.tensor([[10.0, 10, 20, 20]]).repeat(9, 1)
    near, far = (amstel.tracking.evaluate(truth + d, truth) for d in (1, 30))
    for draw, curve, name in (
        (plot.success, "success", "auc"),
        (plot.precision, "precision_curve", "precision"),
    ):
        axes = draw({"far": far, "near": near}, axes=Figure().subplots())
        first, second = axes.lines
        np.testing.assert_allclose(first.get_ydata(), getattr(near, curve))
        np.testing.assert_allclose(second.get_ydata(), getattr(far, curve))
        assert first.get_label() == f"near [{getattr(near, name):.3f}]"
        assert (first.get_color(), second.get_color()) == plot.COLORS[1::-1]


def test_restorations():
    clean = torch.rand(1, 3, 8, 6)
    off = clean + 0.1
    grid = plot.restorations({"off": off, "same": clean}, clean)
    assert grid.shape == (2, 2) and grid[0, 0].get_title() == "off"
    np.testing.assert_allclose(grid[1, 0].images[0].get_array(), 0.1, atol=1e-6)
    assert grid[1, 0].get_xlabel() == "20.00 dB" and grid[1, 1].get_xlabel() == "no error"
    assert len({axes.images[0].get_clim() for axes in grid[1]}) == 1
    mine = Figure().subplots(1, 2)
    pixels = (off.clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert (plot.restorations({"a": pixels, "b": pixels[..., 0]}, axes=mine)[0] == mine).all()


@pytest.mark.parametrize("shape", [(3, 8, 3), (3, 8, 6), (1, 3, 8, 6), (1, 8, 6), (1, 1, 8, 3), (8, 6)])
def test_restorations_of_uint8_tensors_are_channels_first(shape):
    image = torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).byte()
    grid = plot.restorations({"x": image}, image / 255)
    expected = image.numpy().reshape(shape[-3:]) / 255
    expected = expected if expected.ndim == 2 else expected.transpose(1, 2, 0).squeeze()
    np.testing.assert_allclose(grid[0, 0].images[0].get_array(), expected)
    assert abs(grid[1, 0].images[0].get_array()).max() < 1e-7


def test_restorations_take_complex_images():
    image = torch.full((1, 4, 5), 0.6 + 0.8j)
    (axes,) = plot.restorations({"x": image})[0]
    np.testing.assert_allclose(axes.images[0].get_array(), 1, rtol=1e-6)


def test_convergence(axes):
    seeds = torch.tensor([[3.0, 2, 1], [1, 1, 1]], dtype=torch.bfloat16)
    assert plot.convergence({"a": seeds, "b": [4, 2]}, log=True, axes=axes) is axes
    a, b = axes.lines
    np.testing.assert_allclose(a.get_xydata(), [[1, 2], [2, 1.5], [3, 1]])
    np.testing.assert_allclose(b.get_xydata(), [[1, 4], [2, 2]])
    assert axes.get_yscale() == "log" and len(axes.collections) == 1
    assert plot.convergence([1.0, 0.5]).get_legend() is None


def test_convergence_takes_losses_that_require_a_gradient(axes):
    losses = [torch.tensor(3.0, requires_grad=True), torch.tensor(1.0)]
    plot.convergence({"a": losses, "b": [losses, losses[::-1]]}, axes=axes)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [3, 1])
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [2, 2])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: plot.embedding(torch.rand(3, 3)), "points"),
        (lambda: plot.embedding(torch.full((3, 2), torch.nan)), "points"),
        (lambda: plot.embedding(torch.rand(3, 2), torch.rand(3)), "labels"),
        (lambda: plot.embedding(torch.rand(3, 2), torch.tensor([0, 1])), "labels"),
        (lambda: plot.embedding(torch.rand(3, 2), torch.tensor([0, 1, -1])), "labels"),
        (lambda: plot.embedding(torch.rand(3, 2), names=["a"], labels=torch.tensor([0, 1, 1])), "names"),
        (lambda: plot.embedding(torch.rand(3, 2), edges=torch.tensor([[0], [3]])), "edges"),
        (lambda: plot.embedding(torch.rand(3, 2), edges=torch.tensor([[0.0], [1]])), "edges"),
        (lambda: plot.embedding([[0, 1], [0]]), "points"),
        (lambda: plot.embedding(torch.rand(3, 2), marked=[3]), "marked"),
        (lambda: plot.embedding(torch.rand(3, 2), marked=[1.5]), "marked"),
        (lambda: plot.embedding(torch.rand(3, 2), marked=torch.ones(2).bool()), "marked"),
        (lambda: plot.attention(FRAME, torch.rand(3)), "weights"),
        (lambda: plot.attention(FRAME, -torch.ones(2, 2)), "weights"),
        (lambda: plot.attention(FRAME, torch.full((2, 2), torch.nan)), "weights"),
        (lambda: plot.attention(FRAME[..., :2], torch.rand(2, 2)), "frame"),
        (lambda: plot.attention(FRAME, torch.rand(2, 2), box=[1, 2, 3]), "box"),
        (lambda: plot.attention(FRAME, torch.rand(2, 2), alpha=1.5), "alpha"),
        (lambda: plot.tracks(FRAME, {}), "boxes"),
        (lambda: plot.tracks(FRAME, {"a": torch.rand(2, 3)}), "boxes"),
        (lambda: plot.success({}), "evaluations"),
        (lambda: plot.precision({}), "evaluations"),
        (lambda: plot.restorations({}), "images"),
        (lambda: plot.restorations({"a": torch.rand(3, 4, 4)}, torch.rand(3, 4, 5)), "images"),
        (lambda: plot.restorations({"a": torch.rand(2, 4, 4)}), "images"),
        (lambda: plot.restorations({"a": torch.rand(4, 4)}, limit=0), "limit"),
        (lambda: plot.restorations({"a": torch.rand(4, 4)}, axes=Figure().subplots(1, 3)), "axes"),
        (lambda: plot.convergence({}), "curves"),
        (lambda: plot.convergence([]), "curves"),
        (lambda: plot.convergence(["1"]), "curves"),
        (lambda: plot.convergence({"a": [[1, 2], [1]]}), r"curves\['a'\]"),
        (lambda: plot.convergence({"a": torch.ones(2) * 1j}), r"curves\['a'\]"),
        (lambda: plot.convergence(None), "curves"),
        (lambda: plot.confusion([[1, 2], [1]], ["a", "b"]), "matrix"),
        (lambda: plot.confusion(torch.ones(1, 1) * 1j, ["a"]), "matrix"),
        (lambda: plot.embedding(torch.ones(3, 2) * 1j), "points"),
        (lambda: plot.attention(FRAME, torch.ones(2, 2) * 1j), "weights"),
        (lambda: plot.attention(FRAME, torch.ones(2, 2), box=np.ones(4) * 1j), "box"),
    ],
)
def test_errors_name_the_argument(call, name):
    with pytest.raises(ValueError, match=f"^`{name}"):
        call()


def test_names_are_of_classes_and_a_run_of_one_step_is_seen(axes):
    for call, name in (
        (lambda: plot.embedding(torch.rand(1, 2), names=5), "names"),
        (lambda: plot.confusion([[1]], 1), "classes"),
    ):
        with pytest.raises(TypeError, match=f"^`{name}` must be a name for each class"):
            call()
    assert plot.convergence([1.0], axes=axes).lines[-1].get_marker() == "o"
    assert plot.convergence([1.0, 2.0], axes=axes).lines[-1].get_marker() == "None"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda masked: plot.embedding(masked(3, 2)), "points"),
        (lambda masked: plot.embedding([masked(2), masked(2)]), "points"),
        (lambda masked: plot.embedding(torch.rand(3, 2), masked(3)), "labels"),
        (lambda masked: plot.embedding(torch.rand(3, 2), edges=masked(2, 3)), "edges"),
        (lambda masked: plot.embedding(torch.rand(3, 2), marked=masked(2)), "marked"),
        (lambda masked: plot.attention(masked(4, 4), torch.rand(2, 2)), "frame"),
        (lambda masked: plot.attention(FRAME, masked(2, 2)), "weights"),
        (lambda masked: plot.attention(FRAME, torch.rand(2, 2), box=masked(4)), "box"),
        (lambda masked: plot.confusion(masked(2, 2), ["a", "b"]), "matrix"),
        (lambda masked: plot.tracks(FRAME, {"a": [masked(4), torch.ones(4)]}), r"boxes\['a'\]"),
        (lambda masked: plot.restorations({"a": masked(4, 4)}), r"images\['a'\]"),
        (lambda masked: plot.convergence({"a": masked(3)}), r"curves\['a'\]"),
        (lambda masked: plot.convergence([1.0, np.ma.masked]), "curves"),
    ],
)
def test_masked_values_are_refused(call, name):
    def masked(*shape):
        mask = np.arange(np.prod(shape)).reshape(shape) == 0
        return np.ma.masked_array(np.ones(shape, np.int64), mask)

    with pytest.raises(TypeError, match=f"^`{name}` must be an array without masked values"):
        call(masked)


def test_axes_must_be_axes():
    with pytest.raises(TypeError, match=r"^`axes` must be matplotlib axes or None, got 3"):
        plot.convergence([1.0], axes=3)


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


def test_confusion():
    axes = amstel.plot.confusion([[8, 2], [0, 0]], ["walk", "run"])
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.8, 0.2], [0, 0]])
    assert [text.get_text() for text in axes.texts] == ["8", "2", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["walk", "run"]
    many = amstel.plot.confusion(torch.eye(50, dtype=torch.int64), [str(k) for k in range(50)])
    assert not many.texts and not many.get_xticklabels()
    shares = amstel.plot.confusion([[0.3, 0.1], [1234567, 0]], ["a", "b"])
    np.testing.assert_allclose(shares.images[0].get_array(), [[0.75, 0.25], [1, 0]])
    assert [text.get_text() for text in shares.texts] == ["0.3", "0.1", "1234567", "0"]
    for matrix, classes in (([[1, 2]], ["a"]), ([[1, -1], [0, 0]], ["a", "b"]), (np.zeros((0, 0)), [])):
        with pytest.raises(ValueError, match="`matrix` must be"):
            amstel.plot.confusion(matrix, classes)
