"""What several tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from mcsr.networks import create_network
from mcsr.weights import save_weights

# The tests' images are small: more threads are no faster on an idle machine, and many times slower on a busy one, where
# they wait for each other. Programs that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# Eleven tests draw cases, test_fuzz_*.py: in the suite 220 in all, the same ones every time, and 2,200 others each time
# in `make fuzz`, which loads the other profile.
for _profile, _cases, _same in (("suite", 20, True), ("fuzz", 200, False)):
    settings.register_profile(
        _profile,
        max_examples=_cases,
        derandomize=_same,
        deadline=None,
        database=None,
        print_blob=not _same,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("suite")

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Real MRI beside the project, where it is present."""


@pytest.fixture
def real_data() -> Path:
    """The folder of real MRI; the test is skipped where there is none."""
    if not (REAL_DATA / "nifti").is_dir():
        pytest.skip("real MRI not present beside the project")
    return REAL_DATA


@pytest.fixture(autouse=True)
def models_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A drop-in folder of the test's own, not made yet: what the user has added must not matter."""
    folder = tmp_path_factory.mktemp("data") / "models"
    monkeypatch.setenv("MCSR_MODELS", str(folder))
    return folder


@pytest.fixture(scope="session")
def untrained_x2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of dcamsr-s x2 with random values: what matters is how the engine handles it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    card = {"architecture": "dcamsr-s", "scale": 2, "degradation": "kspace", "plane": "axial", "spacing_mm": [0.4, 1.0]}
    save_weights(path, create_network("dcamsr-s", scale=2), card)
    return path


# Qt and MRML are loaded by the tests that ask for them, no others.


@pytest.fixture
def scene() -> Iterator[Any]:
    """An empty MRML scene with the logics around it; see `scene.scene_host`."""
    from scene import scene_host

    host = scene_host()
    host.clear()
    yield host.scene
    host.clear()


@pytest.fixture
def host() -> Iterator[Any]:
    """An empty Slicer, as far as the module needs one; see `panel_fixtures.clean_host`."""
    from panel_fixtures import clean_host

    yield from clean_host()


@pytest.fixture
def opened(host: Any) -> Iterator[Any]:
    """The open panel, with a worker and a user that only pretend; see `panel_fixtures.opened_panel`."""
    from panel_fixtures import opened_panel

    yield from opened_panel(host)


@pytest.fixture(scope="session")
def phantom() -> tuple[Any, Any, Any]:
    """Low-resolution T2, T1 and original T2 of the small phantom, as volumes of the engine."""
    from mcsr_slicer.sample_data import phantomVolumes

    return phantomVolumes("small")
