"""What a measurement leaves on disk."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from .bench import Findings
from .bench_plot import write_plot
from .bench_tables import csv_rows, markdown
from .evaluation_tables import write_csv
from .imageio import complete_file

CSV_FILE, MARKDOWN_FILE, PLOT_FILE = "bench.csv", "bench.md", "bench.png"


def write_findings(folder: Path, findings: Findings) -> list[str]:
    """Write table, csv and, where matplotlib is installed, plot into an existing folder; returns the files' names.

    Raises:
        OutputError: a file cannot be written.
    """
    write_csv(folder / CSV_FILE, csv_rows(findings))
    with complete_file(folder / MARKDOWN_FILE) as partial:
        partial.write_text(markdown(findings) + "\n", encoding="utf-8")
    if not (find_spec("matplotlib") and (findings.networks or findings.job)):
        return [MARKDOWN_FILE, CSV_FILE]
    write_plot(folder / PLOT_FILE, findings)
    return [MARKDOWN_FILE, CSV_FILE, PLOT_FILE]
