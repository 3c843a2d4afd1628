"""Calibrate the expected error of all shipped weights on training sessions, and write what was found beside them.

.venv/bin/python tools/calibrate_trust.py --data DATA
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mcsr.evaluation_pairs import PairChoice, measure_pairs
from mcsr.evaluation_trust import calibration_of, observe_pair
from mcsr.job import Settings
from mcsr.trust_calibration import CALIBRATIONS, read_calibrations, write_calibrations
from mcsr.weights import shipped_models

MODELS = Path(__file__).resolve().parents[1] / "MultiContrastSR" / "Resources" / "Models"
SESSIONS = ("ms_p01_s2", "ms_p01_s2_flair", "ms_p03_s2", "ms_p03_s2_flair")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of HDF5 subject files; split 'train' is used")
    parser.add_argument("--slices", type=int, default=6, help="of each pair, in the middle")
    arguments = parser.parse_args()
    path = MODELS / CALIBRATIONS
    known = read_calibrations(path)
    choice = PairChoice(arguments.data, "train", SESSIONS, arguments.slices)
    shipped = {entry["sha256"]: entry for entry in shipped_models()}
    for sha256, entry in shipped.items():
        if sha256 not in known:
            settings = Settings(model=entry["architecture"], scale=entry["scale"])
            known[sha256] = calibration_of(list(measure_pairs(observe_pair, choice, settings)))
            write_calibrations(path, {key: known[key] for key in shipped if key in known})
        print(entry["id"], known[sha256].coefficients, flush=True)


if __name__ == "__main__":
    main()
