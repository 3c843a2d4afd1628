"""The networks: `create_network("dcamsr-s", scale=4)`, `network_names()`."""

from . import baselines, cd_dpe, daasr, dcamsr, diffmsr, hftn_sr
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

__all__ = [
    "Generators",
    "MapSpec",
    "Network",
    "SROutput",
    "baselines",
    "cd_dpe",
    "create_network",
    "daasr",
    "dcamsr",
    "diffmsr",
    "hftn_sr",
    "network_class",
    "network_names",
    "network_summary",
    "register",
]
