"""Studies on small subjects: what is run, on what, and what is said of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from grids import oblique_grid
from mcsr.errors import Cancelled, InputError, WeightsError
from mcsr.evaluation import evaluate
from mcsr.evaluation_conditions import centred_on, displaced, find_candidates, foreign_pair
from mcsr.evaluation_protocols import PROTOCOLS
from mcsr.evaluation_study import Case, Study
from mcsr.intensity import foreground
from mcsr.job import Settings
from mcsr.metrics import compare
from mcsr.pipeline import enhance, simulate
from mcsr.progress import Event
from mcsr.subjects import find_subject_pairs
from mcsr.volume import Volume
from scenes import scene
from subject_files import write_subject


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects")
    write_subject(folder, "a1", "val", "anna")
    write_subject(folder, "b1", "val", "bert", all_native=True)
    write_subject(folder, "c1", "train", "carla")
    return folder


@pytest.fixture(scope="module")
def cases(data: Path, untrained_x2: Path) -> list[Case]:
    # What a bad reference does to the network shows only where it is used all the same.
    settings = Settings(weights=untrained_x2, fallback=False)
    study = Study(data, ["dcamsr-s"], [2], ("true", "self", "foreign", "misregistered"), settings=settings)
    return list(evaluate(study))


def case_named(cases: list[Case], name: str) -> Case:
    return next(case for case in cases if case.name == name)


def test_every_pair_is_run_under_every_condition(cases: list[Case]) -> None:
    assert [case.name for case in cases] == ["a1 T2<-T1 x2", "b1 T2<-T1 x2", "b1 T1<-T2 x2"]
    for case in cases:
        assert [(run.model, run.condition) for run in case.runs] == [
            ("sinc", "none"),
            *(("dcamsr-s", condition) for condition in ("true", "self", "foreign", "misregistered")),
        ]
    assert case_named(cases, "a1 T2<-T1 x2").slices == (1, 2, 3, 4)


def test_the_scores_are_those_of_the_pipeline(cases: list[Case], data: Path, untrained_x2: Path) -> None:
    pair = find_subject_pairs(data, "val")[0]
    truth = pair.read("T2")
    low = simulate(truth, 2, plane="axial")[0]
    settings = Settings(scale=2, weights=untrained_x2, registration="none", plane="axial")
    case = cases[0]
    for model, condition, reference in (
        ("dcamsr-s", "true", pair.read("T1")),
        ("dcamsr-s", "self", None),
        ("sinc", "none", None),
    ):
        own = settings if model != "sinc" else Settings(model="sinc", scale=2, plane="axial")
        expected = compare(enhance(low, reference, own).sr.array_kji, truth.array_kji)
        run = case.run(model, condition)
        assert run.mean("psnr") == pytest.approx(expected.psnr, abs=1e-6)
        assert run.mean("ssim") == pytest.approx(expected.ssim, abs=1e-6)


def test_each_condition_gives_another_result_and_its_reason_is_told(cases: list[Case]) -> None:
    psnr = {run.condition: run.mean("psnr") for run in cases[0].runs}
    assert len(set(psnr.values())) == 5
    notes = " ".join(cases[0].notes)
    assert "a1 T2<-T1: the foreign reference is T1 of c1." in notes, "of the same kind, though of another split"
    assert "none was given" not in notes


def test_data_resampled_at_their_source_have_no_noise_ceiling(cases: list[Case]) -> None:
    assert case_named(cases, "b1 T2<-T1 x2").ceiling is None
    ceiling = case_named(cases, "a1 T2<-T1 x2").ceiling
    assert ceiling is not None
    assert ceiling.shape == (4,)


def test_the_picture_shows_the_slice_of_median_psnr(cases: list[Case]) -> None:
    case = cases[0]
    values = list(case.run("sinc").scores["psnr"])
    assert values[case.slices.index(case.shown)] == sorted(values)[1]
    shapes = {picture.shape for picture in (case.truth_picture, case.reference_picture, case.runs[1].picture)}
    assert len(shapes) == 1
    assert case.without_pictures().truth_picture.size == 0
    error = np.abs(case.run("sinc").picture - case.truth_picture).mean()
    assert 0 < error < 0.2, "both on the truth's scale"


def test_what_needs_no_reference_is_run_once_for_all_references(
    data: Path, untrained_x2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[tuple[str, bool]] = []

    def counted(target: Volume, reference: Volume | None, settings: Settings, **how: object) -> object:
        jobs.append((settings.model, reference is not None))
        return enhance(target, reference, settings, **how)

    monkeypatch.setattr("mcsr.evaluation.enhance", counted)
    first = find_subject_pairs(data, "val")[0]
    pairs = [first, dataclasses.replace(first)]
    monkeypatch.setattr("mcsr.evaluation_pairs.find_subject_pairs", lambda folder, split: pairs)
    monkeypatch.setattr(type(first), "key", property(lambda pair: f"pair {pairs.index(pair)}"))
    settings = Settings(weights=untrained_x2)
    list(evaluate(Study(data, ["dcamsr-s"], [2], settings=settings, limit_slices=1)))
    assert jobs == [("sinc", False), ("dcamsr-s", True), ("dcamsr-s", False), ("dcamsr-s", True)]


def test_fewer_slices_score_as_among_all(cases: list[Case], data: Path, untrained_x2: Path) -> None:
    study = Study(data, ["dcamsr-s"], [2], sessions=["a1"], limit_slices=2, settings=Settings(weights=untrained_x2))
    (thinned,) = evaluate(study)
    assert thinned.slices == (1, 3)
    for run, tolerance in zip(thinned.runs, (1e-5, 0.3, 0.3), strict=True):
        among_all = cases[0].run(run.model, run.condition).scores["psnr"][[0, 2]]
        np.testing.assert_allclose(run.scores["psnr"], among_all, atol=tolerance)


def test_a_protocol_adds_its_own_scores(data: Path, untrained_x2: Path) -> None:
    settings = Settings(weights=untrained_x2)
    study = Study(data, ["dcamsr-s"], [2], ["true"], sessions=["a1"], protocol=PROTOCOLS["dcamsr"], settings=settings)
    (case,) = evaluate(study)
    assert case.runs[0].protocol_scores["psnr"].shape == (1,), "one value for the volume"
    assert "was trained with the degradation 'kspace', the protocol's is 'dcamsr-official'" in case.notes[0]
    centred = next(evaluate(Study(data, ["sinc"], [2], sessions=["a1"])))
    assert case.run("sinc").mean("psnr") == pytest.approx(centred.run("sinc").mean("psnr"), abs=1.5)


def test_all_models_are_those_that_can_run(data: Path) -> None:
    study = Study(data, ["all"], [3], ["self"], sessions=["a1"], limit_slices=1)
    (case,) = evaluate(study)
    assert {run.model for run in case.runs} == {"sinc", "linear", "cubic", "daasr-s"}
    assert case.runs[0].model == "sinc"
    assert "Left out, because no weights are installed: " in case.notes[0]
    assert "dcamsr-s x3" in case.notes[0]


def test_mistakes_are_named(data: Path) -> None:
    with pytest.raises(InputError, match=r"has no session z9 in split 'val'"):
        next(evaluate(Study(data, ["sinc"], [2], sessions=["a1", "z9"])))
    with pytest.raises(InputError, match=r"Unknown condition 'best'; known are true, self, foreign"):
        next(evaluate(Study(data, ["sinc"], [2], ["best"])))
    with pytest.raises(WeightsError, match=r"No weights are installed for dcamsr-s x3; see"):
        next(evaluate(Study(data, ["dcamsr-s"], [3])))
    with pytest.raises(InputError, match=r"nobody"):
        next(evaluate(Study(data, ["nobody"], [2])))


def test_progress_rises_to_the_end_and_cancel_stops(data: Path) -> None:
    events: list[Event] = []
    list(evaluate(Study(data, ["linear"], [2], limit_slices=1), progress=events.append))
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert events[0].stage == "a1 T2<-T1 x2"
    with pytest.raises(Cancelled):
        next(evaluate(Study(data, ["linear"], [2]), cancelled=lambda: len(events) > 0))


def test_foreign_references_come_from_another_subject_of_the_same_kind(data: Path) -> None:
    candidates = find_candidates(data, "val")
    assert [pair.path.stem for pair in candidates] == ["a1", "b1", "b1", "c1"]
    own, auxiliary = candidates[0], candidates[1]
    lender = foreign_pair(own, candidates)
    assert lender is not None
    assert lender.path.stem == "c1"
    lender = foreign_pair(auxiliary, candidates)
    assert lender is not None
    assert lender.path.stem == "a1"
    assert foreign_pair(own, [own]) is None


def test_a_foreign_head_is_put_where_the_target_is() -> None:
    target = scene("T2", oblique_grid())
    foreign = scene("T1", oblique_grid((30, 26, 8), (0.8, 0.8, 3.0), origin_ras=(-60.0, 10.0, 90.0)))
    moved = centred_on(foreign, target)
    centres = [v.grid.to_ras(np.argwhere(foreground(v.array_kji)).mean(axis=0)[::-1]) for v in (moved, target)]
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-6)
    assert np.array_equal(moved.array_kji, foreign.array_kji)


def test_the_motion_has_the_stated_size_and_comes_from_the_seed() -> None:
    volume = scene("T1", oblique_grid())
    moved = displaced(volume, 0)
    step = moved.ijk_to_ras @ np.linalg.inv(volume.ijk_to_ras)
    shift = moved.grid.centre_ras - volume.grid.centre_ras
    assert np.linalg.norm(shift) == pytest.approx(2.0)
    assert np.rad2deg(np.arccos((np.trace(step[:3, :3]) - 1) / 2)) == pytest.approx(2.0, abs=0.01)
    assert np.array_equal(displaced(volume, 0).ijk_to_ras, moved.ijk_to_ras)
    assert not np.allclose(displaced(volume, 1).ijk_to_ras, moved.ijk_to_ras, atol=0.1)
