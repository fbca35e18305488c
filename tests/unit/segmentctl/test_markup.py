"""Names that look like markup of terminals or pages are shown as they are."""

from __future__ import annotations

import json

import pytest

from segmentctl.cli.connection import printable
from segmentctl.cli.messages import event_line
from segmentctl.cli.tables import show
from segmentctl.cli.tail import _event_printer
from segmentctl.subscription import Result
from segmentd.v1 import segmentation_service_pb2 as pb

NAMES = ["[bold red]x[/bold red].tif", "[/]", "<b>x</b><script>.tif", "[link=https://example.org]x[/link]"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text_whatever_they_look_like(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = Result(1, "cursor", pb.Segmentation(source_display=name, state=pb.Segmentation.STATE_SUCCEEDED))
    _event_printer(as_json=False)(result)
    show(["image"], [[name]])
    followed, head, row = capsys.readouterr().out.splitlines()
    assert name in followed and head.strip() == "image" and row.strip() == name
    assert json.loads(event_line(result))["source_display"] == name
    assert printable(name + "\x1b[31m") == name + "?[31m"
