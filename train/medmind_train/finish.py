"""The end of a run: picture, report and, last, the manifest that makes it a finished one. Knows no model."""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medmind.artifacts import (
    ADAPTER,
    MANIFEST,
    METRICS,
    MODEL_CARD,
    RUN_FORMAT,
    TRAINED_ON,
    adapter_digest,
    atomic_file,
    read_jsonl,
    write_json,
    write_text,
)
from medmind_train import curve, model_card, report
from medmind_train.evaluate import Perplexity
from medmind_train.qlora_config import LIBRARIES, QloraConfig


def finish(run: Path, config: QloraConfig, recorded: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Write `loss.png`, `report.md`, the model card and the manifest of a run whose adapter is in place.

    Args:
        recorded: the run's start record (`rundir.read_start`).
        results: what training and evaluation gave.

    Returns:
        The manifest.
    """
    manifest = {
        "format": RUN_FORMAT,
        "name": run.resolve().name,
        "created": recorded["created"],
        "base": recorded["base"],
        "adapter": {"path": ADAPTER, "digest": adapter_digest(run / ADAPTER), "trained_on": TRAINED_ON},
        "data": recorded["data"],
        "system_prompt": config.system,
        "context": config.context,
        "config": asdict(config),
        "seed": config.seed,
        "versions": versions(),
        "results": results,
    }
    before, after = (Perplexity(**results["perplexity"][when]) for when in ("before", "after"))
    with atomic_file(run / "loss.png") as partial:
        title = f"{manifest['name']}: {report.headline(results)}"
        curve.draw(partial, read_jsonl(run / METRICS), before, after, title, kept=results["chosen"]["step"])
    write_text(run / ADAPTER / MODEL_CARD, model_card.markdown(manifest))
    write_text(run / "report.md", report.markdown(manifest, run))
    write_json(run / MANIFEST, manifest)
    return manifest


def versions() -> dict[str, str]:
    """Of Python, the platform, medmind and the libraries that training imports."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("medmind", *LIBRARIES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
