"""Progress on the terminal: images per second and time left, or quiet lines in a log file."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

log = logging.getLogger(__name__)


class RateColumn(ProgressColumn):
    """Images per second of a task."""

    def render(self, task: Task) -> Text:
        """Show the rate, or a dash while it is unknown."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.0f} images/s" if rate else "- images/s", style="cyan")


@contextlib.contextmanager
def images_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show images per second and time left; the yielded function counts one of ``total``.

    On no terminal the bar stays silent.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        refresh_per_second=4,
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


def print_table(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of the same heads as a table to standard output.

    The first column is set left, the others right.
    """
    console = Console()
    if not console.is_terminal:
        # A log file has no width of its own; a wrapped table cannot be read.
        console = Console(width=200)
    table = Table(header_style="bold")
    for index, head in enumerate(rows[0]):
        table.add_column(head, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row.values())
    console.print(title, style="bold", highlight=False)
    console.print(table)
