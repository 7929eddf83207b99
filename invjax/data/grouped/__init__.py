"""Images with a class and an attribute that goes with it by accident."""
