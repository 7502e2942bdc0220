"""No false alarms: what the installed frameworks really save is clean and examined to its last byte.

Every object is saved in two of the forms that its framework knows, a different two each time. The slow target
``make matrix`` saves all forms, under many versions of the frameworks.
"""

from __future__ import annotations

import importlib.util
import io
import warnings

import joblib
import pytest

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_bytes, scan_path
from tools import emitted_models as emitted

LEAST = {
    "stdlib": 90,
    "numpy": 300,
    "pandas": 100,
    "torch": 380,
    "xgboost": 12,
    "lightgbm": 12,
    "catboost": 8,
    "statsmodels": 40,
    "imblearn": 20,
    "category_encoders": 15,
    "tokenizers": 30,
    "pyarrow": 40,
    "onnx": 1,
}
"""Objects of each framework that must have been saved and examined."""
COMPRESSIONS = (0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3))


def forms(source, number):
    """Two ways of saving the object of this number."""
    ways = dict(emitted.writers_for(source))
    if "joblib" in ways:
        compress = COMPRESSIONS[number % len(COMPRESSIONS)]
        ways["joblib"] = lambda thing, file: joblib.dump(thing, file, compress=compress)
    names = sorted(name for name in ways if name not in {"p0.pkl", "p1.pkl"})
    return {name: ways[name] for name in (names[number % len(names)], names[(number + 2) % len(names)])}


def saved(source):
    """What a framework saves: (what it is, its bytes)."""
    for number, thing in enumerate(emitted.SOURCES[source]()):
        for name, write in forms(source, number).items():
            target = io.BytesIO()
            try:
                write(thing, target)
            except Exception:  # noqa: BLE001 -- what cannot be saved is no file
                continue
            yield f"{type(thing).__name__} as {name}", target.getvalue()


@pytest.mark.control("2.1-n")
@pytest.mark.parametrize("source", LEAST)
def test_what_the_installed_frameworks_save_is_clean_and_examined(source):
    if not emitted.is_installed(source):
        pytest.skip(f"{source} is not installed")
    count = 0
    wrong = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for what, data in saved(source):
            report = scan_bytes(data, "model")
            count += 1
            if report.verdict is not Verdict.CLEAN or report.total_coverage is not Coverage.EXAMINED:
                wrong[what] = [finding.detail for part in report.walk() for finding in part.findings]
    assert not wrong
    assert count >= LEAST[source]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_compiled_modules_of_torch_are_clean_and_examined(tmp_path):
    import torch  # noqa: PLC0415 -- not everywhere installed

    modules = (
        torch.nn.Linear(2, 3),
        torch.nn.LSTM(2, 3),
        torch.nn.Conv2d(1, 2, 3),
        torch.nn.TransformerEncoderLayer(4, 2),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = {f"{type(each).__name__}.pt": torch.jit.script(each.eval()) for each in modules}
        compiled["traced.pt"] = torch.jit.trace(modules[0], torch.ones(1, 2))
        compiled["frozen.pt"] = torch.jit.freeze(compiled["Conv2d.pt"])
        for name, module in compiled.items():
            torch.jit.save(module, tmp_path / name)
        modules[2](torch.ones(1, 1, 4, 4))
        compiled["Linear.pt"]._save_for_lite_interpreter(str(tmp_path / "lite.ptl"))
    for path in tmp_path.iterdir():
        report = scan_path(path)
        details = [finding.detail for part in report.walk() for finding in part.findings]
        assert (report.verdict, report.total_coverage, details) == (Verdict.CLEAN, Coverage.EXAMINED, []), path.name
        assert any(part.format == "torchscript" for part in report.walk())


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_exported_programs_of_torch_are_clean_and_examined(tmp_path):
    import torch  # noqa: PLC0415 -- not everywhere installed

    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Softmax(1), torch.nn.Linear(3, 1))
    sizes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (torch.ones(4, 2),), dynamic_shapes=sizes)
        torch.export.save(program, tmp_path / "model.pt2")
    report = scan_path(tmp_path / "model.pt2")
    details = [finding.detail for part in report.walk() for finding in part.findings]
    assert (report.verdict, report.total_coverage, details) == (Verdict.CLEAN, Coverage.EXAMINED, [])
