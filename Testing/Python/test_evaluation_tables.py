"""Statistics, tables, figures and files of a study, from scores made by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from mcsr.errors import OutputError
from mcsr.evaluation_files import complete_folder, write_case, write_study
from mcsr.evaluation_protocols import PROTOCOLS
from mcsr.evaluation_statistics import compare_runs, holm, summarise
from mcsr.evaluation_study import Case, Run
from mcsr.evaluation_tables import markdown

METRICS = ("psnr", "ssim", "nmse", "psnr_foreground", "ssim_foreground", "nmse_foreground")


def made_case(subject: str, gains: dict[tuple[str, str], float], reference: str = "T1", slices: int = 5) -> Case:
    """Sinc has 25, 26, ... dB; the others that many dB more, and a little of their own in every slice."""
    picture = np.random.default_rng(0).random((30, 24)).astype(np.float32)
    base = 25.0 + np.arange(slices)
    runs = []
    for n, ((model, condition), gain) in enumerate({("sinc", "none"): 0.0, **gains}.items()):
        values = base + gain + (0.01 * n * np.arange(slices))
        scores = {name: values if name.startswith("psnr") else values / 40 for name in METRICS}
        own = {"psnr": values, "ssim": values / 50, "nmse": values / 1000}
        runs.append(Run(model, condition, scores, own, 1.5, picture * (1 - 0.1 * n)))
    ceiling = np.full(slices, 33.0)
    place = {"spacing_mm": (0.8, 0.9), "plane": "axial", "truth_picture": picture, "reference_picture": picture}
    numbers = tuple(range(3, 3 + slices))
    return Case(f"{subject}_s1", subject, "T2", reference, 4, numbers, ceiling, 4, runs=tuple(runs), **place)


TRUE, SELF = ("dcamsr-s", "true"), ("dcamsr-s", "self")


def test_pairs_subjects_and_data_set_have_their_own_means() -> None:
    cases = [made_case("anna", {TRUE: 2.0}, slices=3), made_case("bert", {TRUE: 1.0}, slices=5)]
    pairs = summarise(cases, "pair")
    assert [(row.name, row.model, row.count) for row in pairs][:2] == [
        ("anna_s1 T2<-T1", "sinc", 3),
        ("anna_s1 T2<-T1", "dcamsr-s", 3),
    ]
    assert pairs[0].mean["psnr"] == pytest.approx(26.0)
    assert pairs[0].deviation["psnr"] == pytest.approx(1.0)
    (sinc, _) = summarise(cases, "data set")
    assert sinc.count == 2
    assert sinc.mean["psnr"] == pytest.approx((26 + 27) / 2), "each subject counts once"
    assert sinc.deviation["psnr"] == pytest.approx(np.std([26, 27], ddof=1))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_conditions_and_models_are_compared_slice_by_slice() -> None:
    gains = {TRUE: 2.0, SELF: 1.5, ("cd-dpe-s", "true"): 2.5, ("linear", "none"): -1.0}
    found = compare_runs([made_case("anna", gains, slices=8)])
    compared = {(d.first, d.second): d for d in found}
    assert list(compared) == [
        (TRUE, SELF),
        (TRUE, ("sinc", "none")),
        (("cd-dpe-s", "true"), ("sinc", "none")),
        (TRUE, ("cd-dpe-s", "true")),
    ]
    worth = compared[TRUE, SELF]
    assert (worth.unit, worth.count) == ("slices", 8)
    assert worth.mean == pytest.approx(0.5 - 0.01 * 3.5)
    assert worth.low < worth.mean < worth.high
    # All eight differences of one sign: 2 / 2**8, and four comparisons.
    assert worth.p == pytest.approx(4 * 2 / 2**8)


def test_a_slice_counts_once_however_many_references_it_has() -> None:
    cases = [made_case("anna", {TRUE: 2.0}, "T1"), made_case("anna", {TRUE: 1.0}, "FLAIR")]
    (found,) = compare_runs(cases)
    assert found.count == 5
    assert found.mean == pytest.approx(1.5 + 0.01 * 2)


def test_many_subjects_are_compared_instead_of_slices() -> None:
    cases = [made_case(f"subject{n}", {TRUE: 1.0 + 0.1 * n}) for n in range(7)]
    (found,) = compare_runs(cases)
    assert (found.unit, found.count) == ("subjects", 7)
    assert found.mean == pytest.approx(1.3 + 0.02)
    assert found.p == pytest.approx(2 / 2**7)
    assert compare_runs(cases) == [found], "the same seed gives the same interval"
    same = compare_runs([made_case("anna", {TRUE: 0.0}, slices=1)])
    assert (same[0].mean, same[0].p) == (0.0, 1.0)


def test_tables_hold_gains_the_noise_ceiling_and_a_warning() -> None:
    cases = [made_case("anna", {TRUE: 2.0, SELF: 1.5})]
    text = markdown(cases, [d for metric in ("psnr", "ssim") for d in compare_runs(cases, metric)])
    assert "| anna_s1 T2<-T1 | x4 | sinc | - | 27.00 ± 1.58 | +0.00 |" in text
    assert "| anna_s1 T2<-T1 | x4 | dcamsr-s | true | 29.02 ± 1.60 | +2.02 |" in text
    assert "| anna_s1 T2<-T1 | x4 | noise ceiling | - | 33.00 | +6.00 |" in text
    assert "| x4 | dcamsr-s, true | dcamsr-s, self | 5 slices | +0.48 [" in text
    assert "Slices of one patient are not independent" in text
    widths = {line.count("|") for line in text.split("\n\n")[0].splitlines()}
    assert len(widths) == 1, "every line of a table has all its cells"


def test_published_numbers_stand_beside_ours_and_are_marked() -> None:
    cases = [made_case("anna", {TRUE: 2.0})]
    text = markdown(cases, [], PROTOCOLS["dcamsr"], "dcamsr")
    assert "| x4 | dcamsr-s, true | these data, T2<-T1 | 29.02 | 0.5804 | 0.0290 |" in text
    assert "| x4 | published: dcamsr | fastMRI knee, PD-FS<-PD | 30.97 | 0.637 | - |" in text
    assert "| x4 | published: dcamsr | M4Raw, T2<-T1 | 30.48 | 0.728 | 0.029 |" in text
    assert "32.20" not in text, "no numbers of a scale that was not run"
    assert "the paper's own numbers, on its own data and split" in text


def test_the_folder_holds_everything(tmp_path: Path) -> None:
    cases = [made_case("anna", {TRUE: 2.0, SELF: 1.5})]
    with complete_folder(tmp_path / "out") as folder:
        write_case(folder, cases[0])
        write_study(folder, cases, compare_runs(cases), "the tables")
        assert not (tmp_path / "out").exists(), "nothing shows before all is there"
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    files = {"slices.csv", "summary.csv", "tests.csv", "tables.md", "psnr_x4.png", "ssim_x4.png"}
    assert names == {f"out/{name}" for name in files | {"errors/anna_s1_T2_T1_x4.png"}}
    with (tmp_path / "out" / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 5
    assert (rows[5]["model"], rows[5]["condition"], rows[5]["slice"], rows[5]["psnr"]) == (
        "dcamsr-s",
        "true",
        "3",
        "27",
    )
    picture = imread(tmp_path / "out" / "errors" / "anna_s1_T2_T1_x4.png")
    assert picture.shape[1] > picture.shape[0] > 300
    columns = np.array_split(picture[:, :, :3].max(axis=(0, 2)), 8)
    assert all(column.max() > 0.5 for column in columns[:-1]), "truth, reference and three runs side by side"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with complete_folder(tmp_path / "out") as folder:
            (folder / "half.csv").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="exists already and is not empty"), complete_folder(tmp_path / "full"):
        pass
    with pytest.raises(OutputError, match="there is no folder"), complete_folder(tmp_path / "no" / "out"):
        pass
    assert (tmp_path / "full" / "thesis.tex").read_text() == "precious"
