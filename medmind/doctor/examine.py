"""The examination: all probes at the same time, then the findings in the order in which they are shown."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medmind import processor
from medmind.artifacts import free_bytes
from medmind.doctor import acceleration, host, llama_build, machine, probes, stages
from medmind.doctor.report import Report

_TRAINING_SECONDS = 30.0
_LLAMA_SECONDS = 20.0
_HUB_SECONDS = 9.0


def examine() -> Report:
    """Look at everything; takes as long as importing torch and bitsandbytes takes, or the time limits above."""
    offline, token = host.offline(), host.read_token()
    with ThreadPoolExecutor() as pool:
        asked_training = pool.submit(probes.ask_python, probes.TRAINING, limit=_TRAINING_SECONDS)
        asked_llama = pool.submit(probes.ask_python, probes.LLAMA, limit=_LLAMA_SECONDS)
        asked_cards = pool.submit(machine.nvidia_cards)
        asked_compiler = pool.submit(machine.compiler)
        asked_hub = (
            None
            if offline
            else pool.submit(probes.ask_python, probes.HUB, host.endpoint(), limit=_HUB_SECONDS, given=token)
        )
        training, llama = asked_training.result(), asked_llama.result()
        cards, hub = asked_cards.result(), asked_hub.result() if asked_hub else None
        compiler = asked_compiler.result()
    found = machine.memory()
    here = Path.cwd()
    checks = (
        host.python(),
        acceleration.gpu(training, cards),
        acceleration.driver(training, cards),
        acceleration.torch(training),
        acceleration.bitsandbytes(training),
        acceleration.triton(training),
        host.compiler(compiler),
        llama_build.build(llama, processor.features()),
        llama_build.offload(llama, cards),
        host.memory(found),
        host.disk("disk, here", here, host.RUN_7B, "a run with a 7B", "free some space, or give --out on another disk"),
        host.disk(
            "disk, hub cache",
            host.hub_cache(),
            host.CACHE_7B,
            "a 7B",
            "free some space, or set HF_HOME to another disk",
        ),
        host.hub(hub),
        host.token(hub, bool(token)),
    )
    summed = stages.summary(
        {check.name: check for check in checks},
        card_memory=max((int(card["memory"]) for card in acceleration.torch_cards(training)), default=0),
        memory=found.total,
        free=free_bytes(here),
    )
    return Report(checks, summed)
