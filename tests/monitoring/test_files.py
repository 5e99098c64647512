"""The files of `deploy/monitoring`, checked by Prometheus' own tool and by a Prometheus that scrapes a real API."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from cli.installation import Stack
from demo.client import ContractReviewer
from registry.database import open_session
from registry.keys import Scope, add_key
from registry.settings import Settings
from tests.faults import wait_until
from tests.prometheus import MONITORING, PROMETHEUS, PROMTOOL, Prometheus, run_prometheus
from tests.test_whole_loop import upload

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed: apt-get install prometheus")
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = [rule["expr"] for rule in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]]
TARGETS = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel["targets"]]
PANELS = [(title, target["expr"].replace("$__rate_interval", "1m")) for title, target in TARGETS]
LABELS_OF_PROMETHEUS = {"instance", "job"}


def run_promtool(*arguments: str) -> None:
    checked = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alert_rules_fire_when_they_should_and_only_then() -> None:
    run_promtool("check", "rules", str(MONITORING / "alerts.yml"))
    run_promtool("test", "rules", str(Path(__file__).parent / "alerts_test.yml"))


def test_configuration_is_valid(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(MONITORING / name, tmp_path)
    (tmp_path / "metrics.key").touch()
    run_promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_each_alert_is_tested_and_says_what_to_do() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    tested = (Path(__file__).parent / "alerts_test.yml").read_text()
    assert [rule["alert"] for rule in rules if rule["alert"] not in tested] == []
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in rules)


def test_panels_have_a_title_a_unit_and_the_chosen_data_source_and_do_not_overlap() -> None:
    places = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {part["datasource"]["uid"] for part in (panel, *panel["targets"])} == {"${datasource}"}
        position = panel["gridPos"]
        columns = range(position["x"], position["x"] + position["w"])
        rows = range(position["y"], position["y"] + position["h"])
        cells = {(column, row) for column in columns for row in rows}
        assert columns.stop <= 24
        assert places.isdisjoint(cells)
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == ["datasource"]


def use(stack: Stack, client: ContractReviewer, seed: int) -> None:
    """Teach a new document, read it twice, and ask for one that is not there."""
    document = upload(client, seed)
    assert client.wait_for_job(client.feed_back(document))["status"] == "completed"
    for _ in range(2):
        client.extract(document.id)
    httpx.get(f"{stack.api_url}/documents/unknown", headers={"Authorization": f"Bearer {stack.api_key}"})


@pytest.fixture(scope="module")
def prometheus(
    stack: Stack, client: ContractReviewer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A server that has scraped the stack's API before, while and after it was used."""
    with open_session(Settings(database_url=stack.environment["CONTRACT_FEEDBACK_DATABASE_URL"])) as session:
        key = add_key(session, "prometheus", [Scope.METRICS])
    use(stack, client, 900)
    with run_prometheus(tmp_path_factory.mktemp("prometheus"), stack.api_url, key) as server:
        served = "contract_feedback_feedback_to_served_seconds_count"
        wait_until(lambda: bool(server.query(f"count_over_time({served}[1m]) >= 3")))
        use(stack, client, 901)
        wait_until(lambda: bool(server.query(f"increase({served}[1m]) > 0")))
        yield server


def read_labels(server: Prometheus) -> dict[str, set[str]]:
    """Return the labels of each metric."""
    labels: dict[str, set[str]] = {}
    for series in server.query('{__name__=~".+"}'):
        labels.setdefault(series["metric"].pop("__name__"), set()).update(series["metric"])
    return labels


def list_used(query: str) -> tuple[set[str], set[str]]:
    """Return the names of the metrics and of the labels in a query."""
    names = set(re.findall(r"\b(?:contract_feedback|process)_\w+", query))
    grouped = {
        label for group in re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", query) for label in group.split(",")
    }
    selected = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query))
    return names, {label.strip() for label in grouped | selected} - {""}


@pytest.mark.slow
def test_queries_use_metrics_and_labels_that_a_real_api_has(prometheus: Prometheus) -> None:
    labels = read_labels(prometheus)
    legends = {(target["expr"], " ".join(re.findall(r"{{(\w+)}}", target["legendFormat"]))) for _, target in TARGETS}
    for query, legend in [*legends, *((query, "") for query in ALERTS)]:
        names, used = list_used(query)
        assert names or "up{" in query, query
        assert names - labels.keys() == set(), query
        known = set().union(*(labels[name] for name in names)) | LABELS_OF_PROMETHEUS
        assert (used | set(legend.split())) - known == set(), query


@pytest.mark.slow
@pytest.mark.parametrize(("title", "query"), PANELS)
def test_panel_shows_numbers_of_a_real_api(prometheus: Prometheus, title: str, query: str) -> None:
    values = [float(each["value"][1]) for each in prometheus.query(query)]
    assert [value for value in values if not math.isnan(value)], title


@pytest.mark.slow
def test_alert_rules_are_evaluated_without_error_and_none_fires(prometheus: Prometheus) -> None:
    wait_until(lambda: all(rule["health"] == "ok" for rule in read_rules(prometheus)))
    assert len(read_rules(prometheus)) == len(ALERTS)
    assert {rule["name"]: rule["alerts"] for rule in read_rules(prometheus) if rule["alerts"]} == {}


def read_rules(server: Prometheus) -> list[dict[str, Any]]:
    (group,) = server.http.get("/api/v1/rules").json()["data"]["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules
