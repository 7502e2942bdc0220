"""ONNX models in a process of their own: asked through ONNX Runtime, and differentiated by a network of ours.

``host`` holds the model. ``graph`` reads what goes in and what comes out of it, ``slopes`` says whether its gradients
can be had exactly, and ``network`` computes them by torch, one function of ``operators`` for each node.
"""
