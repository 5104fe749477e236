"""Metrics: known values, best and worst values, and coverage of the intervals."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from prsr.evaluation.metrics import (
    MS_SSIM_SCALES,
    PSNR_CEILING,
    confidence_interval,
    describe_metrics,
    diversity,
    mean_squared_error,
    ms_ssim,
    ms_ssim_scales,
    psnr,
    ssim,
    to_unit_range,
)


def random_images(n=4, side=32, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def flat(*values, side=32):
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, side, side).contiguous()


def test_levels_are_spread_from_black_to_white():
    assert to_unit_range(torch.tensor([0, 3, 7], dtype=torch.uint8), 8).tolist() == pytest.approx(
        [0, 3 / 7, 1]
    )


def test_psnr_and_squared_error_of_known_differences():
    one, other = flat(0.5, 0.5, 0.2), flat(0.6, 0.49, 0.7)
    errors = [0.01, 0.0001, 0.25]
    assert mean_squared_error(one, other).tolist() == pytest.approx(errors, rel=1e-4)
    expected = [20.0, 40.0, -10 * math.log10(0.25)]
    assert psnr(one, other).tolist() == pytest.approx(expected, rel=1e-4)


def test_psnr_of_equal_images_is_that_of_rounding_noise():
    rounding = 10 * math.log10(255**2 * 12)
    assert pytest.approx(rounding, abs=0.01) == PSNR_CEILING
    assert psnr(random_images(), random_images()).tolist() == [pytest.approx(PSNR_CEILING)] * 4


def test_metrics_of_an_image_do_not_depend_on_the_batch():
    truth, others = random_images(), random_images(seed=1)
    mixed = torch.cat([truth[:2], others[2:]])
    for metric in (psnr, ssim, ms_ssim, mean_squared_error):
        values = metric(mixed, truth)
        assert values.shape == (4,)
        for i in range(4):
            alone = metric(mixed[i : i + 1], truth[i : i + 1])
            assert values[i].item() == pytest.approx(alone.item(), abs=1e-5)


@pytest.mark.parametrize("metric", [ssim, ms_ssim])
def test_similarity_is_one_for_equal_images_and_small_for_unrelated_ones(metric):
    truth = random_images()
    assert metric(truth, truth).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert (metric(random_images(seed=1), truth) < 0.2).all()
    noisy = (truth + 0.05 * random_images(seed=2)).clamp(0, 1)
    noisier = (truth + 0.5 * random_images(seed=2)).clamp(0, 1)
    assert (metric(noisier, truth) < metric(noisy, truth)).all()


def test_similarity_of_flat_images_is_the_luminance_term():
    a, b, c1 = 0.3, 0.6, 0.01**2
    luminance = (2 * a * b + c1) / (a**2 + b**2 + c1)
    one, other = flat(a).double(), flat(b).double()
    assert ssim(one, other).item() == pytest.approx(luminance, abs=1e-6)
    last = MS_SSIM_SCALES[2] / sum(MS_SSIM_SCALES)
    assert ms_ssim(one, other).item() == pytest.approx(luminance**last, abs=1e-6)


def test_ssim_is_its_formula_with_a_window_of_eleven():
    # An image of the window's size, padded by reflection: one value in the middle by hand.
    one, other = random_images(1, 11, seed=3)[:, :1], random_images(1, 11, seed=4)[:, :1]
    places = torch.arange(-5, 6).double()
    g = torch.exp(-(places**2) / (2 * 1.5**2))
    window = g.outer(g) / g.sum() ** 2

    def padded(x):
        return torch.nn.functional.pad(x, (5, 5, 5, 5), mode="reflect").double()

    def mean(x):
        return torch.nn.functional.conv2d(x, window[None, None])

    x, y = padded(one), padded(other)
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(one, other).item() == pytest.approx(values.mean().item(), abs=1e-4)


@pytest.mark.parametrize(
    ("side", "scales"), [(7, 1), (8, 2), (16, 2), (27, 2), (28, 3), (32, 3), (256, 3)]
)
def test_ms_ssim_uses_as_many_scales_as_fit(side, scales):
    weights = ms_ssim_scales(side, side + 5)
    assert len(weights) == scales
    assert sum(weights) == pytest.approx(1)
    ratios = {round(w / usual, 6) for w, usual in zip(weights, MS_SSIM_SCALES, strict=False)}
    assert len(ratios) == 1
    truth = random_images(2, side)
    assert ms_ssim(truth, truth).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert ", ".join(f"{w:.3f}" for w in weights) in describe_metrics(side, side)["MS-SSIM"]


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match=r"at least 7 pixels high and wide.*6×32"):
        ms_ssim_scales(6, 32)


def test_diversity_is_zero_for_equal_samples_and_a_mean_over_pairs_otherwise():
    one, other, third = (random_images(2, seed=seed) for seed in range(3))
    assert diversity(torch.stack([one, one, one], dim=1)).tolist() == pytest.approx(
        [0, 0], abs=1e-5
    )
    mixed = diversity(torch.stack([one, other, third], dim=1))
    pairs = [ms_ssim(a, b) for a, b in ((one, other), (one, third), (other, third))]
    assert torch.allclose(mixed, 1 - torch.stack(pairs).mean(dim=0), atol=1e-6)
    assert (mixed > 0.5).all()
    with pytest.raises(ValueError, match="at least two samples"):
        diversity(one[:, None])


def test_an_interval_of_many_values_is_the_normal_approximation():
    values = torch.from_numpy(np.random.default_rng(0).normal(3.0, 2.0, 4000))
    found = confidence_interval(values)
    half = 1.96 * values.std().item() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean().item())
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)
    assert confidence_interval(values) == found


def test_intervals_have_their_nominal_coverage():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        found = confidence_interval(torch.from_numpy(rng.exponential(1.0, 80)), level=0.8)
        covered += found.low <= 1.0 <= found.high
    assert 38 <= covered <= 56  # 48 expected, ± 2.6 σ


def test_intervals_use_the_stated_number_of_resamplings(monkeypatch):
    values = torch.from_numpy(np.random.default_rng(2).normal(size=50))
    assert describe_metrics(32, 32)["intervals"].endswith(", 2,000 resamplings")
    usual = confidence_interval(values)
    monkeypatch.setattr("prsr.evaluation.metrics.RESAMPLINGS", 10)
    assert describe_metrics(32, 32)["intervals"].endswith(", 10 resamplings")
    assert confidence_interval(values) != usual


def test_an_interval_of_equal_values_is_a_point():
    found = confidence_interval(torch.full((5,), 0.25))
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="at least two images, got 1"):
        confidence_interval(torch.ones(1))


@pytest.mark.parametrize("missing", ["torchmetrics", "scipy"])
def test_a_missing_extra_is_reported_in_one_line(missing):
    code = f"import sys; sys.modules['{missing}'] = None; sys.argv = ['prsr', 'evaluate', "
    code += "'--data', 'x.npy']; from prsr.cli.main import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "pip install 'prsr[evaluate]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
