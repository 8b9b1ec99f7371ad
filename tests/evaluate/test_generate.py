"""Answers in batches are those of one at a time, and a draw is the answer's own."""

from __future__ import annotations

import pytest
import torch
from support.tiny import LIBRARY_WARNINGS
from transformers import PreTrainedModel

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.render import prompt_ids
from axtune.evaluate import generate as room
from axtune.evaluate.generate import Generated, Prompt, Sampling, batches, generate
from axtune.model.trained import load_trained

pytestmark = LIBRARY_WARNINGS

TEXTS = (
    "안녕",
    "서울 날씨를 알려 주세요",
    "하나 둘 셋 넷 다섯 여섯 일곱 여덟",
    "네",
    "왜 그런가요?",
)


@pytest.fixture(scope="module")
def loaded() -> tuple[PreTrainedModel, AxTokenizer]:
    model, tokenizer = load_trained("tiny-ax-4.0", print)
    torch.manual_seed(0)
    with torch.no_grad():  # as it is, the tiny model's two best are often equal
        model.get_output_embeddings().weight += 0.05 * torch.randn(
            model.get_output_embeddings().weight.shape
        )
    return model, tokenizer


def prompts(tokenizer: AxTokenizer) -> list[Prompt]:
    return [
        Prompt(prompt_ids(tokenizer, [{"role": "user", "content": text}]), seed)
        for seed, text in enumerate(TEXTS)
    ]


def answered(
    loaded: tuple[PreTrainedModel, AxTokenizer], sampling: Sampling
) -> dict[int, Generated]:
    found: dict[int, Generated] = {}
    for batch in generate(loaded[0], prompts(loaded[1]), sampling):
        found |= batch
    return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_says_what_each_says_alone(
    loaded: tuple[PreTrainedModel, AxTokenizer], temperature: float
) -> None:
    together = answered(loaded, Sampling(temperature, 12))
    alone = answered(loaded, Sampling(temperature, 12, batch_size=1))
    assert {number: each.ids for number, each in together.items()} == {
        number: each.ids for number, each in alone.items()
    }
    assert len(together) == len(TEXTS)


def test_margins_are_those_of_the_logits(loaded: tuple[PreTrainedModel, AxTokenizer]) -> None:
    model, tokenizer = loaded
    said = answered(loaded, Sampling(0.0, 5))[2]
    ids = prompts(tokenizer)[2].ids
    with torch.no_grad():
        logits = model(torch.tensor([ids + said.ids])).logits[0, len(ids) - 1 : -1]
    best = logits.topk(2).values
    assert said.margins == pytest.approx((best[:, 0] - best[:, 1]).tolist(), abs=1e-4)
    assert said.ids == logits.argmax(-1).tolist()


def test_a_draw_follows_the_models_distribution(
    loaded: tuple[PreTrainedModel, AxTokenizer],
) -> None:
    model, tokenizer = loaded
    ids = prompts(tokenizer)[0].ids
    many = [Prompt(ids, seed) for seed in range(2000)]
    said = [
        answer.ids[0]
        for batch in generate(model, many, Sampling(0.1, 1))
        for answer in batch.values()
    ]
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double() / 0.1, -1)
    counts = torch.bincount(torch.tensor(said), minlength=len(expected)) / len(said)
    assert 0.5 * float((counts - expected).abs().sum()) < 0.5 * float(
        (counts - torch.full_like(counts, 1 / len(counts))).abs().sum()
    )
    likeliest = int(expected.argmax())
    assert float(counts[likeliest]) == pytest.approx(float(expected[likeliest]), abs=0.05)


def test_the_longest_come_first_and_a_batch_keeps_to_its_size(
    loaded: tuple[PreTrainedModel, AxTokenizer],
) -> None:
    model, tokenizer = loaded
    asked = prompts(tokenizer)
    made = batches(asked, model, Sampling(max_new_tokens=4, batch_size=2))
    lengths = [len(asked[number].ids) for batch in made for number in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(batch) for batch in made] == [2, 2, 1]


def test_a_batch_keeps_to_its_memory(
    loaded: tuple[PreTrainedModel, AxTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its longest prompt, wherever that stands."""
    model, _ = loaded
    same = list(range(200))
    asked = [Prompt(same[:150]), Prompt(same), Prompt([7] * 180), Prompt([8] * 20)]
    sampling = Sampling(max_new_tokens=10)
    monkeypatch.setattr(room, "_room", lambda model: 420)
    assert batches(asked, model, sampling) == [[1, 0], [2, 3]]
    monkeypatch.setattr(room, "_room", lambda model: 419)
    assert batches(asked, model, sampling) == [[1], [0, 2], [3]]
    monkeypatch.setattr(room, "_room", lambda model: 0)
    assert batches(asked, model, sampling) == [[1], [0], [2], [3]]
    assert batches([], model, sampling) == []


def test_batches_are_the_same_when_some_are_not_asked(
    loaded: tuple[PreTrainedModel, AxTokenizer],
) -> None:
    model, tokenizer = loaded
    asked, sampling = prompts(tokenizer), Sampling(0.0, 3, batch_size=2)
    whole = list(generate(model, asked, sampling))
    first = set(whole[0])
    rest = list(generate(model, asked, sampling, lambda number: number not in first))
    assert rest == whole[1:]


def test_answers_are_handed_over_as_they_end(
    loaded: tuple[PreTrainedModel, AxTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    whole = answered(loaded, Sampling(0.0, 9))
    stop = whole[0].ids[2]  # whatever one says third stands for its end
    first = {number for number, each in whole.items() if stop in each.ids}
    assert first < set(whole)
    monkeypatch.setattr(room, "stops_of", lambda model: frozenset([stop]))
    found = list(generate(model, prompts(tokenizer), Sampling(0.0, 9)))
    assert len(found) > 1
    assert found[0].keys() <= first
    lengths = [len(each.ids) for batch in found for each in batch.values()]
    assert lengths == sorted(lengths)
    assert not torch.is_inference_mode_enabled()


def test_in_float32_only_those_that_are_missing_are_answered(
    loaded: tuple[PreTrainedModel, AxTokenizer],
) -> None:
    """In 16 bit their neighbours are part of what they are."""
    model, tokenizer = loaded
    asked, sampling = prompts(tokenizer), Sampling(0.0, 3)
    whole = answered(loaded, sampling)

    def again() -> dict[int, list[int]]:
        found = generate(model, asked, sampling, lambda number: number in (1, 3))
        return {number: each.ids for batch in found for number, each in batch.items()}

    assert again() == {number: whole[number].ids for number in (1, 3)}
    model.to(torch.bfloat16)
    try:
        assert sorted(again()) == [0, 1, 2, 3, 4]
    finally:
        model.to(torch.float32)


def test_a_batch_that_does_not_fit_is_halved(
    loaded: tuple[PreTrainedModel, AxTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    real = room._answer
    sizes = []

    def answer(model, asked, sampling):  # type: ignore[no-untyped-def]
        sizes.append(len(asked))
        if len(asked) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, asked, sampling)

    monkeypatch.setattr(room, "_answer", answer)
    found = list(generate(model, prompts(tokenizer), Sampling(0.0, 3)))
    assert sizes == [5, 2, 3, 1, 2]
    assert sorted(number for batch in found for number in batch) == [0, 1, 2, 3, 4]


def test_a_batch_that_outgrows_the_memory_keeps_what_has_ended(
    loaded: tuple[PreTrainedModel, AxTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    whole = answered(loaded, Sampling(0.0, 3))
    real = room._answer
    sizes = []

    def answer(model, asked, sampling):  # type: ignore[no-untyped-def]
        sizes.append(len(asked))
        for ended in real(model, asked, sampling):
            if len(asked) == 5:
                yield {2: ended[2]}
                raise torch.OutOfMemoryError("out of memory")
            yield ended

    monkeypatch.setattr(room, "_answer", answer)
    found = list(generate(model, prompts(tokenizer), Sampling(0.0, 3)))
    assert sizes == [5, 2, 2]
    numbers = [number for batch in found for number in batch]
    assert sorted(numbers) == [0, 1, 2, 3, 4]
    assert {n: each.ids for batch in found for n, each in batch.items()} == {
        number: each.ids for number, each in whole.items()
    }


def test_an_answer_ends_with_its_end_of_turn(loaded: tuple[PreTrainedModel, AxTokenizer]) -> None:
    model, tokenizer = loaded
    head = model.get_output_embeddings().weight
    kept = head.detach().clone()
    try:
        with torch.no_grad():
            head[tokenizer.end_of_turn_id] = head.mean(0) * 50
        found = answered(loaded, Sampling(2.0, 20))
    finally:
        with torch.no_grad():
            head.copy_(kept)
    for answer in found.values():
        assert answer.ended == (answer.ids[-1] == tokenizer.end_of_turn_id)
        assert tokenizer.end_of_turn_id not in answer.ids[:-1]
    assert any(answer.ended for answer in found.values())


def test_a_model_that_learned_documents_stops_at_their_end_too(
    loaded: tuple[PreTrainedModel, AxTokenizer],
) -> None:
    model, tokenizer = loaded
    (asked, *_) = prompts(tokenizer)
    ((plain,),) = (found.values() for found in generate(model, [asked], Sampling(0.0, 8)))
    at = plain.ids[2]  # whatever comes third stands for the end of a document
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [tokenizer.end_of_turn_id, at]
    try:
        ((other,),) = (found.values() for found in generate(model, [asked], Sampling(0.0, 8)))
    finally:
        model.generation_config.eos_token_id = before
    assert other.ended
    assert other.ids == plain.ids[: plain.ids.index(at) + 1]
