"""Evidence against catalogue: what is shown, what no longer counts, what is missing. Reads, never runs.

``build.build`` makes a ``model.ReportModel`` out of statements that somebody else has weighed;
``render`` writes it as HTML, Markdown or JSON and ``sarif`` writes its findings. Same inputs, same
bytes. There is no grade, no total and no share of anything done: a report lists evidence, its age
and what is not there.
"""
