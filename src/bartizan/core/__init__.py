"""What everything trusts: bytes in, values out.

No input or output, no framework and no clock of its own. Read it in this order: ``digest``,
``statement`` and ``predicates``, ``envelope`` and ``keys``, ``trust``, ``merkle`` and ``ledger``,
``evidence``, ``gate``; then ``system`` and ``check`` for the work that yields statements, and
``ports`` for what the outside must provide.
"""
