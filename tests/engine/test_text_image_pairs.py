"""The task of pairs: what a batch is, both bases, the file, the receipt, and going on after a stop."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel

from client.artifact import Package
from engine.data import Source
from engine.deliver import deliver
from engine.errors import InvalidData
from engine.evaluate import METRICS, wilson
from engine.events import Listed, StepDone
from engine.export import export_onnx, file_answers, session_of
from engine.inference import eager_answers
from engine.models import Base
from engine.pair_encoder import PairEncoder, set_dimension
from engine.ports import Pair, content_of, image_of, size_of, text_of, with_text
from engine.rows import pair_labels
from engine.run import Run
from engine.tasks.text_image_pairs import TextImagePairs
from tests.engine.measured import in_this_process
from tests.engine.runs import tiny_pair_run, trained
from tests.engine.tiny import SHARED, tiny_pair_rows, tiny_pair_task, write_rows


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TextImagePairs:
    return tiny_pair_task(tmp_path_factory.mktemp("base"), tiny_pair_rows(40))


def learned(folder: Path, instructions: tuple[object, ...] = (), count: int = 320) -> Run:
    """A run whose towers find each other far more often than chance."""
    run = tiny_pair_run(folder, instructions, tiny_pair_rows(count), epochs=8, batch_size=32, learning_rate=3e-3)
    return trained(run, folder)


def delivered(run: Run, folder: Path, rows: int = 320) -> dict[str, object]:
    path = write_rows(tiny_pair_rows(rows), folder / "rows.parquet", "text_image_pairs", ())
    base = Base(run.spec.base_model, folder / "base")
    return deliver(run, folder, [Source.open(path)], base, None)


def test_a_pair_is_a_text_and_a_picture() -> None:
    pair = Pair("a cat", b"png")
    assert (text_of(pair), image_of(pair), size_of(pair)) == ("a cat", b"png", 5)
    assert with_text(pair, "a dog") == Pair("a dog", b"png")
    assert content_of(pair) == b"a cat\0png"
    assert (text_of("x"), with_text("x", "y"), content_of("x"), size_of(b"xyz")) == ("x", "y", b"x", 3)
    with pytest.raises(TypeError):
        text_of(b"png")
    with pytest.raises(TypeError):
        image_of("text")


def test_a_batch_says_which_captions_and_which_pictures_are_equal(task: TextImagePairs) -> None:
    images = [image_of(one) for one in tiny_pair_rows(3).payloads]
    captions = ["word1 word2", "word3", "word1  word2", "word3 word4 word5"]
    pairs = [Pair(text, images[place]) for text, place in zip(captions, (0, 1, 2, 1), strict=True)]
    batch = task.collate(task.encode(pairs), [0] * 4)
    assert batch["labels"].tolist() == [[0, 0], [1, 1], [0, 2], [3, 1]]
    assert batch["attention_mask"].sum(1).tolist() == [4, 3, 4, 5]
    assert batch["pixel_values"].shape == (4, 3, 12, 12)
    assert batch["pixel_values"].dtype == torch.float32


def test_the_text_tower_starts_pretrained_and_is_held_still(task: TextImagePairs, tmp_path: Path) -> None:
    model = task.build()
    kept = {name: value.clone() for name, value in model.get_submodule("text_model").state_dict().items()}
    run = trained(tiny_pair_run(tmp_path), tmp_path)
    after = run.model.get_submodule("text_model").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in kept.items())
    assert not torch.equal(model.get_parameter("logit_scale"), run.model.get_parameter("logit_scale"))


def test_outputs_are_unit_vectors_and_the_temperature(task: TextImagePairs) -> None:
    model = task.build().eval()
    batch = task.collate(task.encode(list(tiny_pair_rows(6).payloads)), [0] * 6)
    outputs = task.forward(model, batch)
    seen = outputs.detach()
    assert outputs.shape == (6, 2 * 32 + 1)
    assert seen[:, :32].norm(dim=1).tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    assert seen[:, 32:64].norm(dim=1).tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    assert seen[:, -1].tolist() == pytest.approx([1 / 0.07] * 6, rel=1e-5)
    losses = task.losses(outputs, batch)
    assert losses.shape == (6,)
    losses.sum().backward()
    assert model.get_parameter("logit_scale").grad is not None
    with torch.no_grad():
        model.get_parameter("logit_scale").fill_(50.0)
    assert task.forward(model, batch).detach()[:, -1].tolist() == pytest.approx([100.0] * 6, rel=1e-5)


def test_the_loss_on_many_rows_is_the_mean_over_all_of_them(task: TextImagePairs) -> None:
    drawn = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    halves = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in (drawn[:, :4], drawn[:, 4:])]
    answers = np.concatenate(halves, axis=1).astype(np.float32)
    scores = halves[0] @ halves[1].T / 0.07
    both = [
        np.log(np.exp(table).sum(1)) - np.diag(table) for table in (scores.astype(np.float64), scores.T.astype(float))
    ]
    assert task.mean_loss(answers, np.zeros(5, np.int64)) == pytest.approx(float(np.mean(both)), rel=1e-5)


def test_figures_count_equal_captions_and_equal_pictures_as_hits(task: TextImagePairs) -> None:
    text = np.eye(3, dtype=np.float32)
    answers = np.concatenate([text, text[[0, 2, 1]]], axis=1)
    alone = task.figures("recall_at_1", answers, np.array([0, 0, 0]))
    assert alone[:, 0].tolist() == [1, 0, 0]
    of_one_caption = np.concatenate([text[[0, 1, 1]], text[[0, 1, 1]]], axis=1)
    assert task.figures("recall_at_1", of_one_caption, np.array([0, 0, 0]))[:, 0].tolist() == [1, 0, 0], "they tie"
    assert METRICS["recall_at_1"].value(task.figures("recall_at_1", of_one_caption, np.array([0, 1, 1]))) == 1.0
    near = np.array([[1, 0, 0], [0, 1, 0], [0, 0.8, 0.6]], np.float32)
    of_one_picture = np.concatenate([near, text[[0, 1, 1]]], axis=1)
    labels = pair_labels(np.zeros(3, np.int64), np.array([0, 1, 1]))
    assert task.figures("recall_at_1", of_one_picture, np.zeros(3, np.int64))[:, 0].tolist() == [1, 1, 0]
    assert task.figures("recall_at_1", of_one_picture, labels)[:, 0].tolist() == [1, 1, 1]
    found = task.quality(of_one_picture, of_one_picture, labels)
    assert all(found[way]["recall_at_1"]["exported"] == 1.0 for way in ("image_to_text", "text_to_image"))
    assert [one["rank"] for one in task.row_answers(of_one_picture, labels)] == [1, 1, 1]
    assert task.same(answers, np.concatenate([text, text], axis=1)).tolist() == [True, False, False]
    quality = task.quality(answers, answers, np.array([0, 0, 0]))
    found = quality["image_to_text"]["recall_at_1"]
    assert (found["reference"], found["exported"]) == (0.333333, 0.333333)
    assert found["ci95"] == pytest.approx(wilson(1, 3), abs=1e-6)
    assert set(quality["text_to_image"]) == {"recall_at_1", "recall_at_5", "recall_at_10"}
    assert quality["mean_cosine_between_images"] == 0.0


def test_only_clear_pictures_contradict(task: TextImagePairs) -> None:
    text = np.eye(2, dtype=np.float32)
    sure = np.concatenate([text, text], axis=1)
    swapped = np.concatenate([text, text[::-1]], axis=1)
    unsure = np.concatenate([text, np.full((2, 2), 0.7071, np.float32)], axis=1)
    assert task.contradicted(sure, swapped) == (2, 2)
    assert task.contradicted(unsure, swapped) == (0, 0)


def test_sizes_are_scaled_down_and_too_small_ones_refused(tmp_path: Path) -> None:
    assert tiny_pair_task(tmp_path / "a", tiny_pair_rows(20, size=90)).pictures.size == (64, 64)
    with pytest.raises(InvalidData, match="at least 8 pixels"):
        tiny_pair_task(tmp_path / "b", tiny_pair_rows(20, size=6))
    with pytest.raises(InvalidData, match="single training pair"):
        TextImagePairs.check(tiny_pair_rows(1))


def test_the_towers_of_the_file_take_any_number_of_texts_and_pictures(task: TextImagePairs, tmp_path: Path) -> None:
    rows = tiny_pair_rows(9)
    model = task.build()
    path = export_onnx(task, model, rows.payloads[:2], tmp_path / "model.onnx")
    expected = eager_answers(task, model, task.encode(list(rows.payloads)))
    assert np.abs(file_answers(task, path, list(rows.payloads), 9) - expected).max() < 1e-4
    graph = onnx.load(path).graph
    assert [one.name for one in graph.input] == ["input_ids", "attention_mask", "pixel_values"]
    assert [one.name for one in graph.output] == ["text_embeds", "image_embeds"]
    batch = task.collate(task.encode(list(rows.payloads)), [0] * 9)
    feeds = {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
    text, image = session_of(path).run(None, {**feeds, "pixel_values": batch["pixel_values"][:1].numpy()})
    assert (text.shape, image.shape) == ((9, 32), (1, 32))
    assert np.abs(text - expected[:, :32]).max() < 1e-4
    assert np.abs(image - expected[:1, 32:]).max() < 1e-4


def test_pairs_are_learned_delivered_and_found_again(tmp_path: Path) -> None:
    run = learned(tmp_path)
    receipt = json.loads(json.dumps(delivered(run, tmp_path)))
    quality = receipt["quality"]
    assert quality["metric"] == "recall_at_10"
    assert quality["exported"]["n"] == len(run.data.test) == 32
    assert quality["image_to_text"]["recall_at_1"]["exported"] > 0.3
    assert quality["image_to_text"]["recall_at_10"]["exported"] == pytest.approx(quality["exported"]["value"])
    assert quality["agreement"] == 1.0
    assert len(quality["golden"]) == 20
    assert set(quality["golden"][0]) == {"id", "sha256", "cosine", "text_embeds", "image_embeds"}
    row = run.data.test.ids.tolist().index(quality["golden"][0]["id"])
    assert quality["golden"][0]["sha256"].startswith(run.data.test.ids[row])
    assert receipt["latency"]["runs"] >= 8
    assert receipt["size"]["reference_bytes"] > 0

    folder = tmp_path / "package"
    with zipfile.ZipFile(tmp_path / "outputs" / "model.zip") as archive:
        archive.extractall(folder)
    payloads = list(run.data.test.payloads)
    package = Package(folder)
    expected = eager_answers(run.task, run.model, run.data.examples["test"])
    assert np.abs(package.answers(payloads) - expected).max() < 1e-4
    pictures = [image_of(one) for one in payloads[:3]]
    found = package.rank(pictures, [text_of(one) for one in payloads])
    assert all(sum(one.scores.values()) == pytest.approx(1.0) for one in found)
    tops = (expected[:3, 32:] @ expected[:, :32].T).argmax(axis=1)
    assert [one.label for one in found] == [text_of(payloads[int(i)]) for i in tops]


def test_a_checkpoint_loads_by_itself(tmp_path: Path) -> None:
    run = tiny_pair_run(tmp_path, [{"name": "multimodal_alignment", "dimension": 24}])
    trained(run, tmp_path)
    with in_this_process():
        delivered(run, tmp_path, 80)
    folder = tmp_path / "checkpoint"
    with zipfile.ZipFile(tmp_path / "outputs" / "checkpoint.zip") as archive:
        archive.extractall(folder)
    again = PairEncoder.from_pretrained(folder).eval()
    examples = run.data.examples["test"]
    expected = eager_answers(run.task, run.model, examples)  # the delivery has left it with plain attention
    assert np.allclose(eager_answers(run.task, again, examples), expected, atol=1e-5)
    ours = TextImagePairs.reopen(folder).build().eval()
    assert np.allclose(eager_answers(run.task, ours, examples), expected, atol=1e-5)


def test_what_is_saved_comes_back(task: TextImagePairs, tmp_path: Path) -> None:
    model = task.build()
    assert isinstance(model, PairEncoder)
    model.save_pretrained(tmp_path / "saved")
    again = PairEncoder.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert again.config.to_json() == model.config.to_json()
    assert not set_dimension(again, 32)
    assert set_dimension(again, 24)
    assert again.config.dimension == 24
    again.save_pretrained(tmp_path / "narrow")
    narrow = PairEncoder.from_pretrained(tmp_path / "narrow")
    assert narrow.text_projection.state_dict()["weight"].shape == (24, 32)
    assert set_dimension(narrow, 32)
    assert not narrow.text_projection.state_dict()


def tiny_clip(folder: Path) -> Base:
    """A random CLIP of two layers a tower, written as a base folder."""
    words = ("[PAD]", "[UNK]", "[CLS]", *SHARED, "[SEP]")  # CLIP reads the sentence off its last token, of highest id
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={
            **width,
            "vocab_size": len(words),
            "max_position_embeddings": 20,
            "bos_token_id": 2,
            "eos_token_id": len(words) - 1,
            "pad_token_id": 0,
        },
        vision_config={**width, "image_size": 16, "patch_size": 8},
        projection_dim=24,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        CLIPModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", len(words) - 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    return Base("tiny-clip", folder)


def test_a_clip_folder_trains_as_a_whole_and_is_written(tmp_path: Path) -> None:
    rows = tiny_pair_rows(12)
    task = TextImagePairs.open(tiny_clip(tmp_path / "clip"), (), rows, 128)
    assert (task.max_length, task.pictures.size, task.pretrained) == (20, (16, 16), True)
    model = task.build()
    assert all(weight.requires_grad for weight in model.parameters())
    batch = task.collate(task.encode(list(rows.payloads)), [0] * 12)
    task.losses(task.forward(model, batch), batch).sum().backward()
    assert all(model.get_submodule(name).weight.grad is not None for name in ("text_projection", "visual_projection"))
    path = export_onnx(task, model, rows.payloads[:2], tmp_path / "model.onnx")
    task.describe(tmp_path, model, [])
    expected = eager_answers(task, model, task.encode(list(rows.payloads)))
    assert np.abs(Package(tmp_path).answers(list(rows.payloads)) - expected).max() < 1e-4
    assert path.is_file()


@pytest.mark.parametrize("base", ["ours", "clip"])
def test_a_cost_is_told_without_weights(base: str, tmp_path: Path) -> None:
    if base == "clip":
        given = tiny_clip(tmp_path)
        weights = sum(weight.numel() for weight in CLIPModel(CLIPConfig.from_pretrained(tmp_path)).parameters())
    else:
        task = tiny_pair_task(tmp_path, tiny_pair_rows(20))
        given = Base("pair-encoder", task.folder)
        weights = sum(weight.numel() for weight in task.build().parameters())
    (given.folder or tmp_path).joinpath("model.safetensors").unlink()
    cost = TextImagePairs.cost(given, 128)
    assert weights * 0.8 < cost.parameters <= weights
    assert cost.operations > 1e5
    assert cost.activation_bytes > 0


def test_the_sink_hears_of_recall(tmp_path: Path) -> None:
    run = trained(tiny_pair_run(tmp_path), tmp_path)
    assert isinstance(run.sink, Listed)
    steps = [event.values for event in run.sink.events if isinstance(event, StepDone)]
    told = [values["valid_score"] for values in steps if "valid_score" in values]
    assert len(told) == 1
    assert 0 <= told[0] <= 1
