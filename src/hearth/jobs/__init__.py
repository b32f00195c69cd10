"""Durable work: a plan of named steps with their undos, and the runner that survives a crash in any of them."""
