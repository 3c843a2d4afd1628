"""Where the subjects of a batch are worked on: processes of this machine, or workers of a dask scheduler."""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .batch_manifest import Subject
from .batch_subject import run_subject
from .errors import Cancelled, DeviceError, McsrError
from .progress import CancelQuery

if TYPE_CHECKING:
    from distributed import Client, Future

ALLOWED_DEATHS = 2
"""Workers of a subject that may die before it is given up; the scheduler of others may have spent them already."""

_SECONDS_BETWEEN_LOOKS = 0.3
_SECONDS_TO_CONNECT = 30
_CONFIG = {
    # A subject whose worker died is tried again from here: dask would queue it behind another, to die with that.
    "distributed.scheduler.allowed-failures": 0,
    # On a busy machine a worker may not answer, and its successor not be there, for minutes; neither is given up.
    "distributed.scheduler.worker-ttl": None,
    "distributed.deploy.lost-worker-timeout": "365 days",
}


@contextmanager
def local_client(processes: int) -> Iterator[Client]:
    """Workers of this machine; they end with the context, whatever they do.

    Raises:
        McsrError: dask is not installed.
    """
    distributed = _distributed()
    import dask

    with (
        dask.config.set(_CONFIG),
        distributed.LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,  # or dask would pause and kill workers that hold large volumes
            silence_logs=logging.CRITICAL,
            preload=["mcsr.batch_subject"],
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """The workers of a scheduler that somebody else has started.

    Raises:
        McsrError: dask is not installed.
        DeviceError: when there is no scheduler or no worker, or when workers have another version of mcsr.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=_SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        raise DeviceError(f"There is no scheduler at {address}; start one with: dask scheduler") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_TO_CONNECT)
        except TimeoutError as error:
            raise DeviceError(f"The scheduler at {address} has no worker; start: dask worker {address}") from error
        for worker, version in client.run(_version_of_mcsr, on_error="return").items():
            if version != __version__:
                has = f"mcsr {version}" if isinstance(version, str) else "no mcsr that can be loaded"
                raise DeviceError(f"The worker {worker} has {has}; install mcsr {__version__} there.")
        yield client


def run_subjects(
    client: Client,
    subjects: Sequence[Subject],
    folder: Path,
    threads: int,
    *,
    ended: Callable[[Subject, str], None],
    looked: Callable[[int], None],
    cancelled: CancelQuery,
) -> None:
    """Run subjects on the workers, as many at a time as there are workers, so that a death is that of one subject.

    Args:
        client: of the workers.
        subjects: to run, each once.
        folder: of the batch.
        threads: CPU threads for each.
        ended: receives each subject and what went wrong, empty where nothing did.
        looked: receives the number of workers a few times a second.
        cancelled: asked as often.

    Raises:
        Cancelled: when asked for; subjects at work are given up.
        DeviceError: the scheduler is gone.
    """
    killed = _distributed().KilledWorker
    waiting = deque(subjects)
    at_work: dict[Future, Subject] = {}
    deaths: Counter[Subject] = Counter()
    finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
    while waiting or at_work:
        if client.status != "running":
            raise DeviceError("The scheduler is gone; give the same command again to go on with the rest.")
        workers = len(client.nthreads())
        looked(workers)
        if cancelled():
            raise Cancelled("Stopped.")
        for _ in range(min(len(waiting), workers - len(at_work))):
            subject = waiting.popleft()
            key = f"{subject.name}-{time.monotonic_ns()}"
            future = client.submit(run_subject, subject, folder, threads, key=key, pure=False)
            at_work[future] = subject
            future.add_done_callback(finished.put)
        try:
            future = finished.get(timeout=_SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            continue
        subject = at_work.pop(future)
        error = future.exception() if future.status == "error" else None
        if isinstance(error, killed):
            deaths[subject] += error.allowed_failures + 1
            if deaths[subject] <= ALLOWED_DEATHS:
                waiting.append(subject)
            else:
                ended(subject, _told(deaths[subject], error.last_worker.address))
        elif future.status == "finished":
            ended(subject, future.result())
        else:
            ended(
                subject,
                f"Its worker could not run it ({error or future.status}); install the same mcsr and dask there.",
            )


def _told(deaths: int, address: str) -> str:
    times = "once" if deaths == 1 else f"{deaths} times"
    return f"Its worker died {times}, last the one at {address}; memory may have run out: run fewer --processes."


def _distributed() -> Any:
    """The package, whose words about workers that die are left to us."""
    try:
        import distributed
    except ImportError as error:
        raise McsrError("A batch needs dask; run: pip install distributed") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    return distributed


def _version_of_mcsr() -> str:
    from . import __version__

    return __version__
