"""Loaded by every Python process that a test with a planted mutant starts."""

from proof.mutants import plant

try:
    plant()
except ImportError:
    pass  # a Python that has no cosession: there is nothing to break
