"""Any call of the API raises TypeError or ValueError or returns a right result.

``PRSR_HOSTILE`` is the number of calls of ``prsr.sample``: 100, or 1,000 in ``make nightly``. Other
functions get a quarter of it each.
"""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import prsr
from prsr import PRSRConfig, Sampler
from prsr.sampling.request import as_tensor
from prsr.testing import cdf_violation, with_rounded_operands

CALLS = int(os.environ.get("PRSR_HOSTILE", "100"))

pytestmark = pytest.mark.filterwarnings("ignore")

hostile = settings(
    max_examples=CALLS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    derandomize=CALLS <= 100,
)

DTYPES = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.uint16, torch.uint32,
]  # fmt: skip

NUMBERS = st.one_of(
    st.integers(-3, 9),
    st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([1e-300, 1e300, 5e-324, 0.0, -0.0, True, False]),
)

ODDITIES = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.just([]),
    st.just({}),
    st.just(object()),
    st.just(1j),
    st.just(np.float32(1)),
    st.just(np.int64(2)),
    st.just(np.array(0.5)),
)


@st.composite
def tensors(draw, shape=None):
    """A tensor of any shape, dtype, strides and device, often close to a valid one."""
    if shape is None or draw(st.integers(0, 3)) == 0:
        shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=6))
    dtype = draw(st.sampled_from(DTYPES)) if draw(st.integers(0, 2)) == 0 else torch.uint8
    values = torch.from_numpy(
        np.random.default_rng(draw(st.integers(0, 9))).integers(0, 8, shape)
    ).to(dtype)
    how = draw(st.integers(0, 8))
    if how == 0 and values.dim() > 1:
        values = values.transpose(0, -1).contiguous().transpose(0, -1)
    elif how == 1:
        values = values[:1].expand(shape) if len(values.shape) and len(values) else values
    elif how == 2 and values.dim():
        values = torch.cat([values, values], -1)[..., ::2]
    elif how == 3:
        values = values.to("meta")
    elif how == 4 and values.is_floating_point():
        values = values.requires_grad_()
    elif how == 5:
        values = values if dtype in (torch.uint16, torch.uint32) else values.to_sparse()
    elif how == 6 and dtype == torch.uint8:
        values = values.masked_fill(values == 7, 255)
    return values


@st.composite
def batches(draw):
    """Valid and invalid batches."""
    how = draw(st.integers(0, 7))
    shape = [draw(st.integers(0, 3)), 3, draw(st.integers(1, 3)), draw(st.integers(1, 3))]
    if how < 4:
        return draw(tensors(shape))
    if how == 4:
        array = np.random.default_rng(0).integers(0, 8, shape)
        kinds = ["uint8", "int64", "float32", ">u2", "bool", "object", "U3", "M8[s]"]
        array = array.astype("uint8").astype(draw(st.sampled_from(kinds)))
        return array[..., ::-1] if draw(st.booleans()) else np.asfortranarray(array)
    if how == 5:
        modes = ["1", "L", "P", "RGB", "RGBA", "I", "F", "I;16", "LAB", "CMYK", "La"]
        size = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        images = [
            Image.new(draw(st.sampled_from(modes)), size) for _ in range(draw(st.integers(0, 2)))
        ]
        return images[0] if len(images) == 1 else images
    return draw(st.one_of(ODDITIES, NUMBERS))


OPTIONS = {
    "seed": st.one_of(NUMBERS, ODDITIES),
    "num_samples": st.one_of(st.integers(-1, 3), NUMBERS, ODDITIES),
    "engine": st.one_of(st.sampled_from(["auto", "cpu", "torch", "reference"]), NUMBERS, ODDITIES),
    "precision": st.one_of(st.sampled_from(["fp32", "bf16"]), NUMBERS, ODDITIES),
    "first_index": st.one_of(NUMBERS, ODDITIES),
    "known": st.one_of(tensors(), tensors([1, 3, 4, 4]), ODDITIES),
    "mask": st.one_of(tensors(), st.just(torch.ones(1, 1, 1, 1, dtype=torch.bool)), ODDITIES),
    "temperature": st.one_of(NUMBERS, ODDITIES, tensors([1])),
    "progress": st.booleans(),
}


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


def test_hostile_calls_of_sample_give_a_right_result_or_a_clear_error(model, tally):
    @hostile
    @given(batch=batches(), options=st.fixed_dictionaries({}, optional=OPTIONS))
    def run(batch, options):
        try:
            drawn = prsr.sample(batch, model=model, **options)
        except (TypeError, ValueError) as error:
            tally[type(error).__name__ if str(error).strip() else "no message"] += 1
            return
        lr = as_tensor(batch, model.config)
        samples = options.get("num_samples")
        lead = [len(lr)] if samples is None else [len(lr), int(samples)]
        assert list(drawn.shape) == [*lead, 3, 2 * lr.shape[2], 2 * lr.shape[3]]
        assert (drawn.dtype, drawn.device) == (torch.uint8, lr.device)
        seed, first = options.get("seed"), options.get("first_index", 0)
        if seed is not None and len(lr) and lr.device.type == "cpu":
            own = drawn if samples is None else drawn[:, 0]
            given = prsr.noise(int(seed), len(lr), *own.shape[2:], 3, first_index=int(first))
            temperature = options.get("temperature", 1.0)
            mask, rounded = options.get("mask"), options.get("precision") == "bf16"
            mask = None if mask is None else mask.broadcast_to(own.shape)
            exact = with_rounded_operands(model) if rounded else model
            worst = cdf_violation(exact, lr, own, given, temperature, mask)
            assert float(worst.max()) <= (0.02 if rounded else 1e-4)
        tally["right result"] += 1

    run()


FIELDS = list(PRSRConfig().to_dict())


def calls(model):
    """Functions of the API, and strategies for their arguments."""
    lr, hr = tensors([2, 3, 2, 2]), tensors([2, 3, 4, 4])
    any_value = st.one_of(NUMBERS, ODDITIES, tensors())
    keys = st.one_of(st.sampled_from(FIELDS), st.none(), st.integers(), st.text(max_size=3))
    numbers = st.dictionaries(keys, any_value, max_size=3).map(
        lambda changes: PRSRConfig().to_dict() | changes
    )
    return {
        "noise": (
            lambda *given: prsr.noise(*given),
            [st.one_of(NUMBERS, ODDITIES), *[st.one_of(st.integers(-1, 4), any_value)] * 4],
        ),
        "model": (lambda *given: model(*given), [lr, hr]),
        "bits_per_dim": (lambda *given: prsr.bits_per_dim(model, *given), [lr, hr]),
        "cdf_violation": (
            lambda *given: cdf_violation(model, *given),
            [lr, hr, tensors([2, 4, 4, 3]), OPTIONS["temperature"]],
        ),
        "configuration": (
            lambda changes: PRSRConfig(**changes),
            [st.dictionaries(st.sampled_from([*FIELDS, "other"]), any_value, max_size=3)],
        ),
        "configuration from a dictionary": (PRSRConfig.from_dict, [st.one_of(numbers, any_value)]),
        "preset": (PRSRConfig.preset, [any_value]),
        "sampler": (lambda value, engine: Sampler(value, engine=engine), [any_value, any_value]),
        "rows": (
            lambda *given: list(Sampler(model).rows(*given)),
            [batches(), OPTIONS["temperature"]],
        ),
        "engines": (lambda *given: prsr.list_engines(None, *given), [any_value, any_value]),
    }


NAMES = [
    "noise", "model", "bits_per_dim", "cdf_violation", "configuration",
    "configuration from a dictionary", "preset", "sampler", "rows", "engines",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_hostile_calls_of_other_functions_give_a_result_or_a_clear_error(model, name, tally):
    function, strategies = calls(model)[name]

    @settings(hostile, max_examples=max(1, CALLS // 4))
    @given(arguments=st.tuples(*strategies))
    def run(arguments):
        try:
            function(*arguments)
        except (TypeError, ValueError) as error:
            tally[type(error).__name__ if str(error).strip() else "no message"] += 1
        else:
            tally["a result"] += 1

    run()
