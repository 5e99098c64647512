"""Measure the memory of an installation's processes, once or every minute under load."""

import os
import random
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.corpus import upload_generated
from cli.installation import Stack
from demo.client import ContractReviewer, ReviewedDocument

ROUND_SECONDS = 10
_EXTRACTIONS = 9


def soak(stack: Stack, client: ContractReviewer, documents: list[ReviewedDocument], minutes: float) -> dict[str, Any]:
    """Upload a contract, extract from nine and feed back the new one, every ten seconds; sample memory every minute."""
    started, samples = time.monotonic(), list[dict[str, int]]()
    for number in count(1):
        document = upload_generated(client, 1)
        documents.append(document)
        for extracted in [document, *random.sample(documents, _EXTRACTIONS - 1)]:
            client.extract(extracted.id)
        job_id = client.feed_back(document)
        if time.monotonic() - started >= 60 * (len(samples) + 1):
            client.wait_for_job(job_id)
            samples.append(measure_memory(stack))
            print(f"{(time.monotonic() - started) / 60:5.1f} min, {number} feedbacks, MiB {samples[-1]}", flush=True)
        if time.monotonic() - started >= 60 * minutes:
            break
        time.sleep(max(0, started + number * ROUND_SECONDS - time.monotonic()))
    part_size = min(10, len(samples) // 2)
    means = {
        name: [round(mean(sample[name] for sample in part)) for part in (samples[:part_size], samples[-part_size:])]
        for name in samples[0]
    }
    print(f"\nMiB, mean of the first {part_size} samples and of the last")
    for name, (first, last) in means.items():
        print(f"{name:12} {first:6} {last:6}", flush=True)
    return {"minutes": minutes, "feedbacks": number, "first_and_last_mib": means, "each_minute_mib": samples}


def measure_memory(stack: Stack) -> dict[str, int]:
    """Return the MiB of each process with its children: Linux's PSS, in which a shared page counts in parts."""
    sessions = {stack.processes[name].pid: name for name in ("prefect", "mlflow", "runs", "worker", "api")}
    memory = dict.fromkeys(sessions.values(), 0)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if name := sessions.get(os.getsid(int(folder.name))):
                memory[name] += int((folder / "smaps_rollup").read_text().split("Pss:")[1].split()[0])
    return {name: kib // 1024 for name, kib in memory.items()}
