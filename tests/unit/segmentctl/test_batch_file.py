"""The list of `segmentctl batch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmentctl.cli.batch_file import BatchFileError, read_jobs
from segmentctl.cli.jobs import Confidence, Job


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_and_toml_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "plate").mkdir()
    for name in ("b.tif", "a.tif", "[c].tif"):
        (tmp_path / "plate" / name).touch()
    table = (
        "image,model,out,min_confidence,postprocessing,confidence\n"
        "plate/?.tif,nuclei,out 1,,,\n\n"
        "plate/[c].tif,Pores 2,,60,crf,marginal\n"
    )
    toml = (
        'model = "nuclei"\n[[job]]\nimage = "plate/?.tif"\nout = "out 1"\n'
        '[[job]]\nimage = "plate/[c].tif"\nmodel = "Pores 2"\nmin_confidence = 60\n'
        'postprocessing = "crf"\nconfidence = "marginal"\n'
    )
    expected = [
        Job(tmp_path / "plate" / "a.tif", "nuclei", tmp_path / "out 1"),
        Job(tmp_path / "plate" / "b.tif", "nuclei", tmp_path / "out 1"),
        Job(tmp_path / "plate" / "[c].tif", "Pores 2", None, 60, "crf", Confidence.MARGINAL),
    ]
    for name, text in (
        ("l.csv", table),
        ("s.csv", "\ufeff" + table.replace(",", ";").replace("\n", "\r\n")),
        ("l.toml", toml),
    ):
        assert read_jobs(written(tmp_path, name, text)) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "image,model\na.tif\n", "line 2"),
        ("a.csv", "image,model\na.tif,m,x\n", "line 2"),
        ("a.csv", "image,model,border\na.tif,m,3\n", "unknown key 'border'"),
        ("a.csv", "image\na.tif\n", "model is missing"),
        ("a.csv", "image,model,min_confidence\na.tif,m,101\n", "0 to 100"),
        ("a.csv", "image,model,confidence\na.tif,m,high\n", "map or marginal"),
        ("a.csv", "image,model\n*.tif,m\n", "there is no image"),
        ("a.csv", 'image,model\n"a.tif,m\n', "a.csv, line"),
        ("a.csv", "image,model\n", "names no images"),
        ("a.toml", 'image = "a.tif"\nmodel = "m"\n', "names no images"),
        ("a.toml", '[job]\nimage = "a.tif"\n', r"\[\[job\]\]"),
        ("a.toml", "job = 3", r"\[\[job\]\]"),
        ("a.toml", "[[job]]\nimage = 3\n", "image is missing or no text"),
        ("a.toml", "[[job]\n", "a.toml"),
        ("a.txt", "", r"\.csv or \.toml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(BatchFileError, match=said):
        read_jobs(written(tmp_path, name, text))


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BatchFileError, match=r"none\.csv cannot be read"):
        read_jobs(tmp_path / "none.csv")
