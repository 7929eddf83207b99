"""Pictures: files, TensorFlow Datasets, the digits of the demo."""
