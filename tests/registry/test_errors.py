import httpx
import pytest

from registry.errors import UnavailableError, translate_http_errors


def request(status: int) -> None:
    """Make a request that is answered with a status."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status))
    httpx.Client(transport=transport).get("http://prefect").raise_for_status()


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, 504])
def test_server_that_fails_or_refuses_the_password_is_an_outage(status: int) -> None:
    reason = "Prefect refuses our user or password" if status in {401, 403} else "Prefect does not answer"
    with pytest.raises(UnavailableError, match=reason), translate_http_errors("Prefect"):
        request(status)


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_rejected_request_is_a_bug(status: int) -> None:
    with pytest.raises(httpx.HTTPStatusError), translate_http_errors("Prefect"):
        request(status)
