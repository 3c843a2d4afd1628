"""The errors that mcsr raises: each message says what is wrong, where, and what to do."""

from __future__ import annotations


class McsrError(Exception):
    """Base of all errors meant for the user. `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(McsrError):
    """An image, folder or setting that cannot be used as it is."""

    exit_code = 2


class GeometryError(InputError):
    """A grid that is degenerate, or grids that do not fit together in space."""


class OutputError(InputError):
    """An output that cannot be written, or that would overwrite an input."""


class Cancelled(McsrError):
    """The user stopped the job; nothing was written."""

    exit_code = 3


class WeightsError(McsrError):
    """A weights file that is missing, damaged, or made for something else."""

    exit_code = 4


class DeviceError(McsrError):
    """A device that is absent, unusable or out of memory."""

    exit_code = 5
