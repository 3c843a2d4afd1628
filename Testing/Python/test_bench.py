"""`mcsr bench` as a user meets it: tables, files, plot, mistakes, and what is left of a run that was stopped."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from mcsr import bench
from mcsr.bench import PUBLISHED, Bench, Findings, Options, chosen_models
from mcsr.bench_canvas import ON_CANVAS, WHOLE, CanvasGain
from mcsr.bench_files import write_findings
from mcsr.bench_jobs import _JOBS, FIRST, JobCost, WorkerCost
from mcsr.bench_machine import CONV, MATMUL, Peaks
from mcsr.bench_networks import PLAIN, NetworkCost
from mcsr.bench_plot import _nice_between
from mcsr.bench_tables import csv_rows, markdown, number, sheets, times
from mcsr.bench_timing import Spread, Timed
from mcsr.bench_training import LOADING, PLAIN_LOOP, TrainingCost, way
from mcsr.cli import app
from mcsr.cli_bench import _show
from mcsr.errors import Cancelled, InputError
from mcsr.networks import network_names
from typer.testing import CliRunner, Result


def peaks() -> Peaks:
    rates = {f"{kind} {p}": 100.0 * n for n, kind in enumerate((MATMUL, CONV), 1) for p in ("fp32", "bf16")}
    return Peaks(rates | {f"{CONV} {p}, channels last": 250.0 for p in ("fp32", "bf16")})


def network(name: str = "hftn-sr-s", gmac: float | None = 10.0, **more: Any) -> NetworkCost:
    seconds = {PLAIN: (1.0, 1.2), "fast fp32": (0.4, 0.4), "fast bf16": (0.5, 0.6), "peak": (0.1, 0.1)}
    values: dict[str, Any] = {"has_weights": True, "parameters": 778305, "slices": 1, "memory": {PLAIN: 5 * 10**8}}
    values |= {"timed": Timed(seconds), "probe_gflops": (200.0, 200.0)}
    return NetworkCost(name, gmac=gmac, **(values | more))


def findings(**parts: Any) -> Findings:
    facts = {"processor": "A processor", "threads": 4, "torch": "2.9", "mcsr": "0.1.0"}
    return Findings(facts, peaks(), 256, ("fp32", "bf16"), **parts)


@pytest.fixture
def everything() -> Findings:
    stages = {"Starting Python, PyTorch": 2.0, "Registering": 3.0, "Enhancing": 4.0, "Writing": 1.0}
    training = {PLAIN_LOOP: (4.0,), way("32-true"): (3.0,), way("bf16-mixed"): (2.0,), LOADING: (0.5,)}
    return findings(
        start=Timed({"Python alone": (0.02,), "mcsr --help": (0.3,)}),
        job=JobCost("dcamsr-s", "the brain phantom", (160, 192, 6), stages, (10.5, 9.5), {"Drawing maps": 5.0}),
        worker=WorkerCost(
            Timed({FIRST: (10.0, 12.0), "second job, same scans": (1.0, 2.0)}),
            Timed({FIRST: (4.0, 6.0), "second job, same scans": (0.0, 0.0)}),
        ),
        canvas=[CanvasGain("box", (256, 256), (128, 256), Timed({WHOLE: (2.0,), ON_CANVAS: (1.0,)}))],
        training=TrainingCost("a recipe", "bf16-mixed", 4, Timed(training | {way("bf16-mixed", 2): (1.6,)})),
        networks=[network(), network("dcamsr", None, has_weights=False)],
        notes=["A note."],
    )


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    """Cells of a markdown table by its first column."""
    (block,) = re.findall(rf"## {re.escape(title)}\n\n(.*?)\n\n", text + "\n\n", re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows[2:]}


def test_tables_say_what_was_measured(everything: Findings) -> None:
    text = markdown(everything)
    seconds = rows_of(text, "Networks: seconds for a slice")
    assert seconds["hftn-sr-s"] == ["1.10", "0.400", "2.8x (2.5-3.0)", "0.550", "2.0x"]
    volumes = rows_of(text, "Networks: a volume of 24 slices, and peak memory")
    assert volumes["hftn-sr-s"] == ["26.4", "9.60", "13.2", "500"]
    work = rows_of(text, "Networks: work")
    assert work["hftn-sr-s"] == ["778,305", "10.0", "18.3", "50.0", "36.7", "25 %"]
    assert work["dcamsr*"] == ["778,305", "-", "-", "-", "-", "-"]
    assert "| model | plain fp32 (s) | fast fp32 (s) | faster | fast bf16 (s) | faster |" in text
    assert "Marked *: random weights" in text
    assert rows_of(text, "What the machine can do (GFLOP/s)")["the same, channels last"] == ["250", "250"]
    job = rows_of(text, "A whole job")
    assert job["Enhancing (the network)"] == ["4.00", "40.0 %"]
    assert job["all"] == ["10.00", "100.0 %"]
    assert job["outside the network"] == ["6.00", "60.0 %"]
    assert job["on request: Drawing maps"] == ["5.00", "50.0 %"]
    waiting = rows_of(text, "Start-up and second job")
    assert waiting["mcsr --help"] == ["0.300", "", ""]
    assert waiting[FIRST] == ["11.0", "", "55 %"]
    assert waiting["second job, same scans"] == ["1.50", "8.0x (6.0-10.0)", "100 %"]
    assert rows_of(text, "Canvas against whole slices")["box"] == ["256 x 256", "128 x 256", "2.00", "2.0x"]
    training = rows_of(text, "Training")
    assert training["mcsr train, bf16-mixed"] == ["2.00", "2.0x"]
    assert training[LOADING] == ["8.00", ""]
    assert "data take 25 %; with 2 workers 6 %" in text
    assert text.endswith("- A note.")


def test_what_was_not_reached_has_no_table() -> None:
    assert [sheet.title for sheet in sheets(findings())] == ["What the machine can do (GFLOP/s)"]
    assert len(sheets(findings(networks=[network()]))) == 4


def test_tables_fit_a_terminal_of_80_columns(
    everything: Findings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    seconds, none = {name: (1.0, 1.0, 1.0) for name in _JOBS} | {FIRST: (24.2, 22.6, 27.0)}, (0.0, 0.0, 0.0)
    everything.worker = WorkerCost(Timed(seconds), Timed(dict.fromkeys(_JOBS, none)))
    _show(everything)
    shown = capsys.readouterr().out
    assert "778,305" in shown
    assert "parameters" in shown
    assert "(22.6-27.0)" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_every_figure_is_in_the_csv_file(everything: Findings, tmp_path: Path) -> None:
    assert write_findings(tmp_path, everything) == ["bench.md", "bench.csv", "bench.png"]
    with (tmp_path / "bench.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(csv_rows(everything))
    found = {(row["item"], row["figure"]): row for row in rows}
    row = found["hftn-sr-s", "fast bf16: slice"]
    assert [float(row[key]) for key in ("median", "lowest", "highest")] == pytest.approx([0.55, 0.5, 0.6])
    assert row["unit"] == "s"
    assert float(found["hftn-sr-s", "fast fp32: 24 slices"]["median"]) == pytest.approx(9.6)
    assert float(found["hftn-sr-s", "fast fp32: rate"]["median"]) == pytest.approx(50)
    assert ("dcamsr", "fast fp32: rate") not in found
    assert found["dcamsr", "weights"]["median"] == "random"
    assert float(found["box", "time, whole slice / canvas"]["median"]) == 2
    assert float(found["dcamsr-s", "all, as seen from outside"]["median"]) == 10
    assert (tmp_path / "bench.md").read_text(encoding="utf-8") == markdown(everything) + "\n"


@pytest.mark.parametrize("part", ["job", "networks", "both", "none"])
def test_the_plot_has_room_for_what_there_is(part: str, everything: Findings, tmp_path: Path) -> None:
    if part in ("networks", "none"):
        everything.job = everything.worker = None
    if part in ("job", "none"):
        everything.networks = []
    files = write_findings(tmp_path, everything)
    assert ("bench.png" in files) == (part != "none")
    if part != "none":
        height = {"job": 4.0, "networks": 3.4, "both": 6.1}[part]
        assert imread(tmp_path / "bench.png").shape[:2] == (pytest.approx(110 * height, rel=0.1), 1430)


def test_the_axis_ends_at_round_numbers() -> None:
    assert _nice_between(0.13, 4.0) == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5])
    assert _nice_between(0.75, 0.86) == pytest.approx([0.5, 1])
    assert _nice_between(1.0, 1.0) == pytest.approx([0.5, 1, 2])


def test_numbers_have_three_digits_and_ratios_their_spread() -> None:
    assert [number(value) for value in (0.01234, 1.234, 12.34, 1234.5)] == ["0.012", "1.23", "12.3", "1234"]
    assert times(Spread(2.04, 1.96, 2.1)) == "2.0x (2.0-2.1)"
    assert times(Spread(2.0, 2.01, 2.02)) == "2.0x"


# --- What is measured


def test_models_by_default_are_those_with_weights_and_the_largest_published() -> None:
    slim = [name for name in network_names() if name.endswith("-s")]
    assert sorted(chosen_models(Options())) == sorted([*slim, *PUBLISHED])
    assert sorted(chosen_models(Options(quick=True))) == sorted(slim)
    assert len(chosen_models(Options(models=["all"]))) == 10
    assert chosen_models(Options(models=["daasr", "daasr"])) == ["daasr"]
    with pytest.raises(InputError, match="sinc is an interpolation"):
        chosen_models(Options(models=["sinc"]))


@pytest.fixture
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose peaks need not be measured."""
    monkeypatch.setattr(bench, "measure_peaks", lambda probes: (peaks(), dict(probes)))


def test_what_is_expected_grows_with_what_is_asked_for(known_machine: None) -> None:
    quick, usual = (
        Bench(Options(models=["dcamsr-s", "hftn-sr-s"], quick=quick)).expected_seconds() for quick in (True, False)
    )
    assert list(quick) == list(usual)
    assert list(usual)[-4:] == ["hftn-sr-s", "hftn-sr-s: memory", "dcamsr-s", "dcamsr-s: memory"]
    assert sum(quick.values()) < sum(usual.values()) / 2
    (large,) = (Bench(Options(models=["cd-dpe"])).expected_seconds()["cd-dpe"],)
    assert large > 20 * usual["dcamsr-s"]


# --- The command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *(str(argument) for argument in arguments)])


def test_mistakes_are_said_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, code, sentence in (
        (["--models", "dcamsr-x"], 2, "Unknown model 'dcamsr-x'"),
        (["--models", "sinc"], 2, "sinc is an interpolation"),
        (["--size", "30"], 2, "Slices of 30 pixels cannot be measured"),
        (["--precisions", "auto"], 2, "Name the precisions"),
        (["--precisions", "fp8"], 5, "Unknown precision 'fp8'"),
        (["--precisions", "fp16", "--device", "cpu"], 5, "fp16 is for GPUs"),
        (["-o", tmp_path / "full"], 2, "exists already and is not empty"),
        (["-o", tmp_path / "none" / "out"], 2, "there is no folder"),
        (["--data", tmp_path / "full"], 2, "holds nothing to train or evaluate on"),
    ):
        result = run(*arguments)
        assert result.exit_code == code, result.output
        assert sentence in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_what_was_measured_before_it_was_stopped_is_written(
    known_machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Bench, progress: object, cancelled: object) -> None:
        self.findings.networks.append(network())
        raise Cancelled("Stopped.")

    monkeypatch.setattr(Bench, "run", stopped)
    result = run("--models", "hftn-sr-s", "-o", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.csv", "bench.md", "bench.png"]
    text = (tmp_path / "out" / "bench.md").read_text(encoding="utf-8")
    assert "hftn-sr-s" in rows_of(text, "Networks: seconds for a slice")
    assert "stopped before it was complete" in text
    assert "hftn-sr-s" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    result = run("--quick", "--models", "hftn-sr-s", "--size", 64, "--threads", 1, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "bench.md").read_text(encoding="utf-8")
    job = {stage: float(cells[0]) for stage, cells in rows_of(text, "A whole job").items()}
    stages = [seconds for stage, seconds in job.items() if not stage.startswith(("all", "outside", "on request"))]
    assert sum(stages) == pytest.approx(job["all"], abs=0.05)
    with (tmp_path / "out" / "bench.csv").open(encoding="utf-8") as file:
        figures = {row["figure"]: row for row in csv.DictReader(file) if row["item"] == "hftn-sr-s"}
    work = float(figures["work of a slice"]["median"])
    fastest = float(figures["fast fp32: slice"]["lowest"])
    assert float(figures["fast fp32: rate"]["highest"]) == pytest.approx(2 * work / fastest)
    seconds = rows_of(text, "Networks: seconds for a slice")["hftn-sr-s"]
    volume = rows_of(text, "Networks: a volume of 24 slices, and peak memory")["hftn-sr-s"]
    assert float(volume[0]) == pytest.approx(24 * float(seconds[0]), rel=0.02)
    assert 100 < int(volume[-1]) < 2000
    for title in ("Start-up and second job", "Canvas against whole slices", "Training"):
        assert rows_of(text, title)
