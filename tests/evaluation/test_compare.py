"""The comparison: metrics, averages over samples, and tables in three formats."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from prsr import PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.compare import ComparisonRow, ComparisonTable, compare, evaluate_method
from prsr.evaluation.metrics import PSNR_CEILING, Interval
from prsr.evaluation.model_metrics import mean_metrics, per_image_metrics
from prsr.evaluation.tables import as_csv, as_json, as_markdown, write_tables
from prsr.models.baselines import Independent, Unconditional
from prsr.sampling.interpolation import Bicubic
from prsr.sampling.method import DeterministicMethod
from prsr.sampling.method_for import method_for
from prsr.testing import random_model

CONFIG = dataclasses.replace(PRSRConfig.preset("tiny"), low_height=4, low_width=5)


@pytest.fixture
def images(make_images):
    return SuperResolutionImages(make_images(CONFIG, 6, 8, 10).numpy(), CONFIG)


class Oracle(DeterministicMethod):
    """Returns the true images, shifted by some levels."""

    def __init__(self, images, shift=0):
        self.config = CONFIG
        lr, hr = images.batch(slice(None))
        self.answers = {low.numpy().tobytes(): high for low, high in zip(lr, hr, strict=True)}
        self.shift = shift

    def enlarge(self, lr):
        return torch.stack([self.answers[low.numpy().tobytes()] for low in lr]) + self.shift


def test_equal_temperatures_give_one_row_and_equal_labels_are_refused(images):
    methods = {"bicubic": Bicubic(CONFIG), "model": method_for(random_model(CONFIG, gain=2.0))}
    rows = compare(methods, images, [1.0, 0.5, 1, 0.0, -0.0]).images
    assert [row.temperature for row in rows] == [None, 1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match=r"1\.0 and 1\.0000001"):
        compare(methods, images, [1.0, 1.0000001])
    with pytest.raises(ValueError, match="names of methods must differ"):
        compare({"a/b": Bicubic(CONFIG), "a-b": Bicubic(CONFIG)}, images, [1.0])


def test_the_true_images_get_the_best_metrics(images):
    found = evaluate_method(Oracle(images), images, None, samples=3, seed=0)
    best = {"pSNR": PSNR_CEILING, "SSIM": 1, "MS-SSIM": 1, "consistency": 0, "diversity": 0}
    assert list(found) == list(best)
    for name, value in best.items():
        assert found[name].tolist() == pytest.approx([value] * 6, abs=1e-5)


def test_consistency_is_the_squared_error_of_the_reduced_image(images):
    pixels = images.pixels // 2  # so that one level more is still valid
    halved = SuperResolutionImages(pixels, CONFIG)
    found = evaluate_method(Oracle(halved, shift=1), halved, None, samples=1, seed=0)
    assert found["consistency"].tolist() == pytest.approx([(1 / 7) ** 2] * 6, rel=0.2)
    assert found["pSNR"].tolist() == pytest.approx([20 * np.log10(7)] * 6, rel=1e-4)
    assert "diversity" not in found


def test_a_metric_of_an_image_is_the_mean_over_its_samples(images, make_model):
    method = method_for(make_model(config=CONFIG))
    both = evaluate_method(method, images, 1.0, samples=2, seed=3)
    lr, hr = images.batch(slice(None))
    drawn = method.sample(lr, seed=3, num_samples=2).float() / 7
    errors = (drawn - hr[:, None].float() / 7).square().flatten(2).mean(dim=2)
    assert torch.allclose(both["pSNR"], (-10 * errors.log10()).mean(dim=1), atol=1e-3)


def test_chunks_do_not_change_the_metrics(images, make_model, monkeypatch):
    method = method_for(make_model(config=CONFIG))
    expected = evaluate_method(method, images, 0.8, samples=2, seed=3)
    monkeypatch.setattr("prsr.evaluation.compare.CHUNK", 4)
    for name, values in evaluate_method(method, images, 0.8, samples=2, seed=3).items():
        assert torch.allclose(values, expected[name], atol=1e-5), name


def test_batches_do_not_change_the_metrics_of_the_model(make_images, make_model, monkeypatch):
    images = SuperResolutionImages(make_images(CONFIG, 8, 8, 10).numpy(), CONFIG)
    model = make_model(config=CONFIG)
    expected = per_image_metrics(model, images)
    monkeypatch.setattr("prsr.evaluation.model_metrics.BATCH", 4)
    for name, values in per_image_metrics(model, images).items():
        assert torch.allclose(values, expected[name], atol=1e-5), name
        assert not torch.allclose(values[:4], values[4:], atol=1e-3)


def test_every_method_is_sampled_at_the_temperatures_that_it_has(images, make_model):
    torch.manual_seed(0)
    models = make_model(config=CONFIG), Independent(CONFIG), Unconditional(CONFIG)
    methods = {model.method: method_for(model) for model in models}
    found = compare({"bicubic": Bicubic(CONFIG), **methods}, images, (1.0, 0.5))
    assert [(row.method, row.temperature) for row in found.images] == [
        ("bicubic", None),
        *(("recursive", t) for t in (1.0, 0.5)),
        *(("independent", t) for t in (1.0, 0.5, 0.0)),
        *(("unconditional", t) for t in (1.0, 0.5)),
    ]
    by_place = {(row.method, row.temperature): row.values for row in found.images}
    assert by_place["independent", 0.0]["diversity"].mean == pytest.approx(0, abs=1e-5)
    assert by_place["independent", 1.0]["diversity"].mean > 0.1
    assert [row.method for row in found.likelihood] == list(methods)
    for row, model in zip(found.likelihood, models, strict=True):
        for name, value in mean_metrics(model, images).items():
            assert row.values[name].mean == pytest.approx(value)
            assert row.values[name].low < value < row.values[name].high
    assert found.parameters["bicubic"] == 0
    assert found.parameters["recursive"] == sum(p.numel() for p in models[0].parameters())


@pytest.fixture
def comparison():
    images = [
        ComparisonRow("bicubic", None, {"pSNR": Interval(20.125, 19.5, 21.0)}),
        ComparisonRow(
            "recursive", 0.5, {"pSNR": Interval(18.0, 17.0, 19.0), "SSIM": Interval(0.5, 0.4, 0.6)}
        ),
        ComparisonRow("recursive", 0.0, {"consistency": Interval(0.00123, 0.001, 0.002)}),
    ]
    likelihood = [
        ComparisonRow("l2", None, {"mean squared error": Interval(0.00812, 0.00795, 0.00831)}),
        ComparisonRow("recursive", None, {"bits/dim": Interval(2.0, 1.5, 2.5)}),
    ]
    return ComparisonTable(images, likelihood, {"bicubic": 0, "l2": 1234, "recursive": 12345})


def test_the_markdown_table_lists_temperature_and_tau(comparison):
    lines = as_markdown(comparison, {"samples": "2"}).splitlines()
    assert lines[0] == "- samples: 2"
    assert lines[2] == "| method | temperature | τ | pSNR (dB) | SSIM | consistency |"
    assert lines[4] == "| bicubic | – | – | 20.12 [19.50, 21.00] |  |  |"
    assert lines[5] == ("| recursive | 0.5 | 2 | 18.00 [17.00, 19.00] | 0.500 [0.400, 0.600] |  |")
    assert lines[6] == "| recursive | 0 | ∞ |  |  | 0.00123 [0.00100, 0.00200] |"
    assert lines[8] == "| method | parameters | mean squared error | bits/dim |"
    assert lines[10] == "| l2 | 1,234 | 0.00812 [0.00795, 0.00831] |  |"
    assert lines[11] == "| recursive | 12,345 |  | 2.000 [1.500, 2.500] |"


def test_csv_and_json_hold_the_same_results(comparison):
    lines = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    content = json.loads(as_json(comparison, {"samples": "2"}))
    results = [
        (row["method"], row["temperature"], row["tau"], name, value["mean"], value["low"])
        for row in content["images"] + content["likelihood"]
        for name, value in row["values"].items()
    ]
    assert len(lines) == len(results) == 6
    for line, result in zip(lines, results, strict=True):
        texts = ["" if value is None else str(value) for value in result]
        assert [line[k] for k in ("method", "temperature", "tau", "metric", "mean", "low")] == texts
    assert lines[1]["tau"] == "2.0"
    assert content["about"] == {"samples": "2"}
    assert content["parameters"]["recursive"] == 12345


def test_writing_tables_leaves_only_the_three_files(comparison, tmp_path):
    written = write_tables(comparison, {}, tmp_path)
    assert sorted(path.name for path in written) == ["table.csv", "table.json", "table.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "table.csv",
        "table.json",
        "table.md",
    ]
