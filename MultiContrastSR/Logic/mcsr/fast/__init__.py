"""Fast paths: the same slices from the same weights, sooner. `fast_path(network)` gives the one of a network."""

import importlib
import pkgutil

from ._path import FastPath, accelerates, fast_path, has_fast_path
from ._precision import working_dtype

# Every file here enters what it holds, as in `mcsr.networks`.
for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")

__all__ = ["FastPath", "accelerates", "fast_path", "has_fast_path", "working_dtype"]
