"""The networks: `create_network("dcamsr-s", scale=4)`, `network_names()`."""

import importlib
import pkgutil

from ._map_spec import MapSpec
from ._registry import (
    Generators,
    Network,
    SROutput,
    create_network,
    network_class,
    network_names,
    network_summary,
    register,
)

# Every file here registers what it holds, so that another network is another file and nothing else.
for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")

__all__ = [
    "Generators",
    "MapSpec",
    "Network",
    "SROutput",
    "create_network",
    "network_class",
    "network_names",
    "network_summary",
    "register",
]
