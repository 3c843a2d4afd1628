"""The documents stay true: links, commands, maps, code, pictures; and other places run the same checks."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import mcsr
import numpy as np
import pytest
import test_imports as imports
import torch
import typer
import yaml
from mcsr.cli import app
from mcsr.maps import choose_views
from mcsr.networks import _registry, create_network, network_names
from mcsr.training.losses import loss_weights
from mcsr.training.recipe import load_recipe
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]
NETWORKS = ROOT / "MultiContrastSR" / "Logic" / "mcsr" / "networks"
ADDING = DOCS / "networks" / "adding.md"
NETWORK_PAGES = ("cd-dpe", "daasr", "dcamsr", "diffmsr", "hftn-sr")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHER_PROGRAMS = {"--nnodes", "--nproc-per-node"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [code for kind, code in FENCE.findall(path.read_text(encoding="utf-8")) if kind == language]


def inline_code(path: Path) -> list[str]:
    """What stands between backticks in the text, line breaks as spaces."""
    words = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", words)]


def commands(path: Path) -> Iterator[list[str]]:
    """The words after every `mcsr` of a document."""
    for line in [line for block in blocks(path, "sh") for line in block.splitlines()] + inline_code(path):
        for call in re.findall(r"(?:^|[\s/])mcsr(?:\.cli)? ([a-z-][^;&|>]*)", line):
            yield shlex.split(call, comments=True)


def options_of(command: click.Command) -> set[str]:
    return {"--help"} | {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def command_and_rest(words: list[str]) -> tuple[click.Command, list[str]]:
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def every_option(command: Any) -> set[str]:
    return options_of(command).union(*(every_option(inner) for inner in getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_and_pictures_exist(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", path.read_text(encoding="utf-8")))
    files = [target.partition("#")[0] for target in targets if "://" not in target]
    assert not [file for file in files if file and not (path.parent / file).is_file()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_and_options_exist(path: Path) -> None:
    wrong = []
    for words in commands(path):
        command, rest = command_and_rest(words)
        unknown = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)} - options_of(command)
        if unknown or (hasattr(command, "commands") and rest and not rest[0].startswith("-")):
            wrong.append(" ".join(words))
    known = every_option(typer.main.get_command(app)) | OTHER_PROGRAMS
    wrong += [code for code in inline_code(path) if code.startswith("--") and code.split()[0] not in known]
    assert not wrong


def test_commands_are_found(tmp_path: Path) -> None:
    """The test above sees what it should see."""
    page = tmp_path / "page.md"
    page.write_text("`mcsr models\nlist --json`\n```sh\n.venv/bin/mcsr no-such --x  # why\n```\n`mcsr` and `--trust`\n")
    assert list(commands(page)) == [["no-such", "--x"], ["models", "list", "--json"]]


def test_navigation_lists_every_page() -> None:
    def files(entry: Any) -> Iterator[str]:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from [inner] if isinstance(inner, str) else files(inner)

    listed = list(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in PAGES)
    assert listed[0] == "index.md"


@pytest.mark.parametrize("name", NETWORK_PAGES)
def test_a_network_s_page_names_its_maps_and_no_others(name: str) -> None:
    """Numbers at the end may stand as n: score_gn for score_g1 to score_g4."""
    path = DOCS / "networks" / f"{name}.md"
    network, words = create_network(f"{name}-s"), set(inline_code(path))
    missing = {
        re.sub(r"\d+$", "n", key)
        for key in network.map_specs()
        if not {key, re.sub(r"\d+$", "1", key), re.sub(r"\d+$", "n", key)} & words
    }
    assert not missing
    asked = [words[words.index("--maps") + 1] for words in commands(path) if "--maps" in words]
    assert asked
    for names in asked:
        assert [view.name for view in choose_views(network, names)] == names.split(",")


@pytest.mark.parametrize("name", NETWORK_PAGES)
def test_a_network_s_page_says_which_code_is_which_part_of_the_paper(name: str) -> None:
    page = (DOCS / "networks" / f"{name}.md").read_text(encoding="utf-8")
    section = page.partition("\n## Exact to what?\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w/.]+)`", section)) - {"token_layout", "input_convention"}
    files = {word for word in named if word.endswith(".py")}
    folders = (NETWORKS, NETWORKS.parent, ROOT)
    assert not [file for file in files if not any((folder / file).is_file() for folder in folders)]
    code = "".join(file.read_text(encoding="utf-8") for file in NETWORKS.glob("*.py"))
    classes = named - files - {"networks/"}
    assert classes
    assert not [word for word in classes if not re.search(rf"^class {word}\b", code, re.MULTILINE)]


@pytest.fixture
def duo(monkeypatch: pytest.MonkeyPatch) -> str:
    """The network of the page, registered as if its block were a file of the package."""
    (code,) = blocks(ADDING, "python")
    monkeypatch.setattr(_registry, "_ENTRIES", dict(_registry._ENTRIES))
    exec(compile(code, name_of(ADDING), "exec"), {"__name__": "mcsr.networks.duo", "__package__": "mcsr.networks"})
    return "duo"


@torch.no_grad()
def test_the_network_of_the_page_works(duo: str) -> None:
    assert duo in network_names()
    listing = CliRunner().invoke(app, ["models", "list", "--json"])
    assert f'"{duo}"' in listing.output
    for scale in (2, 4):
        network = create_network(duo, scale=scale)
        target, reference = torch.rand(2, 1, 9, 12), torch.rand(2, 1, 9 * scale, 12 * scale)
        assert network(target, reference).sr.shape == reference.shape
        assert network(target, None).sr.shape == reference.shape
        assert not torch.equal(network(target, reference).sr, network(target, None).sr)


def test_the_recipe_of_the_page_trains_the_network_of_the_page(duo: str, tmp_path: Path) -> None:
    (text,) = blocks(ADDING, "toml")
    (tmp_path / "duo-x4.toml").write_text(text)
    recipe = load_recipe(tmp_path / "duo-x4.toml")
    assert recipe.network == duo
    assert loss_weights(recipe) == {"l1": 1.0}
    assert re.search(rf"mcsr train {recipe.name}\.toml ", ADDING.read_text(encoding="utf-8"))


def test_the_code_on_geometry_holds() -> None:
    (code,) = blocks(DOCS / "geometry.md", "python")
    assert code.count("assert") == 3
    exec(compile(code, "geometry.md", "exec"), {})


def test_the_interface_pages_show_modules_that_exist() -> None:
    shown = [
        name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    ]
    assert len(shown) == len(set(shown)) > 20
    assert not [name for name in shown if name not in imports.SOURCES]
    (code,) = blocks(DOCS / "api" / "jobs.md", "python")
    exec("\n".join(line for line in code.splitlines() if line.startswith("from ")), {})


def load_tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_architecture_shows_real_imports() -> None:
    """Every box is a unit of LAYERS, every arrow an import; and boxes do not lie above what may import them."""
    parts = load_tool("draw_docs_parts")
    by_title = {part.title: part for part in parts.PARTS}
    found = {
        (imports.unit_of(name), imports.unit_of(imported.name))
        for name, file_imports in imports.IMPORTS.items()
        for imported in file_imports
    }
    for part in parts.PARTS:
        assert set(part.units) <= set(imports.LEVEL), part.title
        for title, column in part.arrows:
            other = by_title[title]
            assert found & {(above, below) for above in part.units for below in other.units}, f"{part.title} -> {title}"
            assert other.layer > part.layer
            for box in (part, other):
                assert box.column < column < box.column + box.columns
    for above in parts.PARTS:
        for below in parts.PARTS:
            if above.layer < below.layer:
                assert not found & {(low, high) for low in below.units for high in above.units}


def test_the_steps_in_the_picture_name_real_modules() -> None:
    parts = load_tool("draw_docs_parts")
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\d\. ", page, re.MULTILINE)) == len(parts.STEPS)
    names = [name for _, modules in parts.STEPS for name in modules.split(", ")]
    assert not [name for name in names if f"mcsr.{name}" not in imports.SOURCES]


def test_pictures_are_small_and_shown() -> None:
    pictures = list((DOCS / "pictures").iterdir())
    assert {picture.suffix for picture in pictures} == {".png", ".webp"}
    assert max(picture.stat().st_size for picture in pictures) < 300e3
    assert sum(picture.stat().st_size for picture in pictures) < 2e6
    shown = {Path(link).name for page in DOCUMENTS for link in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())}
    assert shown == {picture.name for picture in pictures}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is in the extra docs, which is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    page = (tmp_path / "site" / "api" / "jobs" / "index.html").read_text(encoding="utf-8")
    assert 'id="mcsr.pipeline.enhance"' in page


# --- The same checks elsewhere


def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def recipe_of(target: str) -> list[str]:
    """The commands of a target of the Makefile, as they run in .venv."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile(), re.MULTILINE)
    assert found
    return [line.lstrip("\t@").replace("$(BIN)/", "") for line in found[1].splitlines()]


def parsed(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_workflow_runs_what_make_test_runs() -> None:
    job = parsed(".github/workflows/test.yml")["jobs"]["test"]
    by_system = {step["if"]: step["run"] for step in job["steps"] if "if" in step}
    assert by_system["runner.os != 'Windows'"] == "make test PYTHON=python"
    make_venv, install, *checks = by_system["runner.os == 'Windows'"].splitlines()
    assert make_venv == "python -m venv .venv"
    extras = re.search(r"^TEST_EXTRAS := (.*)$", makefile(), re.MULTILINE)
    assert extras
    assert install.endswith(f'-c constraints.txt -e ".[{",".join(extras[1].split())}]"')
    assert [line.replace(".venv/Scripts/", "") for line in checks] == [*recipe_of("lint"), *recipe_of("test")]
    matrix = job["strategy"]["matrix"]
    systems = {*matrix["os"], *(extra["os"] for extra in matrix["include"])}
    assert systems == {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13"]


def test_the_package_workflow_uses_commands_that_exist() -> None:
    steps = parsed(".github/workflows/package.yml")["jobs"]["package"]["steps"]
    (used,) = [step["run"] for step in steps if '"$bin/mcsr"' in step.get("run", "")]
    for call in re.findall(r'^"\$bin/mcsr" (.+)$', used, re.MULTILINE):
        command, rest = command_and_rest(shlex.split(call))
        assert {word for word in rest if word.startswith("-")} <= options_of(command)
        assert rest == [] or rest[0].startswith("-")


def test_hooks_run_what_lint_runs() -> None:
    (repository,) = parsed(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    assert [line.removesuffix(" .") for line in recipe_of("lint")] == entries


def test_a_bug_report_asks_for_the_report_and_warns_of_names() -> None:
    for name in ("bug_report", "feature_request"):
        form = parsed(f".github/ISSUE_TEMPLATE/{name}.yml")
        assert {"name", "description", "body"} <= set(form)
        fields = {field["id"]: field for field in form["body"] if field["type"] != "markdown"}
        assert "report.json" in fields["report"]["attributes"]["label"] + fields["report"]["attributes"]["description"]
        assert "through it for names first" in " ".join(fields["report"]["attributes"]["description"].split())
    assert parsed(".github/ISSUE_TEMPLATE/bug_report.yml")["body"][2]["validations"]["required"]


def test_the_changelog_knows_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{re.escape(mcsr.__version__)}\b", changes)
    assert "## [Unreleased]" in changes


def test_numbers_in_the_picture_of_sampling() -> None:
    """The shift that page and picture name is that of the grids."""
    from mcsr.geometry import Grid, coarsen_grid

    fine = Grid((12, 12, 1), np.eye(4))
    moved = fine.ras_bounds()[0] - coarsen_grid(fine, (4, 4, 1), "corner").ras_bounds()[0]
    assert moved[:2].tolist() == [1.5, 1.5]
    assert "1.5 at x4" in (DOCS / "geometry.md").read_text(encoding="utf-8")
