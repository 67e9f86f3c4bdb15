"""The functions of ``lohe.nn.functional``, by family."""
