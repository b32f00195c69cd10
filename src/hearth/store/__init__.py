"""What hearth remembers: users, keys, sandboxes and jobs, behind small protocols (``base``) with two implementations."""
