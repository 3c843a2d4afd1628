"""The progress bar of the command line."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text


class _Remaining(ProgressColumn):
    """The engine's own estimate of the time left."""

    def render(self, task: Task) -> Text:
        seconds = task.fields.get("remaining_s")
        if seconds is None or task.finished:
            return Text("")
        minutes, rest = divmod(round(seconds), 60)
        return Text(f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left", style="cyan")


def new_bar(console: Console) -> Progress:
    """A bar that goes away when it is done; its tasks have a field `remaining_s`, seconds or None."""
    columns = (TextColumn("{task.description:<26}"), BarColumn(), TaskProgressColumn(), _Remaining())
    return Progress(*columns, console=console, transient=True)
