"""The one place that says which hearth this is; the agent carries the same number in its image."""

VERSION = "0.1.0"
