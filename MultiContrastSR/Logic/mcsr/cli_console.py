"""How the command line talks: a progress bar and sentences for people, json lines for programs."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console as RichConsole
from rich.markup import escape

from .errors import Cancelled, InputError, McsrError
from .progress import Event


class Console:
    """Speaks to the user on stderr, or in json lines on stdout with `as_json`."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._rich = RichConsole(stderr=True, highlight=False)
        self._stop = False

    def say(self, sentence: str, **values: Any) -> None:
        """A sentence; in json an event "message" with the values."""
        if self.as_json:
            self.emit("message", text=sentence, **values)
        else:
            self._rich.print(escape(sentence))

    def warn(self, sentence: str) -> None:
        """Something the user should look at."""
        if self.as_json:
            self.emit("warning", text=sentence)
        else:
            self._rich.print(f"[yellow]Note:[/yellow] {escape(sentence)}")

    def emit(self, event: str, **values: Any) -> None:
        """One json line on stdout."""
        sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
        sys.stdout.flush()

    def cancelled(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._stop

    @contextmanager
    def exit_on_error(self) -> Iterator[None]:
        """Turn an `McsrError`, a path that cannot be used, and Ctrl-C into a sentence and an exit code."""
        try:
            yield
        except McsrError as error:
            self._fail(error)
        except OSError as error:
            if error.filename is None:
                raise
            self._fail(InputError(f"{error.filename} cannot be used ({error.strerror}); check the path."))
        except KeyboardInterrupt:
            self._fail(Cancelled("Cancelled; nothing was written."))

    def _fail(self, error: McsrError) -> NoReturn:
        if self.as_json:
            self.emit("error", text=str(error), exit_code=error.exit_code)
        else:
            self._rich.print(f"[red]{escape(str(error))}[/red]")
        raise SystemExit(error.exit_code)

    @contextmanager
    def progress(self) -> Iterator[Any]:
        """A progress bar that is an `mcsr.progress.ProgressCallback`; Ctrl-C asks the job to stop cleanly."""
        previous = signal.signal(signal.SIGINT, self._interrupted)
        try:
            if self.as_json:
                yield lambda event: self.emit(
                    "progress",
                    stage=event.stage,
                    fraction=round(event.fraction, 4),
                    remaining_s=event.remaining_s and round(event.remaining_s, 1),
                )
                return
            from .cli_progress import new_bar  # which --help has no use for

            with new_bar(self._rich) as bar:
                task = bar.add_task("Starting", total=1.0, remaining_s=None)

                def show(event: Event) -> None:
                    description = "Stopping..." if self._stop else event.stage
                    bar.update(task, description=description, completed=event.fraction, remaining_s=event.remaining_s)

                yield show
        finally:
            signal.signal(signal.SIGINT, previous)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            raise KeyboardInterrupt  # asked twice: at once
        self._stop = True
