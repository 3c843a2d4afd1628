"""Paths that cannot be used: each ends in one sentence, and none is waited for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import mri, one_sentence
from mcsr.errors import InputError, OutputError
from mcsr.imageio import prepare_output_folder, read_volume, write_volume

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions and pipes as Unix has them")

NOBODY = 65534


@contextmanager
def forbidden(folder: Path) -> Iterator[None]:
    """What lies in a folder can be neither seen nor changed; the superuser, who always can, becomes somebody else."""
    user, mode = os.geteuid(), folder.stat().st_mode
    folder.chmod(0)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)


@pytest.mark.parametrize("name", ["a.nii.gz", "no such.nrrd", "series"])
def test_an_input_in_a_forbidden_folder(tmp_path: Path, name: str) -> None:
    write_volume(mri(), tmp_path / "a.nii.gz")
    (tmp_path / "series").mkdir()
    with forbidden(tmp_path), pytest.raises(InputError) as error:
        read_volume(tmp_path / name)
    assert one_sentence(error, name, "cannot be read (Permission denied)")


def test_a_forbidden_folder_of_dicom(tmp_path: Path) -> None:
    with forbidden(tmp_path), pytest.raises(InputError) as error:
        read_volume(tmp_path)
    assert one_sentence(error, str(tmp_path), "cannot be read (Permission denied)")


@pytest.mark.parametrize("name", ["x" * 300 + ".nii", "x" * 300])
def test_an_input_of_a_name_that_is_too_long(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as error:
        read_volume(tmp_path / name)
    assert one_sentence(error, "cannot be read (File name too long)")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(InputError) as error:
        read_volume(tmp_path / "a.nii")
    assert one_sentence(error, "a.nii", "neither a file nor a folder")


def test_an_output_folder_of_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as error:
        prepare_output_folder(tmp_path / "new" / ("x" * 300), [tmp_path / "a.nii"], ["sr.nii.gz"])
    assert one_sentence(error, "File name too long", "choose another")
    assert os.listdir(tmp_path) == []


def test_an_output_folder_in_a_forbidden_one(tmp_path: Path) -> None:
    with forbidden(tmp_path), pytest.raises(OutputError) as error:
        prepare_output_folder(tmp_path / "new", [tmp_path / "a.nii"], ["sr.nii.gz"])
    assert one_sentence(error, "new", "Permission denied")
    assert os.listdir(tmp_path) == []
