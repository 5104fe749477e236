"""The documentation: its Python code runs, and every ``prsr`` command that it shows is accepted."""

import re
import subprocess
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from prsr import PRSRConfig
from prsr.cli.main import app
from prsr.models.baselines import Independent, Regression

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/*/*.md", "prsr/**/*.md")
    for page in ROOT.glob(pattern)
)
SOURCES = ("prsr", "csrc", "kernels", "benchmarks", "tests", "examples", "docs")
RECORD = """
call() { printf '%s\\0' "$@"; printf '\\n\\0'; }
prsr() { call "$@"; }
torchrun() { while [ "$1" != -m ]; do shift; done; [ "$2" = prsr ] && call "${@:3}"; }
python() { [ "$1 $2" = "-m prsr" ] && call "${@:3}"; }
command_not_found_handle() { :; }
"""
"""For bash: ``prsr`` prints its arguments instead of running, and other programs do nothing."""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the documentation's Python code reads, in the current folder."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(pixels[:8, :8]).save("tiny.png")
    Path("data/faces").mkdir(parents=True)
    np.save("data/faces/faces-test.npy", pixels[None, :32, :32].transpose(0, 3, 1, 2))
    compact = PRSRConfig.preset("compact")
    Independent(compact).save_pretrained("runs/independent/model")
    Regression(compact).save_pretrained("runs/l2/model")


def test_pages_are_found():
    assert {"README.md", "RESULTS.md", "docs/concepts.md", "examples/faces/README.md"} <= {*PAGES}


@pytest.mark.parametrize("page", PAGES)
# The notice of a missing C++ engine.
@pytest.mark.filterwarnings("ignore::prsr.utils.terminal_messages.Notice")
def test_python_code_runs(page, files):
    """Run all blocks of a page in order, as one program."""
    for example in Document.parse(str(ROOT / page), PythonCodeBlockParser()):
        example.evaluate()


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_accepted(page, tmp_path):
    for words in commands(ROOT / page, tmp_path):
        accept(app, words)


@pytest.mark.parametrize("page", PAGES)
def test_inline_commands_exist(page):
    """An option in text such as `prsr sample --model` must exist."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for code in re.findall(r"`prsr ([^`]+)`", text):
        command, words = app, code.split()
        while words and isinstance(command, click.Group) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        unknown = {word for word in words if word.startswith("-")} - options - {"-h", "--help"}
        assert command is not app, f"no command prsr {code}"
        assert not unknown, f"prsr {code}: no {unknown}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_in_shell_blocks(page):
    """Indented blocks and blocks of other languages would not be checked."""
    text = re.sub(r"(?ms)^```sh$.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"))
    assert not re.findall(r"(?m)^ {4}.*\bprsr [a-z]+.*|^```(?:bash|console|shell)$", text)


@pytest.mark.parametrize("page", PAGES)
def test_referenced_files_modules_and_targets_exist(page):
    """Check links, paths, file names, modules that `python -m` runs, and make targets."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    paths = re.findall(rf"`((?:{'|'.join(SOURCES)})/[\w./-]*)`", text)
    modules = re.findall(r"python -m ((?:benchmarks|tests)[\w.]*)", text)
    paths += [module.replace(".", "/") + ".py" for module in modules]
    names = {*re.findall(r"`(\w+\.(?:py|h|cpp|cu))`", text)}
    targets = {*re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    files = {file.name for folder in SOURCES for file in (ROOT / folder).rglob("*")}
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert names - files - {"setup.py"} == set()
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_the_figures_of_the_readme_are_those_of_the_benchmarks():
    """They are stated there with machine, date and command."""
    readme, benchmarks = (
        (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/benchmarks.md")
    )
    speed = re.search(r"^## Speed$.*?(?=^## )", readme, re.MULTILINE | re.DOTALL)
    rows = [line.split("|")[1:-1] for line in speed[0].splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 2
    lines = benchmarks.partition("Whole calls of")[2].splitlines()
    for batch, *figures in ([cell.strip() for cell in row] for row in rows):
        (line,) = [line for line in lines if line.startswith(f"| {batch} |")][:1]
        assert all(figure.rstrip("×") in re.findall(r"[\d.,]+", line) for figure in figures)


def commands(page: Path, folder: Path) -> list[list[str]]:
    """The arguments of each ``prsr`` command in a page's shell blocks, as the shell passes them."""
    blocks = Document.parse(str(page), CodeBlockParser("sh", lambda example: None))
    script = RECORD + "\n".join(str(example.parsed) for example in blocks)
    environment = {"PATH": "/nowhere", "HOME": str(folder)}
    run = subprocess.run(
        ["/bin/bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert "syntax error" not in run.stderr, run.stderr
    calls = run.stdout.split("\n\0")[:-1]
    return [call.split("\0")[:-1] for call in calls]


def accept(command: click.Command, words: list[str], name: str = "prsr") -> None:
    """Parse the arguments of a command without running it or looking at files."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group) and words and words[0] in command.commands:
        return accept(command.commands[words[0]], words[1:], f"{name} {words[0]}")
    values, left, _ = command.make_parser(context).parse_args(list(words))
    assert not isinstance(command, click.Group), f"{name}: no command {words}"
    assert not left, f"{name}: {left} is left over"
    for parameter in command.get_params(context):
        value = values.get(parameter.name)
        given = isinstance(value, (str, bool, list, tuple)) and value not in ((), [])
        assert given or not parameter.required, f"{name} {words}: {parameter.name} is required"
        if given:
            parameter.type_cast_value(context, value)


@pytest.mark.parametrize(
    "words",
    [
        "sample photo.png",
        "sample photo.png -o sheet.png --sample 4 --no-such-option",
        "train --data a --out b --steps many",
        "train --data a --out b --steps 1 --preset papers",
        "evaluate --data a left over",
        "data unzip a",
        "no-such-command",
    ],
)
def test_wrong_commands_are_rejected(words):
    with pytest.raises((click.UsageError, AssertionError)):
        accept(app, words.split())


def test_commands_are_found_in_every_form(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nname=a\nfor x in 1 2; do\n    prsr sample $name-$x.png \\\n        -o out  # why\n"
        "done\n```\n\n```sh\ntorchrun --nproc-per-node 8 -m prsr info\n"
        "make demo && python -m prsr demo\n```\n"
    )
    assert commands(page, tmp_path) == [
        ["sample", "a-1.png", "-o", "out"],
        ["sample", "a-2.png", "-o", "out"],
        ["info"],
        ["demo"],
    ]
