"""Starts an installed module on the test host, as Slicer starts it, and enhances the phantom with its real worker.

    python enhance_installed.py MODULE_FILE OUTPUT_FOLDER

Needs Testing/Host on PYTHONPATH. Prints as json what the test wants to know.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import module_host
import numpy as np
import slicer


def psnr(node: Any, truth: Any) -> float:
    image, original = (slicer.util.arrayFromVolume(n).astype(float) for n in (node, truth))
    return float(20 * np.log10(original.max() / np.sqrt(np.mean((image - original) ** 2))))


def main(module_file: str, output_folder: str) -> None:
    module_host.MODULE_FILE = Path(module_file)
    host = module_host.module_host()
    panel = host.open()
    from mcsr_slicer.node_tags import nodesOf, tag
    from mcsr_slicer.sample_data import loadPhantom
    from mcsr_slicer.worker_process import WORKER_SCRIPT

    target, reference, truth = loadPhantom("small")
    settings = {"registration": "none", "device": "cpu", "outputFolder": output_folder}
    logic = panel.widget.logic
    result = logic.process(target, reference, groundTruth=truth, waitForCompletion=True, **settings)
    own = [m for name, m in sys.modules.items() if name.partition(".")[0] in ("mcsr", "mcsr_slicer", "MultiContrastSR")]
    found = {
        "title": panel.widget.ui.versionLabel.text,
        "warning": logic.engineWarning(),
        "files": [str(m.__file__) for m in own] + [str(WORKER_SCRIPT)],
        "weights_sha256": tag(result, "WeightsSHA256"),
        "psnr": psnr(result, truth),
        "psnr_sinc": psnr(nodesOf(result, "interpolated")[0], truth),
    }
    panel.close()
    print(json.dumps(found | {"problems": host.problems()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
