"""Temporary files that say whose they are, and folders that one job at a time writes to.

A process that is killed tidies nothing up. So each temporary file or folder carries the number of its process in its
name, and whoever writes into the same folder next removes what processes that are no more have left there.

Standard library only: the panel uses it too.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import OutputError

LOCK_FILE = ".mcsr.lock"
# Processes of other computers and containers cannot be looked for, so that their files are left alone.
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_NAME = re.compile(r"\.mcsr-(\d+)-([0-9a-f]{8})-")
# A lock of a byte that is never written: on Windows a locked one cannot be read.
_LOCKED_BYTE = 1 << 30
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of a file that is to be written, with its extensions, for this process.

    What processes that are no more have left in that folder is removed.
    """
    remove_leftovers(path.parent)
    return path.with_name(f".mcsr-{os.getpid()}-{_HOST}-{secrets.token_hex(4)}{''.join(path.suffixes[-2:])}")


def make_temporary_folder(folder: Path) -> Path:
    """Make a folder of this process, which no other user can enter, inside another; leftovers there are removed.

    Raises:
        OSError: when it cannot be made.
    """
    made = temporary_beside(folder / "x")
    made.mkdir(mode=0o700)
    return made


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of processes of this computer that are no more, as far as that is possible."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            owner = _NAME.match(entry.name)
            if owner is None or owner[2] != _HOST or liveness(int(owner[1]))():
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep all other jobs from writing into an existing folder.

    The system frees the lock when the process dies, so that a lock file which is left over keeps no one out. Where the
    file system has no locks, nothing is kept out.

    Raises:
        OutputError: when another process has the folder, or no file can be made in it.
    """
    path = folder / LOCK_FILE
    try:
        descriptor = _locked(path)
    except BlockingIOError as error:
        raise OutputError(
            f"Another job{_owner_of(path)} is writing to {folder}; wait for it, or choose another folder."
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"The folder {folder} cannot be written to ({reason}); choose another one.") from error
    try:
        yield
    finally:
        if os.name == "nt":  # where an open file cannot be removed
            os.close(descriptor)
        with suppress(OSError):  # on Windows, where another process looks at it
            path.unlink()
        if os.name != "nt":
            os.close(descriptor)


def liveness(pid: int) -> Callable[[], bool]:
    """A question whether a process lives; on Windows it is not taken in by another that gets the same number later."""
    if os.name == "nt":
        import ctypes

        synchronize, timed_out = 0x00100000, 0x102
        kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
        handle = kernel.OpenProcess(synchronize, False, pid)
        return lambda: bool(handle) and kernel.WaitForSingleObject(handle, 0) == timed_out

    def is_alive() -> bool:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True
        return True

    return is_alive


def _locked(path: Path) -> int:
    """An open file, locked, that says who has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            # Its last owner may have removed it after it was opened here; then the lock is worth nothing.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                with suppress(OSError):  # a full disk; who has it is only said
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            # Not flock: processes that prepare batches would inherit it and outlive a killed training for seconds.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError(error.errno, error.strerror) from error
        if error.errno not in _NO_LOCKS_HERE:
            raise


def _owner_of(path: Path) -> str:
    try:
        owner = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    return f" ({owner})" if owner else ""
