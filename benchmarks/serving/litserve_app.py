"""The benchmark's model on LitServe. Runs in LitServe's own environment."""

from __future__ import annotations

import os
import sys

import litserve
import numpy as np
import onnxruntime


class Digits(litserve.LitAPI):
    """The service."""

    def setup(self, device):
        """See ``LitAPI.setup``."""
        del device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def predict(self, request):
        """Labels of rows."""
        return self.session.run(["label"], {self.name: np.array(request["rows"], dtype=np.float32)})[0].tolist()


if __name__ == "__main__":
    server = litserve.LitServer(Digits(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
