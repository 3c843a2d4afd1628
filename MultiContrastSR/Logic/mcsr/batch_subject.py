"""One subject of a batch, in a worker's process: its folder appears whole, once, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from typing import Any, NamedTuple

import SimpleITK as sitk
import torch

from .batch_manifest import Subject, weights_digest
from .batch_strip import STRIP_FILE, write_strip
from .errors import McsrError, OutputError
from .imageio import read_volume
from .job import Memory, Settings, Thing
from .memory import is_out_of_memory
from .outputs import MAPS_FOLDER, OUTPUT_FILES, REPORT_FILE, write_result
from .pipeline import enhance

WORKING_FOLDER = ".working"
"""Holds the folders of subjects at work; without it they stop, see `run_subject`."""

RECORD = "batch"
"""What a report says beyond that of `mcsr enhance`: inputs, seconds, peak memory."""

# Settings that leave the result as it is, to rounding; weights are compared by what is in them.
_WITHOUT_EFFECT = {"device", "force", "memory", "weights"}
_OF_OURS = {*OUTPUT_FILES, "sr.nrrd", "residual.nrrd", MAPS_FOLDER, STRIP_FILE}
_PROCESS_MEMORY = Path("/proc/self/status")

_one_at_a_time = threading.Lock()
"""A worker may have many threads; the memory and the number of torch's threads are the process's."""


class _NetworkAlone(Memory):
    """Keeps the network from one subject to the next, and nothing as large as a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.references = None

    def recall(self, kind: str, made_from: Sequence[Any], make: Callable[[], Thing]) -> Thing:
        return super().recall(kind, made_from, make) if kind == "network" else make()


_memory = _NetworkAlone()


class Standing(NamedTuple):
    """What stands in a subject's folder: "nothing", "done", "other inputs", "other settings" or "foreign" files."""

    state: str
    why: str = ""


def standing(subject: Subject, folder: Path) -> Standing:
    """Compare what a batch's folder holds of a subject with what it would be made from now.

    Args:
        subject: of the manifest.
        folder: of the batch.
    """
    place = folder / subject.name
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return Standing("nothing")
    report = read_report(place)
    if report is None:
        return Standing("foreign", "it holds no result of a batch")
    changed = _changed_settings(subject.settings, report)
    inputs = [role for role in {**subject.inputs, **report[RECORD]["inputs"]} if not _same_input(subject, role, report)]
    if not changed and not inputs:
        return Standing("done")
    foreign = sorted({path.name for path in place.iterdir()} - _OF_OURS)
    if foreign:
        return Standing("foreign", f"it also holds {foreign[0]}")
    return Standing("other settings", " and ".join(changed)) if changed else Standing("other inputs", ", ".join(inputs))


def read_report(place: Path) -> dict[str, Any] | None:
    """The report of a subject that a batch has finished; None where there is none."""
    try:
        report = json.loads((place / REPORT_FILE).read_text(encoding="utf-8"))
        return report if isinstance(report[RECORD]["inputs"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_subject(subject: Subject, folder: Path, threads: int) -> str:
    """Enhance a subject as `mcsr enhance` does; runs in a worker.

    All is written into a folder of its own in `WORKING_FOLDER`, which then takes its place by one renaming: a worker
    that is killed leaves nothing in `folder`, and of two workers with the same subject the first counts. Who removes
    `WORKING_FOLDER` stops the work.

    Args:
        subject: of the manifest.
        folder: of the batch, seen by all workers; what stands there for the subject is replaced unless it is done.
        threads: CPU threads.

    Returns:
        What went wrong, in one sentence; empty where the result stands.
    """
    with _one_at_a_time:
        torch.set_num_threads(threads)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        try:
            if standing(subject, folder).state != "done":
                with _attempt(subject, folder) as attempt:
                    _enhance(subject, attempt)
            return ""
        except Exception as error:  # whatever befalls a subject, the others go on
            return _sentence(error)


def dask_setup(worker: object) -> None:
    """Called by dask in a worker of this machine: Ctrl-C, which reaches it too, is left to the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _enhance(subject: Subject, attempt: Path) -> None:
    """The result, complete, in the attempt's folder."""

    def cancelled() -> bool:
        return not attempt.exists()

    started = time.monotonic()
    _forget_peak_memory()
    _memory.recalled.clear()
    inputs = {role: _fingerprint(path) for role, path in subject.inputs.items()}
    volumes = {role: read_volume(path) for role, path in subject.inputs.items()}
    result = enhance(
        volumes["target"],
        volumes.get("reference"),
        subject.settings,
        ground_truth=volumes.get("truth"),
        memory=_memory,
        cancelled=cancelled,
    )
    record = {
        "inputs": inputs,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_gb": _peak_memory_gb(),
    }
    result = replace(result, provenance={**result.provenance, RECORD: record})
    write_result(result, attempt, cancelled=cancelled)
    if find_spec("matplotlib"):
        write_strip(attempt / STRIP_FILE, result)


@contextmanager
def _attempt(subject: Subject, folder: Path) -> Iterator[Path]:
    """A folder to work in, renamed to the subject's if all goes well."""
    attempt = folder / WORKING_FOLDER / f"{subject.name}.{secrets.token_hex(4)}"
    try:
        attempt.mkdir()
    except OSError as error:
        raise OutputError(
            f"The worker on {socket.gethostname()} cannot write to {folder} ({error.strerror}); "
            "all workers must see it under the same path."
        ) from error
    try:
        yield attempt
        _put_in_place(subject, attempt, folder)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def _put_in_place(subject: Subject, attempt: Path, folder: Path) -> None:
    place, there = folder / subject.name, standing(subject, folder)
    if there.state == "done":  # another worker, thought dead, was first
        return
    if there.state == "foreign":
        raise OutputError(f"The folder {place} is not replaced, because {there.why}; move it away.")
    try:
        if there.state == "nothing":
            with suppress(FileNotFoundError):
                place.rmdir()  # empty; not every system renames onto it
            os.replace(attempt, place)
            return
        earlier = attempt.with_name(f"{attempt.name}.earlier")
        os.replace(place, earlier)
        os.replace(attempt, place)
        shutil.rmtree(earlier, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"The folder {place} cannot be made ({error.strerror}); close what uses it.") from error


def _changed_settings(settings: Settings, report: Mapping[str, Any]) -> list[str]:
    """What differs from the settings of a report, in words."""
    now, then = asdict(settings), {**asdict(Settings()), **report["settings"]}
    compared = [name for name in now if name not in _WITHOUT_EFFECT and now[name] != then[name]]
    words = [f"{name} {then[name]}, now {now[name]}" for name in compared]
    same_model = all(now[name] == then[name] for name in ("model", "scale"))
    if same_model and weights_digest(settings.model, settings.scale, settings.weights) != report["weights_sha256"]:
        words.append("other weights")
    return words


def _same_input(subject: Subject, role: str, report: Mapping[str, Any]) -> bool:
    """Whether a file is the one that the report was made from; only a file that was touched is read."""
    path, then = subject.inputs.get(role), report[RECORD]["inputs"].get(role)
    if path is None or then is None:
        return False
    bytes_, modified = _size_and_time(path)
    if (bytes_, modified) == (then["bytes"], then["modified_ns"]):
        return True
    return bytes_ == then["bytes"] and _fingerprint(path)["sha256"] == then["sha256"]


def _fingerprint(path: Path) -> dict[str, Any]:
    """What a file, or folder of DICOM files, is known by; nothing of the patient."""
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    bytes_, modified = _size_and_time(path)
    return {"bytes": bytes_, "modified_ns": modified, "sha256": digest.hexdigest()}


def _size_and_time(path: Path) -> tuple[int, int]:
    states = [file.stat() for file in _files(path)]
    return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.suffix.lower() in (".nhdr", ".mhd"):  # the voxels lie in a file beside it
        return sorted(file for file in path.parent.iterdir() if file.name.startswith(f"{path.stem}."))
    return [path]


def _forget_peak_memory() -> None:
    with suppress(OSError):  # Linux alone
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_gb() -> float | None:
    """Largest resident memory of the process since it was forgotten; None where the system does not tell."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", _PROCESS_MEMORY.read_text())
        return round(int(found[1]) * 1024 / 1e9, 3) if found else None
    return None


def _sentence(error: Exception) -> str:
    if isinstance(error, McsrError):
        return str(error)
    if is_out_of_memory(error):
        return "Memory ran out; run fewer --processes, or choose a smaller model."
    place = extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"Something went wrong inside ({type(error).__name__} at {where}: {error}); please report it."
