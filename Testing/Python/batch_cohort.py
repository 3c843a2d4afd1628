"""A small cohort on disk, workers that die when they are told to, and a client that runs everything here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin
from mcsr.imageio import write_volume
from mcsr.pipeline import simulate
from scenes import pair


def write_cohort(folder: Path, names: list[str], **columns: str) -> Path:
    """Subjects with a target each, one reference and one truth for all; the manifest, with more columns if given."""
    folder.mkdir()
    truth, reference = pair((40, 44, 4))
    low, _ = simulate(truth, 2)
    write_volume(reference, folder / "t1.nii.gz")
    write_volume(truth, folder / "t2.nii.gz")
    lines = [",".join(["subject", "target", "reference", "truth", *columns])]
    for name in names:
        write_volume(low, folder / f"{name}_low.nii.gz")
        lines.append(",".join([name, f"{name}_low.nii.gz", "t1.nii.gz", "t2.nii.gz", *columns.values()]))
    manifest = folder / "cohort.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


class Saboteur(WorkerPlugin):
    """Kills workers at chosen moments, and keeps a list of who was enhanced.

    Args:
        deaths: by subject the moment ("computing", "writing" or "placed") and how many workers die at it.
        log: folder for a file for each death and each enhancement.
    """

    name = "saboteur"

    def __init__(self, deaths: dict[str, tuple[str, int]], log: Path) -> None:
        self.deaths, self.log = deaths, log

    def setup(self, worker: Any) -> None:
        from mcsr import batch_subject, outputs

        enhance, container, place = batch_subject.enhance, outputs.write_container, batch_subject._put_in_place

        def enhance_or_die(target: Any, *arguments: Any, **options: Any) -> Any:
            subject = target.name.removesuffix("_low")
            self._note(f"{subject}.enhanced")
            self._strike("computing", subject)
            return enhance(target, *arguments, **options)

        def write_or_die(path: Path, *arguments: Any, **options: Any) -> None:
            self._strike("writing", path.parents[1].name.partition(".")[0])
            container(path, *arguments, **options)

        def place_and_die(subject: Any, *arguments: Any) -> None:
            place(subject, *arguments)
            self._strike("placed", subject.name)

        batch_subject.enhance, outputs.write_container = enhance_or_die, write_or_die
        batch_subject._put_in_place = place_and_die

    def _strike(self, moment: str, subject: str) -> None:
        chosen, count = self.deaths.get(subject, ("", 0))
        if chosen == moment and len(list(self.log.glob(f"{subject}.died-*"))) < count:
            self._note(f"{subject}.died")
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # which ends a process on Windows

    def _note(self, what: str) -> None:
        number = len(list(self.log.glob(f"{what}-*")))
        (self.log / f"{what}-{number}").touch(exist_ok=False)


class _Done:
    status = "finished"

    def __init__(self, value: str) -> None:
        self._value = value

    def result(self) -> str:
        return self._value

    def add_done_callback(self, call: Callable[[_Done], None]) -> None:
        call(self)


class HereAndNow:
    """A client without workers: what is submitted is done at once."""

    status = "running"

    def __enter__(self) -> HereAndNow:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def nthreads(self) -> dict[str, int]:
        return {"here": 1}

    def submit(self, function: Callable[..., str], *arguments: Any, **_: Any) -> _Done:
        return _Done(function(*arguments))
