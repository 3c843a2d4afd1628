"""Keeps a program that a test starts, and all that it starts, from reading files of one folder: the checkout's module.

Python imports this file by its name from PYTHONPATH; $MCSR_SEALED names the folder.
"""

from __future__ import annotations

import os
import sys
from typing import Any

SEALED = os.path.join(os.environ["MCSR_SEALED"], "")


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and os.path.realpath(arguments[0]).startswith(SEALED):
        raise PermissionError(f"{arguments[0]} is not to be read: it belongs to the checkout")


sys.addaudithook(refuse)
