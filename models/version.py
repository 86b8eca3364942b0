"""Which genserve this is. Knows nothing else, so that everybody can ask at no cost."""


def code_version() -> str:
    """Of the installed genserve; "unknown" in a source tree that was never installed."""
    from importlib import metadata  # costs more than the rest of `genserve --help`, which imports this file

    try:
        return metadata.version("genserve")
    except metadata.PackageNotFoundError:
        return "unknown"
