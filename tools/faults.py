"""Kill jobs at random moments (SIGKILL, as `kill -9`), and check that nothing partial is ever taken for whole.

After each kill: every file under a final name is whole and as an undisturbed run writes it; no process of the job lives
on. Then the same command is given again, or killed again: in the end the result is that of an undisturbed run, bit for
bit, and no temporary file is left beside it or in the temporary folder. Exits with 1 where anything else is found.

.venv/bin/python tools/faults.py --kills 200 --seed 0
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LOGIC = Path(__file__).resolve().parents[1] / "MultiContrastSR" / "Logic"
# One thread: what forks must have no others.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
sys.path[:0] = [str(LOGIC), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
from faults_jobs import AddModel, Enhance, Job, Panel, Train, TrainWithWorkers, leftovers  # noqa: E402
from faults_processes import Child, Process, ask, descendants, survivors  # noqa: E402

SHARES: dict[type[Job], float] = {Enhance: 0.4, Train: 0.25, TrainWithWorkers: 0.1, AddModel: 0.21, Panel: 0.04}
KILLED_AGAIN = 0.5
"""Share of kills after which the next run is killed too."""
END_SECONDS = 60.0
"""What a panel whose worker was killed is given to end."""
ORPHAN_SECONDS = 15.0
"""What processes that a job started are given to notice that it is gone."""
MOMENTS = ("any time", "before a rename", "while a temporary file is there")


@dataclass
class Tally:
    """What was found for one kind of job."""

    name: str
    kills: int = 0
    running: int = 0
    whole: int = 0
    resumed: int = 0
    littered: int = 0
    orphans: int = 0
    leftovers: int = 0
    breaches: list[str] = field(default_factory=list)

    def breach(self, sentence: str) -> None:
        """Note and tell what must not be."""
        self.breaches.append(sentence)
        print(sentence, file=sys.stderr, flush=True)

    COLUMNS = (
        "job", "kills", "of them running", "outputs whole", "same result in the end", "left temporary files",
        "orphans", "leftovers after the next run",
    )  # fmt: skip

    def row(self) -> tuple[str | int, ...]:
        """In the order of `COLUMNS`."""
        counts = (self.kills, self.running, self.whole, self.resumed, self.littered, self.orphans, self.leftovers)
        return (self.name, *counts)


class Trials:
    """Kills one kind of job.

    Args:
        job: see there; its inputs are made and it is run once, undisturbed.
        scratch: folder for the places; what is temporary goes to its folder `tmp`.
        random: of the moments.
        moments: kinds to choose from, of `MOMENTS`.
    """

    def __init__(self, job: Job, scratch: Path, random: np.random.Generator, moments: Iterable[str]) -> None:
        self.job, self.scratch, self.random, self.moments = job, scratch, random, tuple(moments)
        self.tally = Tally(job.name)
        ask(job.prepare)
        place = scratch / "undisturbed"
        job.reset(place)
        started = time.monotonic()
        child = self._start(place)
        child.run_until(lambda: False)
        self.seconds, self.renames = time.monotonic() - started, child.count_renames()
        if child.code:
            raise RuntimeError(f"{job.name} fails undisturbed: {child.log.read_text()}")
        self.undisturbed = ask(lambda: job.contents(place))

    def run(self, kills: int) -> Tally:
        """Kill so many times; returns what was found."""
        while self.tally.kills < kills:
            place = self.scratch / f"place {self.tally.kills}"
            self.job.reset(place)
            before = self.tally.kills
            while self.tally.kills < kills:
                self._kill(place)
                if self.random.random() > KILLED_AGAIN:
                    break
            self._finish(place, self.tally.kills - before)
            print(*self.tally.row(), sep="  ", file=sys.stderr, flush=True)
            shutil.rmtree(place)
        return self.tally

    def _start(self, place: Path, dies_at: int | None = None) -> Child:
        return Child(lambda: self.job.run(place), self.scratch / "log", dies_at)

    def _kill(self, place: Path) -> None:
        kind = str(self.random.choice(self.moments)) if self.renames else MOMENTS[0]
        fraction, number = self.random.random(), int(self.random.integers(max(1, self.renames)))
        what = f"{self.job.name}, kill {self.tally.kills} ({kind}, {fraction:.3f}, {number})"
        child = self._start(place, number if kind == MOMENTS[1] else None)
        if kind == MOMENTS[0]:
            child.run_until(_after(fraction * self.seconds))
        elif kind == MOMENTS[1]:
            child.run_until(lambda: False)
        else:
            child.run_until(lambda: bool(leftovers(place, locks=False)))
            child.run_until(_after(0.05 * fraction * self.seconds))
        family = self._kill_of_two(child) if isinstance(self.job, Panel) else child.kill()
        child.count_renames()
        self.tally.kills += 1
        self.tally.running += child.code == -signal.SIGKILL
        if orphans := survivors(family, ORPHAN_SECONDS):
            self.tally.orphans += len(orphans)
            self.tally.breach(f"{what}: {len(orphans)} processes live on")
        self.tally.littered += bool(leftovers(place))
        problem = _answer(lambda: self.job.problem(place, self.undisturbed))
        self.tally.whole += not problem
        if problem:
            self.tally.breach(f"{what}: {problem}")

    def _kill_of_two(self, panel: Child) -> list[Process]:
        """The panel, its worker or both; a panel that has lost its worker has to end the job itself."""
        workers, victim = descendants(panel.pid), self.random.choice(("panel", "worker", "both"))
        if victim == "worker" and workers:
            os.kill(workers[0][0], signal.SIGKILL)
            panel.run_until(_after(END_SECONDS))
            panel.code = -signal.SIGKILL if panel.code == 1 else panel.code  # that of its worker
        family = [*workers, *panel.kill()]
        if victim == "both" and workers:
            with suppress(ProcessLookupError):
                os.kill(workers[0][0], signal.SIGKILL)
        return family

    def _finish(self, place: Path, kills: int) -> None:
        what = f"{self.job.name}, the run after kill {self.tally.kills - 1}"
        child = self._start(place)
        child.run_until(lambda: False)
        child.count_renames()
        contents = _answer(lambda: self.job.contents(place))
        if child.code:
            self.tally.breach(f"{what} fails: {child.log.read_text()[-2000:]}")
        elif contents != self.undisturbed:
            self.tally.breach(f"{what} has another result than an undisturbed one: {contents}")
        else:
            self.tally.resumed += kills
        left = [*leftovers(place), *Path(tempfile.gettempdir()).iterdir()]
        if left:
            self.tally.leftovers += len(left)
            self.tally.breach(f"{what} leaves {', '.join(path.name for path in left)}")
        child.log.unlink()


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _answer(question: Callable[[], object]) -> object:
    """The answer, or, where something is not whole, what was said of it."""
    try:
        return ask(question)
    except RuntimeError as error:
        return str(error).strip().rpartition("\n")[2]


def markdown(tallies: Iterable[Tally]) -> str:
    """The table, with a row for all."""
    rows = [tally.row() for tally in tallies]
    rows.append(("all", *(sum(int(row[column]) for row in rows) for column in range(1, len(Tally.COLUMNS)))))
    lines = [Tally.COLUMNS, ("---",) * len(Tally.COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--jobs", default=",".join(job.name for job in SHARES), help="comma-separated; all by default")
    parser.add_argument("--moments", default=",".join(MOMENTS), help="comma-separated kinds; all by default")
    options = parser.parse_args()
    jobs = [job for job in SHARES if job.name in options.jobs.split(",")]
    moments = [moment for moment in MOMENTS if moment in options.moments.split(",")]
    if not jobs or not moments:
        parser.error("name one job and one kind of moment at least")
    tallies = []
    with tempfile.TemporaryDirectory(prefix="mcsr-faults-") as scratch:
        temporary = Path(scratch) / "tmp"
        temporary.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
        total, left = sum(SHARES[job] for job in jobs), options.kills
        for number, job in enumerate(jobs):
            share = left if job is jobs[-1] else round(options.kills * SHARES[job] / total)
            left -= share
            folder = Path(scratch) / str(number)
            (folder / "inputs").mkdir(parents=True)
            random = np.random.default_rng((options.seed, list(SHARES).index(job)))
            tallies.append(Trials(job(folder / "inputs"), folder, random, moments).run(share))
    print(markdown(tallies))
    return 1 if any(tally.breaches for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
