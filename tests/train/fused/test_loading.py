"""A base read tensor by tensor is the one that transformers loads, bit for bit, wherever its parts lie."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from medmind.base import Base
from medmind.errors import MedmindError
from medmind_train.fused import host
from medmind_train.fused.host import HostEmbedding, HostHead, Pages
from medmind_train.fused.loading import load
from medmind_train.fused.placement import Keep, Placement
from medmind_train.model import load_base

LAYERS = 5
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,  # wide: a wrong layer's weights must show in the logits
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
SCALED_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def write(folder: Path, kind: str, *, tied: bool = False, shard: str = "1GB", dtype: str = "float32", **more) -> Base:
    """A tiny random base whose norms and biases are random as well."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **more}, tie_word_embeddings=tied)
    built = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.normal_(1.0, 0.3)
    built.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    assert (folder / "model.safetensors.index.json").exists() == (shard != "1GB")
    return Base("tiny", "local", folder)


def placed(streamed: int = 0, head_on_card: bool = True) -> Placement:
    return Placement((Keep.HOST,) * LAYERS, streamed=streamed, head_on_card=head_on_card)


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(0, SIZES["vocab_size"], (2, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_ids=ids.to(model.device)).logits


def quantized(model: Any) -> dict[str, Any]:
    from bitsandbytes.nn import Linear4bit

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def same_states(one: Any, other: Any) -> None:
    """The same names with the same bits: NF4 bytes, both levels of scales, norms, biases, embedding and head."""
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return write(tmp_path_factory.mktemp("mistral"), "mistral", shard="100KB")


@pytest.fixture(scope="module")
def usual(mistral: Base) -> Any:
    return load_base(mistral, "cpu", "float32")


@pytest.fixture(
    scope="module",
    params=[
        ("mistral", False, "1GB", "bfloat16", "float32"),
        ("mistral", True, "100KB", "float32", "float32"),
        ("llama", False, "100KB", "float32", "float32"),
        ("llama", True, "1GB", "float16", "float32"),
        ("qwen2", False, "100KB", "bfloat16", "float32"),
        ("qwen2", True, "1GB", "float32", "float32"),
        ("qwen2", False, "1GB", "float32", "bfloat16"),
    ],
    ids=lambda one: "-".join(map(str, one)),
)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, str, Any]:
    """A base of a kind, tied or not, in shards, stored in a type; the type it is loaded in, and what then is right."""
    kind, tied, shard, stored, dtype = request.param
    more = {"rope_parameters": SCALED_ROPE} if kind == "llama" else {}
    base = write(tmp_path_factory.mktemp(kind), kind, tied=tied, shard=shard, dtype=stored, **more)
    return base, dtype, load_base(base, "cpu", dtype)


@pytest.mark.parametrize("streamed,head_on_card", [(0, True), (0, False), (LAYERS, False), (2, True)])
def test_gives_what_transformers_gives(written, streamed, head_on_card):
    base, dtype, usual = written
    ours = load(base, "cpu", dtype, placed(streamed, head_on_card))
    expected = logits(usual)
    assert expected.std() > 0.1
    assert torch.equal(logits(ours), expected)
    assert torch.equal(logits(ours), expected), "the second pass"
    same_states(ours, usual)
    assert len(quantized(ours)) == 7 * LAYERS == len(quantized(usual))
    rotary, theirs = ours.model.rotary_emb, usual.model.rotary_emb
    assert torch.equal(rotary.inv_freq, theirs.inv_freq) and rotary.inv_freq.dtype == theirs.inv_freq.dtype
    assert torch.equal(rotary.original_inv_freq, theirs.original_inv_freq)
    assert isinstance(ours.lm_head, HostHead) != head_on_card
    assert isinstance(ours.model.embed_tokens, HostEmbedding)


def test_is_marked_as_transformers_marks_it(mistral: Base, usual: Any):
    ours = load(mistral, "cpu", "float32", placed(2, False))
    for name in ("is_loaded_in_4bit", "quantization_method", "is_quantized", "training", "dtype", "device"):
        assert getattr(ours, name) == getattr(usual, name), name
    assert ours.config.to_dict() == usual.config.to_dict()
    assert ours.config._name_or_path == usual.config._name_or_path == str(mistral.path)
    assert ours.config._attn_implementation == usual.config._attn_implementation == "sdpa"
    assert ours.generation_config.to_dict() == usual.generation_config.to_dict()
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    for name, module in quantized(ours).items():
        theirs = quantized(usual)[name]
        assert module.compute_dtype == theirs.compute_dtype and not module.support_avx512bf16_for_cpu
        assert module.weight.quant_state is module.quant_state
        for attribute in vars(theirs.weight).keys() - {"quant_state", "module", "_is_hf_initialized"}:
            assert getattr(module.weight, attribute) == getattr(theirs.weight, attribute), attribute


@pytest.mark.parametrize("own", [True, False])
def test_generation_settings_are_found(tmp_path: Path, own: bool):
    base = write(tmp_path, "mistral")
    file = tmp_path / "generation_config.json"
    if own:
        file.write_text(json.dumps({"temperature": 0.25, "eos_token_id": [2, 5]}), encoding="utf-8")
    else:
        file.unlink()
    ours, usual = load(base, "cpu", "float32", placed()), load_base(base, "cpu", "float32")
    assert ours.generation_config.to_dict() == usual.generation_config.to_dict()
    assert (ours.generation_config.temperature == 0.25) == own


@pytest.mark.parametrize("tied_in_file", ["equal", "different", "head only"])
@pytest.mark.parametrize("head_on_card", [True, False])
def test_tied_ends_are_what_the_file_holds(tmp_path: Path, tied_in_file: str, head_on_card: bool):
    from safetensors.torch import load_file, save_file

    base = write(tmp_path, "llama", tied=True)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    if tied_in_file == "different":
        tensors["lm_head.weight"] += 1
    elif tied_in_file == "head only":
        del tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours, usual = load(base, "cpu", "float32", placed(0, head_on_card)), load_base(base, "cpu", "float32")
    same_states(ours, usual)
    assert torch.equal(logits(ours), logits(usual))
    shared = ours.lm_head.weight.data_ptr() == ours.model.embed_tokens.weight.data_ptr()
    assert shared == (tied_in_file != "different")


def test_reads_one_tensor_at_a_time(mistral: Base, monkeypatch: pytest.MonkeyPatch):
    import safetensors

    true_open, read = safetensors.safe_open, []

    class Watching:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self.file = true_open(*arguments, **named)

        def __enter__(self) -> "Watching":
            self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

        def get_tensor(self, name: str) -> torch.Tensor:
            assert not [name for name, tensor in read if tensor() is not None], "still held"
            tensor = self.file.get_tensor(name)
            read.append((name, weakref.ref(tensor)))
            return tensor

    monkeypatch.setattr(safetensors, "safe_open", Watching)
    load(mistral, "cpu", "float32", placed(2, False))
    assert len(read) == len({name for name, _ in read}) == 9 * LAYERS + 3


def tuned(model: Any, checkpointing: bool) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
def test_peft_trains_a_streamed_model_as_the_usual_one(mistral: Base, checkpointing: bool):
    import peft

    gradients = []
    for base in (load_base(mistral, "cpu", "float32"), load(mistral, "cpu", "float32", placed(4, False))):
        model = tuned(base, checkpointing).train()
        adapted = [module for module in model.modules() if isinstance(module, peft.tuners.lora.bnb.Linear4bit)]
        assert len(adapted) == 7 * LAYERS
        ids = torch.arange(24).view(2, 12)
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.requires_grad})
    usual, ours = gradients
    assert usual.keys() == ours.keys() and len(ours) == 2 * 7 * LAYERS
    for name, gradient in usual.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(ours[name], gradient), name


def test_a_tuned_streamed_model_answers_as_the_usual_one(mistral: Base):
    answers = []
    for base in (load_base(mistral, "cpu", "float32"), load(mistral, "cpu", "float32", placed(LAYERS, False))):
        model = tuned(base, False).eval()
        ids = torch.tensor([[1, 5, 9, 11]])
        answers.append(
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)
        )
    assert torch.equal(*answers)
    assert len(set(answers[0][0].tolist())) > 4


def test_streamed_layers_share_the_slots_and_keep_their_addresses(mistral: Base, usual: Any):
    model = load(mistral, "cpu", "float32", placed(4), slots=3)
    stream = model.layer_stream
    assert len(stream.card) == 3 and len(stream.host) == 4
    weights = [quantized(layer) for layer in model.model.layers]
    assert weights[0]["mlp.up_proj"].weight.data_ptr() == weights[3]["mlp.up_proj"].weight.data_ptr()
    addresses = {module.weight.data_ptr() for layer in weights[:4] for module in layer.values()}
    assert len(addresses) == 3 * 7, "two linear layers of a layer lie in one place"
    for module in weights[1].values():
        state = module.weight.quant_state
        for tensor in (module.weight, state.absmax, state.state2.absmax, state.offset):
            assert tensor.data_ptr() % 16 == 0
            assert tensor.untyped_storage().data_ptr() == stream.slot(1).untyped_storage().data_ptr()
        assert state.offset.shape == ()
    expected = logits(usual)
    with stream.by_hand():
        for index in range(3):
            stream.fetch(index)
        assert not torch.equal(logits(model), expected), "layer 3 ran with its own weights though nobody fetched them"
        hook = model.model.layers[3].register_forward_pre_hook(lambda *_: stream.fetch(3))
        assert torch.equal(logits(model), expected)
        hook.remove()
    assert torch.equal(logits(model), expected), "after by_hand"
    assert addresses == {module.weight.data_ptr() for layer in weights[:4] for module in layer.values()}
    stream.remove_hooks()
    assert not torch.equal(logits(model), expected)


def test_moving_the_model_moves_no_part_on_the_host(mistral: Base, usual: Any):
    model = load(mistral, "cpu", "float32", placed(2, False))
    ends = (model.model.embed_tokens, model.lm_head)
    before = [end.weight.data_ptr() for end in ends]
    assert not any(name.startswith(("lm_head", "model.embed")) for name, _ in model.named_parameters())
    model.to("cpu")
    assert [end.weight.data_ptr() for end in ends] == before
    assert torch.equal(logits(model), logits(usual))
    for end in ends:
        end.to("meta")
        assert end.weight.device.type == "cpu" and end.device.type == "meta"


def test_parts_on_the_host_load_from_a_state_dict(mistral: Base):
    model = load(mistral, "cpu", "float32", placed(0, False))
    head = model.lm_head
    pointer, other = head.weight.data_ptr(), torch.randn_like(head.weight)
    head.load_state_dict({"weight": other})
    assert torch.equal(head.weight, other) and head.weight.data_ptr() == pointer
    with pytest.raises(RuntimeError, match="Missing key"):
        head.load_state_dict({})
    with pytest.raises(RuntimeError, match="weight is"):
        head.load_state_dict({"weight": other[1:]})


def test_a_head_in_chunks_gives_the_logits(monkeypatch: pytest.MonkeyPatch):
    rows, columns = 97, 64
    memory = Pages(4 * rows * columns, torch.device("cpu"))
    weight = memory.matrix(rows, columns, torch.float32).copy_(torch.randn(rows, columns))
    head, x = HostHead(weight, memory, torch.device("cpu")), torch.randn(2, 3, columns, requires_grad=True)
    monkeypatch.setattr(host, "CHUNK_BYTES", 4 * columns * 10)
    assert torch.allclose(head(x), x @ weight.T, atol=1e-5)
    assert torch.allclose(torch.autograd.grad(head(x).sum(), x)[0], weight.sum(0).expand(2, 3, -1), atol=1e-4)


def test_memory_that_cannot_be_locked_is_said(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **given: object) -> torch.Tensor:
        assert given["pin_memory"] is True
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(MedmindError, match="cannot be page-locked"):
        Pages(4096, torch.device("cuda"))


@pytest.mark.parametrize("gone", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"])
def test_missing_weights_are_refused_as_before(tmp_path: Path, gone: str):
    from safetensors.torch import load_file, save_file

    base = write(tmp_path, "mistral")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[gone]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused_alike(base, gone)


def test_tied_ends_that_are_both_missing_are_refused_as_before(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    base = write(tmp_path, "qwen2", tied=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused_alike(base, "missing keys")


@pytest.mark.parametrize(
    "setting,word", [({"intermediate_size": 256}, "192"), ({"quantization_config": {"quant_method": "x"}}, "already")]
)
def test_weights_of_another_kind_are_refused_as_before(tmp_path: Path, setting: dict[str, Any], word: str):
    base = write(tmp_path, "mistral")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, **setting}), encoding="utf-8")
    refused_alike(base, word)


def test_weights_that_are_no_fractions_are_refused(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    base = write(tmp_path, "mistral")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].to(torch.int8)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        MedmindError, match=r"tiny cannot be loaded: model\.layers\.0\.mlp\.up_proj\.weight is of type I8"
    ):
        load(base, "cpu", "float32", placed())


def test_a_card_that_is_too_small_is_said(mistral: Base, monkeypatch: pytest.MonkeyPatch):
    import bitsandbytes.functional

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", full)
    with pytest.raises(MedmindError, match="does not fit into the card's memory"):
        load(mistral, "cpu", "float32", placed())


def refused_alike(base: Base, word: str) -> None:
    said = []
    for attempt in (lambda: load_base(base, "cpu", "float32"), lambda: load(base, "cpu", "float32", placed())):
        with pytest.raises(MedmindError) as error:
            attempt()
        said.append(str(error.value))
    assert said[0] == said[1]
    assert word in said[0]


@pytest.mark.gpu
@pytest.mark.parametrize("streamed,head_on_card", [(0, True), (LAYERS, False), (3, False)])
def test_on_a_card_the_bits_are_the_same_and_loading_is_not_the_peak(tmp_path: Path, streamed: int, head_on_card: bool):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA card")
    base = write(tmp_path, "mistral", shard="100KB")
    usual = load_base(base, "cuda", "bfloat16")
    expected = logits(usual)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ours = load(base, "cuda", "bfloat16", placed(streamed, head_on_card))
    kept, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    assert peak - kept <= 2 * 64 * 192 + 64 * 1024, "more than one matrix of bf16 besides what stays"
    assert ours.device.type == "cuda"
    assert ours.model.embed_tokens.weight.is_pinned() and ours.model.embed_tokens.weight.device.type == "cpu"
    if streamed:
        assert all(buffer.is_pinned() for buffer in ours.layer_stream.host)
    same = {name: tensor.cpu() for name, tensor in ours.state_dict().items()}
    for name, tensor in usual.state_dict().items():
        assert torch.equal(same[name], tensor.cpu()), name
    assert torch.equal(logits(ours), expected)
    ours.cuda()
    assert ours.model.embed_tokens.weight.device.type == "cpu"


def test_a_layer_that_bitsandbytes_computes_wrongly_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsandbytes import functional

    base = write(tmp_path, "mistral", intermediate_size=96)
    right = functional.dequantize_4bit

    def wrong(packed: torch.Tensor, state: Any) -> torch.Tensor:
        """As on a processor with AVX-512: a block ends with its row."""
        rows, columns = state.shape
        return right(packed, state) * (1.0 if rows == 1 or columns % 64 == 0 else 0.5)

    monkeypatch.setattr(functional, "dequantize_4bit", wrong)
    with pytest.raises(MedmindError, match=r"layers\.0\.mlp\.down_proj is 96 wide, no multiple of 64"):
        load_base(base, "cpu", "float32")
