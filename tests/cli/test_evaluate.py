"""``prsr evaluate``: its options and the tables that it writes."""

import csv
import json
import shutil
from importlib.metadata import version

import prsr


def baselines(*names):
    return [word for name in names for word in ("--baseline", name)]


def test_evaluate_accepts_repeated_options_and_saves_its_tables(command, models, data, tmp_path):
    out = tmp_path / "tables"
    code, printed, errors = command(
        *("evaluate", "--temperature", 1.0, "--temperature", 0.5),
        *("--data", data, "--model", models["recursive"]),
        *baselines("bicubic", "nearest", models["l2"], models["independent"]),
        *("--training-data", data, "--seed", 1, "--out", out),
    )
    assert (code, errors) == (0, "")
    assert (out / "table.md").read_text() in printed
    with (out / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = list(dict.fromkeys((line["method"], line["temperature"]) for line in lines[:-6]))
    assert rows[:7] == [
        ("bicubic", ""),
        ("nearest", ""),
        ("l2", ""),
        ("independent", "1.0"),
        ("independent", "0.5"),
        ("independent", "0.0"),
        ("recursive", "1.0"),
    ]
    nearest = {line["metric"]: line["mean"] for line in lines if line["method"] == "nearest"}
    assert float(nearest["consistency"]) == 0  # it searches the evaluated images themselves
    about = json.loads((out / "table.json").read_text())["about"]
    assert about["samples"] == "2 per image, seed 1"
    assert about["model"] == str(models["recursive"])
    assert about["baselines"] == f"bicubic, nearest, {models['l2']}, {models['independent']}"
    assert about["training data"] == str(data)
    assert about["device"].startswith("cpu: ")
    assert about["versions"] == f"prsr {prsr.__version__}, torch {version('torch')}"
    notes = (out / "table.md").read_text()
    for heading, fact in about.items():
        assert f"- {heading}: {fact}\n" in notes


def test_the_seed_determines_the_samples(command, models, data, tmp_path):
    def table(out, seed):
        command(
            *("evaluate", "--data", data, "--model", models["recursive"]),
            *("--seed", seed, "--out", tmp_path / out),
        )
        return (tmp_path / out / "table.csv").read_text()

    assert table("a", 3) == table("b", 3)
    assert table("c", 4) != table("a", 3)


def test_two_models_of_one_method_have_different_labels(command, models, data, tmp_path):
    for name, method in (("other", "recursive"), ("another", "recursive"), ("more", "l2")):
        shutil.copytree(models[method], tmp_path / name)
    others = [tmp_path / name for name in ("other", "another", "more")]
    code, _, _ = command(
        *("evaluate", "--data", data, "--model", models["recursive"], "--out", tmp_path / "out"),
        *(*baselines(models["l2"], *others), "--images", 3),
    )
    assert code == 0
    found = json.loads((tmp_path / "out" / "table.json").read_text())
    assert found["about"]["images"] == f"3 of {data}"
    labels = [f"recursive ({others[0]})", f"recursive ({others[1]})", f"l2 ({others[2]})"]
    assert list(found["parameters"]) == ["l2", *labels, "recursive"]
    assert "training data" not in found["about"]
