from __future__ import annotations

import gc

import pytest
import torch
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError
from axtune.model.load import load_model, measure
from axtune.model.offload import HostHead, embeddings_to_host

pytestmark = LIBRARY_WARNINGS
CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path):
    base = checkpoint(tmp_path / "m")
    return load_model(base, load_tokenizer(base), precision="fp32")


def test_the_model_computes_what_it_did(model):
    ids = torch.randint(50, 500, (2, 9))
    with torch.no_grad():
        before = model(input_ids=ids).logits
        size = measure(model)
        embeddings_to_host(model, CPU)
        after = model(input_ids=ids).logits
    assert torch.equal(before, after)
    assert measure(model).total == size.total


def test_a_trainer_does_not_take_the_tables_to_the_card(model):
    embeddings_to_host(model, CPU)
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    assert not tables & {name for name, _ in model.named_parameters()}
    model.to("meta")  # stands for a card: whatever would move has moved
    assert model.get_input_embeddings().table.device == CPU
    assert model.get_output_embeddings().table.device == CPU
    assert model.model.layers[0].self_attn.q_proj.weight.device.type == "meta"


def test_rows_are_looked_up_in_host_memory_and_sent_to_the_card(model):
    embeddings_to_host(model, torch.device("meta"))
    rows = model.get_input_embeddings()(torch.tensor([[3, 4, 5]]))
    assert (rows.device.type, rows.shape) == ("meta", (1, 3, model.config.hidden_size))


def test_the_head_is_on_the_card_while_somebody_holds_it():
    head = HostHead(torch.randn(50, 8), torch.device("meta"))
    held = head.weight
    assert held.device.type == "meta"
    assert head.weight is held
    del held
    gc.collect()
    assert head._copy() is None
    assert head.table.device == CPU


def test_no_hidden_states_bring_no_table_to_the_card():
    head = HostHead(torch.randn(50, 8), torch.device("meta"))
    assert head(torch.empty(1, 0, 8)).shape == (1, 0, 50)
    assert head._copy is None


def test_one_table_for_both_is_refused(model):
    model.set_output_embeddings(model.get_input_embeddings())
    with pytest.raises(AxtuneError, match="one table"):
        embeddings_to_host(model, CPU)
