"""What the plugins share: the adapter to TensorRT, and its build files."""
