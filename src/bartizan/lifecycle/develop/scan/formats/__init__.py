"""Formats that are neither pickles, arrays nor plain containers, one module each."""
