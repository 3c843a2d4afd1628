"""Batches on workers that are killed: every subject ends whole or listed, none twice, nothing half."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from batch_cohort import Saboteur, write_cohort
from mcsr.batch import plan_batch, run_batch
from mcsr.batch_cluster import local_client, remote_client
from mcsr.batch_manifest import read_manifest
from mcsr.cli import app
from mcsr.errors import DeviceError
from mcsr.imageio import read_volume
from mcsr.job import Settings
from mcsr.progress import never_cancelled, no_progress
from typer.testing import CliRunner

if TYPE_CHECKING:
    from distributed import Client

SUBJECTS = ["calm", "computing", "writing", "placed"]
FILES = ["overview.jpg", "report.json", "report.png", "residual.nii.gz", "result.h5", "sr.nii.gz"]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Two workers of this machine; a subject is given up when its second one dies."""
    monkeypatch.setattr("mcsr.batch_cluster.ALLOWED_DEATHS", 1)
    with local_client(2) as client:
        yield client


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "batch.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["subject"] for row in rows) == sorted(SUBJECTS), "each once"
    return {row["subject"]: row for row in rows}


def group_lives(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def enhanced(log: Path) -> dict[str, int]:
    """How often the work on each subject began."""
    return {subject: len(list(log.glob(f"{subject}.enhanced-*"))) for subject in SUBJECTS}


def test_workers_that_are_killed_leave_whole_subjects_or_listed_ones(client: Client, tmp_path: Path) -> None:
    """One dies computing, one when all is in place but before it could say so, and two writing the same subject."""
    log, out = tmp_path / "log", tmp_path / "out"
    log.mkdir()
    out.mkdir()
    deaths = {"computing": ("computing", 1), "writing": ("writing", 2), "placed": ("placed", 1)}
    client.register_plugin(Saboteur(deaths, log))
    manifest = write_cohort(tmp_path / "in", SUBJECTS)
    batch = plan_batch(read_manifest(manifest, Settings(model="sinc", scale=2)), out)
    run_batch(batch, nullcontext(client), 1, progress=no_progress, cancelled=never_cancelled)

    assert len(list(log.glob("*.died-*"))) == 4
    assert enhanced(log) == {"calm": 1, "computing": 2, "writing": 2, "placed": 1}, "none twice but for its worker"
    rows = rows_of(out)
    assert {name: row["status"] for name, row in rows.items()} == {
        "calm": "done",
        "computing": "done",
        "writing": "failed",
        "placed": "done",
    }
    assert "Its worker died 2 times, last the one at tcp://127.0.0.1:" in rows["writing"]["error"]
    assert sorted(path.name for path in out.iterdir()) == ["batch.csv", "calm", "computing", "placed"]
    for name in ("calm", "computing", "placed"):
        assert sorted(path.name for path in (out / name).iterdir()) == FILES
        assert json.loads((out / name / "report.json").read_text())["scores"]["result"]["psnr"] > 20

    _the_same_command_goes_on_with_the_rest(client, manifest, out, log)


def _the_same_command_goes_on_with_the_rest(client: Client, manifest: Path, out: Path, log: Path) -> None:
    """By the address of the scheduler, whose workers live now."""
    assert client.scheduler is not None
    options = ["-o", str(out), "--model", "sinc", "--scale", "2", "--scheduler", client.scheduler.address]
    done = CliRunner().invoke(app, ["batch", str(manifest), *options])
    assert done.exit_code == 0, done.output
    assert "3 of 4 subjects are done already." in done.output
    assert enhanced(log) == {"calm": 1, "computing": 2, "writing": 3, "placed": 1}
    assert {row["status"] for row in rows_of(out).values()} == {"done"}
    calm, last = (read_volume(out / name / "sr.nii.gz") for name in ("calm", "writing"))
    np.testing.assert_array_equal(calm.array_kji, last.array_kji)
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        "batch.csv",
        "overview.html",
        "overview.png",
    ]
    assert not list(out.glob(".*"))


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcsr.batch_cluster._SECONDS_TO_CONNECT", 1)
    with (
        pytest.raises(DeviceError, match="There is no scheduler at tcp"),
        remote_client("tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C of a process group is POSIX's")
def test_ctrl_c_of_the_whole_terminal_stops_cleanly(tmp_path: Path) -> None:
    """The workers, which the terminal sends it to as well, leave nothing and do not outlive the command."""
    manifest, out = write_cohort(tmp_path / "in", [f"p{n:02d}" for n in range(40)]), tmp_path / "out"
    options = ["-o", str(out), "--model", "sinc", "--scale", "2", "--processes", "2", "--json"]
    command = [sys.executable, "-m", "mcsr.cli", "batch", str(manifest), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        until = time.monotonic() + 300
        while not (out / "p00").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=120)[0]
    assert process.returncode == 3, told
    last = json.loads(told.splitlines()[-1])
    assert "of 40 subjects are left. Give the same command again" in last["text"]
    until = time.monotonic() + 30  # Python's own watcher of processes ends a moment after the last of them
    while group_lives(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not group_lives(process.pid)
    whole = sorted(path for path in out.iterdir() if path.is_dir())
    assert whole
    assert all(sorted(file.name for file in folder.iterdir()) == FILES for folder in whole)
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == ["batch.csv"]
