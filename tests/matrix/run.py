"""Saves objects under many versions of the frameworks and scans every file: none may raise an alarm.

``python tests/matrix/run.py FOLDER [NAME...]`` makes one virtual environment for each row of ``ROWS`` (or only for
those named), lets ``tools.emitted_models`` save everything there in all forms, and scans it with the version of this
repository. ``--lists`` also merges what was recorded into the allow-lists, for a person to review the difference.
It needs ``uv`` and a package index; a run takes some minutes and some GiB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_path

TESTS = Path(__file__).resolve().parents[1]
LISTS = TESTS.parent / "src/bartizan/lifecycle/develop/scan/pickle/allow"
SHOWN = 3

ROWS = {
    "2022": "scikit-learn==1.2.2 numpy==1.24.4 scipy==1.10.1 pandas==1.5.3 joblib==1.2.0 xgboost==1.7.6 "
    "lightgbm==3.3.5 catboost==1.2 statsmodels==0.13.5",
    "2023": "scikit-learn==1.3.2 numpy==1.26.4 scipy==1.11.4 pandas==2.0.3 joblib==1.3.2 lightgbm==4.1.0 "
    "statsmodels==0.14.1",
    "2024": "scikit-learn==1.5.2 numpy==1.26.4 scipy==1.13.1 pandas==2.2.3 joblib==1.4.2 xgboost-cpu==2.1.4 "
    "lightgbm==4.5.0 catboost==1.2.7 statsmodels==0.14.4 pyarrow==15.0.2",
    "2024-old-pandas": "scikit-learn==1.4.2 numpy==1.26.4 scipy==1.12.0 pandas==2.1.4 catboost==1.2.5 joblib==1.4.2",
    "2025": "scikit-learn==1.6.1 numpy==2.2.6 scipy==1.15.3 pandas==2.3.3 joblib==1.5.1 xgboost-cpu==3.0.5 "
    "lightgbm==4.6.0 category_encoders imbalanced-learn==0.13.0 tokenizers",
    "2025-autumn": "scikit-learn==1.7.2 numpy==2.3.5 scipy==1.16.3 pandas==2.3.3 joblib==1.5.2 imbalanced-learn "
    "pyarrow category_encoders",
    "old-joblib": "scikit-learn==1.2.2 numpy==1.24.4 pandas==1.5.3 joblib==1.1.1",
    "torch-2.1": "torch==2.1.2 numpy<2",
    "torch-2.4": "torch==2.4.1 numpy<2.1",
}
"""Packages of each environment."""


def emit(folder: Path, name: str) -> Path:
    """Make an environment unless it is there, and save everything in it."""
    home, target = folder / name, folder / f"saved-{name}"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "-q", home, "--python", "3.11"], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *ROWS[name].split()], check=True)
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "ignore", "KERAS_BACKEND": "torch"}
    subprocess.run([python, "-m", "tools.emitted_models", target], check=True, env=environment)
    return target


def complaints(folder: Path) -> tuple[int, dict[str, list[Path]]]:
    """Number of files in a folder, and those that are not clean or not examined by what is said about them."""
    wrong = defaultdict(list)
    count = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "versions.json"):
        report = scan_path(path)
        count += 1
        if report.verdict is Verdict.CLEAN and report.total_coverage is Coverage.EXAMINED:
            continue
        said = Counter(finding.detail for part in report.walk() for finding in part.findings)
        wrong["; ".join(said) or "; ".join(report.reasons)].append(path)
    return count, wrong


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where environments and files go")
    parser.add_argument("names", nargs="*", help="rows to run; all by default")
    parser.add_argument("--lists", action="store_true", help="merge what was recorded into the allow-lists")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    folders = [emit(options.folder.resolve(), name) for name in options.names or ROWS]
    if options.lists:
        tool = TESTS / "tools" / "derive_allow_lists.py"
        subprocess.run([sys.executable, tool, LISTS, *folders], check=True)
    failed = 0
    for folder in folders:
        count, wrong = complaints(folder)
        failed += len(wrong)
        print(f"{folder.name}: {count} files, {sum(map(len, wrong.values()))} of them not clean and examined")
        for said, paths in wrong.items():
            print(f"  {len(paths)} x {said[:300]}: {', '.join(str(path) for path in paths[:SHOWN])}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
