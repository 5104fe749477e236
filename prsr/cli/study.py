"""The commands of the human study: ``prsr study new`` and ``prsr study report``."""

from __future__ import annotations

from pathlib import Path

import click

from prsr.cli.options import (
    PATH,
    out_option,
    overwrite_option,
    print_line,
    run_and_report,
    seed_option,
)
from prsr.study.storage import Settings, Study, create_study, study_path
from prsr.study.study_images import read_inputs
from prsr.utils.files import check_folder, replacing

ANSWERS, PLOT = "answers.csv", "fooled.png"

studies_option = click.option(
    "--studies", default="studies", type=PATH, help="The folder of the studies, a file each."
)


@click.group("study")
def study() -> None:
    """Ask people which of two images is a photograph: the paper's human study."""


@study.command("new")
@click.argument("name")
@click.option("--real", required=True, type=PATH, help="A folder of photographs.")
@click.option(
    "--method",
    "methods",
    required=True,
    multiple=True,
    help="NAME=FOLDER: images that a method generated from the reduced photographs, under the "
    "same file names. Give it once for each method.",
)
@click.option("--question", default="Which one is a photograph?", help="Shown with each pair.")
@click.option(
    "--exposure", default=1000, help="Milliseconds for which a pair is visible, 50 to 60000."
)
@click.option("--per-method", default=20, help="Pairs of each method that a rater sees.")
@click.option(
    "--catch", default=8, help="Catch trials that a rater sees: bicubic against the photograph."
)
@click.option("--scale", default=4, help="By which the methods enlarged.")
@seed_option("Seed of order and sides.", 2**63)
@studies_option
def new(
    name: str,
    real: Path,
    methods: tuple[str, ...],
    question: str,
    exposure: int,
    per_method: int,
    catch: int,
    scale: int,
    seed: int,
    studies: Path,
) -> None:
    """Make the study NAME from folders of images; `prsr web` serves it.

    `prsr evaluate --save-images FOLDER` writes such folders. The study is one file,
    STUDIES/NAME.sqlite, which holds copies of the images and later the answers.

    \b
    prsr evaluate --data faces-test.npy --save-images images/
    prsr study new faces --real images/real --method "prsr=images/recursive, temperature 1"
    """  # noqa: D301  (\b is click's mark for a block that is not rewrapped)
    path = study_path(studies, name)
    check_folder(studies)
    if path.exists():
        raise FileExistsError(f"{path} exists already: choose another name or remove it")
    settings = Settings(question, exposure, per_method, catch, seed)
    folders = parse_methods(methods)

    def work() -> list[Path]:
        inputs = read_inputs(real, folders, scale)
        studies.mkdir(parents=True, exist_ok=True)
        create_study(path, settings, list(folders), inputs)
        return [path]

    run_and_report(work, "study")


@study.command("report")
@click.argument("name")
@studies_option
@out_option("study-report", f"Folder for table.json, table.csv, table.md, {PLOT} and {ANSWERS}.")
@overwrite_option
def report(name: str, studies: Path, out: Path, overwrite: bool) -> None:
    """The share of answers in which people were fooled, for each method, with 95% intervals.

    Raters who fail the catch trials are excluded. The tables have the format of those of
    `prsr evaluate`.
    """
    from prsr.evaluation.plots import check_plot_path, save_figure
    from prsr.evaluation.tables import FILE_NAMES, as_markdown, check_tables, write_tables
    from prsr.study.report import as_csv, make_report, plot_report

    found = Study(studies, name)
    check_tables(out, overwrite)
    if out.is_dir():
        check_plot_path(out / PLOT, ["png"], overwrite=overwrite)
        if (out / ANSWERS).exists() and not (overwrite or (out / FILE_NAMES[0]).exists()):
            raise FileExistsError(f"{out / ANSWERS} exists already: --overwrite replaces it")
    answers = found.answers()
    comparison, about = make_report(
        answers, found.methods, found.count_raters(), found.settings.catch > 0
    )
    about = {"study": found.name, "question": found.settings.question, **about}
    click.echo(as_markdown(comparison, about))

    def work() -> list[Path]:
        out.mkdir(parents=True, exist_ok=True)
        written = write_tables(comparison, about, out)
        save_figure(plot_report(comparison), out / PLOT)
        with replacing(out / ANSWERS) as temporary:
            temporary.write_text(as_csv(answers), encoding="utf-8")
        return [*written, out / PLOT, out / ANSWERS]

    run_and_report(work, "report")
    print_line(f"{len(answers)} answers")


def parse_methods(given: tuple[str, ...]) -> dict[str, Path]:
    """Folders by name, from NAME=FOLDER.

    Raises:
        click.BadParameter: one is not of this form, or a name is given twice.
    """
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name.strip() and equals and folder) or not name.isprintable() or len(name) > 100:
            raise click.BadParameter(f"--method must be NAME=FOLDER, got {text!r}")
        if name in folders:
            raise click.BadParameter(f"--method {name} is given twice")
        folders[name] = Path(folder)
    return folders
