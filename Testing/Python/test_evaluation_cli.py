"""`mcsr evaluate` as a user meets it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import POSIX_ONLY
from mcsr.cli import app
from subject_files import write_subject
from typer.testing import CliRunner, Result


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def test_evaluate_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "junk.h5").write_bytes(b"no")
    for arguments, sentence in (
        (["--scales", "2,"], "not a list of numbers"),
        (["-o", tmp_path], "exists already and is not empty"),
        (["-o", tmp_path / "nodir" / "out"], "there is no folder"),
        (["--protocol", "best"], "Unknown protocol 'best'"),
        (["--conditions", "best"], "Unknown condition 'best'"),
        (["-o", tmp_path / "out"], "junk.h5 is not a whole HDF5 subject file"),
    ):
        result = run(tmp_path, *arguments)
        assert result.exit_code == 2, result.output
        assert sentence in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["junk.h5"]


def test_evaluate_prints_the_tables_it_writes(tmp_path: Path) -> None:
    write_subject(tmp_path, "a1", "val", "anna")
    options = ("--models", "linear", "--scales", "2", "--protocol", "daasr", "--limit-slices", "2")
    result = run(tmp_path, *options, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "| a1 T2<-T1 | x2 | linear | - |" in result.stdout
    assert result.stdout.strip() in (tmp_path / "out" / "tables.md").read_text()
    assert (tmp_path / "out" / "psnr_x2.png").is_file()


@POSIX_ONLY
def test_ctrl_c_leaves_no_half_evaluation(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_subject(tmp_path / "data", "a1", "val", "anna")
    options = ["--models", "linear,cubic,dcamsr-s", "--scales", "2,4", "-o", str(tmp_path / "out")]
    # Where the tests run in the background, Ctrl-C is ignored until somebody asks for it.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from mcsr.cli import main; sys.argv = ['mcsr', *sys.argv[1:]]; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "evaluate", str(tmp_path / "data"), *options], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".mcsr-*")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 3, error
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
