"""Scripts that run in the interpreter being packed, not in ours: nothing of hearth may import them."""
