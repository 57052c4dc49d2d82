"""MODEL_CARD.md in Hugging Face's format, from a receipt alone: what is not in the receipt is not said."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_TAGS = {
    "text_classification": "text-classification",
    "image_classification": "image-classification",
    "causal_lm": "text-generation",
    "text_image_pairs": "feature-extraction",
}
_LIBRARIES = {"onnx": "onnx", "safetensors": "transformers", "peft": "peft", "gguf": "gguf"}


def card(receipt: Mapping[str, Any], task: str, export_format: str) -> str:
    """The card of the model that a receipt tells of."""
    loading = _adapter(receipt, task) if export_format == "peft" else ()
    return "\n".join([*_front(receipt, task, export_format), *_body(receipt, task), *loading]) + "\n"


def _front(receipt: Mapping[str, Any], task: str, export_format: str) -> Iterator[str]:
    """The head that a hub reads: YAML, of which JSON is a part, so every value is spelled as JSON."""
    quality, base = receipt["quality"], receipt["inputs"]["base_model"]
    yield "---"
    yield f"library_name: {_LIBRARIES[export_format]}"
    yield f"pipeline_tag: {_TAGS[task]}"
    if base["sha256"] is not None:
        yield f"base_model: {json.dumps(base['name'])}"
    yield "tags: [fiftytwo]"
    yield "model-index:"
    yield f"- name: {json.dumps(receipt['job'] or 'model')}"
    yield "  results:"
    yield f"  - task: {{type: {_TAGS[task]}}}"
    data = receipt["inputs"]["datasets"][0]["id"] if receipt["inputs"]["datasets"] else "none"
    yield f"    dataset: {{type: private, name: {json.dumps(data)}}}"
    yield "    metrics:"
    value = quality["exported"]["value"]
    yield f"    - {{type: {quality['metric']}, value: {value}, verified: false}}"
    yield "---"


def _body(receipt: Mapping[str, Any], task: str) -> Iterator[str]:
    quality, size, latency = receipt["quality"], receipt["size"], receipt["latency"]
    base = receipt["inputs"]["base_model"]["name"]
    yield ""
    yield f"# {task.replace('_', ' ').capitalize()} from {base}"
    yield ""
    yield (
        "Trained, compressed and measured by fiftytwo. Every figure is of the file beside this card, taken by a fresh "
        "process; `receipt.json` has them all, and `fiftytwo verify DIR` checks that nothing was changed."
    )
    yield ""
    yield "| what | reference | this file |"
    yield "| --- | --- | --- |"
    measured = " | ".join(_score(quality[one]) for one in ("reference", "exported"))
    yield f"| {quality['metric']} on {quality['exported']['n']:,} test rows | {measured} |"
    if quality.get("macro_f1"):
        yield f"| macro F1 | {quality['macro_f1']['reference']} | {quality['macro_f1']['exported']} |"
    if size:
        beside = f", and the base's {size['base_bytes']:,}" if "base_bytes" in size else f" ({size['ratio']:.3f})"
        yield f"| weight bytes | {size['reference_bytes']:,} | {size['exported_bytes']:,}{beside} |"
    if latency:
        yield (
            f"| latency p50, batch {latency['batch_size']}, {latency['threads']} thread | "
            f"{latency['reference_p50_ms']} ms ({latency['baseline']}) | {latency['exported_p50_ms']} ms |"
        )
    yield from _recall(quality)
    yield from _plan(receipt)
    yield from _privacy(receipt.get("privacy"), receipt.get("kind", "train"))
    yield from _robustness(receipt.get("robustness"))
    yield from _limits_and_warnings(receipt)


def _adapter(receipt: Mapping[str, Any], task: str) -> Iterator[str]:
    """How PEFT loads a file that is not a whole model."""
    base, labels = receipt["inputs"]["base_model"], receipt["quality"].get("recall") or {}
    kind = "AutoModelForSequenceClassification" if labels else "AutoModelForCausalLM"
    heads = f", num_labels={len(labels)}, ignore_mismatched_sizes=True" if labels else ""
    yield from ("", "## How to load it", "")
    yield (
        f"This is an adapter: what was trained beside the frozen base {base['name']}, whose files together have the "
        f"SHA-256 {base['sha256']}. Without that base it does nothing, and beside another one it does something else."
    )
    yield from ("", "```python", "from peft import PeftModel", f"from transformers import {kind}, AutoTokenizer", "")
    yield f'base = {kind}.from_pretrained("FOLDER OF {base["name"]}"{heads})'
    yield 'model = PeftModel.from_pretrained(base, "FOLDER OF THIS CARD").eval()'
    yield 'tokenizer = AutoTokenizer.from_pretrained("FOLDER OF THIS CARD")'
    yield from ("```", "", "The job's artifact `checkpoint` is the same model with the adapter merged: no base needed.")


def _score(one: Mapping[str, Any]) -> str:
    low, high = one["ci95"]
    return f"{one['value']} (95 % {low} to {high})"


def _recall(quality: Mapping[str, Any]) -> Iterator[str]:
    if quality.get("recall"):
        yield from ("", "## Recall a class", "", "| class | recall |", "| --- | --- |")
        for name, value in quality["recall"].items():
            yield f"| {_cell(name)} | {'no test row' if value is None else value} |"


def _plan(receipt: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## How it was made", "", "| number | instruction | parameters | measured effects |")
    yield "| --- | --- | --- | --- |"
    for step in receipt["plan"]:
        parameters, effects = (
            ", ".join(f"{name} {_cell(json.dumps(value))}" for name, value in step[field].items())
            for field in ("parameters", "effects")
        )
        yield f"| {step['number']} | {step['name']} | {parameters} | {effects} |"


def _privacy(privacy: Mapping[str, Any] | None, kind: str) -> Iterator[str]:
    yield from ("", "## Privacy", "")
    if privacy is None and kind != "train":
        yield "The job began with a trained model: what was promised of its rows stands in the receipt of its training."
        return
    if privacy is None or privacy.get("mechanism") is None:
        yield "None was asked for: the model may remember rows that it was trained on."
    else:
        yield _release(privacy)
    bound = (privacy or {}).get("audited_lower_bound")
    if bound is not None:
        yield from ("", f"Guesses at planted canaries bound epsilon from below: it is {bound} at least.")


def _release(privacy: Mapping[str, Any]) -> str:
    return (
        f"{privacy['mechanism']}: epsilon {privacy['epsilon']} at delta {privacy['delta']} for one {privacy['unit']} "
        f"({privacy['relation']}), accounted by {privacy['accountant']}."
    )


def _robustness(robustness: Mapping[str, Any] | None) -> Iterator[str]:
    yield from ("", "## Robustness", "")
    if robustness is None:
        yield "Not measured: nothing is known of inputs that are made to fool the model."
        return
    yield f"{robustness.get('metric', 'accuracy')}: clean {robustness['clean']}, under attack {robustness['robust']}."


def _limits_and_warnings(receipt: Mapping[str, Any]) -> Iterator[str]:
    checks = receipt["limits"]["checks"]
    if checks:
        yield from ("", "## Limits", "", "| limit | asked | measured | outcome |", "| --- | --- | --- | --- |")
        for one in checks:
            yield f"| {one['name']} | {one['limit']} | {one['measured']} | {one['outcome']} |"
    if receipt["warnings"]:
        yield from ("", "## Read this before use", "")
        yield from (f"- {_cell(text)}" for text in receipt["warnings"])


def _cell(text: str) -> str:
    """Text that ends neither a cell nor a line, and opens no tag."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
