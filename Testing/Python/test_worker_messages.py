"""Requests, parts and events: what is written comes back, and what is odd is refused with a sentence."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import POSIX_ONLY, one_sentence
from mcsr.errors import InputError
from mcsr.worker_messages import (
    ArrayFile,
    Part,
    PartTable,
    PartVolume,
    Request,
    check_part_file,
    event_line,
    is_job_id,
    open_plain,
    read_event,
    read_text,
)

LOGIC = Path(__file__).resolve().parents[2] / "MultiContrastSR" / "Logic"
MATRIX = ((0.5, 0.0, 0.0, 1.0), (0.0, -0.5, 0.25, 2.0), (0.0, 0.0, 4.0, -3.0), (0.0, 0.0, 0.0, 1.0))
TARGET = ArrayFile("target.npy", MATRIX, "T2 Müller")
REQUEST = Request(
    id="job-1",
    kind="enhance",
    target=TARGET,
    reference=ArrayFile("reference.npy", MATRIX, "T1"),
    reference_to_target_ras=MATRIX,
    simulate=True,
    settings={"model": "sinc", "scale": 2},
    output_folder="/data/out",
    input_files=("/data/a.nii",),
)
PART = Part(
    "maps",
    (PartVolume("map", "a.pc1", "A", "What it is.", "mm", "F", "image", "grey", (0.0, None), "a.npy", MATRIX),),
    (PartTable("t", "T", {"slice": [0, 1], "psnr": [30.5, None]}),),
    {"seconds": {"Enhancing": 1.5}},
    ("Look closely.",),
)


def test_what_is_written_comes_back() -> None:
    assert Request.from_json(REQUEST.to_json()) == REQUEST
    for request in (Request("x", "maps", TARGET), Request("x", "maps", TARGET, point_ras=(1.5, -2.0, 3.0))):
        assert Request.from_json(request.to_json()) == request
    assert Part.from_json(PART.to_json()) == PART


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format"),
        ({"id": "../x"}, "'id'"),
        ({"kind": "train"}, "'kind'"),
        ({"kind": ["enhance"]}, "'kind'"),
        ({"target": None}, "target"),
        ({"target": "target.npy"}, "target"),
        ({"reference": [1]}, "reference"),
        ({"simulate": 1}, "'simulate'"),
        ({"settings": []}, "'settings'"),
        ({"output_folder": 3}, "'output_folder'"),
        ({"input_files": ["a", 1]}, "'input_files'"),
        ({"reference_to_target_ras": [[1, 0], [0, 1]]}, "'reference_to_target_ras'"),
        ({"reference_to_target_ras": [[10**400] * 4] * 4}, "'reference_to_target_ras'"),
        ({"kind": "maps", "point_ras": [1, 2]}, "'point_ras'"),
        ({"kind": "maps", "point_ras": [1, 2, None]}, "'point_ras'"),
        ({"kind": "enhance", "point_ras": [1, 2, 3]}, "'point_ras'"),
        ({"target.file": "../secret.npy"}, "'file'"),
        ({"target.file": "a/b.npy"}, "'file'"),
        ({"target.file": "a\\b.npy"}, "'file'"),
        ({"target.file": "target.npz"}, "'file'"),
        ({"target.ijk_to_ras": [[True] * 4] * 4}, "'ijk_to_ras'"),
        ({"target.ijk_to_ras": [[math.nan] * 4] * 4}, "no json"),
        ({"target.name": "x" * 500}, "'name'"),
    ],
    ids=str,
)
def test_odd_requests_are_refused(change: dict[str, Any], named: str) -> None:
    record = json.loads(REQUEST.to_json())
    for key, value in change.items():
        *outer, last = key.split(".")
        (record[outer[0]] if outer else record)[last] = value
    with pytest.raises(InputError) as error:
        Request.from_json(json.dumps(record))
    assert one_sentence(error, named)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "[" * 100_000], ids=lambda text: text[:12])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        Request.from_json(text)
    assert one_sentence(error)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "all"},
        {"volumes": [{}]},
        {"volumes": [{**json.loads(PART.to_json())["volumes"][0], "file": "/etc/passwd"}]},
        {"volumes": [{**json.loads(PART.to_json())["volumes"][0], "limits": [1]}]},
        {"tables": [{"name": "t", "title": "T", "columns": {"a": [1], "b": [1, 2]}}]},
    ],
    ids=str,
)
def test_odd_parts_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Part.from_json(json.dumps({**json.loads(PART.to_json()), **change}))


def test_an_event_is_one_line_of_ascii_and_all_else_is_log_text() -> None:
    line = event_line("error", message="Müller\nhas no slices.", job=None)
    assert line.isascii()
    assert "\n" not in line
    assert read_event(line) == {"event": "error", "message": "Müller\nhas no slices.", "job": None}
    others = ["", "@mcsr", "@mcsr {", "@mcsr []", '@mcsr {"event": "dance"}', ' @mcsr {"event": "done"}', "warning"]
    assert [read_event(other) for other in [*others, "@mcsr " + "[" * 100_000]] == [None] * 8
    with pytest.raises(ValueError, match="dance"):
        event_line("dance")


def test_names_from_the_other_side() -> None:
    assert is_job_id("a1-B_2")
    assert not any(map(is_job_id, ["", "stop", ".hidden", "a.tmp", "a/b", "a" * 65]))
    assert check_part_file("result.json") == "result.json"
    for name in ("../result.json", "result.npy", "a/b.json", None, 3):
        with pytest.raises(InputError):
            check_part_file(name)


@POSIX_ONLY
def test_nothing_but_a_plain_file_of_the_folder_is_opened(tmp_path: Path) -> None:
    folder, outside = tmp_path / "job", tmp_path / "secret.json"
    folder.mkdir()
    outside.write_text("{}")
    (folder / "good.json").write_text("{}")
    (folder / "link.json").symlink_to(outside)
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    (tmp_path / "other").symlink_to(folder)
    assert read_text(folder, "good.json") == "{}"
    for name in ("link.json", "folder.json", "pipe.json", "missing.json", "../secret.json"):
        with pytest.raises(InputError) as error:
            open_plain(folder, name)
        assert one_sentence(error)
    with pytest.raises(InputError):
        open_plain(tmp_path / "other", "good.json")


def test_large_and_damaged_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b" " * (9 << 20))
    (tmp_path / "latin.json").write_bytes(b'"\xe4"')
    for name, word in (("large.json", "too large"), ("latin.json", "damaged")):
        with pytest.raises(InputError, match=word):
            read_text(tmp_path, name)


def test_both_sides_can_load_it() -> None:
    code = "import mcsr.worker_messages, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=LOGIC, capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "SimpleITK"} & set(loaded.stdout.split())
