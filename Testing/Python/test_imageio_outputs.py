"""Outputs appear whole or not at all, and never over an input."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import EXTENSIONS, full_disk, mri, one_sentence
from mcsr import imageio
from mcsr.errors import OutputError
from mcsr.geometry import AxisOrder
from mcsr.imageio import check_output_path, prepare_output_folder, read_volume, write_volume
from mcsr.volume import Volume


class TestWriting:
    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_full_disk_leaves_what_was_there(
        self, tmp_path: Path, extension: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / f"a{extension}"
        path.write_text("older result")
        noise = np.random.default_rng(0).random((20, 200, 200)).astype(np.float32)
        with full_disk(512 * 1024), pytest.raises(OutputError) as error:
            write_volume(Volume(noise, np.eye(4)), path)
        assert one_sentence(error, path.name, "space")
        assert os.listdir(tmp_path) == [path.name]
        assert path.read_text() == "older result"
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_failure_just_before_the_rename(
        self, tmp_path: Path, extension: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(imageio.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            write_volume(mri(), tmp_path / f"a{extension}")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
    def test_compressed_nifti_holds_what_itk_writes(self, tmp_path: Path, dtype: str) -> None:
        volume = mri(dtype=dtype).reordered(AxisOrder((1, 2, 0), (True, False, True)))
        volume = volume.with_array(1000.3 * (volume.array_kji - 60))
        for extension in (".nii", ".nii.gz"):
            write_volume(volume, tmp_path / f"a{extension}")
        assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == (tmp_path / "a.nii").read_bytes()

    def test_blocks_and_noise_are_each_compressed_well(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
        for pixels in (noise, noise.repeat(4, axis=1).repeat(4, axis=2)):
            write_volume(Volume(pixels, np.eye(4), source_dtype="float32"), tmp_path / "a.nii.gz")
            content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
            assert (tmp_path / "a.nii.gz").stat().st_size < 1.1 * len(zlib.compress(content, 1))

    @pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
    def test_a_shear_too_small_to_see_beforehand_is_seen_in_the_file(self, tmp_path: Path, extension: str) -> None:
        matrix = np.eye(4)
        matrix[0, 1] = 8e-5
        with pytest.raises(OutputError) as error:
            write_volume(Volume(np.ones((4, 250, 250)), matrix), tmp_path / f"a{extension}")
        assert one_sentence(error, "cannot hold the geometry", ".nrrd")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
    def test_an_axis_too_long_for_nifti(self, tmp_path: Path, extension: str) -> None:
        with pytest.raises(OutputError) as error:
            write_volume(Volume(np.ones((1, 2, 32768)), np.eye(4)), tmp_path / f"a{extension}")
        assert one_sentence(error, "32767", ".nrrd")

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError) as error:
            write_volume(mri(), tmp_path / "no" / "a.nii.gz")
        assert one_sentence(error, "a.nii.gz", "no folder")

    @pytest.mark.skipif(
        os.name == "nt" or os.geteuid() == 0, reason="the mode of a folder binds no superuser, and nobody on Windows"
    )
    def test_forbidden_folder(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError) as error:
            write_volume(mri(), tmp_path / "a.nii.gz")
        assert one_sentence(error, "a.nii.gz", "writable")

    @pytest.mark.parametrize("name", ["a.jpg", "a.mhd", "a.nhdr", "a"])
    def test_extension_that_cannot_be_written(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(OutputError) as error:
            write_volume(mri(), tmp_path / name)
        assert one_sentence(error, name, *EXTENSIONS)
        assert os.listdir(tmp_path) == []

    def test_nothing_of_the_patient_is_carried_over(self, tmp_path: Path) -> None:
        image = sitk.GetImageFromArray(mri().array_kji)
        image.SetMetaData("PatientName", "Secret^Name")
        sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
        assert b"Secret" in (tmp_path / "a.nrrd").read_bytes()
        write_volume(read_volume(tmp_path / "a.nrrd"), tmp_path / "b.nrrd")
        assert b"Secret" not in (tmp_path / "b.nrrd").read_bytes()


class TestOutputsAndInputs:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "in.nii.gz"
        path.write_bytes(b"voxels")
        return path

    def test_the_input_itself(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(source.parent)
        for path in (source, Path("in.nii.gz"), source.parent / "." / "in.nii.gz"):
            with pytest.raises(OutputError) as error:
                check_output_path(path, [source])
            assert one_sentence(error, "overwrite", str(source))

    @pytest.mark.parametrize("link", [os.symlink, os.link])
    def test_a_link_to_the_input(self, source: Path, link: object) -> None:
        link(source, source.parent / "out.nii.gz")  # type: ignore[operator]
        with pytest.raises(OutputError) as error:
            check_output_path(source.parent / "out.nii.gz", [source])
        assert one_sentence(error, "overwrite")

    def test_through_a_linked_folder(self, source: Path) -> None:
        (source.parent / "elsewhere").symlink_to(source.parent, target_is_directory=True)
        with pytest.raises(OutputError):
            check_output_path(source.parent / "elsewhere" / "in.nii.gz", [source])

    def test_a_slice_of_a_dicom_folder(self, tmp_path: Path) -> None:
        (tmp_path / "series").mkdir()
        (tmp_path / "series" / "001.dcm").write_bytes(b"slice")
        (tmp_path / "out.nii.gz").symlink_to(tmp_path / "series" / "001.dcm")
        for path in (tmp_path / "series" / "001.dcm", tmp_path / "out.nii.gz", tmp_path / "series"):
            with pytest.raises(OutputError):
                check_output_path(path, [tmp_path / "series"])
        check_output_path(tmp_path / "series" / "sr.nii.gz", [tmp_path / "series"])

    def test_other_names_are_free(self, source: Path) -> None:
        check_output_path(source.parent / "out.nii.gz", [source])

    def test_folder_is_made_and_left_clean(self, source: Path) -> None:
        folder = source.parent / "a" / "b"
        assert prepare_output_folder(folder, [source], ["sr.nii.gz"]) == folder
        assert os.listdir(folder) == []

    def test_planned_output_is_an_input(self, source: Path) -> None:
        with pytest.raises(OutputError) as error:
            prepare_output_folder(source.parent, [source], ["sr.nii.gz", "in.nii.gz"])
        assert one_sentence(error, "overwrite")

    def test_folder_is_a_file(self, source: Path) -> None:
        for folder in (source, source / "below"):
            with pytest.raises(OutputError) as error:
                prepare_output_folder(folder, [])
            assert one_sentence(error, str(folder))
        assert source.read_bytes() == b"voxels"

    @pytest.mark.parametrize("bytes_left", [0, 1000])
    def test_full_disk(self, tmp_path: Path, bytes_left: int) -> None:
        with full_disk(bytes_left), pytest.raises(OutputError) as error:
            prepare_output_folder(tmp_path / "a" / "b", [])
        assert one_sentence(error, "a")
        assert os.listdir(tmp_path) == []
