"""What the tests of worker and runner share: small volumes, jobs in a work folder, a worker in this process."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np
from mcsr.pipeline import simulate
from mcsr.volume import Volume
from mcsr.worker_messages import INBOX, STOP_FLAG, Part, PartVolume
from mcsr_slicer.job_folder import JobRequest, VolumeData, makeWorkFolder, writeJob
from mcsr_worker import Worker
from scenes import pair


def handed(volume: Volume) -> VolumeData:
    """A volume as the panel hands it over: in the type that its node has."""
    return VolumeData(volume.array_kji.astype(volume.source_dtype), volume.ijk_to_ras, volume.name)


def received(volume: VolumeData) -> Volume:
    """The same as the worker gets it."""
    return Volume(volume.array, volume.ijkToRas, name=volume.name, source_dtype=volume.array.dtype.name)


def small_request(scale: int = 2, **more: Any) -> JobRequest:
    """A head of 48 x 56 x 8 voxels, degraded by `scale`, with its reference; settings of the quickest job."""
    settings = {"model": "sinc", "scale": scale, "registration": "none", "device": "cpu", **more.pop("settings", {})}
    return JobRequest(*_small_pair(scale), settings=settings, **more)


@functools.cache
def _small_pair(scale: int) -> tuple[VolumeData, VolumeData]:
    truth, reference = pair()
    return handed(simulate(truth, scale)[0]), handed(reference)


class WorkerHere:
    """A worker in this process, in a folder, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        makeWorkFolder(folder)
        self.said: list[dict[str, Any]] = []
        self.worker = Worker(folder, self, self, 30, 300)  # type: ignore[arg-type]
        self.reason = ""

    def emit(self, event: str, **fields: Any) -> None:
        """As a channel does."""
        self.said.append({"event": event, **fields})

    def do(self, request: JobRequest, job: str = "job") -> list[dict[str, Any]]:
        """Do one job; returns what was said of it, but for the progress."""
        writeJob(self.folder, job, request)
        return self.work()

    def work(self) -> list[dict[str, Any]]:
        """Do what is in the inbox."""
        self.said.clear()
        (self.folder / INBOX / STOP_FLAG).touch()  # comes after all that begins with a lower letter
        assert self.worker.serve() == "stopped"
        return [event for event in self.said if event["event"] not in ("progress", "accepted")]

    def part(self, name: str, job: str = "job") -> Part:
        """A part as it lies in a job's folder."""
        return Part.from_json((self.folder / "jobs" / job / f"{name}.json").read_text())

    def array(self, volume: PartVolume, job: str = "job") -> np.ndarray:
        """A volume of a part."""
        return np.load(self.folder / "jobs" / job / volume.file)

    def arrays(self, name: str, job: str = "job") -> dict[str, np.ndarray]:
        """All volumes of a part: by role, maps by name."""
        volumes = self.part(name, job).volumes
        return {v.name if v.role == "map" else v.role: self.array(v, job) for v in volumes}


def wait_until(condition: Any, seconds: float = 20) -> bool:
    """Whether something becomes true in some time."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return True
        pause.wait(0.05)
    return False
