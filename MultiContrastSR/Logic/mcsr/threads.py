"""Which cores the libraries of a process compute on. Nothing here loads one of them: they look once, at their start."""

from __future__ import annotations

import os


def leave_cores_to_torch() -> None:
    """Keep numpy's matrix products to one thread, where numpy is not loaded yet and the user has not said otherwise.

    After a product the threads of OpenBLAS wait for the next one busily, on the cores that torch's threads ask for.
    With a product before every slice a network took up to half as long again; the matrices here are small.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
