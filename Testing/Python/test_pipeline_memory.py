"""What one job leaves for the next, the result before its maps, maps without the result, and a given transform."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcsr.errors import Cancelled, GeometryError
from mcsr.fast.dcamsr import FastDCAMSR
from mcsr.job import Memory, Result, Settings
from mcsr.pipeline import draw_maps, enhance, simulate
from mcsr.volume import Volume
from scenes import pair
from torch import Tensor


@pytest.fixture(scope="module")
def settings(untrained_x2: Path) -> Settings:
    return Settings(scale=2, weights=untrained_x2, registration="none", maps="texture_lv2,channel_attention_lv1")


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, Volume]:
    truth, reference = pair()
    return simulate(truth, 2)[0], reference


def test_memory_keeps_one_thing_of_a_kind_and_knows_what_it_was_made_from() -> None:
    memory, made = Memory(), []

    def thing(*made_from: Any) -> Any:
        return memory.recall("kind", made_from, lambda: made.append(made_from) or made_from)

    array = np.arange(6, dtype=np.float32)
    for made_from in [(array, 1), (array.copy(), 1), (array, 2), (array.reshape(2, 3), 2), (array.view(np.int32), 2)]:
        thing(*made_from)
    assert len(made) == 4
    assert memory.recalled == ["kind"]
    assert memory.known("kind", (array, 1)) is None
    with pytest.raises(ZeroDivisionError):
        memory.recall("kind", "new", lambda: 1 // 0)
    assert memory.known("kind", (array.view(np.int32), 2)) is None


def test_the_result_is_handed_over_before_its_maps(settings: Settings, volumes: tuple[Volume, Volume]) -> None:
    early: list[Result] = []
    stages: list[str] = []

    def hand_over(result: Result) -> None:
        assert stages[-1] == "Checking consistency"
        early.append(result)

    whole = enhance(*volumes, settings, on_result=hand_over, progress=lambda event: stages.append(event.stage))
    (result,) = early
    assert np.array_equal(result.sr.array_kji, whole.sr.array_kji)
    assert (dict(result.maps), result.provenance["maps"]) == ({}, {})
    assert set(whole.provenance["maps"]) == {*whole.maps, *whole.tables}
    assert "Drawing maps" in set(whole.provenance["seconds"]) - set(result.provenance["seconds"])

    plain = dataclasses.replace(settings, maps="none")
    enhance(*volumes, plain, on_result=hand_over)
    assert len(early) == 1, "without maps it is what is returned"

    stages.clear()
    with pytest.raises(Cancelled):
        enhance(
            *volumes,
            settings,
            on_result=hand_over,
            progress=lambda event: stages.append(event.stage),
            cancelled=lambda: "Drawing maps" in stages,
        )
    assert len(early) == 2


def test_maps_alone_are_those_of_the_result(settings: Settings, volumes: tuple[Volume, Volume]) -> None:
    memory = Memory()
    whole = enhance(*volumes, settings, memory=memory)
    memory.recalled.clear()
    for kept, recalled in ((memory, ["network", "reference", "result"]), (None, [])):
        drawn = draw_maps(*volumes, settings, memory=kept)
        assert drawn.provenance["recalled"] == recalled
        assert drawn.provenance["maps"] == whole.provenance["maps"]
        assert set(drawn.provenance["seconds"]) == {"Registering", "Resampling the reference", "Drawing maps"}
        for name, volume in drawn.maps.items():
            assert np.array_equal(volume.array_kji, whole.maps[name].array_kji), name
            assert np.array_equal(volume.ijk_to_ras, whole.maps[name].ijk_to_ras)
        for name, table in drawn.tables.items():
            assert np.array_equal(table, whole.tables[name]), name


def test_a_recalled_result_is_the_same_and_said(settings: Settings, volumes: tuple[Volume, Volume]) -> None:
    memory, plain = Memory(), dataclasses.replace(settings, maps="none")
    first = enhance(*volumes, plain, memory=memory)
    again = enhance(*volumes, plain, memory=memory)
    assert first.provenance["recalled"] == []
    assert again.provenance["recalled"] == ["network", "reference", "result"]
    assert np.array_equal(first.sr.array_kji, again.sr.array_kji)
    memory.rest()
    free = enhance(*volumes, dataclasses.replace(plain, consistency=False), memory=memory)
    alone = enhance(*volumes, dataclasses.replace(plain, consistency=False))
    assert np.array_equal(free.sr.array_kji, alone.sr.array_kji)


def test_another_target_finds_the_reference_encoded_and_becomes_what_it_would_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory that is short keeps nothing, and changes nothing either; the reference covers all of both targets."""
    encoded: list[int] = []
    encode = FastDCAMSR.encode_reference

    def counted(self: FastDCAMSR, reference: Tensor) -> Any:
        encoded.append(len(reference))
        return encode(self, reference)

    monkeypatch.setattr(FastDCAMSR, "encode_reference", counted)
    reference = pair()[0]
    target, _ = simulate(reference, 2)
    other, plain = target.with_array(target.array_kji**0.8), dataclasses.replace(settings, maps="none")
    alone = enhance(other, reference, plain)
    slices = len(encoded)
    assert slices > 0
    for short in (False, True):
        memory = Memory()
        if short:
            # As if the network could want all there is.
            monkeypatch.setattr("mcsr.pipeline_inputs.MOST_BYTES_PER_PIXEL", 2**40)
        encoded.clear()
        enhance(target, reference, plain, memory=memory)
        assert len(encoded) == slices
        second = enhance(other, reference, plain, memory=memory)
        assert len(encoded) == (2 * slices if short else slices)
        assert "result" not in second.provenance["recalled"]
        assert np.array_equal(second.sr.array_kji, alone.sr.array_kji)


def test_a_given_transform_carries_the_reference_and_nothing_is_registered(
    settings: Settings, volumes: tuple[Volume, Volume]
) -> None:
    target, reference = volumes
    away = np.eye(4)
    away[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    away[:3, 3] = (250, 40, -90)
    plain = dataclasses.replace(settings, maps="none")
    expected = enhance(target, reference, plain)
    back = np.linalg.inv(away)
    moved = reference.moved(away)
    result = enhance(target, moved, dataclasses.replace(plain, registration="rigid"), reference_to_target=back)
    tolerance = 1e-3 * float(np.abs(expected.sr.array_kji).max())
    np.testing.assert_allclose(result.sr.array_kji, expected.sr.array_kji, atol=tolerance)
    np.testing.assert_allclose(result.provenance["registration"]["reference_to_target_ras"], back)
    with pytest.raises(GeometryError, match="do not overlap"):
        enhance(target, moved, plain)
    with pytest.raises(GeometryError):
        enhance(target, reference, plain, reference_to_target=np.zeros((4, 4)))
