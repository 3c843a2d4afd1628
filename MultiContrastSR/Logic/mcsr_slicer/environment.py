"""What the worker needs of Slicer's Python: is it there, and how it gets there once the user agrees.

Looking imports nothing. PyTorch comes through the PyTorch extension alone; the small packages through Slicer's own
installer.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from slicer.i18n import tr as _

from .launchers import HIDDEN

REQUIREMENTS = Path(__file__).resolve().parents[2] / "Resources" / "requirements.txt"
OLDEST_TORCH = (2, 2)


class EnvironmentNotReady(Exception):
    """Something is missing still; the text says what, and what to do."""


class Installer(Protocol):
    """What changes Slicer's Python; every call may take minutes."""

    def hasTorchExtension(self) -> bool:
        """Whether the PyTorch extension is installed."""

    def installTorchExtension(self) -> bool:
        """Install it; Slicer has to be restarted then. False where the server has none."""

    def installTorch(self) -> None:
        """Install PyTorch through the extension."""

    def installPackages(self, requirements: Path) -> None:
        """Install what a requirements file lists; RuntimeError where the user says no."""


Confirm = Callable[[str], bool]
"""Asks the user a question; True for yes."""


def torchVersion() -> str | None:
    """Of the PyTorch that is installed, None where there is none; it is not imported."""
    if importlib.util.find_spec("torch") is None:
        return None
    from importlib.metadata import PackageNotFoundError, version  # slow to load, and the panel shows first

    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def missingPackages(requirements: Path = REQUIREMENTS) -> list[str]:
    """Small packages that are not there; nothing is imported."""
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements.read_text().split()]
    return [name for name in names if importlib.util.find_spec(name) is None]


def missingSentence() -> str:
    """What Enhance would install first, for the panel; empty where all is there."""
    missing = ([] if torchVersion() else ["PyTorch"]) + missingPackages()
    if not missing:
        return ""
    return _("Still to be installed, when you press Enhance and agree: {packages}.").format(packages=", ".join(missing))


def ensureEnvironment(installer: Installer, confirm: Confirm) -> None:
    """Have all that the worker needs, asking the user first.

    :raises EnvironmentNotReady: when the user said no, something failed, or Slicer has to be restarted.
    """
    if torchVersion() is None:
        _ensureTorch(installer, confirm)
    _checkTorch(torchVersion())
    if missingPackages():
        _ensurePackages(installer)


def _ensureTorch(installer: Installer, confirm: Confirm) -> None:
    if not installer.hasTorchExtension():
        question = _(
            "Enhancing needs PyTorch, which comes through the PyTorch extension. Install that extension now? "
            "Slicer has to be restarted afterwards."
        )
        if not confirm(question):
            raise EnvironmentNotReady(
                _("PyTorch is missing. Install the extension PyTorch in the Extensions Manager and restart Slicer.")
            )
        if not _attempted(installer.installTorchExtension):
            raise EnvironmentNotReady(
                _("The PyTorch extension could not be installed. Install it in the Extensions Manager instead.")
            )
        raise EnvironmentNotReady(_("The PyTorch extension was installed. Restart Slicer, then press Enhance again."))
    question = _(
        "Enhancing needs PyTorch (0.2 to 3 GB to download). Install it now? Slicer does not respond for some minutes."
    )
    if not confirm(question):
        raise EnvironmentNotReady(_("PyTorch is missing. Press Enhance again when you want to install it."))
    _attempted(installer.installTorch)
    importlib.invalidate_caches()
    if torchVersion() is None:
        raise EnvironmentNotReady(
            _("PyTorch was not installed. See the log, and try it in the module PyTorch Util of Slicer.")
        )


def _checkTorch(version: str | None) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version or "0")[:2])
    if numbers < OLDEST_TORCH:
        raise EnvironmentNotReady(
            _("PyTorch {version} is too old; install 2.2 or later in the module PyTorch Util of Slicer.").format(
                version=version
            )
        )


def _ensurePackages(installer: Installer) -> None:
    """Slicer's installer asks the user itself."""
    _attempted(lambda: installer.installPackages(REQUIREMENTS))
    importlib.invalidate_caches()
    # Checked again: in its testing mode Slicer installs nothing and says nothing.
    if missing := missingPackages():
        raise EnvironmentNotReady(
            _("Not installed: {packages}. Press Enhance again when you want to install them.").format(
                packages=", ".join(missing)
            )
        )


def _attempted(install: Callable[[], Any]) -> Any:
    """Whatever an installer raises means that something is missing still; what, is found by looking."""
    try:
        return install()
    except Exception as error:
        raise EnvironmentNotReady(
            _("The installation did not finish ({error}). Press Enhance to try again.").format(
                error=str(error) or type(error).__name__
            )
        ) from error


class SlicerInstaller:
    """Slicer's own ways of installing."""

    def __init__(self, confirm: Confirm) -> None:
        self._confirm = confirm

    def hasTorchExtension(self) -> bool:
        return importlib.util.find_spec("PyTorchUtils") is not None

    def installTorchExtension(self) -> bool:
        import slicer

        # False: the user says when to restart.
        return bool(slicer.app.extensionsManagerModel().installExtensionFromServer("PyTorch", False))

    def installTorch(self) -> None:
        import PyTorchUtils

        PyTorchUtils.PyTorchUtilsLogic().installTorch(torchVersionRequirement=">=2.2")

    def installPackages(self, requirements: Path) -> None:
        import slicer

        if hasattr(slicer, "packaging") or importlib.util.find_spec("slicer.packaging") is not None:
            import slicer.packaging

            packages = slicer.packaging.load_requirements(requirements)
            slicer.packaging.pip_ensure(packages, requester="MultiContrastSR")
            return
        # Slicer 5.10 asks nobody.
        packages = requirements.read_text().split()
        question = _("Enhancing needs the Python packages {packages} (a few MB). Install them now?")
        if not self._confirm(question.format(packages=", ".join(packages))):
            raise RuntimeError(_("you declined"))
        slicer.util.pip_install(packages)


def freeMemory(run: Callable[..., Any] = subprocess.run) -> str:
    """Name and free memory of each NVIDIA GPU, for the panel; empty where there is none or no driver."""
    question = ["nvidia-smi", "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = run(question, capture_output=True, text=True, timeout=3, check=True, **HIDDEN).stdout
        devices = [line.rsplit(",", 2) for line in answer.splitlines() if line.strip()]
        return "; ".join(
            _("{name}: {free:.1f} of {total:.1f} GB free").format(
                name=name.strip(), free=float(free) / 1024, total=float(total) / 1024
            )
            for name, free, total in devices
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
