"""Models of the examples, each an ordinary PyTorch program."""
