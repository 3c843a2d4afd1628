"""The networks: `create_network("dcamsr-s", scale=4)`, `network_names()`."""

from . import baselines, dcamsr
from ._registry import (
    Network,
    SROutput,
    create_network,
    network_class,
    network_names,
    network_summary,
    register,
)

__all__ = [
    "Network",
    "SROutput",
    "baselines",
    "create_network",
    "dcamsr",
    "network_class",
    "network_names",
    "network_summary",
    "register",
]
