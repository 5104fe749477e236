"""``prsr info``."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.table import Table

from prsr.cli.options import console
from prsr.info import environment_tables


@click.command()
def info() -> None:
    """Show versions, machine, engines and bundled models."""
    for heading, rows in environment_tables().items():
        table = Table(title=heading, show_header=False, title_justify="left")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
