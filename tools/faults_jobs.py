"""The jobs that `tools/faults.py` kills: what each needs, and what may lie in its folder afterwards."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from mcsr import cli, outputs
from mcsr.geometry import Grid
from mcsr.imageio import write_volume
from mcsr.networks import create_network
from mcsr.phantom import make_phantom
from mcsr.pipeline import simulate
from mcsr.training import loop
from mcsr.volume import Volume
from mcsr.weights import added_models, file_digest, load_weights, save_weights
from mcsr_slicer.job_folder import JobRequest, VolumeData
from mcsr_slicer.job_runner import JobListener, JobRunner
from mcsr_slicer.launchers import SubprocessLauncher

CARD = {"architecture": "dcamsr-s", "scale": 2, "degradation": "kspace", "plane": "axial", "spacing_mm": [0.4, 4.0]}
TINY = {"channels": 8, "encoder_blocks": [1, 1, 1], "fusion_blocks": [1, 1, 1], "pool": 4, "tokens": 4}
CHECKPOINT_EVERY = 3
RECIPE = f"""
name = "tiny"
network = "dcamsr-s"
scale = 2
steps = 11
learning_rate = 2e-3
warmup_steps = 2
precision = "32-true"
phases = [{{ share = 0.5, batch = 2, crop = 24 }}, {{ share = 0.5, batch = 1 }}]
network_config = {{ dropout = 0.3, {", ".join(f"{name} = {value}" for name, value in TINY.items())} }}
"""


class Job:
    """A command that writes into a folder, the *place*; its methods but `reset` run in processes of their own.

    Args:
        inputs: folder for what it needs and for the results of undisturbed runs.
    """

    name = ""
    workers = False
    """Whether it starts processes itself."""

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs

    def prepare(self) -> None:
        """Make the inputs."""

    def run(self, place: Path) -> int:
        """The command; the same again, as a user would, where it was killed before."""
        raise NotImplementedError

    def reset(self, place: Path) -> None:
        """Bring a place that is not there yet to where the command finds it."""
        place.mkdir()

    def contents(self, place: Path) -> dict[str, str]:
        """What the files of a place hold, by name, without what is never the same twice.

        Raises:
            Exception: of whatever kind, when one of them is not whole.
        """
        return {str(file.relative_to(place)): content_of(file) for file in plain_files(place)}

    def problem(self, place: Path, undisturbed: dict[str, str]) -> str:
        """What is wrong where the job was killed; empty when everything that lies there is whole."""
        found = self.contents(place)
        wrong = [name for name in found if found[name] != undisturbed.get(name)]
        return f"not as in an undisturbed run: {', '.join(wrong)}" if wrong else ""


class Enhance(Job):
    """`mcsr enhance` into a folder that holds the result of another job, with other maps and with a figure."""

    name = "enhance"

    def prepare(self) -> None:
        """A small phantom, a tiny network, and the earlier result."""
        target, reference = phantom()
        write_volume(target, self.inputs / "low.nii.gz")
        write_volume(reference, self.inputs / "t1.nii.gz")
        save_weights(self.inputs / "tiny.safetensors", create_network("dcamsr-s", scale=2, **TINY), CARD)
        self._enhance(self.inputs / "earlier", "texture_lv1", "--seed", "1")

    def run(self, place: Path) -> int:
        """Without the figure, which takes most of the time."""
        outputs.find_spec = lambda name: None
        return self._enhance(place, "added,texture_lv2", "--seed", "2")

    def reset(self, place: Path) -> None:
        """With the earlier result."""
        shutil.copytree(self.inputs / "earlier", place)

    def problem(self, place: Path, undisturbed: dict[str, str]) -> str:
        """With a report the folder is either the earlier result or the new one; without, each file is of one of them.

        The record of a result that is being moved in is no part of either.
        """
        found, earlier = self.contents(place), self.contents(self.inputs / "earlier")
        found.pop(outputs.UNFINISHED_FILE, None)
        if outputs.REPORT_FILE in found:
            return "" if found in (earlier, undisturbed) else "the folder is taken for whole, and it is not"
        wrong = [name for name in found if found[name] not in (earlier.get(name), undisturbed.get(name))]
        return f"of neither job: {', '.join(wrong)}" if wrong else ""

    def _enhance(self, place: Path, maps: str, *more: str) -> int:
        files = [str(self.inputs / name) for name in ("low.nii.gz", "t1.nii.gz")]
        weights = ["--weights", str(self.inputs / "tiny.safetensors"), "--scale", "2"]
        return mcsr("enhance", *files, "-o", str(place), *weights, "--registration", "none", "--maps", maps, *more)


class Train(Job):
    """`mcsr train`, and `--resume` where there is a checkpoint."""

    name = "train"

    def prepare(self) -> None:
        """Two subjects and a recipe of a few steps."""
        (self.inputs / "tiny.toml").write_text(RECIPE, encoding="utf-8")
        (self.inputs / "subjects").mkdir()
        for seed, split in enumerate(("train", "val")):
            write_subject(self.inputs / "subjects" / f"{split}.h5", split, seed)

    def run(self, place: Path) -> int:
        """With a checkpoint every few steps."""
        loop.CHECKPOINT_EVERY, loop.LOG_EVERY = CHECKPOINT_EVERY, 2
        options = ["--resume"] if (place / loop.CHECKPOINT).exists() else []
        options += ["--workers", "1"] if self.workers else []
        data = ["--data", str(self.inputs / "subjects")]
        return mcsr("train", str(self.inputs / "tiny.toml"), *data, "-o", str(place), *options)

    def contents(self, place: Path) -> dict[str, str]:
        """The weights, the network's part of the checkpoint, and the log without its seconds; of a killed run it may
        be ahead of the checkpoint and its last line incomplete."""
        found = {}
        if (place / "weights.safetensors").exists():
            found["weights.safetensors"] = content_of(place / "weights.safetensors")
        if (place / loop.CHECKPOINT).exists():
            stored = torch.load(place / loop.CHECKPOINT, weights_only=True)
            tensors = {
                f"{part}.{name}": t.numpy() for part in ("model", "averaged") for name, t in stored[part].items()
            }
            found[f"checkpoint at {stored['step']}"] = digest_of(tensors)
        if (place / "log.csv").exists():
            rows = list(csv.reader((place / "log.csv").read_text(encoding="utf-8").splitlines()))
            found["log.csv"] = str([[row[0], *row[2:]] for row in rows if len(row) == 5])
        return found

    def problem(self, place: Path, undisturbed: dict[str, str]) -> str:
        """Checkpoints of earlier steps than the last are known by their step; what is in them shows in the end."""
        found = self.contents(place)
        found.pop("log.csv", None)
        steps = {name for name in found if name.startswith("checkpoint at ")}
        wrong = [n for n in steps - {*undisturbed} if int(n.rpartition(" ")[2]) % CHECKPOINT_EVERY]
        wrong += [n for n in found if n in undisturbed and found[n] != undisturbed[n]]
        return f"not as in an undisturbed run: {', '.join(wrong)}" if wrong else ""


class TrainWithWorkers(Train):
    """The same with a process that prepares batches."""

    name, workers = "train --workers 1", True


class AddModel(Job):
    """`mcsr models add` of a file that takes a moment to copy."""

    name = "models add"

    def prepare(self) -> None:
        """The published size of a network."""
        card = CARD | {"architecture": "dcamsr"}
        save_weights(self.inputs / "large.safetensors", create_network("dcamsr", scale=2, size=64), card)

    def run(self, place: Path) -> int:
        """Into a drop-in folder of its own."""
        os.environ["MCSR_MODELS"] = str(place)
        return mcsr("models", "add", str(self.inputs / "large.safetensors"))

    def problem(self, place: Path, undisturbed: dict[str, str]) -> str:
        """What mcsr itself finds in the drop-in folder must be whole too."""
        os.environ["MCSR_MODELS"] = str(place)
        for entry in added_models():
            load_weights(entry["path"])
        return super().problem(place, undisturbed)


class Panel(Job):
    """A job of the panel, which starts a worker process, with files for the user."""

    name, workers = "panel and worker", True

    def run(self, place: Path) -> int:
        """As Slicer does."""
        target, reference = (VolumeData(v.array_kji, v.ijk_to_ras, v.name) for v in phantom())
        settings = {"model": "sinc", "scale": 2, "registration": "none", "device": "cpu"}
        heard = _Listener()
        runner = JobRunner(SubprocessLauncher())
        runner.submit(JobRequest(target, reference, settings=settings, outputFolder=str(place)), heard)
        runner.waitForFinished()
        runner.shutdown()
        return 0 if heard.finished else 1


class _Listener(JobListener):
    finished = False

    def onFinished(self) -> None:  # noqa: N802
        self.finished = True

    def onFailed(self, message: str, details: str) -> None:  # noqa: N802
        print(message)


def mcsr(*arguments: str) -> int:
    """The command line, in this process."""
    cli.app(arguments, prog_name="mcsr", standalone_mode=False)
    return 0


def phantom() -> tuple[Volume, Volume]:
    """Target at x2 and reference, 6 slices of 64 x 72."""
    matrix = np.diag([-2.4, -2.4, 4.0, 1.0])
    matrix[:3, 3] = (77, 70, 7)
    t2, t1 = (make_phantom(Grid((64, 72, 6), matrix), contrast) for contrast in ("T2", "T1"))
    return simulate(t2, 2)[0], t1


def write_subject(path: Path, split: str, seed: int) -> None:
    """A subject file of two contrasts with common texture, 4 slices of 40 x 48."""
    random = np.random.default_rng(seed)
    shape, affine = (4, 48, 40), np.diag([-1.0, -1.0, 3.0, 1.0])
    texture = 100 + 60 * random.random(shape)
    texture[:, :6] = texture[:, -6:] = 0
    with h5py.File(path, "w") as file:
        file.attrs.update(contrasts="T2,T1", split=split, subject=split, affine=affine, spacing=(1.0, 1.0, 3.0))
        file.attrs["brain_slices"] = (0, 3)
        for contrast, brightness in (("T2", 1.0), ("T1", 2.0)):
            file.create_dataset(contrast, data=np.rint(brightness * texture).astype(np.uint16))
            file[contrast].attrs["role"] = "native samples" if contrast == "T2" else "reference"


def plain_files(place: Path) -> list[Path]:
    """All files of a place but temporary ones."""
    files = (file for file in place.rglob("*") if file.is_file())
    return sorted(f for f in files if not any(part.startswith(".mcsr") for part in f.relative_to(place).parts))


def leftovers(place: Path, *, locks: bool = True) -> list[Path]:
    """What is temporary in a place."""
    return sorted(place.rglob(".mcsr*" if locks else ".mcsr-*"))


def content_of(file: Path) -> str:
    """What a file holds, without dates and times; raises where it is not whole."""
    if file.suffix == ".json":
        report = json.loads(file.read_text(encoding="utf-8"))
        return str({name: value for name, value in sorted(report.items()) if name not in ("date", "seconds")})
    if file.suffix == ".h5":
        arrays: dict[str, np.ndarray] = {}
        with h5py.File(file) as container:
            container.visititems(lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "shape") else None)
        return digest_of(arrays)
    return file_digest(file)


def digest_of(arrays: dict[str, Any]) -> str:
    """SHA-256 of names and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
