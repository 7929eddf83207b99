"""What every folder needs and nobody imports by name: configurations, errors, classifiers as pytrees, lists, files."""
