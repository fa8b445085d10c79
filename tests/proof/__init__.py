"""The table of docs/testing.md: what each promise is tested by, how much, and what that catches.

`uv run python -m proof` in `tests/` makes it, from runs; `--help` says how to run a part of it.
"""
