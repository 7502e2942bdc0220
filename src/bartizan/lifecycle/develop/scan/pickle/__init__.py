"""Pickle streams, followed opcode by opcode and never loaded."""
