"""The extension, configured, built, installed and packaged by CMake, and then started from its package.

Slicer's part of that is stood in for by Testing/Packaging, the application by Testing/Host; nothing was run in Slicer.
"""

from __future__ import annotations

import filecmp
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cmake
import mcsr
import ninja
import pytest
from frame import MODULE_FOLDER, PACKAGING, ROOT, files_below, s4ext, sealed_environment
from mcsr.weights import shipped_models

MODULES = "lib/Slicer-5.12/qt-scripted-modules"
DESCRIPTION = "share/Slicer-5.12/MultiContrastSR.s4ext"


def run_tool(name: str, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run cmake or ctest out of the package of the test extra; what lies on PATH may be too old."""
    done = subprocess.run([Path(cmake.CMAKE_BIN_DIR) / name, *arguments], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The folders `build`, `installed` and `unpacked`, the `archive`, and the `warnings` of the configuration."""
    folder = tmp_path_factory.mktemp("extension")
    build, installed, unpacked = (folder / name for name in ("build", "installed", "unpacked"))
    settings = {
        "Slicer_DIR": PACKAGING,
        "CMAKE_TOOLCHAIN_FILE": PACKAGING / "no_compiler.cmake",
        "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR) / "ninja",
        "CMAKE_BUILD_TYPE": "Release",
        "Python3_EXECUTABLE": sys.executable,
    }
    definitions = [f"-D{name}={value}" for name, value in settings.items()]
    warnings = run_tool("cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *definitions).stderr
    run_tool("cmake", "--build", build, "--target", "package")
    run_tool("cmake", "--install", build, "--prefix", installed)
    (archive,) = build.glob("*.tar.gz")
    unpacked.mkdir()
    run_tool("cmake", "-E", "tar", "xf", archive, cwd=unpacked)
    return SimpleNamespace(build=build, installed=installed, unpacked=unpacked, archive=archive, warnings=warnings)


def every_file(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_configures_without_a_warning(built: SimpleNamespace) -> None:
    assert built.warnings == ""


def test_every_file_is_installed_and_nothing_else(built: SimpleNamespace) -> None:
    """Scripts with their bytecode, all under the paths of the checkout; no tests, no caches of other programs."""
    on_disk = files_below(MODULE_FOLDER) - {"CMakeLists.txt"}
    scripts = {name for name in on_disk if name.endswith(".py")}
    bytecode = {Path(importlib.util.cache_from_source(name)).as_posix() for name in scripts}
    installed = {name.removeprefix(f"{MODULES}/") for name in every_file(built.installed) - {DESCRIPTION}}
    assert on_disk - installed == set(), "not packaged: add the pattern to MultiContrastSR/CMakeLists.txt"
    assert bytecode - installed == set(), "Python belongs into SCRIPTS"
    assert installed - on_disk - bytecode == set()
    _, different, unread = filecmp.cmpfiles(MODULE_FOLDER, built.installed / MODULES, on_disk, shallow=False)
    assert (different, unread) == ([], [])


def test_package_is_one_folder_with_what_is_installed(built: SimpleNamespace) -> None:
    """Slicer's Extensions Manager takes the one folder at the top of the archive away."""
    (top,) = built.unpacked.iterdir()
    assert built.archive.name == f"{top.name}.tar.gz"
    assert "-MultiContrastSR-" in top.name
    assert every_file(top) == every_file(built.installed)


def test_description_in_the_package_is_that_of_the_repository(built: SimpleNamespace) -> None:
    """Slicer writes it from the CMake variables; the tier and the source are the Extensions Index' business."""
    written, kept = s4ext(built.installed / DESCRIPTION), s4ext(ROOT / "MultiContrastSR.s4ext")
    shared = set(written) - {"scm", "scmurl", "scmrevision"}
    assert set(kept) - shared == {"scm", "scmurl", "scmrevision", "tier", "keywords"}
    assert {key: written[key] for key in shared} == {key: kept[key] for key in shared}


def test_another_extension_finds_the_build(built: SimpleNamespace) -> None:
    assert (
        f'MultiContrastSR_SOURCE_DIR "{ROOT.as_posix()}"' in (built.build / "MultiContrastSRConfig.cmake").read_text()
    )


def test_ctest_knows_the_tests_that_need_slicer(built: SimpleNamespace) -> None:
    """The self test with a main window and without, and what Slicer asks of every module; names are files' names."""
    listing = json.loads(run_tool("ctest", "--test-dir", built.build, "--show-only=json-v1").stdout)
    tests = {test["name"]: test["command"] for test in listing["tests"]}
    generic = "py_nomainwindow_qSlicerMultiContrastSRModuleGenericTest"
    assert set(tests) == {"py_MultiContrastSR", "py_nomainwindow_MultiContrastSR", generic}
    for name, command in tests.items():
        assert ("--no-main-window" in command) == ("nomainwindow" in name)
        assert str(built.build / MODULES) in command
    assert (MODULE_FOLDER / "MultiContrastSR.py").is_file()
    assert f"'{MODULE_FOLDER}'], 'MultiContrastSR')" in tests["py_MultiContrastSR"][-1]


def test_seal_keeps_the_checkout_shut(tmp_path: Path) -> None:
    """Else the tests of installed copies prove little."""
    code = "import sys; print(len(open(sys.argv[1]).read()))"
    (tmp_path / "elsewhere.txt").write_text("abc")
    for file, is_read in ((tmp_path / "elsewhere.txt", True), (Path(mcsr.__file__), False)):
        command = [sys.executable, "-c", code, str(file)]
        done = subprocess.run(command, env=sealed_environment(), capture_output=True, text=True)
        assert (done.stdout == "3\n") == is_read
        assert ("belongs to the checkout" in done.stderr) != is_read


def test_module_out_of_the_package_enhances_the_phantom(built: SimpleNamespace, tmp_path: Path) -> None:
    """Module, panel, worker and weights are the package's; it gains as much over interpolation as the checkout's."""
    pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)
    pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed or lacks libEGL", exc_type=ImportError)
    (top,) = built.unpacked.iterdir()
    before = every_file(top)
    command = [sys.executable, PACKAGING / "enhance_installed.py", top / MODULES / "MultiContrastSR.py", tmp_path]
    environment = sealed_environment(ROOT / "Testing" / "Host")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == []
    assert found["warning"] == ""
    assert mcsr.__version__ in found["title"]
    assert len(found["files"]) > 30
    assert [file for file in found["files"] if not Path(file).is_relative_to(top)] == []
    (weights,) = [m for m in shipped_models() if (m["architecture"], m["scale"]) == ("dcamsr-s", 4)]
    assert found["weights_sha256"] == weights["sha256"]
    assert found["psnr"] > found["psnr_sinc"] + 1.0
    assert json.loads((tmp_path / "report.json").read_text())["software"] == f"MultiContrastSR {mcsr.__version__}"
    assert every_file(top) == before, "an installed extension may not be written to"
