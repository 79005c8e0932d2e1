"""Lines and a live bar for the person at the console.

Of several processes the first prints, and the others are silent. While a bar is on the
screen every line has to come through `say`, which prints it above the bar.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from memejax import parallel
from memejax.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

# Stages run one after another: at most one bar is on the screen.
_live: list[ProgressBar] = []
# The rate is that of the last five minutes, evaluations and checkpoints included.
_WINDOW = 300.0


def say(text: str) -> None:
    """Print one line or several; control characters of names are escaped."""
    if not parallel.is_first():
        return
    text = printable(text)
    if _live:
        _live[-1].print_above(text)
    else:
        print(text, flush=True)


@contextlib.contextmanager
def say_if_slow(text: str, *, after: float = 2.0) -> Iterator[None]:
    """Print a line if the body takes longer than `after` seconds."""
    timer = threading.Timer(after, say, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def terminal() -> Console | None:
    """Return standard output as a console; None if it cannot show a live bar."""
    # rich alone would take FORCE_COLOR, which CI services set, for a terminal.
    if not sys.stdout.isatty():
        return None
    # Imported here: it is not needed if output is a file.
    from rich.console import Console

    console = Console(highlight=False)
    return None if console.is_dumb_terminal or not console.is_terminal else console


def clock(seconds: float) -> str:
    """Format seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ProgressBar:
    """The live bar of a stage: updates done, their rate, time left, loss."""

    def __init__(self, console: Console, *, title: str, total: int, start: int = 0):
        """Show the bar until `close`.

        Args:
            console: a terminal.
            title: the stage.
            total: updates of the stage.
            start: updates done already.
        """
        # Imported here: see `terminal`.
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            # Takes the width that the figures leave.
            BarColumn(bar_width=None, table_column=Column(max_width=40)),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            # Each drawing takes a core from XLA for 2 ms.
            refresh_per_second=4,
            speed_estimate_period=_WINDOW,
        )
        self._total = total
        self._task = self._progress.add_task(
            title, total=total, completed=start, figures=self._done(start)
        )
        self._progress.start()
        _live.append(self)

    def _done(self, step: int) -> str:
        return f"{step:>{len(str(self._total))}}/{self._total}"

    def advance(self, step: int, *, batch: int, loss: float) -> None:
        """Show `step` updates of `batch` examples each, the last with this loss."""
        self._progress.update(self._task, completed=step)
        (task,) = self._progress.tasks
        figures = [self._done(step)]
        if task.speed:
            figures.append(f"{_rate(task.speed)} updates/s")
            figures.append(f"{_rate(task.speed * batch)} images/s")
        if step == self._total:
            figures.append(f"in {clock(task.elapsed or 0.0)}")
        elif task.speed:
            figures.append(f"{clock((self._total - step) / task.speed)} left")
        figures.append(f"loss {loss:#.4g}")
        self._progress.update(self._task, figures="  ".join(figures))

    def print_above(self, text: str) -> None:
        """Print lines above the bar."""
        from rich.text import Text

        self._progress.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Leave the bar on the screen as it is; a second call does nothing."""
        if self in _live:
            _live.remove(self)
            self._progress.stop()


def _rate(value: float) -> str:
    """Format a rate in three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
