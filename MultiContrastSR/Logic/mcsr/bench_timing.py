"""Times that can be compared on a machine that does other things too: runs in turn, medians, ratios with their spread.

Standard library only: processes that are timed load it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

from .errors import McsrError

LONG_SECONDS = 10.0
"""A first round that takes longer is measured too: what it sets up is small in it."""

_LOOK_SECONDS = 0.05

Check = Callable[[], None]
"""Called between runs; raises `Cancelled` where the user wants to stop."""


class Spread(NamedTuple):
    """The median of some values, the lowest and the highest."""

    middle: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Timed:
    """Seconds of things that were run in turn, by name: as many of each as there were rounds."""

    seconds: Mapping[str, tuple[float, ...]]

    def of(self, name: str) -> Spread:
        """Seconds."""
        return spread(self.seconds[name])

    def ratio(self, slower: str, faster: str) -> Spread:
        """How many times as long one takes as the other, round by round: what slows a round down slows both."""
        return spread([a / b for a, b in zip(self.seconds[slower], self.seconds[faster], strict=True)])


def spread(values: tuple[float, ...] | list[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values))


def in_turn(
    runs: Mapping[str, Callable[[], object]], rounds: int, passed: Callable[[float], None] = lambda share: None
) -> Timed:
    """Time several things in turn, A B C A B C ..., after a round that only warms up.

    Args:
        runs: by name.
        rounds: how many are measured.
        passed: told the share that is done after every run; may raise `Cancelled`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    total, done, measured, first = len(runs) * (rounds + 1), 0, 0, True
    while measured < rounds:
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
            done += 1
            passed(done / total)
        if first and sum(found[0] for found in seconds.values()) < LONG_SECONDS:
            seconds = {name: [] for name in runs}
        else:
            measured += 1
        first = False
    return Timed({name: tuple(found) for name, found in seconds.items()})


def in_own_process(call: Callable[..., Any], *arguments: Any, check: Check = lambda: None) -> Any:
    """What a function of a module gives in a new process, which ends with it, at once where `check` raises.

    Raises:
        McsrError: when the process dies, which is mostly for want of memory.
        Exception: whatever the function raises.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, call, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        while not receiver.poll(_LOOK_SECONDS):
            check()
        answer = receiver.recv()
    except EOFError as error:
        raise McsrError("A process of the measurement died, probably for want of memory; close programs.") from error
    finally:
        process.terminate()
        process.join()
        receiver.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(sender: Connection, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    try:
        sender.send(call(*arguments))
    except Exception as error:
        sender.send(error)
