"""Saves the benchmark's model as one of MLflow: ``mlflow_model.py MODEL FOLDER``. Runs in MLflow's own environment."""

from __future__ import annotations

import sys

import mlflow.onnx
import onnx

if __name__ == "__main__":
    mlflow.onnx.save_model(onnx.load(sys.argv[1]), sys.argv[2])
