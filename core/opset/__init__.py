"""Operators across opsets: how they are read, how they are written, and how a model is raised."""
