"""Makes the list of names that Keras writes into its configurations, by reading its source.

``python derive_keras_names.py TARGET SITE...`` reads the package ``keras`` in each site folder (one
version each, installed with ``pip install --no-deps --target SITE keras==VERSION``) without importing
it, and writes one JSON file: classes and functions by module, both as they are exported and where
they are defined. Only packages that describe models are read; what runs code, reads files or takes
callables is left out by name, below. A person reads the difference to the list that ships.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import defaultdict
from pathlib import Path

PACKAGES = {
    "activations", "constraints", "dtype_policies", "distillers", "engine", "feature_column", "initializers",
    "layers", "legacy_tf_layers", "losses", "metrics", "mixed_precision", "models", "ops", "optimizer_v1",
    "optimizer_v2", "optimizers", "premade", "premade_models", "quantizers", "random", "regularizers",
}  # fmt: skip
NAMESPACES = {
    "keras", "keras.activations", "keras.constraints", "keras.dtype_policies", "keras.initializers", "keras.layers",
    "keras.losses", "keras.metrics", "keras.mixed_precision", "keras.models", "keras.ops", "keras.optimizers",
    "keras.quantizers", "keras.random", "keras.regularizers",
}  # fmt: skip
FUNCTIONS = {"activations", "losses", "metrics", "ops"}
UNSAFE = {
    "Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "TensorFlowOpLayer", "TFOpLambda",
    "ClassMethod", "InstanceMethod", "InstanceProperty", "SlicingOpLambda", "Layer_Adder",
}  # fmt: skip
"""Judged by rules of their own."""
NO_FUNCTIONS = {
    "deserialize", "serialize", "get", "map", "vectorized_map", "scan", "associative_scan", "cond", "while_loop",
    "fori_loop", "switch", "custom_gradient", "convert_to_numpy", "convert_to_tensor", "is_tensor", "saveable_state",
    "save", "load", "shard_map",
}  # fmt: skip


def exports(node):
    """Names under which a class or function is exported."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).split(".")[-1] == "keras_export":
            for each in ast.walk(decorator):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


def belongs(name):
    """Whether an exported name describes a model."""
    module = name.rpartition(".")[0]
    return module == "keras" or any(
        module == space or module.startswith(f"{space}.") for space in NAMESPACES - {"keras"}
    )


def read(path, module, classes, functions):
    """Take over the names of one file."""
    parts = module.removeprefix("keras.").removeprefix("src.").split(".")
    is_optimizer = parts[0] == "backend" and "optimizers" in parts  # of one backend, and saved under that name
    if parts[0] not in PACKAGES and module != "keras" and not is_optimizer:
        return
    for node in ast.parse(path.read_text()).body:
        is_class = isinstance(node, ast.ClassDef)
        if not is_class and not isinstance(node, ast.FunctionDef):
            continue
        exported = [name for name in exports(node) if belongs(name)]
        if is_class and not node.name.startswith("_") and node.name not in UNSAFE:
            classes[module].add(node.name)
            for name in exported:
                classes[name.rpartition(".")[0]].add(name.rpartition(".")[2])
        elif not is_class and exported and node.name not in NO_FUNCTIONS:
            for name in exported:
                where, _, own = name.rpartition(".")
                if where.split(".")[-1] in FUNCTIONS or where.split(".")[1:2] == ["ops"]:
                    functions[where].add(own)
            if parts[0] in FUNCTIONS:
                functions[module].add(node.name)


def read_site(site, classes, functions):
    """Take over the names of one version; returns the version."""
    for path in sorted((site / "keras").rglob("*.py")):
        if path.stem.endswith("_test") or "tests" in path.parts or "applications" in path.parts or "api" in path.parts:
            continue
        module = ".".join(path.relative_to(site).with_suffix("").parts).removesuffix(".__init__")
        read(path, module, classes, functions)
    return next(iter(site.glob("[kK]eras-*.dist-info"))).name.split("-")[1].removesuffix(".dist")


def main():
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("sites", type=Path, nargs="+")
    given = parser.parse_args()
    classes, functions = defaultdict(set), defaultdict(set)
    versions = [read_site(site, classes, functions) for site in given.sites]
    document = {
        "schema": 1,
        "framework": "keras",
        "versions": {
            "keras": ", ".join(sorted(versions, key=lambda text: [int(part) for part in text.split(".")[:3]]))
        },
        "classes": {module: sorted(names) for module, names in sorted(classes.items())},
        "functions": {module: sorted(names) for module, names in sorted(functions.items())},
    }
    given.target.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
