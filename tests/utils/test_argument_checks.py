"""A check that converts is used for its result: NumPy's numbers become Python's."""

from __future__ import annotations

import ast
import inspect
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import prsr
from prsr.cli.sample_paths import SampleFilesRequest
from prsr.data.packed_arrays import VERSION, Index
from prsr.study.storage import Settings
from prsr.training.loop import RunPlan
from prsr.training.settings import TrainSettings
from prsr.utils import argument_checks
from prsr.utils.argument_checks import check_number, check_one_temperature, check_temperature
from prsr.web.run_settings import RunSettings

PACKAGE = Path(prsr.__file__).parent

CONVERTING = {
    name
    for name, function in inspect.getmembers(argument_checks, inspect.isfunction)
    if name.startswith("check_") and inspect.signature(function).return_annotation != "None"
}


def test_no_result_of_a_check_is_thrown_away():
    assert {"check_integer", "check_number", "check_mask", "check_temperature"} <= CONVERTING
    thrown_away = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "attr", getattr(node.value.func, "id", "")) in CONVERTING
    ]
    assert thrown_away == []


ONE = np.int64(1)

SETTINGS = {
    "training": TrainSettings(
        prsr.PRSRConfig(),
        batch_size=ONE, learning_rate=np.float32(0.5), halve_every=ONE, clip=np.float64(1),
        seed=np.uint64(1), ema=np.float32(0.5), warmup=ONE, schedule="linear", schedule_steps=ONE,
    ),
    "plan": RunPlan(Path("run"), ONE, ONE, ONE),
    "page": RunSettings("faces", temperature=np.float32(1), seed=ONE, samples=ONE, example=0),
    "files": SampleFilesRequest([], Path("out"), ONE, np.float32(1), np.uint64(1), False, "m"),
    "index": Index(VERSION, [ONE, np.uint8(3), np.int16(4), ONE], ONE, "webp"),
    "study": Settings("Which?", np.int64(1000), ONE, ONE, ONE),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_hold_pythons_numbers(name):
    fields = vars(SETTINGS[name])
    values = [*fields.values(), *fields.get("shape", [])]
    assert not [value for value in values if isinstance(value, np.generic)]


@pytest.mark.parametrize("value", [True, "1", None, 1j, np.bool_(True), torch.tensor(1.0)])
def test_what_is_not_a_number_is_refused_by_name(value):
    with pytest.raises(TypeError, match=r"^rate must be a number, got "):
        check_number(value, "rate")
    with pytest.raises(TypeError, match=r"^temperature must be a number, got "):
        check_one_temperature(value)


def test_a_number_becomes_a_float():
    for value in (1, 0.5, np.float32(0.5), np.int8(3), Fraction(1, 4)):
        for number in check_number(value, "rate"), check_one_temperature(value):
            assert type(number) is float
            assert number == value
    with pytest.raises(ValueError, match=r"^rate must be at most 1.8e308, got a larger number"):
        check_number(10**400, "rate")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-0.1, "temperature must be finite and not negative, got -0.1"),
        (math.nan, "temperature must be finite and not negative, got nan"),
        (math.inf, "temperature must be finite and not negative, got inf"),
        (1e39, r"temperature must be at most 3.4e38, got 1e\+39"),
        (10**400, "temperature must be at most 1.8e308, got a larger number"),
    ],
)
def test_a_temperature_out_of_range_is_refused(value, message):
    for check in check_one_temperature, lambda value: check_temperature(value, 2):
        with pytest.raises(ValueError, match=f"^{message}"):
            check(value)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, 1e39])
def test_a_temperature_out_of_range_in_a_tensor_is_refused(value):
    temperature = torch.tensor([1.0, value], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^temperature must be from 0 to 3.4e38, got tensor\("):
        check_temperature(temperature, 2)
