"""Measurements, and the peers they are compared with: `python -m benchmarks NAME`."""
