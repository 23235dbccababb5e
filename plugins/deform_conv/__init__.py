"""Deformable convolution: definition, meaning, forms for targets, and what exporters call it."""
