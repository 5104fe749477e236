"""Saving and loading: bit-identical weights, and clear errors for damaged or hostile files."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import prsr
from prsr import PRSR, PRSRConfig
from prsr.utils.files import replacing

TINY = PRSRConfig.preset("tiny")


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "model"
    PRSR(TINY).save_pretrained(folder)
    return folder


def test_a_saved_model_is_loaded_bit_identically(tmp_path):
    model = PRSR(TINY)
    model.conditioning(torch.zeros(2, 3, 3, 3, dtype=torch.uint8))  # changes the running statistics
    model.save_pretrained(tmp_path / "model")
    again = PRSR.from_pretrained(tmp_path / "model")
    assert again.config == TINY
    assert not again.training
    assert model.state_dict().keys() == again.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_configuration_is_saved_as_json(saved):
    assert json.loads((saved / "config.json").read_text()) == TINY.to_dict()
    assert {path.name for path in saved.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }


def test_saved_files_have_the_permissions_of_the_umask(saved):
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {0o666 & ~umask}


def test_weights_of_an_unexpected_dtype_are_refused(saved):
    path = saved / "model.safetensors"
    save_file({name: value.to(torch.int8) for name, value in load_file(path).items()}, path)
    with pytest.raises(ValueError, match="unexpected dtype"):
        PRSR.from_pretrained(saved)


def test_a_mistyped_path_is_not_requested_from_the_hub(saved, monkeypatch):
    monkeypatch.setattr("prsr.models.load_and_save.hf_hub_download", None)
    with pytest.raises(FileNotFoundError, match="no folder"):
        PRSR.from_pretrained(saved.parent / "modle")


def test_saving_again_replaces_the_weights_and_keeps_the_card(saved):
    (saved / "README.md").write_text("my own card")
    other = PRSR(TINY)
    other.save_pretrained(saved)
    assert (saved / "README.md").read_text() == "my own card"
    name = "prior.head.0.weight"
    assert torch.equal(PRSR.from_pretrained(saved).state_dict()[name], other.state_dict()[name])


def test_a_failed_save_leaves_the_old_model_unchanged(saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(*args, **kwargs):
        raise SafetensorError("disk full")

    monkeypatch.setattr("prsr.models.model_files.save_file", fail)
    with pytest.raises(OSError, match=r"cannot write a checkpoint to .*: disk full"):
        PRSR(TINY).save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_every_bundled_model_loads_without_a_network(monkeypatch):
    def offline(*args, **kwargs):
        raise AssertionError("asked the hub for a bundled model")

    monkeypatch.setattr("prsr.models.load_and_save.hf_hub_download", offline)
    assert "faces" in prsr.bundled_models()
    for name in prsr.bundled_models():
        assert isinstance(PRSR.from_pretrained(name), PRSR)


class Hub:
    """A fake hub that records requests and raises an error if it is unreachable."""

    def __init__(self, monkeypatch, folder=None, error=None):
        self.asked, self.folder, self.error, self.cached = [], folder, error, None
        monkeypatch.setattr("prsr.models.load_and_save.HfApi", lambda **options: self)
        monkeypatch.setattr("prsr.models.load_and_save.hf_hub_download", self.hf_hub_download)
        monkeypatch.setattr(
            "prsr.models.load_and_save.try_to_load_from_cache", lambda *_, **__: self.cached
        )

    def model_info(self, repo_id, revision, timeout):
        self.asked.append(("model_info", repo_id, revision))
        if self.error:
            raise self.error

    def hf_hub_download(self, repo_id, filename, **options):
        self.asked.append((filename, repo_id, options.get("revision")))
        return str(self.folder / filename)


def test_a_model_is_loaded_from_the_hub_by_id(saved, monkeypatch):
    hub = Hub(monkeypatch, saved)
    assert PRSR.from_pretrained("someone/faces", revision="v1").config == TINY
    what = ("model_info", "config.json", "model.safetensors")
    assert hub.asked == [(each, "someone/faces", "v1") for each in what]


def test_an_unreachable_hub_is_asked_once_and_cached_models_still_load(saved, monkeypatch):
    hub = Hub(monkeypatch, saved, error=RuntimeError("no network\nand more about it"))
    with pytest.raises(
        FileNotFoundError,
        match=r"'a/b' is not a bundled .* the hub reported RuntimeError: no network$",
    ):
        PRSR.from_pretrained("a/b")
    assert hub.asked == [("model_info", "a/b", None)]
    assert PRSR.from_pretrained("a/b", local_files_only=True).config == TINY
    hub.cached = str(saved / "config.json")
    assert PRSR.from_pretrained("a/b").config == TINY


def test_a_push_uploads_what_a_save_writes(monkeypatch):
    uploaded = []

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **kwargs):
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, folder_path, **kwargs):
            uploaded.extend(os.listdir(folder_path))

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    PRSR(TINY).push_to_hub("someone/tiny")
    assert {"config.json", "model.safetensors", "README.md"} <= set(uploaded)


@pytest.mark.parametrize("name", ["facez", "./facez", "runs/faces/modle", "~/faces"])
def test_an_impossible_id_is_refused_without_asking_the_hub(monkeypatch, name):
    hub = Hub(monkeypatch)
    with pytest.raises(
        FileNotFoundError, match=r"not a bundled model \(faces, portraits\) or a folder, nor an id"
    ):
        PRSR.from_pretrained(name)
    assert hub.asked == []


def test_an_empty_folder_is_not_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        PRSR.from_pretrained(tmp_path)


def test_pickled_weights_are_not_loaded(saved):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(saved / "exploded"),)

    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileNotFoundError, match="safetensors only"):
        PRSR.from_pretrained(saved)
    shutil.copy(saved / "pytorch_model.bin", saved / "model.safetensors")
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        PRSR.from_pretrained(saved)
    assert not (saved / "exploded").exists()


@pytest.mark.parametrize("length", [0, 4, 100, 5000])
def test_truncated_weights_are_refused(saved, length):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(ValueError, match="damaged"):
        PRSR.from_pretrained(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior.head.0.bias": None}, "is absent"),
        ({"intruder": torch.zeros(1)}, "should be absent"),
        ({"prior.head.0.bias": torch.zeros(3)}, r"should be \[11\], is \[3\]"),
    ],
    ids=["missing", "extra", "misshapen"],
)
def test_a_missing_extra_or_misshapen_tensor_is_named(saved, change, message):
    path = saved / "model.safetensors"
    tensors = {k: v for k, v in {**load_file(path), **change}.items() if v is not None}
    save_file(tensors, path)
    with pytest.raises(ValueError, match=message) as refusal:
        PRSR.from_pretrained(saved)
    assert next(iter(change)) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a valid configuration"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "not a valid configuration"),
        ('{"channels": 3}', "lacks"),
        (json.dumps({**TINY.to_dict(), "extra": 1}), "unknown fields extra"),
        (json.dumps({**TINY.to_dict(), "prior_layers": 10**9}), "prior_layers"),
        (json.dumps({**TINY.to_dict(), "channels": "3"}), "channels must be an integer"),
    ],
)
def test_an_invalid_configuration_is_refused(saved, text, message):
    (saved / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        PRSR.from_pretrained(saved)


def test_a_configuration_larger_than_the_weights_is_refused(saved):
    greedy = {**TINY.to_dict(), "head_channels": 65536, "prior_channels": 4096}
    (saved / "config.json").write_text(json.dumps(greedy))
    with pytest.raises(ValueError, match="does not fit its configuration"):
        PRSR.from_pretrained(saved)


def test_a_file_is_replaced_atomically(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["faces", "someone/faces"])
def test_unknown_options_of_from_pretrained_are_refused(name):
    with pytest.raises(TypeError, match="from_pretrained has no option device, nonsense"):
        PRSR.from_pretrained(name, device="meta", nonsense=1, revision="v1")
