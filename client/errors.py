"""What the API refuses."""


class ApiError(Exception):
    """A request that the API refused; `detail` says what to do."""

    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__(f"{status_code}: {detail}")
        self.status_code, self.detail = status_code, detail
