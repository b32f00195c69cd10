"""Volumes filled from golden images: what is asked for, how it is done, and by whom in which order."""
