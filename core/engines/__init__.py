"""Inference engines that models are built for, one module per library."""
