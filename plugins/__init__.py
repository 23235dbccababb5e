"""Custom operators, one folder each: definition, reference function, TensorRT plugin."""
