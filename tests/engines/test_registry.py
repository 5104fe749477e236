"""A missing engine gives one warning, with reason and remedy."""

import re
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

from prsr import PRSR, PRSRConfig, Sampler
from prsr.engines import native
from prsr.engines.registry import tell_absence
from prsr.utils.terminal_messages import Notice

TINY = PRSRConfig.preset("tiny")


@pytest.fixture
def absent(monkeypatch):
    """Pretend that the C++ extension was not built."""
    monkeypatch.setattr(native, "extension", None)
    monkeypatch.setattr(native, "absence", "it was not built: apt install g++")
    tell_absence.cache_clear()
    yield
    tell_absence.cache_clear()


def test_a_missing_engine_gives_one_warning_before_the_work(absent):
    with pytest.warns(
        Notice, match="engine cpu cannot be used; using .* instead. cpu: it was not built"
    ):
        sampler = Sampler(PRSR(TINY))
    assert sampler.engine != "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler.sample(np.zeros((1, 3, 2, 2), np.uint8), seed=0)
        Sampler(PRSR(TINY))


def test_an_explicitly_chosen_engine_gives_no_warning(absent):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sampler(PRSR(TINY), engine="torch")


def test_missing_engines_of_other_devices_give_no_warning():
    tell_absence.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Sampler(PRSR(TINY)).engine == "cpu"


def test_an_extension_built_from_other_sources_is_not_used():
    assert native.built_from_other_sources(native.extension) == ""
    reason = native.built_from_other_sources(types.ModuleType("prsr._native"))
    assert "ConditioningConfig" in reason
    assert "install prsr again" in reason


def test_the_list_of_required_extension_names_is_complete():
    used = set()
    for source in Path(native.__file__).parent.glob("*.py"):
        if "native" in source.read_text():
            used |= set(re.findall(r"(?<![\w.])extension\.(\w+)\b", source.read_text()))
    assert used == native.USED


def test_the_command_line_reports_a_missing_engine_in_one_line(
    absent, command, model, photos, tmp_path
):
    code, _, errors = command(
        "sample", photos / "a.png", "-o", tmp_path / "a.png", "--model", model
    )
    assert code == 0
    assert errors.startswith("prsr: sampling will be many times slower: engine cpu cannot be used")
    assert errors.count("\n") == 1
