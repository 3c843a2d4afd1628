"""Training samples: from every source, divided among processes, with every augmentation."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mcsr.degradation import upsample
from mcsr.errors import InputError
from mcsr.subjects import prepare_subjects
from mcsr.training.augmentation import Augmentation
from mcsr.training.data import Batch, TrainingSamples, batches, find_pairs
from mcsr.training.recipe import Phase, Recipe
from subject_files import write_brats, write_fastmri, write_ixi, write_m4raw, write_subject

QUIET = Augmentation(flip=0, self_reference=0, foreign_reference=0, shift=0, remap=0)
CROPS = Phase(share=0.5, batch=4, crop=24)
CANVASES = Phase(share=0.5, batch=4)


def recipe(augmentation: Augmentation = QUIET, degradation: str = "kspace", scale: int = 2) -> Recipe:
    return Recipe(
        name="tiny",
        network="dcamsr-s",
        scale=scale,
        steps=6,
        learning_rate=1e-3,
        phases=(CROPS, CANVASES),
        degradation=degradation,
        augmentation=augmentation,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects")
    write_subject(folder, "a", "train", "one")
    write_subject(folder, "b", "train", "two22", all_native=True)
    return folder


def samples(data: Path, augmentation: Augmentation = QUIET, **settings: bool) -> TrainingSamples:
    return TrainingSamples(find_pairs(data, "train", 2, "kspace", 8, **settings), recipe(augmentation))


def fastmri(folder: Path) -> None:
    names = write_fastmri(folder, "train", 1)
    (folder / "train.csv").write_text(",".join(names))


SOURCES: dict[str, Callable[[Path], object]] = {
    "subject files": lambda folder: write_subject(folder, "a", "train", "one"),
    "fastMRI": fastmri,
    "M4Raw": lambda folder: write_m4raw(folder, "train", "2022061003"),
    "IXI": lambda folder: write_ixi(folder, "IXI002-Guys-0828"),
    "BraTS": lambda folder: write_brats(folder, "BraTS20_Training_001"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_scaled_samples_that_lie_on_each_other(tmp_path: Path, source: str) -> None:
    SOURCES[source](tmp_path)
    pairs = find_pairs(tmp_path, "train", 2, "kspace", 8)
    batch = TrainingSamples(pairs, recipe()).batch(0, CANVASES)
    assert batch.truths.shape == batch.references.shape
    assert batch.truths.shape[2:] == tuple(2 * n for n in batch.targets.shape[2:])
    for image in (*batch.truths, *batch.references):
        assert 0.6 < image.max() < 1.7
    means = torch.nn.functional.avg_pool2d(batch.truths, 2)
    for mean, target in zip(means, batch.targets, strict=True):
        assert torch.corrcoef(torch.stack([mean.flatten(), target.flatten()]))[0, 1] > 0.97
    for truth, reference in zip(batch.truths, batch.references, strict=True):
        both = torch.stack([truth.flatten(), reference.flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.7, "two contrasts of the same head"
    assert batch.registered.all()


@pytest.mark.parametrize("source", SOURCES)
def test_prepared_subject_files_give_the_same_samples(tmp_path: Path, source: str) -> None:
    original, prepared = tmp_path / "original", tmp_path / "prepared"
    for folder in (original, prepared):
        folder.mkdir()
    SOURCES[source](original)
    told: list[str] = []
    (file,) = prepare_subjects(original, prepared, started=told.append)
    assert told == [file.stem]
    with h5py.File(file) as opened:
        stored = {name: opened[name].dtype for name in opened}
    assert (stored["T2" if source != "fastMRI" else "PD"] == np.uint16) == (source not in ("fastMRI", "M4Raw"))
    first, second = (find_pairs(folder, "train", 2, "kspace", 8) for folder in (original, prepared))
    assert [pair.source.key for pair in first] == [pair.source.key for pair in second]
    assert [pair.source.auxiliary for pair in first] == [pair.source.auxiliary for pair in second]
    assert first[0].source.session.origin == second[0].source.session.origin
    assert first[0].source.plane == second[0].source.plane
    for phase in (CROPS, CANVASES):
        a, b = (TrainingSamples(pairs, recipe()).batch(1, phase) for pairs in (first, second))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert prepare_subjects(original, prepared, started=told.append) == [file]
    assert len(told) == 1, "what is there is kept"
    with pytest.raises(InputError, match="holds the data themselves"):
        prepare_subjects(original, original)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    "degradation", ["kspace", "bicubic", "average", "dcamsr-official", "diffmsr-official", "cddpe-official"]
)
def test_every_degradation_at_every_scale(data: Path, degradation: str, scale: int) -> None:
    pairs = find_pairs(data, "train", scale, degradation, 8)
    batch = TrainingSamples(pairs, recipe(degradation=degradation, scale=scale)).batch(0, CROPS)
    assert batch.targets.shape == batch.truths.shape == (4, 1, 24, 24), "crops come upsampled"
    coarse = TrainingSamples(pairs, recipe(degradation=degradation, scale=scale), upsamples_first=False)
    assert coarse.batch(0, CROPS).targets.shape == (4, 1, 24 // scale, 24 // scale)
    assert 0.3 < batch.targets.max() < 1.7, "scaled by its own percentile, however bright a degradation makes it"


@pytest.mark.parametrize("phase", [CROPS, CANVASES])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_make_up_the_whole_batch(data: Path, phase: Phase, parts: int) -> None:
    drawn = samples(data, Augmentation(misalign=0.5, noise=0.5))
    whole = drawn.batch(3, phase)
    (divided,) = islice(batches(drawn, phase, 3, workers=0, parts=parts, mine=range(parts)), 1)
    assert len(divided) == parts
    for part, batch in enumerate(divided):
        for field, expected in zip(batch, whole, strict=True):
            assert torch.equal(field, expected[part::parts])
    (alone,) = islice(batches(drawn, phase, 3, workers=0), 1)
    assert all(torch.equal(a, b) for a, b in zip(alone[0], whole, strict=True))
    with pytest.raises(InputError, match="A batch of 4 cannot be divided into 3 equal parts"):
        batches(drawn, phase, 0, workers=0, parts=3)


def test_workers_prepare_the_same_parts(data: Path) -> None:
    drawn = samples(data)
    there = batches(drawn, CROPS, 5, workers=2, parts=2, mine=(1,))
    here = batches(drawn, CROPS, 5, workers=0, parts=2, mine=(1,))
    for (a,), (b,) in islice(zip(there, here, strict=False), 3):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_samples_can_be_sent_to_a_new_process(tmp_path: Path) -> None:
    write_ixi(tmp_path, "IXI002-Guys-0828")
    drawn = TrainingSamples(find_pairs(tmp_path, "train", 2, "kspace", 8), recipe())
    sent = pickle.dumps(drawn)
    assert len(sent) < 20_000, "names and measures, no images"
    for a, b in zip(pickle.loads(sent).batch(2, CROPS), drawn.batch(2, CROPS), strict=True):
        assert torch.equal(a, b)


def test_contrast_pairs_swap_roles_and_use_resampled_contrasts(data: Path) -> None:
    plain = samples(data, resampled_targets=True)
    assert [pair.source.key for pair in plain.pairs] == ["a T2<-T1", "b T2<-T1", "b T1<-T2"]
    mixed = samples(data, dataclasses.replace(QUIET, contrast_pairs=1.0), resampled_targets=True)
    keys = {mixed._pair(np.random.default_rng(seed)).source.key for seed in range(60)}
    assert keys == {"a T2<-T1", "a T1<-T2", "b T2<-T1", "b T1<-T2"}


def test_the_truth_of_a_crop_rings_along_where_the_network_interpolates_it(data: Path) -> None:
    pairs, phase = find_pairs(data, "train", 2, "kspace", 8), Phase(share=1.0, batch=2, crop=16)
    fine, coarse, ringing = (
        TrainingSamples(pairs, recipe(scale=2), upsamples_first=first, adds_to_sinc=adds).batch(0, phase)
        for first, adds in ((True, False), (False, False), (False, True))
    )
    assert torch.equal(ringing.targets, coarse.targets)
    inside = upsample(coarse.targets[:, 0].numpy(), (1, 2, 2))
    torch.testing.assert_close(ringing.truths[:, 0] - torch.from_numpy(inside), (fine.truths - fine.targets)[:, 0])
    assert (ringing.truths - coarse.truths).abs().max() > 0.01


def test_a_crop_larger_than_a_canvas_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match=r"A crop of 64 pixels does not fit a canvas of \d+ x \d+"):
        samples(data).batch(0, Phase(share=1.0, batch=1, crop=64))


def registered(data: Path, phase: Phase = CANVASES, **changes: float) -> list[bool]:
    drawn = samples(data, dataclasses.replace(QUIET, **changes))  # type: ignore[arg-type]
    return [bool(r) for step in range(4) for r in drawn.batch(step, phase).registered]


def test_a_reference_is_registered_up_to_half_a_coarse_pixel(data: Path) -> None:
    still = {"rotation_degrees": 0.0, "elastic_pixels": 0.0}
    assert all(registered(data, misalign=1.0, offset_pixels=0.99, **still))
    far = registered(data, misalign=1.0, offset_pixels=4.0, **still)
    assert 0 < sum(far) < len(far), "some offsets of up to 4 pixels stay below 1"
    assert all(registered(data, shift=1.0, shift_pixels=1))
    assert not all(registered(data, shift=1.0, shift_pixels=3))
    assert not any(registered(data, foreign_reference=1.0))
    assert all(registered(data, self_reference=1.0, misalign=1.0, offset_pixels=9.0))


def test_a_crop_about_the_middle_of_a_turn_is_registered_where_its_rim_is_not(data: Path) -> None:
    turn = {"misalign": 1.0, "rotation_degrees": 8.0, "offset_pixels": 0.0, "elastic_pixels": 0.0}
    small = Phase(share=1.0, batch=4, crop=8)
    assert sum(registered(data, small, **turn)) > sum(registered(data, CANVASES, **turn))


def test_the_reference_alone_is_misaligned_and_remapped_and_the_target_alone_noisy(data: Path) -> None:
    def changed(batch: Batch, other: Batch) -> list[bool]:
        return [not torch.equal(a, b) for a, b in zip(batch[:3], other[:3], strict=True)]

    phase = Phase(share=1.0, batch=1)
    plain = samples(data).batch(1, phase)
    for changes, expected in (
        ({"misalign": 1.0}, [False, False, True]),
        ({"invert": 1.0}, [False, False, True]),
        ({"curve": 1.0}, [False, False, True]),
        ({"noise": 1.0}, [True, False, False]),
        ({"flip_rows": 1.0}, [True, True, True]),
    ):
        batch = samples(data, dataclasses.replace(QUIET, **changes)).batch(1, phase)
        assert changed(batch, plain) == expected, changes


def test_the_noise_of_the_target_is_in_its_own_reference_too(data: Path) -> None:
    augmentation = dataclasses.replace(QUIET, noise=1.0, noise_level=(0.05, 0.05), self_reference=1.0)
    batch = samples(data, augmentation).batch(0, CROPS)
    assert torch.equal(batch.targets, batch.references)
    clean = samples(data, dataclasses.replace(QUIET, self_reference=1.0)).batch(0, CROPS)
    assert not torch.equal(batch.targets, clean.targets)
