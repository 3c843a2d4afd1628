"""The frame of the project: metadata that agree, files in their places, nothing that is not ours; tools/setup.sh.

What is packaged, and that it works, is in test_packaging.py and test_packaging_wheel.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import mcsr
import pytest
import yaml
from frame import MODULE_FOLDER, ROOT, git, project_files, s4ext, text

REPOSITORY = "https://github.com/MultiContrastSR/SlicerMultiContrastSR"
PYTHON_FILES = sorted(
    file for folder in ("MultiContrastSR", "Testing", "tools") for file in (ROOT / folder).rglob("*.py")
)


def cmake_metadata() -> dict[str, str]:
    """EXTENSION_* of the root CMakeLists.txt by lower-case name, read as the Extensions Index reads them."""
    found = re.findall(r'^set\(EXTENSION_(\w+) "([^"]*)"\)$', text("CMakeLists.txt"), flags=re.MULTILINE)
    return {name.lower(): value for name, value in found}


def catalog_entry() -> dict[str, object]:
    return json.loads(text("MultiContrastSR.json"))


def test_one_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", mcsr.__version__)
    assert 'dynamic = ["version"]' in text("pyproject.toml")
    assert 'version = { attr = "mcsr.__version__" }' in text("pyproject.toml")
    assert f'Homepage = "{REPOSITORY}"' in text("pyproject.toml")
    holders = ["CMakeLists.txt", "MultiContrastSR.s4ext", "MultiContrastSR.json", "CITATION.cff", "pyproject.toml"]
    assert not [name for name in holders if re.search(rf"\b{re.escape(mcsr.__version__)}\b", text(name))]


def test_extension_metadata() -> None:
    cmake = cmake_metadata()
    assert "project(MultiContrastSR)" in text("CMakeLists.txt")
    assert cmake["homepage"] == REPOSITORY
    assert cmake["category"] == "Image Synthesis"
    assert cmake["depends"] == "PyTorch"
    assert 50 < len(cmake["description"]) < 400
    for name in ("iconurl", "screenshoturls"):
        assert "$" not in cmake[name]
    for name in ("LICENSE", "README.md"):
        assert f'"${{CMAKE_CURRENT_SOURCE_DIR}}/{name}"' in text("CMakeLists.txt")


def picture_at(url: str) -> tuple[int, int]:
    """Width and height of the PNG file of the repository that an address names."""
    raw, path = url.split("/main/")
    assert raw == REPOSITORY.replace("github.com", "raw.githubusercontent.com")
    header = (ROOT / path).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def test_icon_and_pictures_are_files_of_the_repository() -> None:
    assert picture_at(cmake_metadata()["iconurl"]) == (128, 128)
    pictures = cmake_metadata()["screenshoturls"].split()
    assert pictures
    assert all(min(picture_at(url)) >= 400 for url in pictures)


def test_s4ext_says_what_cmake_says() -> None:
    cmake, described = cmake_metadata(), s4ext(ROOT / "MultiContrastSR.s4ext")
    for name in "homepage category contributors description iconurl screenshoturls depends keywords".split():
        assert described[name] == cmake[name], name
    assert described["scm"] == "git"
    assert described["scmurl"] == REPOSITORY


def test_catalog_entry_follows_its_schema() -> None:
    raw = (ROOT / "MultiContrastSR.json").read_bytes()
    assert b"\r" not in raw
    entry = catalog_entry()
    assert set(entry) >= {"$schema", "category", "scm_url"}
    optional = "scm_revision scm_type build_dependencies build_subdirectory dicom_support_rule enabled tier".split()
    assert set(entry) <= {"$schema", "category", "scm_url", *optional}
    assert all(isinstance(entry[key], str) for key in set(entry) - {"build_dependencies", "enabled", "tier"})
    assert entry["scm_type"] in {"git", "local"}
    assert str(entry["$schema"]).endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["category"] in {"Image Synthesis", "Filtering", "Neuroimaging"}
    assert entry["tier"] in range(1, 6)


def test_index_would_accept_the_names() -> None:
    """The repository's name begins with Slicer, the extension's does not; nothing is fetched without encryption."""
    described = s4ext(ROOT / "MultiContrastSR.s4ext")
    (name,) = re.findall(r"^project\((\w+)\)$", text("CMakeLists.txt"), flags=re.MULTILINE)
    assert f"{name}.json" in os.listdir(ROOT)
    assert not name.startswith("Slicer")
    assert described["scmurl"].rpartition("/")[2] == f"Slicer{name}"
    for key in ("scmurl", "homepage", "iconurl", "screenshoturls"):
        assert described[key].startswith("https://")


def test_catalog_entry_says_what_s4ext_says() -> None:
    entry, described = catalog_entry(), s4ext(ROOT / "MultiContrastSR.s4ext")
    assert entry["scm_url"] == described["scmurl"]
    assert entry["scm_revision"] == described["scmrevision"]
    assert entry["scm_type"] == described["scm"]
    assert entry["build_subdirectory"] == described["build_subdirectory"]
    assert entry["build_dependencies"] == described["depends"].split()
    assert entry["category"] == described["category"]
    assert str(entry["tier"]) == described["tier"]


def test_module_declares_what_the_extension_declares() -> None:
    module = text("MultiContrastSR/MultiContrastSR.py")
    cmake = cmake_metadata()
    for value in (cmake["category"], cmake["homepage"], cmake["contributors"]):
        assert f'"{value}"' in module


def test_module_folder_holds_one_module() -> None:
    assert [file.name for file in MODULE_FOLDER.glob("*.py")] == ["MultiContrastSR.py"]
    module = (MODULE_FOLDER / "MultiContrastSR.py").read_bytes()
    assert module.isascii()
    assert not module.startswith(b"#!")
    assert module.count(b"\n") < 500


@pytest.mark.parametrize("folder", ["MultiContrastSR", "MultiContrastSR/Logic", "Testing", "Testing/Python"])
def test_folders_that_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("file", PYTHON_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_can_be_read_in_one_sitting(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 400


def test_slicer_installs_only_two_packages() -> None:
    """torch comes through the PyTorch extension; numpy and SimpleITK are Slicer's own."""
    assert text("MultiContrastSR/Resources/requirements.txt").split() == ["h5py", "safetensors"]


def test_ui_resources_carry_the_module_name() -> None:
    """Slicer puts the Resources of all modules of a build into one folder."""
    for name in ("UI", "Icons"):
        for file in (MODULE_FOLDER / "Resources" / name).iterdir():
            assert file.name.startswith("MultiContrastSR"), file
    for file in (MODULE_FOLDER / "Resources" / "UI").iterdir():
        ElementTree.parse(file)


def test_licences() -> None:
    licence = text("LICENSE")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    weights = text("MultiContrastSR/Resources/Models/LICENSE")
    assert "CC BY 4.0" in weights
    assert "doi:10.1007/s12021-017-9348-7" in weights
    assert 'license = "Apache-2.0 AND CC-BY-4.0"' in text("pyproject.toml")


def test_citation_names_software_and_papers() -> None:
    citation = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == "Apache-2.0"
    assert citation["repository-code"] == REPOSITORY
    assert len(citation["references"]) == 5
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert all("name" in author or "family-names" in author for author in reference["authors"])


def test_no_machine_paths() -> None:
    folders = [f"/{name}/".encode() for name in ("work", "root", "tmp", "home")]
    found = [
        f"{file.relative_to(ROOT)}: {folder.decode()}"
        for file in project_files()
        for content in [file.read_bytes()]
        for folder in folders
        if folder in content
    ]
    assert not found


def test_clone_is_small() -> None:
    """The Extensions Index refuses a clone of 100 MB, history included."""
    history = int(git("rev-list", "--objects", "--disk-usage", "HEAD"))
    assert history + sum(file.stat().st_size for file in project_files()) < 100e6


# --- tools/setup.sh: every way in which it cannot go on ends in one sentence and leaves nothing behind.


@pytest.fixture
def setup(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a copy of the project's setup with nothing on PATH but a few tools and the stand-ins given."""
    tools, stand_in_folder = tmp_path / "bin", tmp_path / "stand-ins"
    for folder in (tools, stand_in_folder, tmp_path / "tools"):
        folder.mkdir()
    for name in ("tools/setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("sh", "dirname", "cat", "cksum", "head", "sed", "rm", "tr", "id"):
        (tools / name).symlink_to(shutil.which(name) or pytest.fail(f"{name} is not on this machine"))

    def run(stand_ins: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
        for name, script in stand_ins.items():
            # A folder of its own, and a new file: written through a link, a stand-in would replace the real program.
            with (stand_in_folder / name).open("x") as file:
                file.write(f"#!/bin/sh\n{script}\n")
            (stand_in_folder / name).chmod(0o755)
        environment["PATH"] = f"{stand_in_folder}{os.pathsep}{tools}"
        command = [str(tools / "sh"), "tools/setup.sh", "report"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def python_stand_in(version: str, venv: str) -> str:
    """Answers the two questions that setup asks; `venv` is the shell command whose success means "can make one"."""
    return f'case "$2" in *version_info*) echo {version} ;; *ensurepip*) {venv} ;; *) exit 9 ;; esac'


@pytest.mark.parametrize(
    ("stand_ins", "environment", "sentence"),
    [
        ({}, {}, "No Python 3.10 to 3.13 was found; install one, or name it"),
        ({"python3": "exit 127"}, {}, "No Python 3.10 to 3.13 was found"),
        ({"python3": python_stand_in("3.9", "true")}, {}, "No Python 3.10 to 3.13 was found"),
        ({"python3": python_stand_in("3.14", "true")}, {"PYTHON": "python3"}, "PYTHON=python3 is not a Python 3.10"),
        ({"python3": python_stand_in("3.11", "false")}, {}, "python3 cannot make virtual environments; install"),
        ({"python3": python_stand_in("3.12", "true")}, {}, "python3 could not make .venv here"),
    ],
)
def test_setup_says_what_is_missing(
    setup: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    stand_ins: dict[str, str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    done = setup(stand_ins, **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv").exists()


def test_setup_installs_the_missing_system_package(
    setup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Where it may: as root, or with a sudo that asks nothing. Then the next step is reached."""
    log = tmp_path / "apt.log"
    stand_ins = {
        "id": "echo 1000",
        "sudo": 'case "$1" in -n) exit 0 ;; *) "$@" ;; esac',
        "apt-get": f'echo "$@" >>"{log}"',
        "python3": python_stand_in("3.11", f'[ -f "{log}" ]'),
    }
    done = setup(stand_ins)
    assert log.read_text().splitlines()[-1].endswith("python3.11-venv")
    assert "Installing the system package python3.11-venv" in done.stderr
    assert "could not make .venv" in done.stderr
