"""`medmind-train plan`: its figures against measured ones, and what a person or a script gets to see."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medmind import console
from medmind.base import EMBEDDED_PATH
from medmind.errors import MedmindError
from medmind_train import cli, lora
from medmind_train.config import build
from medmind_train.fused import budget, fit
from medmind_train.fused.lifetimes import BETWEEN, OUTSIDE_TORCH, WORKSPACE_HOPPER, Step
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import Shape
from medmind_train.hardware import Hardware
from medmind_train.plan import base_config, cards, estimate, reference
from medmind_train.qlora_config import REFERENCE_BASE, QloraConfig

GIB = 1 << 30
MISTRAL = Shape(4096, 14336, 32, 32, 8, 128, 32768, tied=False, window=None, eps=1e-5, bias=False)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "torch_dtype": "float32",
    "max_position_embeddings": 2048,
}
Ran = tuple[int, str, str]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The command, in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr("sys.argv", ["medmind-train", "plan", *arguments])
        monkeypatch.setattr(console, "quiet_libraries", lambda: None)
        monkeypatch.setattr("signal.signal", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def document(plan: Callable[..., Ran]) -> Callable[..., dict]:
    def run(*arguments: str) -> dict:
        code, out, err = plan(*arguments, "--json")
        assert code == 0 and err == "", err
        return json.loads(out)

    return run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A base of which only config.json is there."""
    path = tmp_path / "small-llama"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return path


# One H200, torch 2.11, transformers 5.17, PEFT 0.21, bitsandbytes 0.50, Liger 0.8: torch's peak over steps at the shape
# of Mistral-7B-v0.3, LoRA r=16, paged 8-bit AdamW, no accumulation.
@pytest.mark.parametrize(
    ("how", "targets", "batch", "length", "measured"),
    [
        ({"nf4": False, "whole_logits": True}, "qv", 1, 1024, 14.31),
        ({"nf4": False, "whole_logits": True}, "all-linear", 1, 2048, 15.17),
        ({"upcast": True, "whole_logits": True}, "qv", 1, 1024, 5.66),
        ({"upcast": True, "whole_logits": True}, "all-linear", 1, 2048, 8.03),
        ({"whole_logits": True}, "qv", 1, 1024, 4.66),
        ({"liger": True}, "qv", 1, 1024, 4.48),
        ({"liger": True}, "qv", 1, 2048, 4.89),
        ({"liger": True}, "all-linear", 1, 1024, 4.73),
        ({"liger": True}, "all-linear", 1, 2048, 5.25),
        ({"liger": True}, "all-linear", 4, 1024, 6.38),
    ],
)
def test_estimates_of_other_recipes_agree_with_what_was_measured(how, targets, batch, length, measured):
    ranks = lora.ranks(build(QloraConfig, {"targets": targets}), MISTRAL)
    recipe = reference.Recipe(autocast=False, accumulates=False, paged=True, **how)
    found = reference.lora(Step(MISTRAL, ranks, batch, length, workspace=WORKSPACE_HOPPER), recipe)
    assert found.peak / GIB == pytest.approx(measured, rel=0.1)


def test_the_estimate_of_full_fine_tuning_agrees_with_what_was_measured():
    assert reference.full(Step(MISTRAL, {}, 1, 1024)).peak / GIB == pytest.approx(54.14, rel=0.1)


def test_without_checkpointing_the_reference_path_needs_much_more():
    work = Step(MISTRAL, dict.fromkeys(MISTRAL.linears, 16), 1, 1024)
    saved, whole = (reference.lora(work, reference.Recipe(checkpointing=flag)).peak for flag in (True, False))
    assert whole > saved + 6 * GIB


def test_the_command_answers_without_torch():
    code = "import sys\nfrom medmind_train import cli\ntry: cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run(
        [sys.executable, "-c", code, "plan", "--card", "8GiB", "--json"], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stderr.split())
    assert "medmind_train.plan.estimate" in loaded
    assert not loaded & {"torch", "transformers", "peft", "bitsandbytes", "numpy", "huggingface_hub", "matplotlib"}
    assert json.loads(ran.stdout)["base"]["name"] == REFERENCE_BASE


def test_components_tensors_and_phases_add_up_to_the_peak(document):
    found = document("--card", "rtx4060", "--context", "2048")
    assert found["peak"] == sum(found["components"].values()) == sum(found["tensors"].values())
    assert found["peak"] == max(found["phases"].values()) == found["phases"][found["peak_phase"]]
    assert found["peak"] <= found["card"]["usable"] == 8 * GIB - OUTSIDE_TORCH - cards.DESKTOP
    placed = found["placement"]
    assert placed["keep_all"] + placed["keep_inputs"] + placed["park_on_host"] == 32
    assert found["path"] == "fused" and not found["memory_is_estimate"] and found["time"]["estimate"]
    assert {card["memory"] // GIB for card in found["cards"] if card["fits"]} >= {6, 8, 12, 16, 24}


def test_a_person_sees_peak_cards_disk_and_time(plan):
    code, out, _ = plan("--card", "RTX 4090", "--tokens", "1000000")
    assert code == 0
    for words in ("peak of torch", "on the card, peak in", "6 GiB", "24 GiB", "merged, q4_k_m", "1,000,000 tokens"):
        assert words in out
    assert "32 keep everything" in out
    assert "an estimate" in out


def test_what_does_not_fit_is_refused_in_one_line(plan):
    for arguments in (
        ("--card", "2GiB", "--batch", "8", "--context", "4096"),
        ("--card", "4GiB", "--dora"),
        ("--card", "6GiB", "--batch", "0"),
        ("--card", "rtx9999"),
        ("--base", "no-such-base"),
        ("--targets", "q_prj"),
        ("--context", "40000"),
    ):
        code, out, err = plan(*arguments)
        assert (code, out) == (1, ""), arguments
        assert err.startswith("error: ") and err.count("\n") == 1, arguments


def test_without_a_card_the_smallest_that_holds_the_base_is_taken(document):
    assert document()["card"]["memory"] == 6 * GIB
    assert document("--batch", "8", "--context", "2048")["card"]["memory"] > 6 * GIB


def test_a_directory_needs_nothing_but_its_config(document, directory: Path, plan):
    found = document("--base", str(directory), "--card", "6GiB", "--data", "elsewhere")
    assert found["base"]["parameters"] == 1_100_048_384  # as TinyLlama's own card says
    assert found["disk"]["download of the base"] == 0
    assert found["time"] is None
    (directory / "config.json").write_text(json.dumps({**CONFIG, "architectures": ["GPT2LMHeadModel"]}))
    code, _, err = plan("--base", str(directory))
    assert code == 1 and "GPT2LMHeadModel" in err
    (directory / "config.json").write_text(json.dumps({**CONFIG, "hidden_size": None}))
    code, _, err = plan("--base", str(directory))
    assert code == 1 and "does not tell its sizes" in err


def test_a_base_that_the_fused_step_does_not_know_gets_an_estimate(document, directory: Path):
    (directory / "config.json").write_text(json.dumps({**CONFIG, "attention_bias": True}))
    found = document("--base", str(directory))
    assert found["path"] == "reference" and "attention_bias" in found["why_reference"] and found["memory_is_estimate"]
    assert found["placement"] is None


def _offline(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from medmind_train import cli\ncli.main()",
            "plan",
            "--base",
            "clinic/llama",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": ""},
    )


def test_a_hub_base_is_planned_from_the_cached_config_alone(tmp_path: Path):
    ran = _offline(tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "config.json of clinic/llama" in ran.stderr
    model, commit = tmp_path / "hub" / "models--clinic--llama", "0123456789" * 4
    (model / "snapshots" / commit).mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots" / commit / "config.json").write_text(json.dumps(CONFIG))
    ran = _offline(tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["disk"]["download of the base"] == 4 * 1_100_048_384


def test_the_embedded_base_comes_with_its_recipe(document):
    found = document("--base", "medmind-base", "--card", "rtx4060")
    assert found["step"]["batch"] == 8
    assert found["path"] == "fused" and found["memory_is_estimate"]  # in fp32 its attention is another
    assert not document("--base", "medmind-base", "--dtype", "bfloat16")["memory_is_estimate"]
    assert document("--base", "medmind-base", "--dtype", "float16")["why_reference"] == "it does not compute in float16"
    weights = EMBEDDED_PATH / "model.safetensors"
    assert 0 < weights.stat().st_size - base_config.read("medmind-base").stored < 10_000  # the file's header


def test_settings_come_from_yaml_and_flags(document, tmp_path: Path):
    file = tmp_path / "my.yaml"
    file.write_text("rank: 64\ncontext: 512\noptimizer: adamw\n", encoding="utf-8")
    found = document("--config", str(file), "--context", "256")
    assert found["step"] == {"batch": 1, "context": 256, "trained": 4 * 41_943_040, "optimizer": "adamw"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6GiB", 6 * GIB),
        ("8GB", 8 * GIB),
        ("6", 6 * GIB),
        ("6144 MiB", 6 * GIB),
        ("rtx4060", 8 * GIB),
        ("RTX 3090", 24 * GIB),
        ("h200", 140 * GIB),
        ("NVIDIA GeForce RTX 4090", 24 * GIB),
        ("3080", 10 * GIB),
    ],
)
def test_cards_by_size_and_by_name(text: str, size: int):
    assert cards.find(text).memory == size


@pytest.mark.parametrize(
    ("text", "word"), [("4060 ti", "16GB"), ("rtx4061", "RTX 4060"), ("0GiB", "size"), ("huge", "memory")]
)
def test_cards_that_are_none(text: str, word: str):
    with pytest.raises(MedmindError, match=word):
        cards.find(text)


def test_ranks_follow_targets_and_the_first_pattern_that_matches():
    config = build(
        QloraConfig, {"targets": "attention", "rank": 8, "rank_pattern": {"layers.0.self_attn.q_proj": 2, "q_proj": 4}}
    )
    first, second, *_ = lora.ranks(config, MISTRAL)
    assert first == {"q_proj": 2, "k_proj": 8, "v_proj": 8, "o_proj": 8}
    assert second["q_proj"] == 4
    one = lora.ranks(build(QloraConfig, {"targets": "layers.3.mlp.up_proj"}), MISTRAL)
    assert [layer for layer, ranks in enumerate(one) if ranks] == [3] and one[3] == {"up_proj": 16}


def test_what_a_card_cannot_hold_is_refused_by_the_margins_of_the_plan():
    sizes = base_config.read(REFERENCE_BASE)
    work = QloraConfig(context=2048, vram=f"{(5 * GIB + OUTSIDE_TORCH) >> 20}MiB")
    step = fit.work(work, MISTRAL, element=2, hopper=False)
    tight = fit.placement(work, step, 20 * GIB)
    assert tight == fit.placement(QloraConfig(), step, 5 * GIB) and Keep.HOST in tight.kept and not tight.streamed
    # --vram never promises more than is free
    assert fit.placement(work, step, 4 * GIB).streamed and fit.limit(work, 4 * GIB) == 4 * GIB
    planned = estimate.make(work, sizes, cards.Card("any", 40 * GIB, desktop=False))
    assert planned.chosen.placement == tight and planned.chosen.limit == 5 * GIB
    least = budget.least(step) + BETWEEN
    estimate.check(work, sizes, least, fused=True)
    with pytest.raises(MedmindError, match="need at least"):
        estimate.check(work, sizes, least - 1, fused=True)
    estimate.check(work, sizes, 8 * GIB, fused=False)
    with pytest.raises(MedmindError, match=r"reference path needs about .* --context"):
        estimate.check(QloraConfig(batch=16), sizes, 6 * GIB, fused=False)


def test_a_run_is_refused_before_its_data_and_its_download(monkeypatch: pytest.MonkeyPatch):
    from medmind_train import inputs, prepared_cache
    from medmind_train.fused import build as build_fused

    read: list[str] = []
    monkeypatch.setattr(build_fused, "free", lambda: 3 * GIB)
    monkeypatch.setattr(build_fused, "lacking", lambda machine: "")
    monkeypatch.setattr(prepared_cache, "prepare", lambda *given, **named: read.append("data"))
    machine = Hardware("cuda", "a card", 4 * GIB, (8, 9))
    config = QloraConfig(base=REFERENCE_BASE, data="medquad")
    for settings, words in (
        ({"batch": 16, "context": 4096}, "need at least"),
        ({"kernels": "reference"}, "reference path needs about"),
        ({"dora": True}, "reference path needs about"),
        ({"vram": "1GiB"}, "need at least"),
    ):
        with pytest.raises(MedmindError, match=words):
            inputs.read(replace(config, **settings), machine, assume_yes=False)
    assert not read


@pytest.mark.parametrize(("file", "state_counted"), [("fused", False), ("lean", True)])
def test_the_plan_agrees_with_the_peaks_measured_on_a_card(file: str, state_counted: bool):
    """What the committed steps took at most, over the phases that torch counted.

    In the sittings of the first file graphs were captured, and so counted, before the first update made the optimizer's
    state.
    """
    path = Path(__file__).parents[2] / "benchmarks" / "results" / f"mistral-7b-shape-{file}-step-h200.json"
    documents = [
        one for one in json.loads(path.read_text(encoding="utf-8"))["documents"] if one["work"]["mode"] == "fused"
    ]
    assert len(documents) >= 5
    for found in documents:
        work, flags = found["work"], found["conditions"]["flags"]
        kept = [
            Keep(word) for part in flags["kept"].split() for word, count in [part.split(":")] for _ in range(int(count))
        ]
        settings = {name: work[name] for name in ("rank", "targets", "batch")} | {"context": work["length"]}
        step = fit.work(build(QloraConfig, settings), MISTRAL, element=2, hopper=True)
        placement = Placement(tuple(kept), int(flags["streamed"]), head_on_card=flags["head"] == "card")
        planned = budget.measure(step, placement)
        sums = {phase: sum(live.values()) for phase, live in planned.phases.items() if phase != "loading"}
        missing = 0 if state_counted else planned.phases["update"]["optimizer state"]
        counted = max(sums["update"], planned.peak - missing)
        assert found["memory"]["step_allocated"] == pytest.approx(counted, rel=0.02), work


def test_kernels_are_the_users_choice_where_there_is_one():
    sizes = base_config.read(REFERENCE_BASE)
    card = cards.find("rtx4090")
    forced = estimate.make(QloraConfig(kernels="reference"), sizes, card)
    assert not forced.fused and "asked for" in forced.why
    with pytest.raises(MedmindError, match="cannot train this: it has no DoRA"):
        estimate.make(QloraConfig(kernels="fused", dora=True), sizes, card)
    with pytest.raises(MedmindError, match="does not fit"):
        estimate.make(QloraConfig(vram="1GiB"), sizes, card)


def test_time_falls_with_what_need_not_be_computed_again():
    sizes = base_config.read(REFERENCE_BASE)
    config = build(QloraConfig, {"data": "medquad"})
    roomy = estimate.make(config, sizes, cards.find("rtx4090")).time
    lean = estimate.make(config, sizes, cards.Card("lean", 5 * GIB, 1008, 165.2, 32)).time
    assert roomy and lean and roomy.tokens == lean.tokens == estimate.MEDQUAD_TOKENS[1024]
    weights = 32 * MISTRAL.layer_weights
    assert 4 * weights < roomy.floating < lean.floating < 6.5 * weights
    assert roomy.per_second > lean.per_second
    slow = estimate.make(config, sizes, cards.Card("slow bus", 4 * GIB, 1008, 165.2, 1)).time
    assert slow and slow.per_second < lean.per_second / 2  # streamed layers wait for the bus
    short = estimate.make(build(QloraConfig, {"data": "medquad", "max_steps": 10}), sizes, cards.find("rtx4090")).time
    assert short and short.tokens == 10 * 16 * 1024


def test_a_size_of_vram_is_planned_for_itself_and_a_config_is_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"max_position_embeddings": 32768}), encoding="utf-8")
    sizes = base_config.read(str(tmp_path / "config.json"))
    assert sizes.shape.layers == 22
    sizes = base_config.read(REFERENCE_BASE)
    settings = {"base": REFERENCE_BASE, "data": "medquad"}
    small, large = (
        estimate.make(build(QloraConfig, settings | {"vram": size}), sizes).chosen for size in ("4GiB", "5GiB")
    )
    assert (small.limit, large.limit) == (fit.limit(build(QloraConfig, {"vram": "4GiB"}), 1 << 50), large.limit)
    assert small.limit < large.limit
    assert small.placement is not None
    assert large.placement is not None
    assert small.placement.streamed > large.placement.streamed
    with pytest.raises(MedmindError, match="does not fit in --vram 1GiB"):
        estimate.make(build(QloraConfig, settings | {"vram": "1GiB"}), sizes)
