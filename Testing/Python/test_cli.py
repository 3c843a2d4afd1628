"""The command line as a user meets it: files, exit codes, one sentence for each mistake, nothing half written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from grids import oblique_grid
from helpers import POSIX_ONLY
from mcsr import cli
from mcsr.cli import app
from mcsr.container import read_container
from mcsr.errors import OutputError
from mcsr.geometry import plane_name
from mcsr.imageio import read_volume, write_volume
from mcsr.job import Settings
from mcsr.metrics import compare
from mcsr.networks import create_network
from mcsr.pipeline import enhance as enhance_volumes
from mcsr.pipeline import simulate
from mcsr.report_panels import Panels
from mcsr.volume import Volume
from scenes import pair, scene
from typer.testing import CliRunner, Result

OUTPUTS = ["report.json", "report.png", "residual.nii.gz", "result.h5", "sr.nii.gz"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Target (x2 low resolution), reference and ground truth, in a folder of their own."""
    folder = tmp_path / "in"
    folder.mkdir()
    truth, reference = pair()
    volumes = {"t2_low.nii.gz": simulate(truth, 2)[0], "t1.nrrd": reference, "t2.nii.gz": truth}
    for name, volume in volumes.items():
        write_volume(volume, folder / name)
    return folder / "t2_low.nii.gz", folder / "t1.nrrd", folder / "t2.nii.gz"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def enhance(files: tuple[Path, Path, Path], output: Path, weights: Path, *more: object) -> Result:
    return run("enhance", files[0], files[1], "-o", output, "--scale", 2, "--weights", weights, *more)


def test_enhance_writes_everything(files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path) -> None:
    result = enhance(files, tmp_path / "out", untrained_x2, "--ground-truth", files[2])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == OUTPUTS
    sr, truth = read_volume(tmp_path / "out" / "sr.nii.gz"), read_volume(files[2])
    assert sr.grid.shape_ijk == truth.grid.shape_ijk
    np.testing.assert_allclose(sr.grid.ijk_to_ras, truth.grid.ijk_to_ras, atol=1e-4)
    assert sr.source_dtype == "int16"
    container = read_container(tmp_path / "out" / "result.h5")
    np.testing.assert_allclose(container.volumes["sr"].array_kji, sr.array_kji, atol=0.51)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rescored = compare(container.volumes["sr"].array_kji, truth.array_kji)
    assert report["scores"]["result"]["psnr"] == pytest.approx(rescored.psnr, abs=0.01)
    assert f"PSNR {report['scores']['result']['psnr']:.2f} dB" in result.output
    assert str(tmp_path) not in (tmp_path / "out" / "report.json").read_text(), "a path of the user's machine"
    assert "Research use only" in result.output


def test_maps_are_counted_and_the_report_is_what_to_look_at(
    files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path
) -> None:
    out = tmp_path / "out"
    result = enhance(files, out, untrained_x2, "--maps", "added,texture_lv1", "--registration", "none")
    assert result.exit_code == 0, result.output
    words = "".join(result.output.split())  # a terminal breaks lines anywhere
    assert f"sr.nii.gzand2mapsto{out}." in words
    assert f"Lookat{out / 'report.png'}" in words
    assert sorted(p.name for p in (out / "maps").iterdir()) == ["added.nii.gz", "texture_lv1.nii.gz"]


def test_json_lines(files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path) -> None:
    result = enhance(files, tmp_path / "out", untrained_x2, "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert len(fractions) > 8
    assert events[-1]["event"] == "result"
    assert sorted(Path(file).name for file in events[-1]["files"]) == OUTPUTS
    failed = enhance(files, tmp_path / "out", untrained_x2, "--json", "--scale", 5)
    assert failed.exit_code == 2
    error = json.loads(failed.stdout.splitlines()[-1])
    assert (error["event"], error["exit_code"]) == ("error", 2)


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (["--scale", "1"], 2, "Scale 1 is not offered"),
        (["--model", "dcamsr-x"], 2, "did you mean dcamsr-s"),
        (["--scale", "4"], 4, "not dcamsr-s x4"),
        (["--device", "tpu"], 5, "Unknown device"),
        (["--weights", "README"], 4, "There is no weights file README"),
        (["--ground-truth", "nowhere.nii"], 2, "nowhere.nii"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    change: list[str], code: int, sentence: str, files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path
) -> None:
    result = enhance(files, tmp_path / "out", untrained_x2, *change)
    assert result.exit_code == code, result.output
    assert sentence in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_unreadable_inputs(files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path) -> None:
    text, empty = tmp_path / "notes.nii", tmp_path / "empty"
    text.write_text("not an image")
    empty.mkdir()
    for path in (tmp_path / "absent.nii.gz", text, empty):
        result = run("enhance", path, files[1], "-o", tmp_path / "out", "--weights", untrained_x2, "--scale", 2)
        assert result.exit_code == 2, result.output
        assert path.name in "".join(result.output.split("\n"))
    assert not (tmp_path / "out").exists()


def test_no_output_overwrites_an_input(files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path) -> None:
    folder = tmp_path / "same"
    folder.mkdir()
    target = folder / "sr.nii.gz"
    target.write_bytes(files[0].read_bytes())
    before = target.read_bytes()
    result = run("enhance", target, files[1], "-o", folder, "--scale", 2, "--weights", untrained_x2)
    assert result.exit_code == 2
    assert "overwrite the input" in " ".join(result.output.split())
    assert target.read_bytes() == before
    assert [p.name for p in folder.iterdir()] == ["sr.nii.gz"]
    assert run("simulate", target, "-o", target).exit_code == 2
    assert target.read_bytes() == before


@pytest.mark.parametrize("writer", ["write_container", "write_volume", "write_figure"])
def test_a_full_disk_leaves_nothing(
    files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"mcsr.outputs.{writer}", full)
    result = enhance(files, tmp_path / "out", untrained_x2)
    assert result.exit_code == OutputError.exit_code
    assert "No space left on device" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_sheared_volumes_are_written_as_nrrd(
    files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path
) -> None:
    target = read_volume(files[0])
    matrix = target.ijk_to_ras.copy()
    matrix[:3, 2] += 0.2 * matrix[:3, 0]
    sheared = tmp_path / "sheared.nrrd"
    write_volume(Volume(target.array_kji, matrix), sheared)
    result = enhance((sheared, files[1], files[2]), tmp_path / "out", untrained_x2)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "sr.nrrd").is_file()


def test_folders_made_for_a_job_that_fails_are_removed_and_an_old_figure_does_not_stay(
    files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert enhance(files, tmp_path / "a" / "b" / "c", untrained_x2, "--device", "tpu").exit_code == 5
    assert not (tmp_path / "a").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.png").write_bytes(b"of another job")
    monkeypatch.setattr("mcsr.outputs.find_spec", lambda name: None)
    assert enhance(files, tmp_path / "out", untrained_x2).exit_code == 0
    assert not (tmp_path / "out" / "report.png").exists()


@pytest.mark.parametrize("plane", ["sagittal", "coronal"])
def test_the_figure_shows_the_plane_that_was_enhanced(plane: str) -> None:
    grid = oblique_grid((32, 36, 40), (1.0, 1.0, 1.0))
    low, _ = simulate(scene("T2", grid), 2, plane=plane)
    result = enhance_volumes(low, scene("T1", grid), Settings(model="sinc", scale=2))
    panels = Panels.of(result)
    assert plane_name(result.sr.grid, panels.slice_axis) == plane


def test_simulate_writes_the_low_resolution_volume(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    result = run("simulate", files[2], "-o", tmp_path / "low.nrrd", "--scale", 4)
    assert result.exit_code == 0, result.output
    low = read_volume(tmp_path / "low.nrrd")
    assert low.grid.shape_ijk == (12, 14, 8)
    assert "3.20 x 3.20 x 3.20 mm" in " ".join(result.output.split())
    signed = run("simulate", files[2], "-o", tmp_path / "signed.nrrd", "--scale", 4, "--signed", "--noise", 0.05)
    assert signed.exit_code == 0, signed.output
    assert read_volume(tmp_path / "signed.nrrd").array_kji.min() < 0
    assert run("simulate", files[2], "-o", tmp_path / "x.nrrd", "--degradation", "fog").exit_code == 2
    assert not (tmp_path / "x.nrrd").exists()


@POSIX_ONLY
def test_ctrl_c_stops_cleanly(tmp_path: Path, untrained_x2: Path) -> None:
    truth, reference = pair((64, 72, 40))
    for name, volume in (("low", simulate(truth, 2)[0]), ("ref", reference)):
        write_volume(volume, tmp_path / f"{name}.nii")
    command = [sys.executable, "-m", "mcsr.cli", "enhance", "low.nii", "ref.nii", "-o", "out", "--json"]
    command += ["--scale", "2", "--weights", str(untrained_x2)]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("stage") == "Enhancing":
                break
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(timeout=30) == 3
    assert time.monotonic() - started < 15
    assert json.loads(rest.splitlines()[-1])["exit_code"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["low.nii", "ref.nii"]


def test_tampered_weights_exit_with_their_own_code(
    files: tuple[Path, Path, Path], tmp_path: Path, untrained_x2: Path
) -> None:
    content = bytearray(untrained_x2.read_bytes())
    content[-1] ^= 1
    tampered = tmp_path / "tampered.safetensors"
    tampered.write_bytes(content)
    result = enhance(files, tmp_path / "out", tampered)
    assert result.exit_code == 4
    assert "was changed after it was written" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_demo_with_own_files(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    result = run("demo", "--target", files[2], "--reference", files[1], "-o", tmp_path / "out", "--scale", 2)
    assert result.exit_code == 0, result.output
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == sorted([*OUTPUTS, "target_lr.nii.gz", "target_truth.nii.gz", "reference.nii.gz"])
    assert result.output.replace("\n", "").rstrip().endswith("report.png")
    half = run("demo", "--target", files[2], "-o", tmp_path / "half")
    assert half.exit_code == 2
    assert "Give both --target and --reference" in " ".join(half.output.split())
    assert not (tmp_path / "half").exists()


@pytest.mark.slow
def test_demo_on_the_phantom_beats_interpolation(tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    scores = report["scores"]
    assert scores["result"]["psnr"] > scores["interpolated"]["psnr"] + 1.5
    assert scores["result"]["ssim"] > scores["interpolated"]["ssim"]
    assert report["registration"]["accepted"], "the phantom moves between its scans"


@POSIX_ONLY
def test_ctrl_c_in_training_exports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("mcsr.training.loop.train", interrupted)
    result = run("train", "shipped/dcamsr-s-x4", "--data", tmp_path, "-o", tmp_path / "run")
    assert result.exit_code == 3, result.output
    assert "go on with --resume" in " ".join(result.output.split())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_import_checkpoint_then_enhance(files: tuple[Path, Path, Path], tmp_path: Path, models_folder: Path) -> None:
    """From the authors' container through the models folder to a result on the target's grid."""
    torch.manual_seed(0)
    state = create_network("dcamsr", size=64, scale=2).state_dict()
    checkpoint = tmp_path / "epoch=49.ckpt"
    torch.save({"state_dict": {f"network.{key}": tensor for key, tensor in state.items()}}, checkpoint)
    weights = tmp_path / "theirs.safetensors"
    before = checkpoint.read_bytes()
    assert run("import-checkpoint", checkpoint, "-o", weights).exit_code == 2, "the scale is missing"
    assert run("import-checkpoint", checkpoint, "-o", checkpoint, "--scale", 2).exit_code == 2
    assert checkpoint.read_bytes() == before
    imported = run("import-checkpoint", checkpoint, "--architecture", "dcamsr", "-o", weights, "--scale", 2)
    assert imported.exit_code == 0, imported.output
    assert "--model dcamsr --scale 2" in " ".join(imported.output.split())
    assert run("models", "add", weights).exit_code == 0
    arguments = ("--model", "dcamsr", "--scale", 2, "--registration", "none")
    result = run("enhance", *files[:2], "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert "Data consistency is off" in " ".join(result.output.split())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["plan"]["conventions"] == {"sampling": "corner", "intensity": "zscore-lr"}
    canvas = report["plan"]["canvas"]
    assert (canvas["rows"], canvas["columns"]) == (32, 32)
    sr, target = read_volume(tmp_path / "out" / "sr.nii.gz"), read_volume(files[0])
    np.testing.assert_allclose(sr.grid.ras_bounds(), target.grid.ras_bounds(), atol=1e-3)
    assert run("import-checkpoint", weights, "-o", tmp_path / "x.pth", "--scale", 2).exit_code == 2


def test_the_real_command_says_its_version_quickly() -> None:
    script = "import sys; from mcsr.cli import app\ntry: app(['--version'])\nfinally: print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split()[0] == "mcsr"
    assert found.stdout.split()[-1] == "False", "torch was imported for --version"


@pytest.mark.data
def test_a_native_pair_on_different_grids(real_data: Path, tmp_path: Path) -> None:
    """The first screen of the README: a native T2, degraded, enhanced with a native T1 on another grid."""
    t2, t1 = (real_data / "nifti" / f"ms_p04_s1_{name}.nii.gz" for name in ("T2", "T1"))
    volume = read_volume(t2)
    slices = volume.cropped((0, 0, 16), (*volume.grid.shape_ijk[:2], 10))
    truth = Volume(slices.array_kji, slices.ijk_to_ras, name="t2", source_dtype="int16")
    write_volume(truth, tmp_path / "t2.nii.gz")
    assert run("simulate", tmp_path / "t2.nii.gz", "-o", tmp_path / "low.nii.gz", "--scale", 4).exit_code == 0
    result = run(
        "enhance", tmp_path / "low.nii.gz", t1, "-o", tmp_path / "out", "--ground-truth", tmp_path / "t2.nii.gz"
    )
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "out" / "report.json").read_text())["scores"]
    assert scores["result"]["psnr"] > scores["interpolated"]["psnr"] + 1.0
    assert scores["result"]["ssim"] > scores["interpolated"]["ssim"]
