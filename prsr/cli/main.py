"""The command line: ``prsr sample``, ``demo``, ``train``, ``data``, ``info``, and those of a study.

What the user got wrong is told in one line with exit code 2, never as a traceback.
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
from prsr.cli.train import train_command
from prsr.utils.messages import on_terminal, printable


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    invoke_without_command=True,
)
@click.version_option(package_name="prsr")
@click.pass_context
def app(context: click.Context) -> None:
    """Pixel recursive super resolution: draw the details that a tiny image leaves open."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for each in (
    sample_command,
    demo,
    train_command,
    data_group,
    info,
    evaluate_command,
    experiment,
    figure,
):
    app.add_command(each)


def main() -> None:
    """Run the command line; the exit code is 2 after a mistake of the user's, 130 after Ctrl-C."""
    # What the hub's client has to say about each attempt, our own error says once.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    with on_terminal():
        run()


def run() -> None:
    """Run the command line where what it says can be shown; see :func:`main`."""
    try:
        sys.exit(app(standalone_mode=False))
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("prsr: interrupted; every file that was written is whole", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        fail(error.format_message())
    except Exception as error:
        if os.environ.get("PRSR_TRACEBACK"):
            raise
        known = isinstance(error, (OSError, ValueError, TypeError, ImportError, ArithmeticError))
        fail(
            str(error)
            if known
            else f"{type(error).__name__}: {error} (PRSR_TRACEBACK=1 shows more)"
        )


def fail(message: str) -> None:
    """End with one line on standard error and exit code 2."""
    line = printable(" ".join(message.split())) or "it failed without a message"
    print(f"prsr: {line}", file=sys.stderr)
    sys.exit(2)
