"""Tokens that are left out within the decoder: against transformers' own layers, and whatever lies beside in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import vlm_jax
from tests.models.token_reduction.references import top
from tests.tiny_models import PHOTOS, assistant, noise, reference_inputs, save_tiny, user
from vlm_jax.errors import InputError
from vlm_jax.models.parameters import build
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import assemble, stack
from vlm_jax.processing.token_budget import TokenBudget, cut_layers
from vlm_jax.training.step import make_loss

LAYERS = 4
BUDGETS = {
    "fastv": TokenBudget(0.3, "fastv"),
    "fastv after one": TokenBudget(3, "fastv", layer=1),
    "fastv after three": TokenBudget(0.5, "fastv", layer=3),
    "pyramiddrop": TokenBudget(0.2, "pyramiddrop"),
}
CAPACITY = Size(448, 1536, 48)


BOTH = pytest.mark.parametrize("pair", ["qwen2_5_vl", "qwen3_vl"], indirect=True)


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """(folder, transformers' model, ours). Of Qwen3-VL features go behind layers on both sides of some cuts."""
    folder, family = tmp_path_factory.mktemp("decoder"), getattr(request, "param", "qwen2_5_vl")
    blocks, depth = ((0, 1, 2), 3) if family == "qwen3_vl" else ((1,), 2)
    theirs = save_tiny(folder, family=family, layers=LAYERS, depth=depth, global_blocks=blocks, max_visual_tokens=48)
    theirs.set_attn_implementation("eager")
    return folder, theirs, vlm_jax.load(folder, dtype="float32")


@pytest.fixture(scope="module")
def model(pair):
    return pair[2]


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    before = [{"type": "text", "text": "Which?"}, {"type": "image", "image": noise(folder, 28 * 3, 28 * 3)}]
    return [
        [user("What is the cat called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")],
        [user("What does VQA stand for?"), assistant("Visual question answering")],
        [
            user("Which?", noise(folder, 28 * 5, 28 * 3), noise(folder, 28, 56)),
            assistant("First"),
            user("And this?", noise(folder, 28 * 4, 28 * 4)),
            assistant("Second"),
        ],
        [{"role": "user", "content": before}, assistant("เชลซี")],  # the question before its image
    ]


def processor(model, budget):
    return model.processor.with_reduction(budget)


def row(own, examples, above):
    size = Size(*CAPACITY.columns[:3], above)
    return jax.tree.map(jnp.asarray, stack([assemble(examples, own.row_spec(size))]))


def lengths(examples):
    """The shortest rows that hold these above each cut."""
    return tuple(np.sum([example.size.above for example in examples], axis=0).tolist())


class Layers:
    """transformers' decoder, layer by layer: states in, states and the weights of its attention out."""

    def __init__(self, theirs, inputs):
        seen, self.decoder, self.head = {}, theirs.model.language_model, theirs.lm_head

        def catch(_, args, kwargs):
            seen.update(kwargs, x=args[0] if args else kwargs["hidden_states"])

        def catch_deep(_, args, kwargs):
            self.deep, self.visual = kwargs.get("deepstack_visual_embeds") or [], kwargs.get("visual_pos_masks")

        hooks = [
            self.decoder.layers[0].register_forward_pre_hook(catch, with_kwargs=True),
            self.decoder.register_forward_pre_hook(catch_deep, with_kwargs=True),
        ]
        with torch.no_grad():
            theirs(**inputs)
        for hook in hooks:
            hook.remove()
        self.x, self.angles = seen["x"], seen["position_embeddings"]

    def run(self, number, x, places):
        angles = tuple(part[:, places] for part in self.angles)
        hidden = torch.full((len(places), len(places)), float("-inf")).triu(1)[None, None]
        layer, weights = self.decoder.layers[number], []
        hook = layer.self_attn.register_forward_hook(lambda _, __, out: weights.append(out[1]))
        with torch.no_grad():
            out = layer(x, attention_mask=hidden, position_embeddings=angles)
        hook.remove()
        out = out[0] if isinstance(out, tuple) else out
        if number < len(self.deep):
            added = torch.zeros_like(self.x)
            added[self.visual] = self.deep[number]
            out = out + added[:, places]
        return out, weights[0][0].mean(dim=0).numpy()

    def logits(self, x):
        with torch.no_grad():
            return self.head(self.decoder.norm(x))[0].numpy()


def reference(theirs, inputs, spans, queries, counts, cuts):
    """(logits of the tokens that are left, where they stood): by the definition, a layer after the other.

    Args:
      spans: first token and end of each image; queries: the token that each is weighed by; counts: what stays of each
        above each cut.
    """
    layers = Layers(theirs, inputs)
    x, places = layers.x, np.arange(layers.x.shape[1])
    for number in range(LAYERS):
        x, weights = layers.run(number, x, places)
        if number + 1 in cuts:
            keep = np.ones(len(places), bool)
            for (start, stop), ask, count in zip(spans, queries, counts, strict=True):
                mine = np.flatnonzero((places >= start) & (places < stop))
                received = weights[np.flatnonzero(places == ask)[0], mine]
                keep[mine] = False
                keep[mine[top(received, count[cuts.index(number + 1)])]] = True
            x, places = x[:, keep], places[keep]
    return layers.logits(x), places


def runs_of(ids, token):
    """First place and end of each run of a token."""
    edges = np.flatnonzero(np.diff(np.r_[0, ids == token, 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@BOTH
@pytest.mark.parametrize("name", BUDGETS)
def test_logits_are_those_of_transformers_layers_on_what_the_definition_keeps(pair, conversations, name):
    folder, theirs, ours = pair
    budget = BUDGETS[name]
    for messages in {"fastv": conversations, "pyramiddrop": conversations[2:]}.get(name, conversations[2:3]):
        inputs = reference_inputs(folder, ours.processor.tokenizer, messages)
        ids = inputs["input_ids"][0].numpy()
        spans = runs_of(ids, ours.config.image_token)
        counts = [budget.counts_above(stop - start) for start, stop in spans]
        # The turn that shows an image ends where its last word does, or behind its last image.
        end = ours.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
        queries = [int(start + np.flatnonzero(ids[start:] == end)[0]) - 1 for start, _ in spans]
        expected, places = reference(
            theirs, inputs, spans, queries, counts, cut_layers(budget.method, budget.layer, LAYERS)
        )
        before, ours.processor = ours.processor, processor(ours, budget)
        try:
            logits, kept = ours.logits(messages), ours.kept_tokens(messages)
        finally:
            ours.processor = before
        assert np.flatnonzero(np.isfinite(logits[:, 0])).tolist() == places.tolist()
        np.testing.assert_allclose(logits[places], expected, atol=1e-4)
        for (start, stop), those in zip(spans, kept, strict=True):
            assert (those + start).tolist() == [place for place in places.tolist() if start <= place < stop]


@pytest.mark.parametrize("method", ["fastv", "pyramiddrop"])
def test_all_of_all_tokens_give_the_full_models_logits_exactly(model, conversations, method):
    """Where nothing is left out nothing is cut; and rows that are cut are, of examples that keep all, the same."""
    own = type(model)(
        model.config,
        model.parameters,
        processor(model, TokenBudget(10_000, method)),
        model.stop_tokens,
        dtype=np.dtype("float32"),
    )
    for messages in conversations:
        np.testing.assert_array_equal(own.logits(messages), model.logits(messages))
    graph, state = nnx.split(build(model.config, model.parameters))
    hidden = jax.jit(lambda batch: nnx.merge(graph, state)(batch))
    expected = hidden(row(model.processor, [model.processor.encode(one) for one in conversations], ()))
    examples = [own.processor.encode(one) for one in conversations]
    above = lengths(examples)
    assert above == (sum(len(example.input_ids) for example in examples),) * len(above)
    found = hidden(row(own.processor, examples, above))
    np.testing.assert_allclose(found, np.asarray(expected)[:, : above[-1]], atol=1e-5)


@BOTH
def test_a_row_gives_what_each_example_gives_alone_with_its_gradients(model, conversations):
    """Also beside an example of which all tokens stay, and in rows with room left above."""
    own = processor(model, BUDGETS["pyramiddrop"])
    full = model.processor.with_reduction(TokenBudget(1.0, "pyramiddrop"), cuts=own.cuts)
    examples = [own.encode(one) for one in conversations] + [full.encode(conversations[0])]
    loss = make_loss(model.config, dtype=np.float32, implementation="blockwise", remat="full")

    @jax.jit
    def total(batch):
        (mean, weight), gradients = jax.value_and_grad(loss, has_aux=True)(model.parameters, {}, batch)
        return mean * weight, jax.tree.map(lambda gradient: gradient * weight, gradients)

    above = tuple(-(-tokens // 64) * 64 for tokens in lengths(examples))
    together = total(row(own, examples, above))
    alone = [total(row(own, [example], above)) for example in examples]
    summed = jax.tree.map(lambda *leaves: sum(leaves), *alone)
    for left, right in zip(jax.tree.leaves(together), jax.tree.leaves(summed), strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5 * max(1e-6, float(np.abs(right).max())))


def test_changing_an_image_changes_nothing_in_its_neighbours(model, conversations):
    own, changed = processor(model, BUDGETS["pyramiddrop"]), 3
    examples = [own.encode(one) for one in conversations]
    before = row(own, examples, lengths(examples))
    mine = np.isin(before.image_ids, np.unique(before.image_ids[before.image_ids > 0])[1:4])  # of the third example
    after = jax.tree.map(jnp.copy, before)
    object.__setattr__(after, "patches", jnp.where(mine[..., None], 255 - before.patches, before.patches))
    graph, state = nnx.split(build(model.config, model.parameters))
    here = before.loss_index[0], np.asarray(before.segment_ids)[0][np.asarray(before.loss_index)[0]]
    others = jnp.asarray((here[1] != changed) & (np.asarray(before.loss_weights)[0] > 0))

    @jax.jit
    def outputs(batch):
        def loss(state):
            x = nnx.merge(graph, state)(batch, at=batch.loss_index)
            return (x * others[None, :, None]).sum(), x

        return jax.grad(loss, has_aux=True)(state)

    (gradients, x), (changed_gradients, changed_x) = outputs(before), outputs(after)
    np.testing.assert_array_equal(np.asarray(x)[0][others], np.asarray(changed_x)[0][others])
    assert not np.array_equal(x, changed_x)
    for left, right in zip(jax.tree.leaves(gradients), jax.tree.leaves(changed_gradients), strict=True):
        np.testing.assert_array_equal(left, right)


def test_sizes_are_known_before_an_image_is_decoded_and_text_may_be_cut_behind_it(model, conversations):
    for name, budget in BUDGETS.items():
        own = processor(model, budget)
        for messages in conversations:
            example = own.encode(messages)
            grids = [image.grid for image in example.images]
            text = own.tokenize(messages)
            assert own.size(text, grids) == example.size, name
            longest = len(example.input_ids) - 2
            short = own.lay_out(text, example.images, longest=longest)
            assert own.size(text, grids, longest=longest) == short.size
            assert len(example.size.above) == own.cuts
            assert (short.above.queries < longest).all()


def test_an_eighth_is_reached_by_halves_and_a_layer_that_is_not_there_is_refused():
    assert TokenBudget(0.125, "pyramiddrop").counts_above(1024) == (512, 256, 128)
    assert TokenBudget(8, "pyramiddrop").counts_above(64) == (32, 16, 8)
    assert TokenBudget(100, "pyramiddrop").counts_above(64) == (64, 64, 64)
    assert TokenBudget(0.01, "pyramiddrop").counts_above(3) == (1, 1, 1)
    assert TokenBudget(0.25, "fastv").counts_above(64) == (16,)
    assert cut_layers("pyramiddrop", 0, 36) == (9, 18, 27) and cut_layers("fastv", 0, 36) == (2,)
    assert cut_layers("fastv", 35, 36) == (35,) and cut_layers("resize", 0, 36) == ()
    for layer in (36, 40):
        with pytest.raises(InputError, match=f"token_reduction_layer is {layer}, and the decoder has 36.*take 1 to 35"):
            cut_layers("fastv", layer, 36)
    with pytest.raises(InputError, match="pyramiddrop leaves tokens out .* which has 3 layers; take fastv"):
        cut_layers("pyramiddrop", 0, 3)
    for layer, expected in ((-1, "is -1; wanted a layer"), (True, "is True; wanted")):
        with pytest.raises(InputError, match=f"token_reduction_layer {expected}"):
            TokenBudget(0.5, "fastv", layer=layer)
    with pytest.raises(
        InputError, match="token_reduction_layer is 3, which goes with fastv, and token_reduction is mmr"
    ):
        TokenBudget(0.5, "mmr", layer=3)


def test_an_image_that_nothing_is_asked_about_is_refused(model):
    own = processor(model, BUDGETS["fastv"])
    silent = [{"role": "user", "content": [{"type": "image", "image": str(PHOTOS / "chelsea.jpg")}]}]
    with pytest.raises(InputError, match="turn 1: shows an image and asks nothing, and fastv chooses tokens by the"):
        own.encode(silent)
