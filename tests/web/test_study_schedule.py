"""The schedule of a study is balanced, random and reproducible."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsr.study.schedule import Schedule


@given(
    methods=st.integers(1, 4),
    per_method=st.integers(1, 7),
    catch=st.integers(0, 5),
    spare=st.integers(0, 9),
    seed=st.integers(0, 2**63 - 1),
    rater=st.integers(0, 1000),
)
def test_each_rater_sees_methods_and_sides_equally_often(
    methods, per_method, catch, spare, seed, rater
):
    schedule = Schedule(methods * per_method + catch + spare, methods, per_method, catch, seed)
    pairs = schedule.pairs(rater)
    assert len(pairs) == schedule.length
    assert len({pair.input for pair in pairs}) == len(pairs)
    seen = Counter(pair.method for pair in pairs)
    assert seen[None] == catch
    assert all(seen[method] == per_method for method in range(methods))
    for method, count in seen.items():
        left = sum(pair.real_on_left for pair in pairs if pair.method == method)
        assert left in (count // 2, -(-count // 2))
    assert schedule.pairs(rater) == pairs


@given(
    methods=st.integers(1, 3),
    per_method=st.integers(1, 5),
    catch=st.integers(0, 4),
    spare=st.integers(0, 20),
    multiple=st.integers(1, 3),
)
def test_inputs_share_methods_and_catch_trials_equally(methods, per_method, catch, spare, multiple):
    inputs = multiple * (methods * per_method + catch) + spare
    schedule = Schedule(inputs, methods, per_method, catch, seed=1)
    met = Counter((p.input, p.method) for rater in range(inputs) for p in schedule.pairs(rater))
    for number in range(inputs):
        assert all(met[number, method] == per_method for method in range(methods))
        assert met[number, None] == catch


@pytest.mark.parametrize("catch", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("methods", [1, 2, 3])
def test_few_raters_suffice_for_every_pair_of_input_and_method(methods, catch):
    per_method = 5
    length = methods * per_method + catch
    for inputs in [*range(length, length + 12), 2 * length - 1, 2 * length, 2 * length + 1]:
        schedule = Schedule(inputs, methods, per_method, catch, seed=1)
        raters = -(-3 * inputs // per_method)  # each pair is expected three times
        met = Counter((p.input, p.method) for rater in range(raters) for p in schedule.pairs(rater))
        counts = [met[number, method] for number in range(inputs) for method in range(methods)]
        assert min(counts) >= 2
        assert max(counts) <= 5


def test_order_and_sides_are_random():
    schedule = Schedule(20, 2, 10, 0, seed=1)
    pairs = [schedule.pairs(rater) for rater in range(400)]
    for place in range(20):  # 400 raters: five standard deviations are 50
        assert 150 < sum(trials[place].method == 0 for trials in pairs) < 250
        assert 150 < sum(trials[place].real_on_left for trials in pairs) < 250
    assert Schedule(20, 2, 10, 0, seed=2).pairs(0) != pairs[0]


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ((9, 2, 4, 2), "need 10 inputs"),
        ((9, 0, 4, 2), "methods"),
        ((9, 1, 0, 2), "per_method"),
        ((9, 1, 1, -1), "catch"),
    ],
)
def test_invalid_numbers_are_refused(numbers, match):
    with pytest.raises(ValueError, match=match):
        Schedule(*numbers, seed=0)
