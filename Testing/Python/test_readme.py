"""Every command in the README's code blocks: run on the small phantom, or checked, with the reason why it is not run.

The blocks are read by a real shell in which every program only notes how it was called, so that functions, comments and
several commands in a line count as they do for a reader. A command that neither table below knows fails a quick test.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer
import yaml
from batch_cohort import HereAndNow
from frame import MODULE_FOLDER, ROOT, text
from mcsr.cli import app
from mcsr.imageio import read_volume, write_volume
from mcsr.metrics import compare
from mcsr.networks import create_network
from mcsr.phantom import demo_case
from mcsr.pipeline import simulate
from mcsr.training.recipe import load_recipe
from mcsr.weights import load_weights, save_weights, shipped_models
from readme_page import README, blocks, calls_of, commands, table_below
from subject_files import write_subject
from typer.testing import CliRunner, Result

RECIPE = """
name = "my-recipe"
network = "dcamsr-s"
scale = 4
steps = 2
learning_rate = 1e-3
precision = "32-true"
phases = [{ share = 1.0, batch = 1 }]
network_config = { channels = 8, encoder_blocks = [1, 1, 1], fusion_blocks = [1, 1, 1], pool = 4, tokens = 4 }
"""


# --- What was made


def psnr(folder: str) -> tuple[float, float]:
    """Against the truth: of the result, and of the interpolation that it began with."""
    files = (Path("T2.nii.gz"), Path(folder, "sr.nii.gz"), Path(folder, "residual.nii.gz"))
    truth, enhanced, residual = (read_volume(file).array_kji for file in files)
    return compare(enhanced, truth).psnr, compare(np.maximum(enhanced - residual, 0), truth).psnr


def gains(folder: str, least_db: float = 1.0) -> Callable[[Result], None]:
    def check(result: Result) -> None:
        enhanced, interpolated = psnr(folder)
        assert enhanced > interpolated + least_db
        assert Path(folder, "report.png").is_file()

    return check


def gains_beside_the_truth(result: Result) -> None:
    gains("result")(result)
    reported = json.loads(Path("result/report.json").read_text())["scores"]["result"]["psnr"]
    assert reported == pytest.approx(psnr("result")[0], abs=0.1)
    assert f"PSNR {reported:.2f} dB" in result.output
    held = README[README.index("`result/` then holds") :].partition("\n\n")[0]
    named = re.findall(r"`(\w+\.(?:png|nii\.gz|h5|json))`", held)
    assert sorted(named) == sorted(path.name for path in Path("result").iterdir())


def shows_its_maps(result: Result) -> None:
    gains("result-maps")(result)
    made = {path.name.removesuffix(".nii.gz") for path in Path("result-maps/maps").iterdir()}
    named = re.findall(r"^\| `(\w+)` \| ", README[README.index("**Trust maps**") :], re.MULTILINE)
    assert len(named) == 4
    assert set(named) <= made
    assert {"x_common", "x_unique", "y_common", "y_unique"} <= made
    assert Path("result-maps/maps.png").is_file()


def is_alone(result: Result) -> None:
    gains("result-alone", 0.0)(result)
    assert json.loads(Path("result-alone/report.json").read_text())["inputs"]["reference"] is None


def is_coarser(result: Result) -> None:
    fine, coarse = (read_volume(Path(name)).grid for name in ("T2.nii.gz", "T2_low.nii.gz"))
    np.testing.assert_allclose(coarse.spacing_ijk_mm, fine.spacing_ijk_mm * [4, 4, 1], rtol=1e-4)
    np.testing.assert_allclose(coarse.ras_bounds(), fine.ras_bounds(), atol=1e-3)


def has_a_row_for_each_subject(result: Result) -> None:
    with Path("results/batch.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["subject"], row["status"]) for row in rows] == [("sub-01", "done"), ("sub-02", "done")]
    assert Path("results/overview.html").is_file()
    assert Path("results/sub-01/sr.nii.gz").is_file()


def tells_the_costs(result: Result) -> None:
    """As the table of the page does."""
    printed = [
        json.loads(line)
        for line in CliRunner().invoke(app, ["models", "list", "--costs", "--json"]).stdout.splitlines()
    ]
    shown = {cells[0]: cells[1:] for cells in table_below("GMAC are 1e9")}
    networks = {model["name"]: model for model in printed if not model["summary"].startswith("Baseline")}
    assert set(shown) == set(networks)
    for name, (weights, parameters, *_, summary) in shown.items():
        assert weights == (", ".join(f"x{scale}" for scale in networks[name]["scales"]) or "none")
        assert parameters == f"{networks[name]['parameters']:,}"
        assert summary == networks[name]["summary"]
        assert name in result.output


def tells_the_figures(result: Result) -> None:
    """The page holds them as printed."""
    (held,) = re.findall(r"<!-- models figures -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert held == result.stdout


def tells_of_paper_and_maps(result: Result) -> None:
    words = " ".join(result.output.split())
    assert "MICCAI 2023" in words
    assert "texture_lv1" in words
    assert "dcamsr-s-x4" in words


def finds_all_whole(result: Result) -> None:
    whole = {line.split()[1] for line in result.output.splitlines() if "whole" in line}
    assert whole == {entry["id"] for entry in shipped_models()}


def tells_every_model(result: Result) -> None:
    for entry in shipped_models():
        assert entry["architecture"] in result.output


def tells_four_conditions(result: Result) -> None:
    tables = Path("scores/tables.md").read_text()
    assert all(word in tables for word in ("dcamsr-s", "sinc", "misregistered", "foreign"))


def is_trained(result: Result) -> None:
    assert load_weights(Path("RUN/weights.safetensors")).metadata["architecture"] == "dcamsr-s"


def is_added(result: Result) -> None:
    assert (Path(os.environ["MCSR_MODELS"]) / "weights.safetensors").is_file()


def used_my_weights(result: Result) -> None:
    report = json.loads(Path("result-mine/report.json").read_text())
    assert report["weights_sha256"] == load_weights(Path("RUN/weights.safetensors")).sha256


class Run(NamedTuple):
    """How a command is run: what must hold then, whether that takes long, and a command that comes first."""

    check: Callable[[Result], None]
    slow: bool = True
    after: str = ""


MY_TRAINING = "mcsr train my-recipe.toml --data DATA -o RUN"
RUN = {
    "mcsr enhance T2_low.nii.gz T1.nii.gz -o result --scale 4": Run(gains("result")),
    "mcsr simulate T2.nii.gz -o T2_low.nii.gz --scale 4": Run(is_coarser, slow=False),
    "mcsr enhance T2_low.nii.gz T1.nii.gz -o result --scale 4 --ground-truth T2.nii.gz": Run(gains_beside_the_truth),
    "mcsr enhance T2_low.nii.gz T1.nii.gz -o result-maps --scale 4 --model cd-dpe-s --maps all --trust": Run(
        shows_its_maps
    ),
    "mcsr enhance T2_low.nii.gz -o result-alone --scale 4": Run(is_alone),
    "mcsr demo -o demo": Run(gains("demo")),
    "mcsr demo -o result-demo --target T2.nii.gz --reference T1.nii.gz": Run(gains("result-demo")),
    "mcsr batch cohort.csv -o results": Run(has_a_row_for_each_subject),
    "mcsr models list --costs": Run(tells_the_costs),
    "mcsr models show dcamsr-s": Run(tells_of_paper_and_maps, slow=False),
    "mcsr models verify": Run(finds_all_whole, slow=False),
    "mcsr models figures": Run(tells_the_figures, slow=False),
    "mcsr evaluate DATA --models all --sessions ms_p04_s1,ms_p04_s1_flair": Run(tells_every_model),
    "mcsr evaluate DATA -o scores --models dcamsr-s,sinc --scales 4 --conditions all": Run(tells_four_conditions),
    MY_TRAINING: Run(is_trained),
    f"{MY_TRAINING} --resume": Run(is_trained, after=MY_TRAINING),
    "mcsr models add RUN/weights.safetensors": Run(is_added, slow=False),
    "mcsr enhance T2_low.nii.gz T1.nii.gz -o result-mine --scale 4 --weights RUN/weights.safetensors": Run(
        used_my_weights
    ),
}
FROM_MAKE = "mcsr demo -o demo"
"""What `make demo` calls."""

CHECKED = {
    r"git clone .*|pip install .*": "needs a network",
    r"make .*": "makes an environment first",
    r"mcsr train shipped/.*": "takes hours and real data",
    r"python tools/.*": "needs real data, or draws for minutes",
}
"""Commands that are not run here, and why; the tests below check what can be checked of them."""


def matching(pattern: str) -> list[tuple[str, ...]]:
    return [call for words, call in commands().items() if re.fullmatch(pattern, words)]


def test_every_command_is_in_a_table() -> None:
    checked = {" ".join(call) for pattern in CHECKED for call in matching(pattern)}
    assert {*commands(), FROM_MAKE} - checked == set(RUN), "add what is new to RUN or CHECKED"
    assert all(matching(pattern) for pattern in CHECKED)


def test_commands_are_read_as_a_shell_reads_them() -> None:
    block = 'f() { .venv/bin/mcsr train $1 ${2:+--initial $2}; }\nf a;  f b "c d"   # why\nmake demo\n'
    assert calls_of(block) == [
        ("mcsr", "train", "a"),
        ("mcsr", "train", "b", "--initial", "c", "d"),
        ("make", "demo"),
    ]
    with pytest.raises(AssertionError, match="curl"):
        calls_of("curl x\n")


# --- Those that are run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page speaks of: two scans of the phantom, a cohort of it, and a recipe."""
    folder = tmp_path_factory.mktemp("inputs")
    case = demo_case(size="small")
    volumes = {"T2": case.target_hr, "T1": case.reference, "T2_low": simulate(case.target_hr, 4)[0]}
    for name, volume in volumes.items():
        write_volume(volume, folder / f"{name}.nii.gz")
    rows = ["subject,target,reference", "sub-01,T2_low.nii.gz,T1.nii.gz", "sub-02,T2_low.nii.gz,"]
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    (folder / "my-recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def folder(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a command is run in; phantoms are small ones, and a batch is run in this process."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mcsr.demo.demo_case", lambda seed: demo_case(seed, "small"))
    monkeypatch.setattr("mcsr.batch_cluster.local_client", lambda processes: HereAndNow())
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def prepare(folder: Path, call: tuple[str, ...]) -> None:
    """What a command finds beside the scans, where it asks for it."""
    if "DATA" in call:
        (folder / "DATA").mkdir()
        for name, split, subject in (
            ("ms_p04_s1", "val", "four"),
            ("ms_p04_s1_flair", "val", "other"),
            ("a", "train", "one"),
        ):
            write_subject(folder / "DATA", name, split, subject, all_native=name.endswith("flair"))
    if "RUN/weights.safetensors" in call:
        (folder / "RUN").mkdir()
        torch.manual_seed(0)
        card = {"architecture": "dcamsr-s", "scale": 4, "degradation": "kspace", "plane": "axial"}
        network = create_network("dcamsr-s", scale=4)
        save_weights(folder / "RUN" / "weights.safetensors", network, card | {"spacing_mm": [0.4, 1.5]})


@pytest.mark.parametrize(
    "words", [pytest.param(words, marks=pytest.mark.slow if run.slow else ()) for words, run in RUN.items()]
)
def test_command_does_what_the_page_says(words: str, folder: Path) -> None:
    call = {**commands(), FROM_MAKE: tuple(FROM_MAKE.split())}[words]
    prepare(folder, call)
    if words.startswith("mcsr simulate"):
        (folder / "T2_low.nii.gz").unlink()
    if RUN[words].after:
        assert CliRunner().invoke(app, RUN[words].after.split()[1:]).exit_code == 0
    result = CliRunner().invoke(app, call[1:])
    assert result.exit_code == 0, result.output
    RUN[words].check(result)


# --- Those that are not


def parsed(call: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of a call of mcsr, as the command line takes them; nothing is run."""
    command: Any = typer.main.get_command(app)
    name, *rest = call[1:]
    return command.commands[name].make_context(name, rest).params


def test_downloads_name_this_project_and_its_extras__they_need_a_network() -> None:
    extras = re.findall(r"^(\w+) = \[", text("pyproject.toml").partition("[project.optional-dependencies]")[2], re.M)
    for program, _, what in matching(r"git clone .*|pip install \S+"):
        if program == "git":
            assert f'Homepage = "{what}"' in text("pyproject.toml")
        else:
            (names,) = re.findall(r"^\.\[(.*)\]$", what)
            assert set(names.split(",")) <= set(extras)


@pytest.mark.parametrize("target", [call[1] for call in matching(r"make .*")])
def test_make_has_the_target__which_makes_an_environment_first(target: str) -> None:
    recipe = re.search(rf"^{target}:.* ## .*\n((?:\t.*\n)*)", text("Makefile"), re.MULTILINE)
    assert recipe
    if target == "demo":
        assert f"$(BIN)/{FROM_MAKE}\n" in recipe[1]


def test_shipped_trainings_have_recipes_and_begin_from_earlier_ones__they_take_long() -> None:
    trained: dict[str, str] = {}
    for call in matching(r"mcsr train shipped/.*"):
        given = parsed(call)
        recipe = load_recipe(given["recipe"])
        if given["initial"]:
            assert trained[str(given["initial"].parent)] == recipe.network
            assert given["initial"].name == "weights.safetensors"
        trained[str(given["output"])] = recipe.network
    assert {entry["id"] for entry in shipped_models()} <= {re.sub(r"(-x\d)-.*$", r"\1", run[5:]) for run in trained}


@pytest.mark.parametrize("call", matching(r"python tools/.*"), ids=lambda call: call[1])
def test_tool_has_the_options__it_needs_real_data_or_minutes(call: tuple[str, ...]) -> None:
    source = text(call[1])
    assert [word for word in call[2:] if word.startswith("-") and f'"{word}"' not in source] == []


def test_the_line_for_slicer_fits_the_module__it_needs_slicer() -> None:
    (block,) = blocks("python")
    (call,) = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call) and len(node.args) == 2]
    tree = ast.parse((MODULE_FOLDER / "MultiContrastSR.py").read_text(encoding="utf-8"))
    (process,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "process"]
    assert [arg.arg for arg in process.args.args[1:3]] == [ast.unparse(argument) for argument in call.args]
    assert {keyword.arg for keyword in call.keywords} <= {arg.arg for arg in process.args.kwonlyargs}
    assert 'getModuleLogic("MultiContrastSR").process(' in block


# --- Words


def test_lesions_leak_as_the_page_on_trust_says() -> None:
    """Figures and sentences."""
    page = text("docs/trust.md").partition("\n## Lesions\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    measured = {weights: [kept, leaked] for weights, kept, leaked, _ in rows[2:]}
    shown = {weights: cells for weights, *cells in table_below("A small lesion stays faint")}
    assert shown == {weights: cells for weights, cells in measured.items() if weights[-2:] in ("x2", "x4")}
    small = [leaked.partition(",")[0].split("/") for name, (_, leaked) in shown.items() if name.endswith("-s x4")]
    means, worst = ([float(found[n]) for found in small] for n in (0, 1))
    assert f"leaves {min(means):.0f} to {max(means):.0f} % of its" in README
    assert f"and {max(worst):.0f} % at worst" in README


def test_the_citation_file_names_the_papers_of_the_page() -> None:
    """Title and year, and the arXiv number where there is one."""
    papers = dict(table_below("## Citing"))
    references = yaml.safe_load(text("CITATION.cff"))["references"]
    assert len(papers) == len(references) == 5
    for reference in references:
        (paper,) = [paper for paper in papers.values() if f"{reference['title']}." in f"{paper}."]
        years = re.findall(r"\b20\d\d\b", re.sub(r"arXiv\S+", "", paper))
        assert set(years) == ({str(reference["year"])} if "year" in reference else set())
        for identifier in reference.get("identifiers", ()):
            assert identifier["value"] in paper


def test_research_use_is_said_first_and_last() -> None:
    first_screen, last = README.partition("\n## ")[0], README.rpartition("\n## ")[2]
    assert all("Research use only" in part for part in (first_screen, last))


def test_pictures_are_said_not_to_be_screenshots_of_slicer() -> None:
    tutorial = README.partition("## Tutorial in Slicer")[2].partition("\n## ")[0]
    assert "They are not screenshots of the Slicer application" in " ".join(tutorial.split())
    shown = re.findall(r"!\[.*?\]\((docs/pictures/readme-\S+\.png)\)", README)
    assert sorted(shown) == sorted(f"docs/pictures/{path.name}" for path in (ROOT / "docs/pictures").glob("readme-*"))
    assert max((ROOT / name).stat().st_size for name in shown) < 200e3
