"""Print results as a table, and write them as JSON with commit, machine and versions."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

_LIBRARIES = ("torch", "transformers", "peft", "prefect", "mlflow", "fastapi")


def write_results(name: str, results: Any) -> Path:
    """Write `benchmarks/results/NAME.json` and return its path."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    described = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "versions": {library: version(library) for library in _LIBRARIES},
        "results": results,
    }
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    return path


def summarise(seconds: list[float]) -> dict[str, float]:
    """Return the count, the median, and the 95th and 99th percentiles."""
    centiles = quantiles(seconds, n=100, method="inclusive")
    return {
        "count": len(seconds),
        "p50": round(median(seconds), 3),
        "p95": round(centiles[94], 3),
        "p99": round(centiles[98], 3),
    }


def print_seconds(title: str, summary: dict[str, dict[str, float]]) -> None:
    """Print summaries as a table, one per row."""
    print(f"\n{title}\n{'seconds':24} {'count':>6} {'p50':>8} {'p95':>8} {'p99':>8}")
    for name, some in summary.items():
        print(f"{name:24} {some['count']:6} {some['p50']:8.3f} {some['p95']:8.3f} {some['p99']:8.3f}", flush=True)
