"""The command line ``prsr``: its commands, exit codes and error messages.

Exit codes: 0, success; 1, some inputs were skipped; 2, an error, reported in one line on standard
error; 130, interrupted by Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys

import click

from prsr.cli.data import data as data_group
from prsr.cli.evaluate import evaluate_command
from prsr.cli.experiment import experiment
from prsr.cli.figure import figure
from prsr.cli.info import info
from prsr.cli.sample import demo, sample_command
from prsr.cli.study import study
from prsr.cli.train import train_command
from prsr.cli.two_sample import two_sample_command
from prsr.cli.web import web
from prsr.utils.terminal_messages import on_terminal, printable


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    invoke_without_command=True,
)
@click.version_option(package_name="prsr")
@click.pass_context
def app(context: click.Context) -> None:
    """Pixel recursive super resolution: sample high-resolution images from low-resolution ones."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    sample_command,
    demo,
    train_command,
    data_group,
    info,
    evaluate_command,
    experiment,
    figure,
    two_sample_command,
    study,
    web,
):
    app.add_command(command)


NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""Raised by click from 8.2 for a group without a command; earlier versions print the help."""


def main() -> None:
    """Run the command line and exit with its code."""
    # huggingface_hub logs every failed attempt; the error message of prsr reports them once.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    with on_terminal():
        run_app()


def run_app() -> None:
    """Run the command and exit, with an error message in place of a traceback.

    The environment variable ``PRSR_TRACEBACK=1`` keeps the traceback.
    """
    try:
        sys.exit(app(standalone_mode=False))
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("prsr: interrupted; all files written so far are complete", file=sys.stderr)
        sys.exit(130)
    except NO_ARGUMENTS as error:
        click.echo(error.ctx.get_help())
        sys.exit()
    except click.ClickException as error:
        exit_with_error(error.format_message())
    except Exception as error:
        if os.environ.get("PRSR_TRACEBACK"):
            raise
        expected = isinstance(error, (OSError, ValueError, TypeError, ImportError, ArithmeticError))
        exit_with_error(
            str(error)
            if expected
            else f"{type(error).__name__}: {error} (PRSR_TRACEBACK=1 shows the traceback)"
        )


def exit_with_error(message: str) -> None:
    """Print a message on one line of standard error and exit with code 2."""
    line = printable(" ".join(message.split())) or "failed without a message"
    print(f"prsr: {line}", file=sys.stderr)
    sys.exit(2)
