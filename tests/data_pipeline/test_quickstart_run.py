"""The quickstart as a function, in this process: which stages are done, what stops it, and what may be claimed."""

import dataclasses
import functools
import json
import signal
from pathlib import Path

import pytest

from config_file import load_config
from data_pipeline import quickstart_report, quickstart_run
from data_pipeline.quickstart_run import Quickstart
from data_pipeline.quickstart_stages import StageStopped, stages_of
from vlm_jax.errors import InputError

ROOT = Path(quickstart_run.__file__).parents[1]
BASE = ROOT / "vlm_jax" / "assets" / "tiny_base"
NAMES = ("draw the objects", "draw plain scenes", "ask the base", "train", "ask again", "swap the images", "export")


class Stages:
    """The stages as they are, but that each only writes its products, and may do something else before."""

    def __init__(self, monkeypatch, folder):
        self.folder, self.done, self.from_nothing, self.instead = folder, [], [], {}
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(quickstart_run, "stages_of", self.of)
        monkeypatch.setattr(quickstart_run.gc, "collect", lambda: 0)  # of all that the tests have loaded it takes long

    def of(self, quickstart, load):
        stages = stages_of(quickstart, load)
        return [dataclasses.replace(stage, do=functools.partial(self.do, stage)) for stage in stages]

    def do(self, stage):
        self.instead.get(stage.name, lambda: None)()
        if not stage.folder.exists():
            self.from_nothing.append(stage.name)
        for product in stage.products:
            path = stage.folder / product.replace("*", "1")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(stage.name)
        self.done.append(stage.name)
        return f"{stage.name} came to this"

    def run(self, **more):
        self.done, self.from_nothing = [], []
        return quickstart_run.run(Quickstart(self.folder, **more), load=load_config)


@pytest.fixture
def stages(monkeypatch, tmp_path):
    return Stages(monkeypatch, tmp_path / "out")


def test_every_stage_is_done_once_and_shown_with_its_command(stages, capsys):
    result = stages.run()
    assert stages.done == list(NAMES) == list(result.done) == list(result.seconds)
    assert not result.stopped and result.peak > 10e6
    reported, out = capsys.readouterr(), stages.folder
    assert reported.out == "".join(f"{name} came to this\n" for name in NAMES)
    shown = f"{out}/objects/synthetic.jsonl,{out}/objects/photo.jsonl"
    questions = f"--benchmark={shown},{out}/scenes/held_out.jsonl"
    commands = (
        f"generate_corpus.py --config=configs/corpus/objects.py --output={out}/objects",
        f"generate_corpus.py --config=configs/corpus/scenes.py --output={out}/scenes --config.seed=1 --config.train=0 "
        "--config.drill=800 --config.things=0 --config.finding=0",
        f"evaluate.py --model={BASE} {questions} --output={out}/before --max_new_tokens=16",
        f"train.py --config=configs/quickstart.py --workdir={out}/run "
        f"--config.data.path={out}/objects/train.jsonl,{out}/scenes/drill.jsonl",
        f"evaluate.py --model={out}/run {questions} --output={out}/after --baseline={out}/before --max_new_tokens=16",
        f"evaluate.py --model={out}/run --benchmark={shown} --output={out}/swapped --images=swapped "
        "--max_new_tokens=16",
        f"convert_checkpoint.py --source={out}/run --target={out}/hf --format=hf",
    )
    for number, (name, command) in enumerate(zip(NAMES, commands, strict=True), start=1):
        assert f"[{number}/7] {name}: scripts/{command}\n" in reported.err
    again = stages.run()
    assert (stages.done, again.done) == ([], []) and again.seconds == result.seconds
    assert capsys.readouterr().err.count("done before") == 7


@pytest.mark.parametrize(
    ("lost", "anew", "from_nothing"),
    [
        ("scenes/drill.jsonl", ["draw plain scenes", "ask the base", "ask again"], ["ask the base", "ask again"]),
        ("before/report.json", ["ask the base", "ask again"], ["ask again"]),
        (
            "run/metrics.jsonl",
            ["train", "ask again", "swap the images", "export"],
            ["ask again", "swap the images", "export"],
        ),
        ("swapped/report.html", ["swap the images"], []),
        ("hf/config.json", ["export"], ["export"]),
    ],
)
def test_what_is_missing_is_made_again_with_what_is_made_from_it(stages, lost, anew, from_nothing):
    stages.run()
    (stages.folder / lost).unlink()
    assert stages.run().done == anew
    assert stages.from_nothing == from_nothing


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "saved"])
def test_stopped_in_any_stage_it_says_so_and_goes_on_from_there(stages, capsys, name, how):
    def stop():
        if how == "saved":
            raise StageStopped
        signal.raise_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stages.instead[name] = stop
    result = stages.run()
    assert result.stopped and list(result.done) == list(NAMES[: NAMES.index(name)])
    assert capsys.readouterr().err.endswith("\nstopped; the same command goes on from here\n")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert list(json.loads((stages.folder / "stages.json").read_text())["seconds"]) == list(result.done)
    stages.instead.clear()
    again = stages.run()
    assert not again.stopped and list(again.done) == list(NAMES[NAMES.index(name) :])


@pytest.mark.parametrize("stopped_in", ["train", "ask again", "swap the images", "export"])
def test_what_is_made_from_a_stage_that_was_done_anew_is_so_too_when_it_was_stopped_in_between(stages, stopped_in):
    def stop():
        raise StageStopped

    stages.run()
    (stages.folder / "run" / "metrics.jsonl").unlink()
    anew = list(NAMES[3:])
    stages.instead[stopped_in] = stop
    assert stages.run().done == anew[: anew.index(stopped_in)]
    begun = [*anew[: anew.index(stopped_in)]]
    assert list(json.loads((stages.folder / "stages.json").read_text())["seconds"]) == [*NAMES[:3], *begun]
    stages.instead.clear()
    assert stages.run().done == anew[anew.index(stopped_in) :]
    assert stages.from_nothing == [name for name in anew[anew.index(stopped_in) :] if name != "train"]


def test_a_folder_may_be_given_as_text(stages):
    stages.folder = str(stages.folder)
    assert Quickstart(stages.folder, base=str(BASE)) == Quickstart(Path(stages.folder))
    stages.instead["draw the objects"] = lambda: signal.raise_signal(signal.SIGINT)
    assert quickstart_run.run(Quickstart(stages.folder), load=load_config).stopped


def test_an_error_of_a_stage_is_the_callers(stages):
    def fail():
        raise InputError("the disk is full")

    stages.instead["train"] = fail
    with pytest.raises(InputError, match="the disk is full"):
        stages.run()
    assert stages.done == list(NAMES[:3])


def test_a_folder_has_one_quickstart_at_a_time(stages):
    stages.instead["train"] = lambda: quickstart_run.run(Quickstart(stages.folder), load=load_config)
    with pytest.raises(InputError, match="another process is making a quickstart in this folder"):
        stages.run()


def test_settings_of_all_stages_are_read_before_the_first_as_their_scripts_read_them(stages):
    with pytest.raises(InputError) as caught:
        stages.run(
            objects=[("factr", "5"), ("held_out", "many")],
            scenes=[("drill", "-1")],
            train=[("train.steps", None), ("optimizer.name", "adam")],
        )
    assert caught.value.lines == [
        "--objects: factr: no such setting; did you mean config.factor?",
        "--objects: held_out: needs a whole number (int), not 'many'",
        "--scenes: config.drill is -1; wanted at least 0",
        "--train: train.steps: needs a value: --config.KEY=VALUE",
    ]
    with pytest.raises(InputError, match="--train: config.optimizer.name is 'adam'"):
        stages.run(train=[("optimizer.name", "adam")])
    assert not stages.folder.exists()


def test_other_settings_are_refused_and_the_same_are_known(stages):
    stages.run(train=[("train.steps", "6")], objects=[("factor", "1")])
    assert stages.run(train=[("train.steps", "6")], objects=[("factor", "1")]).done == []
    with pytest.raises(InputError, match="holds a quickstart with another --train; take another --output"):
        stages.run(train=[("train.steps", "7")], objects=[("factor", "1")])


@pytest.mark.parametrize("damage", ["", "[]", '{"seconds": 1}'])
def test_a_damaged_account_of_the_stages_is_told(stages, damage):
    stages.folder.mkdir()
    (stages.folder / "stages.json").write_text(damage)
    with pytest.raises(InputError, match="stages.json: ") as caught:
        stages.run()
    assert len(caught.value.lines) == 1


def test_a_missing_base_is_told_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match="nowhere: the base model is missing; .* make tiny_base"):
        quickstart_run.run(Quickstart(tmp_path / "out", base=tmp_path / "nowhere"), load=load_config)
    assert not (tmp_path / "out").exists()


def test_nothing_is_claimed_without_learning_or_when_wrong_images_help():
    def claim(lows, mean):
        return quickstart_report.claim([{"low": low} for low in lows], {"mean": mean, "majority": 0.12})

    assert claim([0.9, 0.8], 0.1).startswith("The answers come from the images")
    assert claim([0.9, 0.1], 0.1).startswith("NO CLAIM: no more is right")
    assert claim([0.9, 0.8], 0.3).startswith("NO CLAIM: with the wrong images")
