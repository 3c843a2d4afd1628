"""A disk that is full, and no temporary folder: one sentence and nothing partial, or it works without."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
from helpers import full_disk, one_sentence
from mcsr import outputs
from mcsr.cli import app
from mcsr.errors import OutputError
from mcsr.imageio import write_volume
from mcsr.pipeline import simulate
from mcsr.training import loop
from mcsr.training.logs import RunLog
from scenes import pair
from subject_files import write_subject
from typer.testing import CliRunner, Result

TRAINING = """
name = "tiny"
network = "dcamsr-s"
scale = 2
steps = 3
learning_rate = 1e-3
precision = "32-true"
phases = [{ share = 1.0, batch = 1, crop = 24 }]
[network_config]
channels = 8
encoder_blocks = [1, 1, 1]
fusion_blocks = [1, 1, 1]
pool = 4
tokens = 4
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def enhance(folder: Path, out: Path, weights: Path, *more: object) -> Result:
    """Of a small head, whose files are put into a folder."""
    files = [folder / "low.nii.gz", folder / "t1.nii.gz"]
    if not files[0].exists():
        truth, reference = pair()
        for volume, file in zip((simulate(truth, 2)[0], reference), files, strict=True):
            write_volume(volume, file)
    options = ("--scale", 2, "--weights", weights, "--registration", "none")
    return run("enhance", *files, "-o", out, *options, *more)


def is_one_sentence(result: Result, *words: str) -> bool:
    """Whether a command ended with a sentence for the user rather than by an error of its own."""
    said = " ".join(result.output.split())
    unexpected = not isinstance(result.exception, SystemExit)
    return not unexpected and result.exit_code == 2 and "Traceback" not in said and all(w in said for w in words)


@pytest.mark.parametrize(("bytes_left", "sentence"), [(0, "(File too large); choose"), (20_000, "free some space")])
def test_enhance(
    bytes_left: int, sentence: str, tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full from the start, and as the results are written; an older result stays as it was."""
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    out = tmp_path / "out"
    assert enhance(tmp_path, out, untrained_x2).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with full_disk(bytes_left):
        new, old = (enhance(tmp_path, folder, untrained_x2, "--seed", 1) for folder in (tmp_path / "new", out))
    for result in (new, old):
        assert is_one_sentence(result, sentence), result.output
    assert not (tmp_path / "new").exists()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("bytes_left", [0, 20_000])
def test_train(bytes_left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full from the start, and at the first checkpoint; with space the run goes on."""
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    monkeypatch.setattr("mcsr.training.logs.TensorBoardLogger", _no_board)
    write_subject(tmp_path, "a", "train", "one")
    write_subject(tmp_path, "c", "val", "three")
    (tmp_path / "tiny.toml").write_text(TRAINING)
    command = ("train", tmp_path / "tiny.toml", "--data", tmp_path, "-o", tmp_path / "run")
    with full_disk(bytes_left):
        full = run(*command)
    assert is_one_sentence(full, "File too large"), full.output
    left = sorted(os.listdir(tmp_path / "run")) if (tmp_path / "run").exists() else []
    assert left == ([] if bytes_left == 0 else ["log.csv"])
    again = run(*command)
    assert again.exit_code == 0, again.output
    assert torch.load(tmp_path / "run" / loop.CHECKPOINT, weights_only=True)["step"] == 3


def test_a_log_that_cannot_grow_is_told_of(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    with full_disk(40), pytest.raises(OutputError) as error:
        log.values("loss", {"l1": 0.5}, 1, 2.0, 0.1)
    assert one_sentence(error, "log.csv", "File too large", "--resume")


def test_tensorboard_alone_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(tmp_path, 0)
    log.board = _FullBoard()  # type: ignore[assignment]
    log.values("loss", {"l1": 0.5}, 1, 2.0, 0.1)
    log.values("loss", {"l1": 0.4}, 2, 3.0, 0.2)
    log.flush()
    log.close()
    assert [m for m in caplog.messages if "TensorBoard's log ends here (No space left on device)" in m]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("bytes_left", [0, 100_000])
def test_models_add(bytes_left: int, tmp_path: Path, untrained_x2: Path, models_folder: Path) -> None:
    with full_disk(bytes_left):
        result = run("models", "add", untrained_x2)
    assert is_one_sentence(result, untrained_x2.name, "enough space"), result.output
    assert list(models_folder.iterdir()) == []
    assert run("models", "add", untrained_x2).exit_code == 0


@pytest.mark.parametrize("bytes_left", [0, 5_000])
def test_evaluate(bytes_left: int, tmp_path: Path) -> None:
    subjects = tmp_path / "subjects"
    subjects.mkdir()
    write_subject(subjects, "c", "val", "three")
    options = ("--models", "linear", "--scales", "2", "--conditions", "true", "--limit-slices", "1")
    with full_disk(bytes_left):
        result = run("evaluate", subjects, "-o", tmp_path / "out", *options)
    assert is_one_sentence(result, "File too large"), result.output
    assert os.listdir(tmp_path) == ["subjects"]


def test_enhancing_needs_no_temporary_folder(
    tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one of the system, nor any that Python would take instead."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [])
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()
    result = enhance(tmp_path, tmp_path / "out", untrained_x2)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "report.png").is_file()


def _no_board(*_: object, **__: object) -> None:
    raise ModuleNotFoundError("tensorboard")


class _FullBoard:
    """As TensorBoard is after its thread could not write."""

    def __getattr__(self, name: str) -> object:
        raise OSError(28, "No space left on device")
