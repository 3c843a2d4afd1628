"""The wheel, built through the source distribution, and `mcsr` in an environment that holds nothing else of ours."""

from __future__ import annotations

import configparser
import email
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import mcsr
import pytest
from frame import MODULE_FOLDER, ROOT, files_below, sealed_environment
from mcsr.imageio import write_volume
from mcsr.volume import Volume
from mcsr.weights import shipped_models
from test_imports import ENGINE_PACKAGES, EXTRA_PACKAGES

LOGIC, MODELS = "MultiContrastSR/Logic", "MultiContrastSR/Resources/Models"
DIST_INFO = f"mcsr-{mcsr.__version__}.dist-info"
Mcsr = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: building writes into the folder of the sources, and picks up what an earlier build left there."""
    source = tmp_path_factory.mktemp("source")
    junk = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(MODULE_FOLDER, source / MODULE_FOLDER.name, ignore=junk)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, source]
    done = subprocess.run(command, cwd=built, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {f"mcsr-{mcsr.__version__}.tar.gz", f"mcsr-{mcsr.__version__}-py3-none-any.whl"}
    assert {file.name for file in built.iterdir()} == names
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed_mcsr(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Mcsr:
    """Runs the `mcsr` command of a new environment with the wheel; what it depends on is that of this environment."""
    builder = venv.EnvBuilder(symlinks=os.name != "nt")
    folder = tmp_path_factory.mktemp("environment")
    builder.create(folder)
    context = builder.ensure_directories(folder)
    dependencies = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (next(folder.rglob("site-packages")) / "dependencies.pth").write_text("\n".join(dependencies))
    pip = [context.env_exe, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    done = subprocess.run([*pip, "--ignore-installed", wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    program = shutil.which("mcsr", path=context.bin_path)
    assert program

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = sealed_environment(COLUMNS="200")
        return subprocess.run([program, *arguments], env=environment, cwd=folder, capture_output=True, text=True)

    return run


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        return email.message_from_bytes(file.read(f"{DIST_INFO}/METADATA"))


def test_wheel_holds_the_engine_and_its_models_and_nothing_else(source: Path, wheel: Path) -> None:
    """Not what needs Slicer; the weights lie inside the package."""
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if not name.startswith(DIST_INFO)}
    engine = {f"mcsr/{name}" for name in files_below(source / LOGIC / "mcsr")}
    models = {f"mcsr/models/{name}" for name in files_below(source / MODELS)}
    assert (engine | models) - held == set(), "not in the wheel: add it to [tool.setuptools] of pyproject.toml"
    assert held == engine | models
    assert {"mcsr/py.typed", "mcsr/training/recipes/shipped/dcamsr-s-x4.toml", "mcsr/models/LICENSE"} <= held
    assert {f"mcsr/models/{model['path'].name}" for model in shipped_models()} <= held


def test_wheel_says_what_it_is_and_needs(wheel: Path) -> None:
    """It needs all that the engine and the command import, and no more; the rest are extras."""
    facts = metadata(wheel)
    assert facts["Version"] == mcsr.__version__
    assert facts["License-Expression"] == "Apache-2.0 AND CC-BY-4.0"
    assert len(facts.get_all("License-File", [])) == 2
    needed = [line for line in facts.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {line.partition(">")[0] for line in needed} == ENGINE_PACKAGES | EXTRA_PACKAGES["cli"]
    assert set(facts.get_all("Provides-Extra", [])) >= {"report", "train", "test"}
    entries = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as file:
        entries.read_string(file.read(f"{DIST_INFO}/entry_points.txt").decode())
    assert dict(entries["console_scripts"]) == {"mcsr": "mcsr.cli:main"}


def test_installed_command_finds_its_weights_whole(installed_mcsr: Mcsr) -> None:
    assert installed_mcsr("--version").stdout == f"mcsr {mcsr.__version__}\n"
    table = installed_mcsr("models", "verify").stdout
    whole = {line.split()[1] for line in table.splitlines() if "shipped" in line and "whole" in line}
    assert whole == {model["id"] for model in shipped_models()}


def test_installed_command_enhances(
    installed_mcsr: Mcsr, phantom: tuple[Volume, Volume, Volume], tmp_path: Path
) -> None:
    """The phantom; it gains as much over interpolation as in the checkout."""
    files = [tmp_path / f"{name}.nii.gz" for name in ("target", "reference", "truth")]
    for volume, file in zip(phantom, files, strict=True):
        write_volume(volume, file)
    options = ["-o", tmp_path / "result", "--scale", "4", "--registration", "none", "--device", "cpu"]
    done = installed_mcsr("enhance", *files[:2], *options, "--ground-truth", files[2])
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "result" / "report.json").read_text())
    assert report["software"] == f"MultiContrastSR {mcsr.__version__}"
    assert report["scores"]["result"]["psnr"] > report["scores"]["interpolated"]["psnr"] + 1.0
