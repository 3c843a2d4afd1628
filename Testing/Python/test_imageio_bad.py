"""Bad files end in one sentence and nothing else; no MRI is taken for a label map."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from grids import oblique_grid
from helpers import EXTENSIONS, mri, nifti_bytes, one_sentence
from mcsr.checks import check_scalar_mri
from mcsr.errors import GeometryError, InputError
from mcsr.geometry import same_space
from mcsr.imageio import read_volume, write_volume
from mcsr.volume import Volume

NOISE = np.random.default_rng(1).integers(0, 900, (6, 20, 24)).astype(np.int16)


def itk_image(array: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(array)


class TestBadInput:
    @pytest.fixture(autouse=True)
    def _nothing_printed(self, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
        yield
        assert capfd.readouterr() == ("", "")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / "nowhere.nii.gz")
        assert one_sentence(error, "nowhere.nii.gz", "does not exist")

    @pytest.mark.parametrize("name", ["a.jpg", "a", "a.dcm", "a.hdr", "a.gz"])
    def test_unsupported_extension(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"x" * 400)
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / name)
        assert one_sentence(error, name, *EXTENSIONS, "DICOM")

    @pytest.mark.parametrize("extension", EXTENSIONS)
    @pytest.mark.parametrize("content", [b"", b"hello world\n" * 100, np.random.default_rng(2).bytes(5000)])
    def test_not_an_image(self, tmp_path: Path, extension: str, content: bytes) -> None:
        (tmp_path / f"a{extension}").write_bytes(content)
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / f"a{extension}")
        assert one_sentence(error, f"a{extension}")

    @pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".mha"])
    def test_picture_with_the_wrong_extension(self, tmp_path: Path, extension: str) -> None:
        sitk.WriteImage(itk_image(NOISE[0].astype(np.uint8)), str(tmp_path / "a.png"))
        (tmp_path / "a.png").rename(tmp_path / f"a{extension}")
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / f"a{extension}")
        assert one_sentence(error, f"a{extension}")

    @pytest.mark.parametrize("fraction", [0.3, 0.9, 0.999])
    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_truncated(self, tmp_path: Path, extension: str, fraction: float) -> None:
        path = tmp_path / f"a{extension}"
        sitk.WriteImage(itk_image(NOISE), str(path), useCompression=extension != ".nii")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * fraction)])
        with pytest.raises(InputError) as error:
            read_volume(path)
        assert one_sentence(error, path.name)

    def test_flipped_byte_in_gzip(self, tmp_path: Path) -> None:
        write_volume(mri(), tmp_path / "a.nii.gz")
        content = bytearray((tmp_path / "a.nii.gz").read_bytes())
        content[len(content) // 2] ^= 0xFF
        (tmp_path / "a.nii.gz").write_bytes(content)
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / "a.nii.gz")
        assert one_sentence(error, "a.nii.gz", "damaged")

    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_four_dimensions(self, tmp_path: Path, extension: str) -> None:
        sitk.WriteImage(sitk.JoinSeries([itk_image(NOISE)] * 3), str(tmp_path / f"a{extension}"))
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / f"a{extension}")
        assert one_sentence(error, f"a{extension}", "24 x 20 x 6 x 3")

    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_a_single_time_point_is_a_volume(self, tmp_path: Path, extension: str) -> None:
        volume = mri()
        write_volume(volume, tmp_path / f"a{extension}")
        image = sitk.JoinSeries([sitk.ReadImage(str(tmp_path / f"a{extension}"))])
        sitk.WriteImage(image, str(tmp_path / f"b{extension}"))
        back = read_volume(tmp_path / f"b{extension}")
        assert np.array_equal(back.array_kji, volume.array_kji)
        assert same_space(back.grid, volume.grid, 1e-4)

    @pytest.mark.parametrize("extension", EXTENSIONS)
    @pytest.mark.parametrize("kind", ["vector", "colour", "complex", "picture"])
    def test_not_scalar_or_flat(self, tmp_path: Path, extension: str, kind: str) -> None:
        image = itk_image(NOISE)
        made = {
            "vector": lambda: sitk.Compose(image, image, image),
            "colour": lambda: sitk.Compose([sitk.Cast(image, sitk.sitkUInt8)] * 3),
            "complex": lambda: sitk.Cast(image, sitk.sitkComplexFloat32),
            "picture": lambda: image[:, :, 0],
        }[kind]()
        sitk.WriteImage(made, str(tmp_path / f"a{extension}"))
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / f"a{extension}")
        words = {"picture": ("2-D", "24 x 20"), "complex": ("2 values",)}.get(kind, ("3 values",))
        assert one_sentence(error, f"a{extension}", *words)

    def test_sheared_sform(self, tmp_path: Path) -> None:
        matrix = np.array([[1, 0.3, 0, 5], [0, 1.2, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
        (tmp_path / "a.nii").write_bytes(nifti_bytes(NOISE, matrix))
        with pytest.raises(GeometryError) as error:
            read_volume(tmp_path / "a.nii")
        assert one_sentence(error, "a.nii", "sheared")

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_few_nan_are_counted_and_replaced(self, tmp_path: Path, extension: str, dtype: str) -> None:
        array = NOISE.astype(dtype)
        array[2, 3, 4:10] = (np.nan, np.inf, -np.inf, np.nan, 5, np.nan)
        sitk.WriteImage(itk_image(array), str(tmp_path / f"a{extension}"))
        volume = read_volume(tmp_path / f"a{extension}")
        assert volume.replaced_voxels == 5
        assert np.array_equal(volume.array_kji, np.where(np.isfinite(array), array, 0))
        assert any("NaN" in warning for warning in check_scalar_mri(volume))

    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_many_nan(self, tmp_path: Path, extension: str) -> None:
        array = NOISE.astype(np.float32)
        array.ravel()[: int(0.02 * array.size)] = np.nan
        sitk.WriteImage(itk_image(array), str(tmp_path / f"a{extension}"))
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / f"a{extension}")
        assert one_sentence(error, "NaN", "2.0 %")

    def test_nan_in_a_big_endian_file(self, tmp_path: Path) -> None:
        header = bytearray(nifti_bytes(NOISE, np.diag([1.0, 1, 1, 1]), big_endian=True)[:352])
        struct.pack_into(">2h", header, 70, 16, 32)
        array = NOISE.astype(">f4")
        array[1, 2, 3] = np.nan
        (tmp_path / "a.nii").write_bytes(bytes(header) + array.tobytes())
        assert read_volume(tmp_path / "a.nii").replaced_voxels == 1

    def test_constant(self, tmp_path: Path) -> None:
        sitk.WriteImage(itk_image(np.full((6, 20, 24), 7, np.int16)), str(tmp_path / "a.nii.gz"))
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / "a.nii.gz")
        assert one_sentence(error, "constant")

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
    @pytest.mark.parametrize("kind", ["mask", "scattered mask", "tissues", "regions"])
    def test_label_map(self, tmp_path: Path, kind: str, dtype: str) -> None:
        rng = np.random.default_rng(3)
        array = np.zeros((16, 64, 64))
        if kind == "mask":
            array[4:9, 20:40, 20:40] = 1
        elif kind == "scattered mask":
            array[rng.random(array.shape) < 0.01] = 1
        elif kind == "tissues":
            array = rng.integers(0, 5, array.shape)
        else:
            # 64 regions of 16**3 voxels with the numbers of an atlas.
            array = np.kron(rng.permutation(200)[:16].reshape(1, 4, 4) + 1, np.ones((16, 16, 16)))
            array[8:] += 20
        sitk.WriteImage(itk_image(array.astype(dtype)), str(tmp_path / "a.nii.gz"))
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / "a.nii.gz")
        assert one_sentence(error, "label map")


class TestLabelRuleSparesMri:
    def test_few_grey_levels(self) -> None:
        """A smooth object of 20 grey levels with noise of one level: far coarser than any scanner's."""
        k, j, i = np.indices((8, 64, 64))
        smooth = 18 * np.exp(-((j - 32) ** 2 + (i - 32) ** 2) / 500 - (k - 4) ** 2 / 50)
        noisy = np.rint(np.abs(smooth + np.random.default_rng(0).normal(0, 0.7, smooth.shape)))
        assert len(np.unique(noisy)) <= 24
        assert check_scalar_mri(Volume(noisy, np.eye(4))) == []

    def test_large_empty_background(self) -> None:
        array = np.zeros((20, 80, 80))
        array[8:12, 30:50, 30:50] = mri(oblique_grid((20, 20, 4))).array_kji
        assert check_scalar_mri(Volume(array, np.eye(4))) == []

    def test_fractions_between_0_and_1(self) -> None:
        array = np.linspace(0, 1, 10).repeat(100).reshape(10, 10, 10)
        assert check_scalar_mri(Volume(array, np.eye(4))) == []

    def test_few_values_so_large_that_float32_has_no_fractions_there(self) -> None:
        array = 1e9 * np.linspace(0, 1, 10).repeat(100).reshape(10, 10, 10)
        assert check_scalar_mri(Volume(array, np.eye(4))) == []

    @pytest.mark.data
    def test_real_mri_squeezed_and_interpolated(self, real_data: Path) -> None:
        """A T1, the flattest of the contrasts, in 40 grey levels."""
        volume = read_volume(real_data / "nifti" / "ms_p03_s2_T1.nii.gz")
        squeezed = volume.array_kji[20:26, 100:180, 100:180] / np.percentile(volume.array_kji, 99.9) * 40
        larger = sitk.Expand(itk_image(squeezed), [3, 3, 3], sitk.sitkBSpline)
        for array in (np.rint(squeezed), np.rint(sitk.GetArrayFromImage(larger))):
            assert check_scalar_mri(Volume(array, np.eye(4))) == []

    def test_single_slice_is_told(self) -> None:
        (warning,) = check_scalar_mri(mri(oblique_grid((24, 20, 1)), name="thin"))
        assert "thin" in warning
        assert "single slice" in warning
