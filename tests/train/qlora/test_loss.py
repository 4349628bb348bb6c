from dataclasses import replace

import pytest
import torch

from medmind.base import Base
from medmind_train import loss as losses
from medmind_train import model as models
from medmind_train.batches import by_length, collate, epoch_steps, supervised_tokens
from medmind_train.encoding import encode
from medmind_train.gradient import backward
from medmind_train.loss import answer_nll
from medmind_train.passes import ReferencePasses

SETTINGS = {"targets": "all-linear", "rank": 4, "alpha": 8.0, "dropout": 0.0, "checkpointing": False, "seed": 1}


@pytest.fixture(scope="module")
def examples(tokenizer):
    from types import SimpleNamespace

    def turn(number: int):
        answer = " ".join(["Drink water and rest."] * (1 + number))
        messages = [{"role": "user", "content": "What helps?"}, {"role": "assistant", "content": answer}]
        return SimpleNamespace(id=str(number), messages=messages)

    return list(encode(tokenizer, [turn(number) for number in range(8)], context=200).examples)


@pytest.fixture(scope="module")
def model(small_base: Base):
    tuned = models.add_adapter(models.load_base(small_base, "cpu", "float32"), small_base, **SETTINGS)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in models.trainable(tuned):
            parameter.add_(0.02 * torch.randn_like(parameter))  # B starts at 0, and A's gradient with it
    return tuned


def plain(model) -> ReferencePasses:
    return ReferencePasses(model, device="cpu", dtype="float32")


def gradient(model, examples, batch: int) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    rows = [[example] for example in examples]
    loss, _ = backward(plain(model), rows, batch=batch, pad=0)
    return loss, torch.cat([parameter.grad.flatten() for parameter in models.trainable(model)])


def test_linear_layers_are_nf4_with_double_quantization_and_only_the_adapter_trains(model):
    import bitsandbytes

    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) >= 7
    assert all(layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested for layer in layers)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and all("lora_" in name for name in names)
    assert not any("lm_head" in name or "embed" in name for name in names)


def test_embedding_head_and_norms_stay_in_the_compute_type(small_base):
    """`prepare_model_for_kbit_training` would make them fp32: 1 GiB on a 7B."""
    low = models.add_adapter(models.load_base(small_base, "cpu", "bfloat16"), small_base, **SETTINGS)
    frozen = {p.dtype for name, p in low.named_parameters() if "lora" not in name and p.dtype != torch.uint8}
    assert frozen == {torch.bfloat16}


def test_evaluation_leaves_the_quantized_weights_as_they_are(model, examples):
    """Bitsandbytes repacks weights for CPUs with bf16 units in eval mode; training could not go on after that."""
    batch = collate([[one] for one in examples[:2]], 0, "cpu")
    before, _ = answer_nll(model.train(), batch)
    with torch.no_grad():
        during, _ = answer_nll(model.eval(), batch)
    _, after = gradient(model.train(), examples[:2], 2)
    assert torch.equal(before.detach(), during)
    assert after.abs().sum() > 0


def test_loss_is_that_of_the_whole_logits_at_the_answer_tokens(model, examples):
    batch = collate([[one] for one in examples[:3]], 0, "cpu")
    with torch.no_grad():
        nll, owners = answer_nll(model, batch)
        for at, example in enumerate(examples[:3]):
            logits = model(input_ids=torch.tensor([example.ids])).logits[0].double()
            log_probs = logits.log_softmax(-1)
            expected = -torch.stack(
                [log_probs[place - 1, example.ids[place]] for place in range(example.answer, len(example.ids))]
            )
            assert torch.allclose(nll[owners == at].double(), expected, atol=1e-4)


def test_one_pass_and_eight_give_the_same_loss_and_gradient(model, examples):
    whole_loss, whole = gradient(model, examples, batch=8)
    parts_loss, parts = gradient(model, examples, batch=1)
    assert abs(whole_loss - parts_loss) / whole_loss < 1e-5
    assert (whole - parts).norm() / whole.norm() < 1e-5
    # The old mistake, a mean of means, is told apart on these examples of unequal length.
    means = sum(gradient(model, [example], 1)[1] for example in examples) / len(examples)
    assert (whole - means).norm() / whole.norm() > 1e-2


def test_pad_token_changes_nothing(model, examples):
    with torch.no_grad():
        first, _ = answer_nll(model, collate([[one] for one in examples], 0, "cpu"))
        second, _ = answer_nll(model, collate([[one] for one in examples], 2, "cpu"))
    assert torch.equal(first, second)


def test_prompt_tokens_have_no_part_in_the_loss(model, examples):
    example = examples[0]
    all_supervised = replace(example, answer=1)
    loss, _ = gradient(model, [example], 1)
    other, _ = gradient(model, [all_supervised], 1)
    assert abs(loss - other) > 1e-2
    assert supervised_tokens([[example]]) == len(example.ids) - example.answer


def test_head_in_chunks_gives_the_same_gradient(model, examples, monkeypatch):
    loss, whole = gradient(model, examples, 8)
    monkeypatch.setattr(losses, "_CHUNK", 7)
    chunked_loss, chunked = gradient(model, examples, 8)
    assert abs(loss - chunked_loss) < 1e-5
    assert (whole - chunked).norm() / whole.norm() < 1e-5


def test_gradient_checkpointing_gives_the_same_gradient(model, examples):
    _, plain = gradient(model.train(), examples[:4], 4)
    model.get_base_model().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        _, recomputed = gradient(model, examples[:4], 4)
    finally:
        model.get_base_model().gradient_checkpointing_disable()
    assert plain.abs().sum() > 0 and torch.allclose(plain, recomputed, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_lower_precision_follows_full_precision(examples, dtype, small_base):
    low = models.add_adapter(models.load_base(small_base, "cpu", dtype), small_base, **SETTINGS)
    full = models.add_adapter(models.load_base(small_base, "cpu", "float32"), small_base, **SETTINGS)
    batch = collate([[one] for one in examples], 0, "cpu")
    with torch.no_grad(), models.precision("cpu", dtype):
        nll, _ = answer_nll(low, batch)
    with torch.no_grad():
        reference, _ = answer_nll(full, batch)
    assert nll.dtype == torch.float32
    assert abs(nll.mean() - reference.mean()) / reference.mean() < 0.02


def test_steps_depend_on_the_effective_batch_alone_and_cover_every_example_once():
    lengths = [(7 * number) % 50 + 1 for number in range(103)]
    steps = epoch_steps(lengths, effective=8, seed=5, epoch=0)
    assert sorted(index for step in steps for (index,) in step) == list(range(103))
    assert len(steps) == 13 and all(len(step) <= 8 for step in steps)
    assert steps == epoch_steps(lengths, effective=8, seed=5, epoch=0)
    assert steps != epoch_steps(lengths, effective=8, seed=5, epoch=1)
    assert steps != epoch_steps(lengths, effective=8, seed=6, epoch=0)


def test_evaluation_batches_stay_within_their_tokens(examples):
    batches = by_length(examples, 64)
    assert sorted(example.row for batch in batches for example in batch) == sorted(example.row for example in examples)
    assert all(len(batch) == 1 or collate([[one] for one in batch], 0, "cpu").ids.numel() <= 64 for batch in batches)


def test_adapter_goes_through_disk_unchanged_and_a_foreign_one_is_refused(model, examples, tmp_path, small_base):
    from medmind.errors import MedmindError

    models.save_adapter(model, tmp_path)
    again = models.load_tuned(small_base, tmp_path, "cpu", "float32")
    batch = collate([[one] for one in examples], 0, "cpu")
    with torch.no_grad():
        assert torch.equal(answer_nll(model.eval(), batch)[0], answer_nll(again, batch)[0])
    assert not models.trainable(again)
    other = models.add_adapter(models.load_base(small_base, "cpu", "float32"), small_base, **{**SETTINGS, "rank": 2})
    with pytest.raises(MedmindError, match="does not match the base"):
        models.load_adapter(other, tmp_path)
    (tmp_path / models.ADAPTER_WEIGHTS).unlink()
    with pytest.raises(MedmindError, match="holds no PEFT adapter"):
        models.load_tuned(small_base, tmp_path, "cpu", "float32")
