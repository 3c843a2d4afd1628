"""The networks: `create_network("dcamsr-s", scale=4)`, `network_names()`."""

from . import baselines, dcamsr
from ._registry import Network, SROutput, config_of, create_network, network_names, register

__all__ = ["Network", "SROutput", "baselines", "config_of", "create_network", "dcamsr", "network_names", "register"]
