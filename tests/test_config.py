"""The configuration: valid values, errors, and conversion to and from a dictionary."""

from __future__ import annotations

import dataclasses
import json

import pytest

from prsr import PRESETS, PRSRConfig

FIELDS = [field.name for field in dataclasses.fields(PRSRConfig)]
NUMBERS = [name for name in FIELDS if name != "conditional_gates"]
MINIMUM = dict.fromkeys(NUMBERS, 1) | {"levels": 2, "first_kernel": 3, "conditioning_blocks": 0}
MINIMUM |= {"conditional_gates": False}


def test_paper_preset_has_the_values_of_the_paper():
    paper = PRSRConfig.preset("paper")
    assert paper == PRSRConfig()
    assert (paper.channels, paper.levels, paper.scale) == (3, 256, 4)
    assert (paper.low_height, paper.low_width) == (8, 8)
    assert (paper.conditioning_channels, paper.conditioning_blocks) == (32, 6)
    assert (paper.prior_layers, paper.prior_channels, paper.head_channels) == (20, 32, 1024)
    assert (paper.prior_kernel, paper.first_kernel) == (5, 7)
    assert not paper.conditional_gates
    assert PRESETS["paper-64"] == dataclasses.replace(paper, prior_channels=64)
    assert PRESETS["paper-conditional"] == dataclasses.replace(paper, conditional_gates=True)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json(name):
    config = PRSRConfig.preset(name)
    values = config.to_dict()
    assert list(values) == FIELDS
    assert PRSRConfig.from_dict(json.loads(json.dumps(values))) == config


def test_unknown_preset_error_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no preset 'huge'.*paper-64.*digits"):
        PRSRConfig.preset("huge")


@pytest.mark.parametrize("scale", [1, 2, 4, 64])
def test_doublings_are_the_logarithm_of_the_scale(scale):
    assert 2 ** PRSRConfig(scale=scale).doublings == scale


@pytest.mark.parametrize(("kernel", "reach"), [(3, 1), (5, 2), (7, 3)])
def test_reach_is_half_the_kernel(kernel, reach):
    config = PRSRConfig(prior_kernel=kernel, first_kernel=kernel)
    assert (config.reach, config.first_reach) == (reach, reach)


def test_minimum_of_every_field_is_valid():
    assert PRSRConfig(**MINIMUM).to_dict() == MINIMUM


@pytest.mark.parametrize("name", NUMBERS)
def test_value_below_the_minimum_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^{name} "):
        PRSRConfig(**MINIMUM | {name: MINIMUM[name] - 1})


@pytest.mark.parametrize("name", NUMBERS)
def test_value_that_would_exhaust_the_machine_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^{name} "):
        PRSRConfig(**{name: 2**31})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [3.0, "3", None, True, [3]])
def test_non_integer_value_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be an integer"):
        PRSRConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("levels", 257),
        ("scale", 3),
        ("scale", 12),
        ("prior_kernel", 4),
        ("first_kernel", 6),
        ("prior_channels", 2),
        ("head_channels", 2),
    ],
)
def test_impossible_value_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} "):
        PRSRConfig(**{name: value})


def test_error_for_fewer_features_than_channels_names_both():
    with pytest.raises(ValueError, match=r"^prior_channels must be at least channels \(4\), got 3"):
        PRSRConfig(channels=4, prior_channels=3)


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_non_bool_conditional_gates_are_refused(value):
    with pytest.raises(TypeError, match=r"^conditional_gates must be true or false, got"):
        PRSRConfig(conditional_gates=value)


def test_gates_read_all_conditioning_features_or_none():
    assert PRSRConfig(conditioning_channels=5).gate_inputs == 0
    assert PRSRConfig(conditioning_channels=5, conditional_gates=True).gate_inputs == 5


def test_configuration_without_the_field_has_no_conditional_gates():
    values = PRSRConfig.preset("paper").to_dict()
    del values["conditional_gates"]
    assert PRSRConfig.from_dict(values) == PRSRConfig.preset("paper")


@pytest.mark.parametrize("name", NUMBERS)
def test_missing_field_is_refused_by_name(name):
    values = PRSRConfig().to_dict()
    del values[name]
    with pytest.raises(ValueError, match=f"lacks {name}$"):
        PRSRConfig.from_dict(values)


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(ValueError, match=r"unknown fields colour, depth$"):
        PRSRConfig.from_dict(PRSRConfig().to_dict() | {"depth": 3, "colour": 1})


def test_invalid_value_in_a_dictionary_is_refused():
    with pytest.raises(ValueError, match=r"^scale must be a power of two"):
        PRSRConfig.from_dict(PRSRConfig().to_dict() | {"scale": 3})


def test_configuration_is_immutable_and_hashable():
    config = PRSRConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.levels = 2
    assert {config: "paper"}[PRSRConfig()] == "paper"


def test_keys_that_are_no_strings_are_refused_like_other_unknown_fields():
    values = PRSRConfig().to_dict() | {3: 1, "size": 2, None: 0}
    with pytest.raises(ValueError, match="unknown fields 3, None, size"):
        PRSRConfig.from_dict(values)


def test_image_format_is_that_of_models_with_comparable_images():
    """Of all fields, those that the images depend on."""
    tiny = PRESETS["tiny"]
    differ = set()
    for name in NUMBERS:
        value = 4 if name == "scale" else 2 * getattr(tiny, name) + 1
        if dataclasses.replace(tiny, **{name: value}).image_format != tiny.image_format:
            differ.add(name)
    assert differ == {"channels", "levels", "scale", "low_height", "low_width"}
    assert PRSRConfig(scale=2, low_height=3, low_width=5).high_size == (6, 10)
