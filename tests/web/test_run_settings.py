"""Settings in a link: they are restored exactly, and damaged links are refused."""

from urllib.parse import parse_qsl

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsr import PRSRConfig
from prsr.web.run_settings import (
    KEEP,
    LEFT,
    MOST_SAMPLES,
    NOTHING,
    PAINTED,
    TOP,
    RunSettings,
    from_query,
    pack,
    unpack,
)

CONFIGS = {"faces": PRSRConfig(), "own/größe & co": PRSRConfig()}


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, 32, 32), np.uint8)


def same(one, other):
    for name in ("image", "mask"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        assert a is None or np.array_equal(a, b)
    plain = [n for n in RunSettings.__dataclass_fields__ if n not in ("image", "mask")]
    return all(getattr(one, n) == getattr(other, n) for n in plain)


@given(
    model=st.sampled_from(sorted(CONFIGS)),
    temperature=st.integers(0, 200),
    seed=st.integers(0, 2**53 - 1),
    samples=st.integers(1, MOST_SAMPLES),
    keep=st.sampled_from(KEEP),
    bits=st.integers(1, 2**32 - 1),
)
def test_a_link_preserves_the_settings(model, temperature, seed, samples, keep, bits):
    mask = np.random.default_rng(bits).random((32, 32)) < 0.5
    settings = RunSettings(
        model,
        "cpu",
        "bf16",
        temperature / 100,
        seed,
        samples,
        keep,
        None,
        image(bits),
        mask if keep == PAINTED else None,
    )
    query = settings.to_query()
    assert len(query) < 6000
    assert same(from_query(dict(parse_qsl(query)), CONFIGS), settings)


def test_a_link_to_an_example_is_short():
    settings = RunSettings("faces", example=3)
    assert len(settings.to_query()) < 120
    assert same(from_query(dict(parse_qsl(settings.to_query())), CONFIGS), settings)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "absent"},
        {"temperature": "nan"},
        {"temperature": "-1"},
        {"temperature": "11"},
        {"temperature": "hot"},
        {"seed": "-1"},
        {"seed": str(2**53)},
        {"samples": "0"},
        {"samples": str(MOST_SAMPLES + 1)},
        {"keep": "9"},
        {"keep": "1"},
        {"image": "!!"},
        {"image": pack(bytes(5))},
        {"image": pack(bytes(100_000_000))},
        {"image": pack(image().tobytes())},
        {"example": "1.5"},
        {"example": ""},
    ],
)
def test_damaged_links_are_refused(change):
    query = dict(parse_qsl(RunSettings("faces", example=3).to_query())) | change
    with pytest.raises(ValueError, match=r"link is damaged|not served here"):
        from_query(query, CONFIGS)


def test_a_link_that_lacks_a_parameter_is_refused():
    query = dict(parse_qsl(RunSettings("faces", example=3).to_query()))
    for name in query:
        with pytest.raises(ValueError, match=r"link is damaged|not served here"):
            from_query({k: v for k, v in query.items() if k != name}, CONFIGS)


def test_unpacking_is_limited_in_size():
    bomb = pack(bytes(50_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(ValueError, match="expected 10 bytes"):
        unpack(bomb, 10)


def test_kept_is_the_mask_of_the_chosen_part():
    mask = np.zeros((32, 32), bool)
    mask[3:5] = True
    kept = {keep: RunSettings("faces", image=image(), keep=keep, mask=mask).kept() for keep in KEEP}
    assert kept[NOTHING] is None
    assert kept[TOP][:16].all()
    assert not kept[TOP][16:].any()
    assert kept[LEFT][:, :16].all()
    assert not kept[LEFT][:, 16:].any()
    assert np.array_equal(kept[PAINTED], mask)
    with pytest.raises(ValueError, match="paint"):
        RunSettings("faces", image=image(), keep=PAINTED)
    with pytest.raises(ValueError, match="no original"):
        RunSettings("faces", example=0, keep=TOP)
