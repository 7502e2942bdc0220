"""Models behind a server as targets: Open Inference Protocol v2, plain JSON, MLflow scoring.

An adversary outside sees what the server lets out: labels, a ranking, rounded scores. So does an attack here.
``target`` asks, ``wire`` brings the requests there and the answers back, ``answers`` reads them and believes nothing
for its form.
"""
