"""What went wrong in a job, for the panel: a code, one sentence, and details without names and folders of the user."""

from __future__ import annotations

import errno
import re
import traceback
from pathlib import Path

from .errors import DeviceError, McsrError, OutputError, WeightsError
from .inference import is_out_of_memory
from .worker_messages import Request

_CODES: tuple[tuple[type[McsrError], str], ...] = (
    (OutputError, "output"),
    (WeightsError, "weights"),
    (DeviceError, "device"),
    (McsrError, "input"),
)
_OUT_OF_MEMORY = (
    "Memory ran out; close other programs, choose fewer maps or a smaller model, or the CPU where a GPU was used."
)
_FULL_DISK = "The disk is full; free some space, or choose another folder for results and for temporary files."
_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no EDQUOT
_OPTION = re.compile(r"--([a-z]+)(?: (?!to |or |and )([a-z0-9-]+))?")
_PANEL_WORDS = {" with -o": "", "`mcsr models list`": "the list of models"}
_FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s'\":]+)+[\\/]")


def describe_error(error: BaseException, request: Request | None = None) -> tuple[str, str, str]:
    """Code, sentence and details of an error.

    Args:
        error: of a job.
        request: of the job, whose volumes' names are left out of the details; None where it could not be read.
    """
    code, message = _code_and_message(error)
    return code, message, _details(error, request)


def _code_and_message(error: BaseException) -> tuple[str, str]:
    sentence = in_panel_words(str(error)) if isinstance(error, McsrError) else ""
    if any(is_out_of_memory(e) for e in _chain(error)):
        return "memory", sentence or _OUT_OF_MEMORY
    if any(isinstance(e, OSError) and e.errno in _DISK_ERRORS for e in _chain(error)):
        return "disk", _FULL_DISK
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code, sentence
    return "internal", f"Something went wrong inside ({type(error).__name__}); please report it with the details."


def in_panel_words(sentence: str) -> str:
    """A sentence of the engine without the options of the command line, which the panel has as settings."""
    for option, words in _PANEL_WORDS.items():
        sentence = sentence.replace(option, words)
    return _OPTION.sub(lambda found: _setting(*found.groups()), sentence)


def _setting(name: str, value: str | None) -> str:
    return f'"{name.capitalize()}{f": {value}" if value else ""}" (Advanced)'


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and those that led to it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _details(error: BaseException, request: Request | None) -> str:
    lines = []
    for link in reversed(_chain(error)):
        lines += [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(link.__traceback__)]
        lines.append(f"{type(link).__name__}: {_FOLDERS.sub('.../', _without_names(str(link), request))}")
    return "\n".join(lines)


def _without_names(text: str, request: Request | None) -> str:
    if request is None:
        return text
    for role in ("target", "reference", "ground_truth"):
        volume = getattr(request, role)
        if volume is not None and volume.name:
            text = text.replace(volume.name, f"<{role}>")
    return text
