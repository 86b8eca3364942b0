"""Requests that came before, by their bytes. Knows no HTTP: whoever parsed them says what they mean."""

from serving.asgi import Incoming, Route

MAX_REQUESTS = 1024
MAX_BYTES = 2048  # of one; as it is kept, up to 6 KB

Parsed = tuple[Route, Incoming]


class Known:
    """Whole requests that keep their connection open, for all connections of a process."""

    def __init__(self) -> None:
        self._parsed: dict[bytes, Parsed] = {}
        self.find = self._parsed.get

    def keep(self, data: bytes, parsed: Parsed) -> None:
        """Remember one; where there are too many, all are forgotten first."""
        if len(data) > MAX_BYTES:
            return
        if len(self._parsed) >= MAX_REQUESTS:
            self._parsed.clear()
        self._parsed[data] = parsed
