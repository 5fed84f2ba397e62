"""Fewer visual tokens in whole models: all of all changes nothing, neighbours change nothing, positions are the full
grid's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vlm_jax
from tests.tiny_models import PHOTOS, assistant, noise, save_tiny, user
from vlm_jax.models.parameters import build
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import assemble, stack
from vlm_jax.processing.token_budget import CUTS, LEARNED, METHODS, TokenBudget
from vlm_jax.training.step import make_loss

# What is learned, and what is left out within the decoder, have their own tests (test_learned.py, test_in_decoder.py).
CHOOSING = [method for method in METHODS if method not in ("resize", *LEARNED, *CUTS)]
ON_DEVICE = [method for method in CHOOSING if method not in ("random", "uniform")]
FAMILIES = {"qwen2_5_vl": (2, (1,)), "qwen2_vl": (1, (0,)), "qwen3_vl": (2, (0, 1))}
CAPACITY = Size(384, 1536, 32)


@pytest.fixture(scope="module")
def model(request, tmp_path_factory):
    """Of the family that a test is for; Qwen2.5-VL unless said otherwise."""
    family = getattr(request, "param", "qwen2_5_vl")
    folder = tmp_path_factory.mktemp(family)
    depth, global_blocks = FAMILIES[family]
    save_tiny(folder, family=family, layers=2, depth=depth, global_blocks=global_blocks, max_visual_tokens=48)
    return vlm_jax.load(folder, dtype="float32")


def all_families(methods):
    """Every method on Qwen2.5-VL, and on Qwen2-VL one that looks into the tower, in which they differ; on Qwen3-VL also
    one that merges tokens, of which DeepStack has more tensors."""
    cases = [("qwen2_5_vl", method) for method in methods] + [("qwen2_vl", "visionzip")]
    cases += [("qwen3_vl", method) for method in methods if method in ("divprune", "pool", "visionzip")]
    return pytest.mark.parametrize(("model", "method"), cases, indirect=["model"])


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [
        [user("What is the cat called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")],
        [user("What does VQA stand for?"), assistant("Visual question answering")],
        [user("Which?", noise(folder, 28 * 5, 28 * 3), noise(folder, 28, 56)), assistant("First")],
        [user("Thai?", noise(folder, 28 * 6, 28 * 2)), assistant("เชลซี")],
    ]


def processor(model, visual_tokens, method):
    return model.processor.with_reduction(TokenBudget(visual_tokens, method))


def row(own, examples, capacity=CAPACITY):
    return stack([assemble(examples, own.row_spec(capacity))])


@pytest.fixture(scope="module")
def hidden(model):
    """Hidden states by two programs: what is computed of the same embeddings is then the same, to the bit."""
    graph, state = nnx.split(build(model.config, model.parameters))
    embed = jax.jit(lambda batch: nnx.merge(graph, state).embed(batch))
    decode = jax.jit(lambda rows, segments: nnx.merge(graph, state).decoder(*rows[:2], segments, deep=rows.deep))
    return lambda batch: np.asarray(decode(embed(batch), batch.segment_ids))


@all_families(CHOOSING)
def test_all_of_all_tokens_give_the_full_models_hidden_states_exactly(model, conversations, hidden, method):
    full = processor(model, 1.0, "resize")
    own = processor(model, 10_000, method)
    expected = hidden(row(full, [full.encode(one) for one in conversations]))
    found = hidden(row(own, [own.encode(one) for one in conversations]))
    np.testing.assert_array_equal(found, expected)


@all_families(["random", "divprune", "pool"])
def test_a_row_may_hold_images_of_which_all_stay_beside_others(model, conversations, hidden, method):
    """As a schedule has it: each example is what it is alone, with all of its tokens or with some."""
    some, full = processor(model, 0.3, method), processor(model, 1.0, method)
    examples = [(some, full)[number % 2].encode(one) for number, one in enumerate(conversations)]
    examples.append(full.encode(conversations[0]))
    together, start = hidden(row(some, examples))[0], 0
    for example in examples:
        count = len(example.input_ids)
        alone = hidden(row(some, [example]))[0, :count]
        np.testing.assert_allclose(together[start : start + count], alone, atol=2e-5)
        start += count
    expected = hidden(row(full, [full.encode(conversations[0])]))[0, :count]
    np.testing.assert_allclose(alone, expected, atol=2e-5)


@all_families(CHOOSING)
def test_a_row_gives_what_each_example_gives_alone(model, conversations, hidden, method):
    own = processor(model, 0.3, method)
    examples = [own.encode(one) for one in conversations]
    together = np.asarray(hidden(row(own, examples)))[0]
    start = 0
    for example in examples:
        alone = np.asarray(hidden(row(own, [example])))[0]
        count = len(example.input_ids)
        np.testing.assert_allclose(together[start : start + count], alone[:count], atol=2e-5)
        start += count


@pytest.mark.parametrize("method", ON_DEVICE)
def test_changing_an_image_changes_nothing_in_its_neighbours(model, conversations, method):
    own = processor(model, 0.3, method)
    before = row(own, [own.encode(one) for one in conversations])
    after = jax.tree.map(np.copy, before)
    changed = 3
    mine = np.isin(after.image_ids, np.unique(after.image_ids[after.image_ids > 0])[1:3])  # of the third example
    after.patches[mine] = 255 - after.patches[mine]
    graph, state = nnx.split(build(model.config, model.parameters))

    @jax.jit
    def outputs(batch):
        def loss(state):
            x = nnx.merge(graph, state)(batch)
            others = (batch.segment_ids != changed) & (batch.segment_ids > 0)
            return (x * others[..., None]).sum(), x

        return jax.grad(loss, has_aux=True)(state)

    (gradients, x), (changed_gradients, changed_x) = outputs(before), outputs(after)
    others = before.segment_ids[0] != changed
    np.testing.assert_array_equal(np.asarray(x)[0][others], np.asarray(changed_x)[0][others])
    assert not np.array_equal(x, changed_x)
    for left, right in zip(jax.tree.leaves(gradients), jax.tree.leaves(changed_gradients), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("method", CHOOSING)
def test_counts_follow_the_setting_and_positions_those_of_all_tokens(model, conversations, method):
    full = model.processor
    for visual_tokens in (0.25, 5, 1):
        own = processor(model, visual_tokens, method)
        for conversation in conversations:
            all_of_it, example = full.encode(conversation), own.encode(conversation)
            text = example.input_ids != example.image_token
            whole = all_of_it.input_ids != example.image_token
            np.testing.assert_array_equal(example.positions[:, text], all_of_it.positions[:, whole])
            for image, complete in zip(example.images, all_of_it.images, strict=True):
                count = len(complete.layout.slot_of_token)
                expected = (
                    max(1, int(visual_tokens * count + 0.5)) if isinstance(visual_tokens, float) else visual_tokens
                )
                fewest = expected / 2 if method == "pool" else min(count, expected)  # blocks are a whole grid
                assert fewest <= image.tokens <= min(count, expected)
            grids = [image.grid for image in example.images]
            size = own.size(own.tokenize(conversation), grids)
            assert dataclasses.astuple(size) == dataclasses.astuple(example.size)


@all_families(["divprune", "mmr", "visionzip"])
def test_the_tokens_that_the_plain_function_keeps_are_put_in_their_places(model, conversations, method):
    """Embeddings and positions of a row, against the tower's output and `keep_tokens`."""
    own, full = processor(model, 0.4, method), model.processor
    net = build(model.config, model.parameters)
    examples = [own.encode(one) for one in conversations]
    batch, everything = row(own, examples), row(full, [full.encode(one) for one in conversations])
    batch, everything = jax.tree.map(jnp.asarray, (batch, everything))
    x, positions = map(np.asarray, net.embed(batch)[:2])
    whole, whole_positions = map(np.asarray, net.embed(everything)[:2])
    needed = "importance" if method in ("mmr", "visionzip") else ""
    _, importance = net.vision(
        batch.patches, batch.patch_coords, batch.image_ids, batch.window_ids, importance=bool(needed)
    )
    start = 0
    visual, all_visual = np.flatnonzero(batch.visual_index[0] >= 0), np.flatnonzero(everything.visual_index[0] >= 0)
    done = 0
    for example in examples:
        for image in example.images:
            count = len(image.layout.slot_of_token)
            mine, here = all_visual[start : start + count], visual[done : done + image.tokens]
            options = {}
            if needed:
                weights = np.asarray(importance)[0][everything.visual_index[0][mine]]
                low, high = weights.min(), weights.max()
                options["importance"] = (weights - low) / (high - low) if high > low else np.ones(count)
            kept = vlm_jax.keep_tokens(method, whole[0][mine], image.tokens, **options)
            np.testing.assert_array_equal(positions[0][:, here], whole_positions[0][:, mine[kept]])
            if method != "visionzip":
                np.testing.assert_allclose(x[0][here], whole[0][mine[kept]], atol=1e-6)
            start, done = start + count, done + image.tokens
    text = batch.visual_index[0] < 0
    np.testing.assert_array_equal(positions[0][:, text], batch.positions[0][:, text])


def test_the_loss_moves_only_through_what_stays(model, conversations):
    """The choice itself has no gradient, and nothing of a packed row's gradient is lost."""
    own = processor(model, 0.3, "divprune")
    examples = [own.encode(one) for one in conversations]
    loss = make_loss(model.config, dtype=np.float32, implementation="chunked", remat="full")

    @jax.jit
    def total(batch):
        (mean, weight), gradients = jax.value_and_grad(loss, has_aux=True)(model.parameters, {}, batch)
        return jax.tree.map(lambda gradient: gradient * weight, gradients)

    together = total(row(own, examples))
    alone = [total(row(own, [example])) for example in examples]
    summed = jax.tree.map(lambda *leaves: sum(leaves), *alone)
    for left, right in zip(jax.tree.leaves(together), jax.tree.leaves(summed), strict=True):
        scale = max(1e-6, float(np.abs(right).max()))
        np.testing.assert_allclose(left, right, atol=2e-5 * scale)
