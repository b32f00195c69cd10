"""One module a schema version. A released one is never edited: the next change is the next file."""
