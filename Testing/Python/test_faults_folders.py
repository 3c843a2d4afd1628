"""Temporary files of the living and the dead, and one job at a time in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import POSIX_ONLY, mri, one_sentence
from mcsr import cli, outputs, temporary
from mcsr.errors import OutputError
from mcsr.imageio import write_volume
from mcsr.temporary import LOCK_FILE, make_temporary_folder, remove_leftovers, sole_writer, temporary_beside
from scenes import pair
from subject_files import write_subject
from test_faults_disk import TRAINING, enhance, run

LOGIC = str(Path(cli.__file__).parents[1])
HOLD = """
import pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from mcsr.temporary import make_temporary_folder, sole_writer
folder = pathlib.Path(sys.argv[2])
with sole_writer(folder):
    print(make_temporary_folder(folder), flush=True)
    time.sleep(60)
"""


@contextmanager
def another_job(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has a folder, and its temporary folder in there; killed at the end."""
    command = [sys.executable, "-c", HOLD, LOGIC, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_the_living_keep_what_the_dead_lose(tmp_path: Path) -> None:
    mine = make_temporary_folder(tmp_path)
    (mine / "half").write_text("a result")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "precious").touch()
    with another_job(tmp_path) as (process, theirs):
        (theirs / "half").write_text("a result")
        link = theirs.with_name(theirs.name + ".link")
        link.symlink_to(kept)
        elsewhere = tmp_path / theirs.name.replace(temporary._HOST, "0badcafe")
        elsewhere.touch()
        remove_leftovers(tmp_path)
        assert (theirs / "half").is_file(), "of a process that lives"
        process.kill()
        process.wait()
        remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([LOCK_FILE, "kept", mine.name, elsewhere.name])
    assert (kept / "precious").is_file(), "a link was followed"


def test_whoever_writes_next_tidies_up(tmp_path: Path) -> None:
    with another_job(tmp_path) as (process, theirs):
        process.kill()
        process.wait()
        write_volume(mri(), tmp_path / "a.nii.gz")
    assert not theirs.exists()
    assert sorted(os.listdir(tmp_path)) == [LOCK_FILE, "a.nii.gz"]


def test_a_temporary_name_is_short_and_of_the_same_kind(tmp_path: Path) -> None:
    path = temporary_beside(tmp_path / ("x" * 200 + ".nii.gz"))
    assert path.parent == tmp_path
    assert path.name.endswith(".nii.gz")
    assert len(path.name) < 60
    assert path != temporary_beside(tmp_path / ("x" * 200 + ".nii.gz"))


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with another_job(tmp_path) as (process, _):
        with pytest.raises(OutputError) as error, sole_writer(tmp_path):
            pytest.fail("two jobs at once")
        assert one_sentence(error, "Another job", f"process {process.pid} ", str(tmp_path), "wait")
        process.kill()
        process.wait()
        assert (tmp_path / LOCK_FILE).is_file(), "left by a process that was killed"
        with sole_writer(tmp_path):
            assert f"process {os.getpid()} " in (tmp_path / LOCK_FILE).read_text()
    assert not (tmp_path / LOCK_FILE).exists()


@POSIX_ONLY
def test_where_there_are_no_locks_jobs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unknown)
    with sole_writer(tmp_path):
        assert (tmp_path / LOCK_FILE).is_file()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError) as error, sole_writer(tmp_path / "gone"):
        pytest.fail("there is no such folder")
    assert one_sentence(error, "gone", "No such file")


@POSIX_ONLY
def test_two_jobs_on_one_folder(tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real commands: the first is stopped amid its work, and goes on when the second was refused."""
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    files = [str(tmp_path / name) for name in ("t2.nii", "t1.nii")]
    for volume, file in zip(pair(), files, strict=True):
        write_volume(volume, file)
    out = tmp_path / "out"
    options = ["-o", str(out), "--model", "sinc", "--scale", "2", "--registration", "none", "--force", "--json"]
    command = [sys.executable, "-m", "mcsr.cli", "enhance", *files, *options]
    environment = os.environ | {"PYTHONPATH": LOGIC}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.send_signal(signal.SIGSTOP)
        second = run("enhance", *files, *options)
        before = sorted(os.listdir(out))
        first.send_signal(signal.SIGCONT)
        first.stdout.read()
    assert second.exit_code == 2, second.output
    sentence = json.loads(second.stdout.splitlines()[-1])["text"]
    assert sentence.startswith(f"Another job (process {first.pid} on ")
    assert str(out) in sentence
    assert before == [LOCK_FILE]
    assert first.returncode == 0
    assert "report.json" in os.listdir(out)
    assert LOCK_FILE not in os.listdir(out)


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    write_subject(tmp_path, "a", "train", "one")
    (tmp_path / "tiny.toml").write_text(TRAINING)
    out = tmp_path / "run"
    out.mkdir()
    with another_job(out) as (process, theirs):
        result = run("train", tmp_path / "tiny.toml", "--data", tmp_path, "-o", out)
        assert result.exit_code == 2, result.output
        assert f"Another job (process {process.pid} on" in " ".join(result.output.split())
        assert sorted(os.listdir(out)) == sorted([LOCK_FILE, theirs.name])


def test_a_result_that_was_not_moved_in_whole_is_no_result(
    tmp_path: Path, untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, or here stopped, between two files; the maps of the job before it are known to the job after it."""
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    out = tmp_path / "out"
    assert enhance(tmp_path, out, untrained_x2, "--maps", "texture_lv1").exit_code == 0
    (out / "maps" / "mine.txt").write_text("no map")
    replace = os.replace

    def stopped(source: Path, place: Path) -> None:
        if Path(place).name == "residual.nii.gz" and Path(place).parent == out:
            raise PermissionError(13, "Permission denied")
        replace(source, place)

    monkeypatch.setattr(os, "replace", stopped)
    failed = enhance(tmp_path, out, untrained_x2, "--maps", "added")
    assert failed.exit_code == 2
    assert "Permission denied" in " ".join(failed.output.split())
    assert not (out / "report.json").exists()
    record = json.loads((out / "unfinished.json").read_text())
    assert record["maps"] == ["added", "texture_lv1"]
    assert "incomplete" in record["message"]
    monkeypatch.setattr(os, "replace", replace)
    assert enhance(tmp_path, out, untrained_x2).exit_code == 0
    assert sorted(os.listdir(out)) == ["maps", "report.json", "residual.nii.gz", "result.h5", "sr.nii.gz"]
    assert os.listdir(out / "maps") == ["mine.txt"]
