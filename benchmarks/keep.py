"""Write a benchmark's result under benchmarks/results, dated, with hardware and versions."""

import argparse
import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch

from senet_lib.runs import provenance

RESULTS = Path(__file__).resolve().parent / "results"


def keep(name: str, device: torch.device, arguments: argparse.Namespace, **content: Any) -> None:
    """Write <name>-<today>-<device>.json and print its path; a second one of a day has a number."""
    RESULTS.mkdir(exist_ok=True)
    today = date.today().isoformat()
    whole = {
        "date": today,
        "arguments": vars(arguments),
        "hardware": provenance.hardware(device),
        "versions": provenance.versions(),
        **content,
    }
    stem = f"{name}-{today}-{device.type}"
    out = RESULTS / f"{stem}.json"
    for number in itertools.count(2):
        if not out.exists():
            break
        out = RESULTS / f"{stem}-{number}.json"
    out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(out)
