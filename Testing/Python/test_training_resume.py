"""A run that is killed goes on as if nothing had been, and what it writes down is whole."""

from __future__ import annotations

import csv
import dataclasses
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import POSIX_ONLY
from mcsr.errors import InputError, McsrError
from mcsr.progress import Event
from mcsr.training import loop
from mcsr.training.logs import RunLog
from mcsr.training.loop import CHECKPOINT, train
from mcsr.training.optimizers import OPTIMIZERS
from mcsr.training.recipe import Phase, Recipe
from mcsr.training.validation import side_by_side
from subject_files import write_subject
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RECIPE = Recipe(
    name="tiny",
    network="dcamsr-s",
    scale=2,
    steps=11,
    learning_rate=2e-3,
    phases=(Phase(share=0.5, batch=2, crop=24), Phase(share=0.5, batch=1)),
    network_config={
        "channels": 8,
        "encoder_blocks": (1, 1, 1),
        "fusion_blocks": (1, 1, 1),
        "pool": 4,
        "tokens": 4,
        "dropout": 0.3,  # random numbers that a resumed run must repeat
    },
    precision="32-true",
    warmup_steps=2,
)
SMALL = {
    "dcamsr-s": RECIPE.network_config | {"dropout": 0.0},
    "hftn-sr-s": {"channels": 8, "stages": 1, "embedding": 4},
    "diffmsr-s": {"dim": 8, "blocks": 1, "encoder_blocks": 1, "window": 8},
}
EVERY = {"LOG_EVERY": 4, "CHECKPOINT_EVERY": 3, "VALIDATE_AT": (0.5, 1.0)}

# The third checkpoint, of step 9, stops half-way: no worse moment is left. By then steps 7 to 9 are in the log.
KILLED = """
import os, pathlib, signal, sys
import torch
torch.set_num_threads(1)
from mcsr.training import loop
from test_training_resume import EVERY, RECIPE
vars(loop).update(EVERY)
whole, written = torch.save, []

def killed(content, file):
    written.append(file)
    whole(content, file)
    if len(written) == 3:
        file.truncate(file.tell() // 2)
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = killed
loop.train(RECIPE, pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects")
    write_subject(folder, "a", "train", "one")
    write_subject(folder, "c", "val", "three")
    return folder


def _log(folder: Path) -> list[tuple[str, ...]]:
    """All rows without their seconds."""
    with (folder / "log.csv").open(newline="") as file:
        return [(row["step"], row["progress"], row["what"], row["value"]) for row in csv.DictReader(file)]


@POSIX_ONLY
def test_a_killed_run_resumes_to_the_same_weights(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in EVERY.items():
        monkeypatch.setattr(loop, name, value)
    train(RECIPE, data, tmp_path / "whole")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", KILLED, str(data), str(tmp_path / "killed")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert torch.load(tmp_path / "killed" / CHECKPOINT, weights_only=True)["step"] == 6
    assert any(row[0] == "8" for row in _log(tmp_path / "killed")), "the log is ahead of the checkpoint"
    assert len(list((tmp_path / "killed").glob(".*"))) == 1, "half a checkpoint"
    train(RECIPE, data, tmp_path / "killed", resume=True)

    whole, killed = (torch.load(tmp_path / run / CHECKPOINT, weights_only=True) for run in ("whole", "killed"))
    for part in ("model", "averaged"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, killed[part][name]), f"{part} {name}"
    for number, moments in whole["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, killed["optimizer"]["state"][number][name]), name
    rows = _log(tmp_path / "whole")
    assert _log(tmp_path / "killed") == rows
    assert [row[:3] for row in rows if row[2] == "l1"] == [
        ("4", "0.3636", "l1"), ("8", "0.7273", "l1"), ("11", "1.0", "l1")
    ]  # fmt: skip
    assert list((tmp_path / "killed").glob(".*")) == []


def test_a_finished_run_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=2)
    first = train(recipe, data, tmp_path)
    rows = _log(tmp_path)
    again = train(recipe, data, tmp_path, resume=True)
    assert _log(tmp_path) == rows
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_run_goes_on_with_its_own_recipe_alone(data: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(RECIPE, steps=1), data, tmp_path)
    with pytest.raises(InputError, match="is of the recipe tiny, not other; choose another folder"):
        train(dataclasses.replace(RECIPE, name="other"), data, tmp_path, resume=True)
    wider = dataclasses.replace(RECIPE, network_config={**RECIPE.network_config, "channels": 16})
    with pytest.raises(InputError, match="is of another network than tiny now asks for"):
        train(wider, data, tmp_path, resume=True)


def test_a_run_that_blows_up_keeps_its_last_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(loop, "VALIDATE_AT", (1.0,))
    monkeypatch.setattr(loop, "learning_rate", lambda recipe, step, progress: 1e-3 if step < 2 else float("nan"))
    with pytest.raises(McsrError, match="no longer finite at step 4; lower the learning rate"):
        train(RECIPE, data, tmp_path)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 2


def test_without_averaging_the_last_weights_are_the_result(data: Path, tmp_path: Path) -> None:
    network = train(dataclasses.replace(RECIPE, steps=3, ema_decay=0, clip_norm=0), data, tmp_path)
    model = torch.load(tmp_path / CHECKPOINT, weights_only=True)["model"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, model[f"network.{name}"]), name


@pytest.mark.parametrize("network", ["dcamsr-s", "hftn-sr-s", "diffmsr-s"])
def test_gradients_of_parts_add_up_to_that_of_the_batch(
    network: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plain descent, which keeps the size of rounding errors where Adam would blow them up to whole steps.

    A part is one slice, for which torch's instance norm once had a wrong gradient.
    """
    monkeypatch.setitem(OPTIMIZERS, "adam", lambda parameters, lr, **_: torch.optim.SGD(parameters, lr))
    recipe = dataclasses.replace(
        RECIPE,
        steps=2,
        network=network,
        network_config=SMALL[network],
        learning_rate=0.1,
        ema_decay=0,
        phases=(Phase(share=1.0, batch=4, crop=24),),
        stage=1 if network == "diffmsr-s" else None,
    )
    start = train(dataclasses.replace(recipe, learning_rate=0.0), data, tmp_path / "start").state_dict()
    runs = [train(recipe, data, tmp_path / str(parts), accumulate=parts).state_dict() for parts in (1, 4)]
    moved = max(float((runs[0][name] - tensor).abs().max()) for name, tensor in start.items())
    apart = max(float((runs[0][name] - tensor).abs().max()) for name, tensor in runs[1].items())
    assert apart < 1e-4 * moved
    with pytest.raises(InputError, match="batch of 4 cannot be divided into 3"):
        train(recipe, data, tmp_path / "3", accumulate=3)


def test_progress_is_told_every_step(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    train(dataclasses.replace(RECIPE, steps=4), data, tmp_path, progress=events.append)
    assert [event.fraction for event in events] == [0, 0.25, 0.5, 0.75, 1]
    assert events[2].stage == "Training, step 2"


def test_a_limit_by_the_clock_ends_the_run(data: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(RECIPE, steps=100_000, minutes=0.5 / 60), data, tmp_path)
    stored = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert stored["seconds"] >= 0.5
    assert 1 <= stored["step"] < 1000


def test_tensorboard_shows_figures_and_examples(data: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(RECIPE, steps=2), data, tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert "loss/l1" in board.Tags()["scalars"]
    logged = {row[2]: float(row[3]) for row in _log(tmp_path)}
    assert board.Scalars("psnr/c_T2_from_T1_sinc")[-1].value == pytest.approx(logged["c T2<-T1 sinc"], abs=1e-4)
    image = board.Images("examples/c_T2_from_T1")[-1]
    assert image.width > 4 * image.height * 0.8, "four slices side by side"


def test_an_example_is_input_result_truth_and_reference() -> None:
    images = [np.full((1, 3, 5), value, np.float32) for value in (-0.1, 0.2, 0.4, 1.7)]
    row = side_by_side(*images)
    assert row.shape == (1, 3, 4 * 5 + 3 * 2)
    assert row[0, 0, ::7].tolist() == [np.float32(value) for value in (0, 0.2, 0.4, 1)]
    assert row[0, 0, 5:7].tolist() == [1, 1]


def test_without_tensorboard_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr("mcsr.training.logs.TensorBoardLogger", missing)
    with caplog.at_level(logging.INFO):
        log = RunLog(tmp_path, 0)
        log.values("loss", {"l1": 0.5}, 1, 2.0, 0.1)
        log.images({"x": np.zeros((1, 2, 2), np.float32)}, 1)
        log.flush()
        log.close()
    assert [m for m in caplog.messages if "TensorBoard is not installed" in m] == caplog.messages[:1]
    assert _log(tmp_path) == [("1", "0.1", "l1", "0.5")]


def test_later_and_incomplete_rows_of_a_log_are_dropped(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in (50, 100, 150):
        log.values("loss", {"l1": step / 100}, step, 1.0, step / 200)
    log.close()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("20")  # of step 200, cut off
    RunLog(tmp_path, 100).close()
    assert _log(tmp_path) == [("50", "0.25", "l1", "0.5"), ("100", "0.5", "l1", "1.0")]
