"""What the picture of the architecture shows; Testing/Python/test_docs.py holds it against the real imports."""

from __future__ import annotations

from typing import NamedTuple

COLUMNS = 12


class Part(NamedTuple):
    """A box.

    Args:
        title: what it is.
        files: modules and packages in it, as they are called in the folder.
        layer: 0 is the uppermost.
        column: where it begins, of `COLUMNS`.
        columns: its width.
        units: what it stands for, as LAYERS in Testing/Python/test_imports.py calls it.
        arrows: title of a part that it imports, and the column at which the arrow runs down.
    """

    title: str
    files: str
    layer: int
    column: float
    columns: float
    units: tuple[str, ...]
    arrows: tuple[tuple[str, float], ...] = ()


PARTS = (
    Part("Slicer module", "mcsr_slicer", 0, 0, 3, ("MultiContrastSR", "mcsr_slicer"), (("jobs and results", 1.5),)),
    Part("worker", "mcsr_worker", 0, 5, 2, ("mcsr_worker",), (("jobs and results", 6),)),
    Part("command line", "cli", 0, 7, 3, ("cli",), (("one job", 7.5), ("comparisons", 9))),
    Part("training", "training", 0, 10, 2, ("training",), (("weights", 10.25), ("data sets", 11.25))),
    Part(
        "jobs and results", "worker_jobs, worker_messages, ...", 1, 0, 7, ("worker",), (("output", 1), ("one job", 4))
    ),
    Part("comparisons", "evaluation, demo", 1, 8, 2, ("evaluation", "demo"), (("one job", 8.5),)),
    Part("output", "outputs", 2, 0, 2, ("outputs",), (("figures", 1),)),
    Part(
        "one job",
        "pipeline, pipeline_inputs, pipeline_steps, pipeline_trust",
        2,
        2,
        7,
        ("pipeline",),
        (("registration", 3), ("inference", 5), ("maps, trust", 7), ("weights", 8.5)),
    ),
    Part("figures", "report", 3, 0, 2, ("report",), (("scores", 1),)),
    Part("registration", "registration", 3, 2, 2, ("registration",), (("resampling", 3),)),
    Part("inference", "inference", 3, 4, 2, ("inference",), (("networks", 5),)),
    Part("maps, trust", "maps, trust", 3, 6, 2, ("maps", "trust"), (("networks", 7),)),
    Part("weights", "weights, checkpoints", 3, 8, 2.5, ("weights", "checkpoints"), (("networks", 8.5), ("files", 10))),
    Part("data sets", "subjects", 3, 10.5, 1.5, ("subjects",), (("files", 11.25),)),
    Part("scores", "metrics", 4, 0, 2, ("metrics",), (("grids and samples", 1),)),
    Part("resampling", "resampling", 4, 2, 2, ("resampling",), (("grids and samples", 3),)),
    Part("networks", "cd_dpe, daasr, dcamsr, diffmsr, hftn_sr", 4, 4, 5, ("networks",), (("grids and samples", 6.5),)),
    Part("files", "imageio, container", 4, 9, 3, ("imageio", "container"), (("grids and samples", 10.5),)),
    Part(
        "grids and samples",
        "geometry, volume, degradation, conventions, canvas, intensity, checks",
        5,
        0,
        12,
        ("geometry", "volume", "degradation", "conventions", "canvas", "intensity", "checks"),
    ),
)

PROCESSES = ("Slicer module", "worker")
"""Parts that talk through files and lines of text, since they are two processes."""

STEPS = (
    ("Check both inputs", "checks"),
    ("Choose weights, plane and scale", "weights, geometry"),
    ("Register the reference", "registration"),
    ("Resample and scale; does it fit?", "resampling, intensity, trust_fit"),
    ("Run the network on the canvas", "canvas, inference"),
    ("Agree with what was acquired", "consistency"),
    ("Units, order and type of the input", "pipeline_steps, pipeline"),
    ("Draw maps and trust maps", "maps, trust, pipeline_trust"),
    ("Score, record, write", "metrics, job, outputs, report"),
)
"""What `mcsr.pipeline.enhance` does, as its comments number it, and the modules that do it."""
