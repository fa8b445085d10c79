"""The `cosession` command."""


def main() -> None:
    """Run the command. The libraries that it needs are imported here, not with the package."""
    from .app import run

    run()
