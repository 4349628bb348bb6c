"""The adapter's model card in the hub's format: YAML front matter, then what a person has to know before using it.

Knows the manifest; every number comes from there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmind import console
from medmind.base import EMBEDDED_NAME
from medmind_train.data.sources import MEDQUAD, SAMPLE, is_hub_id
from medmind_train.qlora_config import REFERENCE_BASE

_BASE_LICENCES = {REFERENCE_BASE: "apache-2.0", EMBEDDED_NAME: "cc-by-sa-4.0"}
_DATA_LICENCES = {
    MEDQUAD: "CC BY 4.0 (MedQuAD: Ben Abacha & Demner-Fushman, BMC Bioinformatics 20, 2019; from NIH websites)",
    SAMPLE: "Apache-2.0 (written for medmind)",
}


def markdown(manifest: Mapping[str, Any]) -> str:
    """The card of a run, from its manifest."""
    name, base, data = manifest["name"], manifest["base"], manifest["data"]
    sections = [
        f"---\n{_front_matter(manifest)}\n---",
        f"# {name}\n\nA LoRA adapter for {_base_named(base)}, fine-tuned with QLoRA on questions and answers "
        f"({_data_named(data)}) by medmind {manifest['versions'].get('medmind', '')}.",
        "> **Not a medical device.** What a model says may be wrong, out of date or made up, and sounds sure all the "
        "same. It does not replace a doctor. In an emergency call your local emergency number.",
        "## Intended use and limits\n\n"
        "- For research on fine-tuning and for trying out question answering in this domain.\n"
        "- Not for diagnosis, treatment, dosage, triage, or any decision about a person's health.\n"
        "- It has learned the wording of its training answers. Perplexity, the figure below, says how well it predicts "
        "such wording; nobody has checked its answers for being true.\n"
        "- It has the faults and biases of its base and of its data, and knows nothing newer than both.\n"
        + _prompting(manifest),
        f"## How to load it\n\n{_loading(manifest)}",
        f"## Training data\n\n{_data(manifest)}",
        f"## Results\n\n{_results(manifest)}",
        f"## Training\n\n{_training(manifest)}",
        f"## Licence\n\n{_licence(manifest)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(manifest: Mapping[str, Any]) -> str:
    hub = console.require("huggingface_hub", "train")
    base, data, after = manifest["base"], manifest["data"], manifest["results"]["perplexity"]["after"]
    known = data["source"] in _DATA_LICENCES
    on_hub = _on_hub(data["where"])
    card = hub.ModelCardData(
        model_name=manifest["name"],
        base_model=base["name"] if base["kind"] != "local" else None,
        base_model_relation="adapter" if base["kind"] != "local" else None,
        library_name="peft",
        pipeline_tag="text-generation",
        language="en" if known else None,
        license=_BASE_LICENCES.get(base["name"]),
        datasets=[data["where"]] if on_hub else None,
        tags=["lora", "qlora", "medmind", *(["medical", "question-answering"] if known else [])],
        metrics=["perplexity"],
        eval_results=[
            hub.EvalResult(
                task_type="text-generation",
                dataset_type=data["where"] if on_hub else _data_named(data),
                dataset_name=f"{_data_named(data)}, held out",
                metric_type="perplexity",
                metric_value=round(after["value"], 4),
                metric_name="perplexity of held-out answers",
            )
        ],
    )
    return str(card.to_yaml()).strip()


def _data_named(data: Mapping[str, Any]) -> str:
    """Without its place: a directory of this machine says nothing to the hub, and is nobody's business."""
    source = str(data["source"])
    if source in _DATA_LICENCES or _on_hub(source):
        return source
    return Path(source).absolute().name


def _on_hub(value: str) -> bool:
    return is_hub_id(value) and not Path(value).expanduser().exists()


def _base_named(base: Mapping[str, Any]) -> str:
    if base["kind"] == "local":
        return f"the base model in the directory `{Path(base['name']).name}` (`{base['digest']}`)"
    at = f" at revision `{base['revision']}`" if base["revision"] else ""
    return f"`{base['name']}`{at}"


def _prompting(manifest: Mapping[str, Any]) -> str:
    system = manifest["system_prompt"]
    told = f"- Ask it as it was trained: the base's chat template, at most {manifest['context']:,} tokens"
    return told + (f", and the system prompt {system!r}." if system else ", no system prompt.")


def _loading(manifest: Mapping[str, Any]) -> str:
    base = manifest["base"]
    name = "path/to/base" if base["kind"] == "local" else base["name"]
    note = ""
    if base["kind"] == "embedded":
        name = "path/to/medmind-base"
        note = "The base comes with medmind: `medmind/embedded/medmind-base` in the installed package.\n\n"
    revision = f', revision="{base["revision"]}"' if base["revision"] else ""
    return (
        f"{note}```python\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'base = "{name}"\n'
        f"tokenizer = AutoTokenizer.from_pretrained(base{revision})\n"
        f'model = AutoModelForCausalLM.from_pretrained(base{revision}, dtype="auto", device_map="auto")\n'
        'model = PeftModel.from_pretrained(model, "path/to/this/adapter")\n'
        'messages = [{"role": "user", "content": "What is high blood pressure?"}]\n'
        'prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", '
        "return_dict=True)\n"
        "answer = model.generate(**prompt.to(model.device), max_new_tokens=256)\n"
        "print(tokenizer.decode(answer[0], skip_special_tokens=True))\n"
        "```\n\n"
        "Or as one file for a machine with no network: `medmind-convert gguf q4_k_m` on the run, then `medmind-chat`."
    )


def _data(manifest: Mapping[str, Any]) -> str:
    data, encoding = manifest["data"], manifest["results"]["encoding"]
    counts = data["counts"]
    train = encoding["train"]
    licence = _DATA_LICENCES.get(data["source"], "not known to medmind; look at where it came from")
    return (
        f"{_data_named(data)} (`{data['digest']}`): {counts['train']:,} rows to learn from, {counts['validation']:,} "
        f"to choose settings by, {counts['heldout']:,} held out. No focus and no near-duplicate answer is on two "
        f"sides. Trained on {train['examples']:,} examples of {train['tokens']:,} tokens; the loss is over "
        f"{train['supervised_tokens']:,} tokens of answers. Answers cut by the context: {train['answers_cut']:,}."
        f"\n\nLicence: {licence}."
    )


def _results(manifest: Mapping[str, Any]) -> str:
    before, after = (manifest["results"]["perplexity"][when] for when in ("before", "after"))
    return (
        "| perplexity of held-out answers ± standard error | |\n| --- | --- |\n"
        f"| base, in 4 bit | {before['value']:,.2f} ± {before['error']:,.2f} |\n"
        f"| with this adapter | {after['value']:,.2f} ± {after['error']:,.2f} |\n\n"
        f"{after['tokens']:,} answer tokens of {after['rows']:,} rows, given the question; a row is the sampling unit."
    )


def _training(manifest: Mapping[str, Any]) -> str:
    config, results = manifest["config"], manifest["results"]
    rows = (
        (
            "adapter",
            f"rank {config['rank']}, alpha {config['alpha']:g}, {config['targets']}, dropout {config['dropout']:g}",
        ),
        (
            "variants",
            ", ".join(word for word, on in (("rsLoRA", config["rslora"]), ("DoRA", config["dora"])) if on) or "–",
        ),
        ("trained parameters", f"{results['parameters']['trained']:,}"),
        ("base while training", "NF4 with double quantization, frozen"),
        ("compute type", results["device"]["dtype"]),
        ("optimizer", f"{config['optimizer']}, peak learning rate {config['lr']:g}, {config['schedule']}"),
        (
            "effective batch",
            f"{config['batch'] * config['accumulate']} rows of up to {config['context']:,} tokens"
            + (", packed" if config["packing"] else ""),
        ),
        ("steps", f"{results['steps']:,}, {results['tokens']:,} tokens"),
        ("adapter of step", f"{results['chosen']['step']:,}, by {results['chosen']['by']}"),
        ("seed", str(manifest["seed"])),
        ("on", results["device"]["name"]),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in manifest["versions"].items() if name != "platform"),
        ),
    )
    return "| | |\n| --- | --- |\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _licence(manifest: Mapping[str, Any]) -> str:
    known = _BASE_LICENCES.get(manifest["base"]["name"])
    base = f"The base is under {known}, which is what this card names" if known else "See the base's own licence"
    return f"{base}; the data's licence stands above. Who publishes this adapter has to keep to both."
