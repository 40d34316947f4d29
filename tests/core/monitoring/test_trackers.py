import sys
import types

import numpy as np
import pytest
from PIL import Image

from raft_core.errors import MissingDependency
from raft_core.media.image import contact_sheet, enlarged, fitted
from raft_core.monitoring.trackers import TensorBoard, Trackio, WeightsAndBiases, round_sheet, scalars
from raft_core.protocols import Tracker
from raft_core.store.rounds import round_folder
from raft_core.store.tables import write_samples
from raft_core.types import Prompt, Request, Sample, Scores

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")  # its generated protobuf modules


def store_round(folder, rnd, output):
    samples = [Sample(Request(Prompt(f"p{i // 3}"), i % 3, i), output=output(i)) for i in range(6)]
    kept = np.arange(6) % 3 == 0
    write_samples(round_folder(folder, rnd) / "samples.parquet", samples, Scores("r", {"r": np.arange(6.0)}), kept, rnd=rnd)


def picture(i):
    return Image.new("RGB", (8, 8), (40 * i, 0, 0))


ROWS = [{"round": 1, "reward/mean": 1.0, "kl": float("nan")}, {"round": 2, "reward/mean": 2.0, "kl": 0.5}]


def test_tensorboard_holds_every_round_and_a_picture(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for rnd in (1, 2):
        store_round(tmp_path, rnd, picture)
    tracker = TensorBoard()
    tracker.attach(tmp_path, {"rounds": 2})
    tracker.log(ROWS[:1])
    tracker.log(ROWS)
    tracker.finish()
    tracker.finish()  # twice does no harm
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward/mean")] == [(1, 1.0), (2, 2.0)]
    assert [e.step for e in events.Scalars("kl")] == [2]  # NaN is not drawn
    assert [e.step for e in events.Images("samples")] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"rounds", "tensorboard"}
    assert not [path for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()]  # one run, not one per configuration


def test_a_resumed_process_logs_what_the_killed_one_may_have_missed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoard()
    tracker.attach(tmp_path, {})
    tracker.log(ROWS)
    tracker.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("reward/mean")] == [1, 2]


def test_nothing_is_written_before_the_first_round(tmp_path):
    tracker = TensorBoard()
    tracker.attach(tmp_path, {})
    tracker.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("tracker", "extra"), [(WeightsAndBiases(), "raft-align[wandb]"), (Trackio(), "raft-align[trackio]")])
def test_a_tracker_that_is_not_installed_is_an_error(tracker, extra, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert extra in tracker.check()[0]
    with pytest.raises(MissingDependency, match="not installed"):
        tracker.attach(tmp_path, {})


class Recorded:
    """Stands for an installed wandb or trackio; notes what it is told."""

    def __init__(self):
        self.calls = []

    def log(self, values, step=None):
        self.calls.append((step, sorted(values)))

    def finish(self):
        self.calls.append("finished")


@pytest.mark.parametrize(("make", "package"), [(WeightsAndBiases, "wandb"), (Trackio, "trackio")])
def test_other_trackers_get_the_same(make, package, tmp_path, monkeypatch):
    run, started = Recorded(), {}
    module = types.ModuleType(package)
    module.init = lambda **arguments: started.update(arguments) or run
    module.config = {}
    module.config = types.SimpleNamespace(update=lambda values, **_: started.update(config=values))
    module.Image = lambda array: array
    monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == package)
    store_round(tmp_path, 1, picture)
    tracker = make(project="mine")
    tracker.attach(tmp_path, {"k": 4})
    tracker.log(ROWS[:1])
    tracker.finish()
    assert started["project"] == "mine" and started["name"] == tmp_path.name and started["config"] == {"k": 4}
    assert run.calls == [(1, ["reward/mean"]), (1, ["samples"]), "finished"]


def test_what_is_logged_is_numbers():
    assert scalars({"round": 3, "a": 1, "b": float("inf"), "c": "text", "d": None}) == {"a": 1.0}
    assert isinstance(TensorBoard(), Tracker)


def test_no_sheet_of_texts_or_of_rounds_that_are_gone(tmp_path):
    store_round(tmp_path, 1, lambda _: "text")
    assert round_sheet(tmp_path, 1) is None
    assert round_sheet(tmp_path, 9) is None


def test_sheet_frames_what_was_kept(tmp_path):
    store_round(tmp_path, 1, picture)
    sheet = round_sheet(tmp_path, 1)
    assert sheet is not None and sheet.dtype == np.uint8
    assert sheet.shape == (2 * 100 + 4, 3 * 100 + 4, 3)
    assert tuple(sheet[2, 50]) != (255, 255, 255)  # above a kept picture
    assert tuple(sheet[2, 150]) == (255, 255, 255)  # above one that was not


def test_pictures_are_enlarged_by_whole_pixels_and_never_grown_by_fitting():
    small = Image.new("RGB", (32, 16))
    assert enlarged(small, 100).size == (96, 48)
    assert fitted(small, 100).size == (32, 16)
    assert fitted(Image.new("RGB", (1024, 512)), 96).size == (96, 48)
    assert contact_sheet([small] * 5, columns=2, side=64).size == (2 * 68 + 4, 3 * 68 + 4)
