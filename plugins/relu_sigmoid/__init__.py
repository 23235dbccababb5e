"""The activation max(x, 0) / (1 + exp(-x)): a small operator that shows how one is added."""
