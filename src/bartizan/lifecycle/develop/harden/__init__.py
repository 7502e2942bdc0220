"""Hardening: defences, each followed by the same measurements as the model without it.

A defence is a file with a class of the shape ``defence.Defence``; it turns a way to make a model into
another. Nothing is credited for what it promises, only for what the measurements leave of it.
"""
