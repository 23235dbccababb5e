"""Multi-head attention as a node of our own, for models whose opset has no Attention."""
