"""Engines that models are built for, one module per library, and their measurement.

`protocol` says what an engine is, `registry` finds one by its name, `bench` compares two models.
"""
