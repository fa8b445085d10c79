"""Stores that break one promise each, to show that each clause of the kit can fail."""
