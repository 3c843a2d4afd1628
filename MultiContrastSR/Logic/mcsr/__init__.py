"""mcsr: super-resolution of one MRI contrast with the help of another of the same patient."""

__version__ = "0.1.0"
