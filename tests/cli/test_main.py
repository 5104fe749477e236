"""The command line: help, versions, unexpected errors, and both ways to start it."""

import os
import subprocess
import sys

import pytest
import torch

import prsr


def test_prsr_without_arguments_prints_the_help(command):
    code, printed, errors = command()
    assert (code, errors) == (0, "")
    assert printed.count("\n") > 10


def test_an_unexpected_error_is_one_line_too(command, monkeypatch, photos, tmp_path):
    def fail(*args):
        raise LookupError("lost")

    monkeypatch.setattr("prsr.cli.sample.load_model", fail)
    code, _, errors = command("sample", photos, "-o", tmp_path / "out")
    assert code == 2
    assert errors == "prsr: LookupError: lost (PRSR_TRACEBACK=1 shows the traceback)\n"


def test_info_lists_versions_engines_and_models(command):
    code, printed, _ = command("info")
    assert code == 0
    for fact in (prsr.__version__, torch.__version__, "reference", "fp32 only", "faces"):
        assert fact in printed


COMMANDS = ("sample", "demo", "train", "data", "evaluate", "figure", "experiment", "info")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_shows_examples_on_lines_of_their_own(command, name):
    code, printed, _ = command(*([name] if name else []), "--help")
    assert code == 0
    assert "Usage:" in printed
    assert "\\b" not in printed
    examples = [line for line in printed.splitlines() if line.startswith(f"  prsr {name} ")]
    assert bool(examples) == (name in ("sample", "train", "data", "evaluate"))


@pytest.mark.parametrize("name", [None, "data", "figure", "study", "experiment"])
def test_a_group_without_a_command_prints_its_help(name, command):
    named = [name] if name else []
    assert command(*named) == command(*named, "--help")


def test_prsr_runs_as_a_program_and_as_a_module():
    for start in (["prsr"], [sys.executable, "-m", "prsr"]):
        path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        done = subprocess.run(
            [*start, "--version"],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert prsr.__version__ in done.stdout
