"""The metrics of this process and of the installation, for Prometheus."""

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from api.authentication import ScrapedRoute
from api.dependencies import ScraperDep
from api.installation_metrics import InstallationMetrics

router = APIRouter(tags=["health"], route_class=ScrapedRoute)
_TEXT = {"schema": {"type": "string"}}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}}},
)
async def read_metrics(request: Request, _: ScraperDep) -> Response:
    """Read the metrics in Prometheus' text format, or as OpenMetrics if `Accept` asks for that.

    What does not answer within three seconds is left out, and its `contract_feedback_neighbour_up` is 0. While the
    database is away, a key is enough that was valid when it came last.
    """
    metrics: InstallationMetrics = request.app.state.installation_metrics
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(await metrics.collect()), media_type=media_type)
