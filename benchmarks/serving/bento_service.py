"""The benchmark's model on BentoML. Runs in BentoML's own environment."""

from __future__ import annotations

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Digits:
    """The service."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> list[int]:
        """Labels of rows."""
        return self.session.run(["label"], {self.name: np.array(rows, dtype=np.float32)})[0].tolist()
