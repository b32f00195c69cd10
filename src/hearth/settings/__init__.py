"""What an operator may choose, as one table; flags, environment, file and documentation are made from it."""
