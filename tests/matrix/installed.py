"""Scans every model file that the installed packages ship, and lists those that are not clean.

``python tests/matrix/installed.py [FOLDER]`` walks the packages of this environment. The files are other people's:
their test data, their data sets, their tables. Exit status 1 when one of them is called dangerous.
"""

from __future__ import annotations

import sys
import sysconfig
from collections import defaultdict
from pathlib import Path

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_path

ENDINGS = (
    *(".pkl", ".pickle", ".p", ".joblib", ".npy", ".npz", ".h5", ".hdf5", ".keras", ".onnx", ".safetensors", ".gguf"),
    *(".pt", ".pth", ".ptl", ".pt2", ".bin", ".dat", ".z", ".gz", ".bz2", ".xz", ".lzma", ".ubj", ".model", ".tflite"),
)


def model_files(folder: Path) -> list[Path]:
    """Files below a folder whose names end as models' do."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(ENDINGS))


def main() -> int:
    """See the module."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_paths()["purelib"])
    files = model_files(folder)
    wrong = defaultdict(list)
    for path in files:
        report = scan_path(path)
        if report.verdict is Verdict.CLEAN and report.total_coverage is Coverage.EXAMINED:
            continue
        said = {finding.detail for part in report.walk() for finding in part.findings}
        wrong[report.verdict].append(f"{path.relative_to(folder)}: {'; '.join(sorted(said))[:300]}")
    print(f"{len(files)} files, {sum(map(len, wrong.values()))} of them not clean and examined")
    for verdict, lines in wrong.items():
        for line in lines:
            print(f"{verdict.value}: {line}")
    return 1 if Verdict.DANGEROUS in wrong else 0


if __name__ == "__main__":
    sys.exit(main())
