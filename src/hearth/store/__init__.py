"""What hearth remembers: users, keys, sandboxes, jobs, behind small protocols (``base``) with two implementations."""
