"""Plots and figures: their contents, and files in the format of the suffix."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from prsr import PRSRConfig, Sampler
from prsr.evaluation.plots import (
    ANIMATION_FORMATS,
    DPI,
    FORMATS,
    check_plot_path,
    curves_figure,
    growth_animation,
    image_grid,
    methods_figure,
    samples_figure,
    save_animation,
    save_figure,
    smooth_curve,
    temperatures_figure,
)
from prsr.models.baselines import Independent
from prsr.sampling.interpolation import Bicubic
from prsr.sampling.method_for import method_for

CONFIG = dataclasses.replace(PRSRConfig.preset("tiny"), levels=256)


@pytest.fixture
def pairs(make_images):
    return make_images(CONFIG, 2, 3, 3), make_images(CONFIG, 2, 6, 6)


@pytest.fixture
def model(make_model):
    return make_model(config=CONFIG)


def laid_out(figure):
    """The rows of images in a grid, each ``uint8 [H, W, 3]``, and the headings."""
    places = figure.axes
    columns = places[0].get_gridspec().ncols
    shown = [np.asarray(place.images[0].get_array()) for place in places]
    headings = [place.get_title() for place in places[:columns]]
    return [shown[i : i + columns] for i in range(0, len(shown), columns)], headings


def as_shown(pixels):
    return pixels.permute(1, 2, 0).numpy()


def assert_shows(figure, expected, headings):
    rows, found = laid_out(figure)
    assert found == headings
    assert len(rows) == len(expected)
    for row, images in zip(rows, expected, strict=True):
        for shown, pixels in zip(row, images, strict=True):
            assert np.array_equal(shown, as_shown(pixels))


def test_the_methods_figure_has_columns_from_input_to_truth(pairs, model):
    lr, hr = pairs
    independent = method_for(Independent(CONFIG))
    methods = {
        "bicubic": Bicubic(CONFIG),
        "independent": independent,
        "recursive": method_for(model),
    }
    bicubic, drawn, ours = (method.sample(lr, 0.7, seed=1) for method in methods.values())
    likeliest = independent.sample(lr, 0.0)
    assert_shows(
        methods_figure(methods, lr, hr, 0.7, seed=1),
        list(zip(lr, bicubic, drawn, likeliest, ours, hr, strict=True)),
        ["input", "bicubic", "independent", "independent,\nargmax", "recursive", "truth"],
    )


def test_the_temperatures_figure_uses_the_same_noise(pairs, model):
    lr, hr = pairs
    half, zero = (method_for(model).sample(lr, t, seed=2) for t in (0.5, 0.0))
    assert_shows(
        temperatures_figure(method_for(model), lr, hr, (0.5, 0.0), seed=2),
        list(zip(lr, half, zero, hr, strict=True)),
        ["input", "T = 0.5\nτ = 2", "T = 0\nτ = ∞", "truth"],
    )


def test_the_samples_figure_has_one_row_per_input(pairs, model):
    lr, hr = pairs
    drawn = method_for(model).sample(lr, seed=3, num_samples=3)
    assert_shows(
        samples_figure(method_for(model), lr, hr, 3, 1.0, seed=3),
        [[lr[i], *drawn[i], hr[i]] for i in range(2)],
        ["input", "", "", "", "truth"],
    )


def test_grey_images_are_black_to_white():
    config = dataclasses.replace(PRSRConfig.preset("digits"), levels=16)
    figure = image_grid([[torch.tensor([[[0, 15]]], dtype=torch.uint8)]], ["digit"], config)
    image = figure.axes[0].images[0]
    assert np.asarray(image.get_array()).tolist() == [[0, 255]]
    assert image.get_clim() == (0, 255)
    assert image.get_cmap().name == "gray"


def test_the_animation_adds_a_row_per_frame_and_holds_the_last(pairs, model, tmp_path):
    lr, _ = pairs
    animation = growth_animation(Sampler(model), lr, 1.0, seed=4)
    drawn = Sampler(model).sample(lr, seed=4)
    frames = list(animation.new_frame_seq())
    assert len(frames) == 6 + 3
    for y, frame in enumerate(frames):
        for image, pixels in zip(frame, drawn, strict=True):
            shown = np.asarray(image.get_array())
            assert np.array_equal(shown[: y + 1], as_shown(pixels)[: y + 1])
            assert not shown[y + 1 :].any()
    for name, kind in (("growth.gif", "GIF"), ("growth.webp", "WEBP")):
        save_animation(animation, tmp_path / name)
        with Image.open(tmp_path / name) as written:
            assert written.format == kind
            assert written.n_frames >= 6  # Pillow merges equal frames
            assert written.info["loop"] == 0
            expected = frames[0][0].figure.get_size_inches() * DPI
            assert written.size == tuple(expected.astype(int))
            written.load()
            assert written.info["duration"] == 500  # nine frames in about four seconds
            first = np.asarray(written.convert("RGB"), np.int16)
            written.seek(written.n_frames - 1)
            last = np.asarray(written.convert("RGB"), np.int16)
            assert (np.abs(last - first).max(axis=2) > 64).mean() > 0.01  # the rows below the first
    with pytest.raises(ValueError, match="must end in one of gif, webp"):
        save_animation(animation, tmp_path / "growth.png")


def test_a_figure_is_written_in_the_format_of_its_suffix(pairs, model, tmp_path):
    lr, hr = pairs
    figure = samples_figure(method_for(model), lr, hr, 1, 1.0, seed=0)
    for name, start in (("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml")):
        save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"a\.txt: the name must end in one of .*png"):
        save_figure(figure, tmp_path / "a.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.svg"]


@pytest.fixture
def write_run(tmp_path):
    """A function that writes the folder of a run with four steps and one validation."""

    def write(name, **validation):
        with SummaryWriter(str(tmp_path / name)) as writer:
            for step in range(1, 5):
                writer.add_scalar("training/loss", 8.0 / step, step)
            for metric, value in validation.items():
                writer.add_scalar(f"validation/{metric}", value, 4)
        return tmp_path / name

    return write


UNRECOGNISED = {"pgf", "raw", "rgba", "svgz"}


@pytest.mark.parametrize("suffix", sorted(FORMATS - {"pgf"}))  # which needs LaTeX
def test_prsr_recognises_its_own_figures(pairs, suffix, tmp_path):
    path = tmp_path / f"figure.{suffix}"
    for _ in range(2):
        save_figure(image_grid([[pairs[0][0]]], [""], CONFIG), path)
    if suffix in UNRECOGNISED:
        with pytest.raises(FileExistsError, match=rf"cannot recognise \.{suffix} files"):
            check_plot_path(path, FORMATS, overwrite=False)
    else:
        check_plot_path(path, FORMATS, overwrite=False)
        Figure().savefig(path)  # as another program does
        with pytest.raises(FileExistsError, match="was not written by prsr"):
            check_plot_path(path, FORMATS, overwrite=False)


@pytest.mark.parametrize("suffix", sorted(ANIMATION_FORMATS))
def test_prsr_recognises_its_own_animations(pairs, model, suffix, tmp_path):
    path = tmp_path / f"growth.{suffix}"
    save_animation(growth_animation(Sampler(model), pairs[0], 1.0, seed=0), path)
    check_plot_path(path, ANIMATION_FORMATS, overwrite=False)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
    Image.new("L", (4, 4)).save(path)
    with pytest.raises(FileExistsError, match="was not written by prsr"):
        check_plot_path(path, ANIMATION_FORMATS, overwrite=False)


def test_curves_are_read_from_the_event_files(write_run):
    runs = [write_run(name, **{"bits/dim": 2.5}) for name in ("one", "two")]
    left, right = curves_figure(runs).axes
    assert [line.get_label() for line in left.lines] == ["one", "two"]
    assert left.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert left.lines[0].get_ydata().tolist() == pytest.approx([8, 4, 8 / 3, 2])
    assert [line.get_label() for line in right.lines] == ["one: bits/dim", "two: bits/dim"]
    assert list(right.lines[0].get_ydata()) == [2.5]


def test_bits_and_squared_errors_have_separate_axes(write_run):
    whole = write_run("whole", **{"bits/dim": 2.5, "bits/dim, prior alone": 3.5})
    l2 = write_run("l2", **{"mean squared error": 0.01})
    figure = curves_figure([whole, l2, write_run("prior", **{"bits/dim": 4.0})])
    assert [[line.get_label() for line in place.lines] for place in figure.axes] == [
        ["whole", "prior"],
        ["whole: bits/dim", "whole: bits/dim, prior alone", "prior: bits/dim"],
        ["l2"],
        ["l2: mean squared error"],
    ]
    assert [place.get_yscale() for place in figure.axes] == ["linear", "linear", "log", "log"]
    assert [place.get_ylabel().splitlines()[0] for place in figure.axes] == [
        "training loss, nats",
        "validation, bits/dim",
        "training loss, mean squared error",
        "validation, mean squared error",
    ]


def test_long_curves_are_averaged_over_adjacent_steps():
    steps, values = smooth_curve(range(1000), [step % 5 for step in range(1000)])
    assert len(steps) == 200
    assert steps[:2].tolist() == [2, 7]
    assert values.tolist() == [2.0] * 200


def test_a_folder_without_a_run_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="no event files of a training run"):
            curves_figure([folder])


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
@pytest.mark.parametrize("name", ["samples", "growth"])
def test_figures_need_no_backend(models, data, tmp_path, backend, name):
    out = tmp_path / f"figure.{'png' if name == 'samples' else 'gif'}"
    options = ["--data", data, "--model", models["recursive"], "--images", "1", "--out", out]
    call = [sys.executable, "-m", "prsr", "figure", name, *map(str, options)]
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.stat().st_size > 0


def test_metrics_need_no_backend():
    environment = {**os.environ, "MPLBACKEND": "nonsense"}
    script = "import os, prsr.evaluation.metrics; assert os.environ['MPLBACKEND'] == 'nonsense'"
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_a_figure_of_another_program_is_replaced_only_with_overwrite(
    command, models, data, tmp_path
):
    own = ("--data", data, "--model", models["recursive"], "--images", 1)
    for suffix in (".png", ".jpg", ".webp", ".pdf"):
        out = tmp_path / f"a{suffix}"
        out.write_bytes(b"another file")
        call = ("figure", "samples", *own, "--samples", 1, "--out", out)
        code, _, errors = command(*call)
        assert code == 2
        assert "already exists and was not written by prsr" in errors
        assert out.read_bytes() == b"another file"
        assert command(*call, "--overwrite")[0] == 0
        assert command(*call)[0] == 0


@pytest.mark.parametrize("suffix", ["webp", "jpg", "png"])
def test_a_figure_fits_the_size_limit_of_its_format(tmp_path, suffix):
    from prsr.evaluation.plots import LONGEST_SIDE, LONGEST_SIDES, empty_figure, save_figure

    path = tmp_path / f"wide.{suffix}"
    save_figure(empty_figure(1, 600), path)
    width, _ = Image.open(path).size
    assert width <= LONGEST_SIDES.get(f".{suffix}", LONGEST_SIDE)
    assert width > 16000


def test_too_many_images_for_a_figure_are_refused_before_the_work(
    command, models, data, tmp_path, monkeypatch
):
    monkeypatch.setattr("prsr.sampling.sampler.Sampler.sample", None)
    own = ("--data", data, "--model", models["recursive"], "--out", tmp_path / "a.png")
    code, _, errors = command("figure", "samples", *own, "--samples", 599)
    assert code == 2
    assert "at most 600 rows and columns, not 4 and 601" in errors
