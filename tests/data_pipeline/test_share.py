"""`data.share`: the same records for a seed always, smaller shares within larger ones, known again by a run."""

import pytest

from data_pipeline import sources
from data_pipeline.dataset import open_dataset
from tests.tiny_models import save_tiny
from vlm_jax.checkpoint import description
from vlm_jax.errors import InputError
from vlm_jax.training.config import check_config, default_config
from vlm_jax.training.resume_settings import resume_settings


def table(path, numbers):
    rows = "".join(f"id-{number},,Who is {number}?,Me {number}.\n" for number in numbers)
    path.write_text(f"id,image,question,answer\n{rows}")
    return path


def ids(paths, share, seed=0):
    chain = sources.Chain([sources.open_source(path) for path in paths], share=share, seed=seed)
    return [chain[index].id for index in range(len(chain))]


def test_shares_are_nested_exact_in_number_and_in_the_order_of_the_files(tmp_path):
    paths = [table(tmp_path / "a.csv", range(30)), table(tmp_path / "b.csv", range(30, 50))]
    whole = ids(paths, 1.0)
    stored = {share: ids(paths, share) for share in (0.02, 0.1, 0.5, 0.9)}
    assert [len(chosen) for chosen in stored.values()] == [1, 5, 25, 45]
    for smaller, larger in zip([*stored.values()], [*stored.values()][1:] + [whole], strict=True):
        assert set(smaller) < set(larger)
        assert smaller == [id for id in whole if id in set(smaller)]
    assert ids(paths, 0.5, seed=1) != stored[0.5] == ids(paths, 0.5)


def test_the_choice_follows_ids_and_not_places(tmp_path):
    supplied = table(tmp_path / "a.csv", range(40))
    turned = table(tmp_path / "b.csv", reversed(range(40)))
    assert sorted(ids([supplied], 0.25)) == sorted(ids([turned], 0.25))


def test_entries_of_a_share_are_named_as_they_stand_in_their_files(tmp_path):
    paths = [table(tmp_path / "a.csv", range(10)), table(tmp_path / "b.csv", range(10, 20))]
    chain = sources.Chain([sources.open_source(path) for path in paths], share=0.5, seed=0)
    for index in range(len(chain)):
        record = chain[index]
        assert chain.identify(index) == (record.id, record.where)
        assert chain.file_of(index) == (int(record.id.removeprefix("id-")) >= 10)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, layers=1, depth=2, global_blocks=(1,))
    return description.read_processor(folder, description.read_config(folder), (4, 16))


def opened(processor, seed=0, **data):
    settings = {**default_config().data.to_dict(), **data}
    return open_dataset(settings, processor, seed=seed)


def test_a_run_sees_its_share_and_knows_it_again(processor, tmp_path):
    path = str(table(tmp_path / "a.csv", range(40)))
    quarter = opened(processor, path=path, share=0.25)
    assert len(quarter.examples) == quarter.mixture.examples == 10
    seen = {place[1] for place in quarter.mixture.take(0, 10).tolist()}
    assert seen == set(range(10))
    marks = [opened(processor, seed, path=path, share=0.25).fingerprint() for seed in (0, 0, 1)]
    assert marks[0] == marks[1] != marks[2]

    parts = {"a": {"path": path, "share": 0.5}, "b": {"path": path}}
    mixed = opened(processor, mixture=parts, share=0.1)
    assert [component.examples for component in mixed.mixture.components] == [20, 4]
    with pytest.raises(InputError, match="config.data.mixture.a.share is 2; wanted a share above 0, up to 1"):
        opened(processor, mixture={"a": {"path": path, "share": 2}})


def test_a_run_goes_on_with_the_same_share_only_and_none_is_refused():
    config = default_config()
    assert resume_settings(config)["data.share"] == 1.0
    config.data.share = 0.0
    with pytest.raises(InputError, match="config.data.share is 0.0; wanted a share above 0, up to 1"):
        check_config(config)
