from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segmentd.errors import ConfigurationError
from segmentd.records import ResultForm, SegmentOptions, WatchSpec
from segmentd.settings import Settings, load, parse

BASE = Path("/etc/segmentd")
WATCH = '[[watch]]\nid = "a"\nfolder = "/in"\nmodel = "m"\n'

# configuration, the one line that says what is wrong with it
FAULTS = [
    ("[server]\nlisten = 50051", "server.listen = 50051: must be a text"),
    (
        '[server]\nlisten = "127.0.0.1"',
        'server.listen = "127.0.0.1": must be HOST:PORT, with a port from 0 to 65535 '
        "(0 lets the system choose)",
    ),
    (
        '[server]\nlisten = "localhost:65536"',
        'server.listen = "localhost:65536": must be HOST:PORT, with a port from 0 to 65535 '
        "(0 lets the system choose)",
    ),
    (
        '[server]\nlisten = "0.0.0.0:50051"',
        'server.listen = "0.0.0.0:50051": must be a loopback address such as 127.0.0.1: a network address '
        "needs TLS and a token or client certificates; "
        "give tls_certificate and tls_key, and token_file or client_ca",
    ),
    (
        '[server]\nlisten = "[::]:0"\ntls_certificate = "/c"\ntls_key = "/k"',
        'server.listen = "[::]:0": must be a loopback address such as 127.0.0.1: a network address '
        "needs TLS and a token or client certificates; give token_file or client_ca",
    ),
    (
        '[server]\nlisten = "microscope:0"\ntoken_file = "/t"',
        'server.listen = "microscope:0": must be a loopback address such as 127.0.0.1: a network address '
        "needs TLS and a token or client certificates; give tls_certificate and tls_key",
    ),
    (
        '[server]\nlisten = "0.0.0.0:0"\ntls_certificate = "/c"\ntls_key = "/k"\ntoken_file = "/t"\n'
        "admin_over_network = true",
        "server.admin_over_network = true: needs roots: "
        "the folders that callers from other machines may name",
    ),
    ('[server]\nlisten = ""', 'server.listen = "": must be HOST:PORT where there is no unix_socket'),
    (
        '[server]\nclient_ca = "/ca"',
        'server.client_ca = "/ca": needs tls_certificate and tls_key too',
    ),
    (
        '[server]\ntls_key = "/key.pem"',
        'server.tls_key = "/key.pem": needs tls_certificate too',
    ),
    ("[server]\nmax_receive_mib = 1", "server.max_receive_mib = 1: must be >= 2"),
    ("[server]\nmax_receive_mib = 4.5", "server.max_receive_mib = 4.5: must be a whole number"),
    (
        "[server]\nallow_shared_memory = true",
        "server.allow_shared_memory = true: needs open_inference.enabled = true",
    ),
    (
        "[open_inference]\nenabled = false\necho_model = true",
        "open_inference.echo_model = true: needs open_inference.enabled = true",
    ),
    ("[open_inference]\nenabled = 1", "open_inference.enabled = 1: must be true or false"),
    ('[server]\nreflection = "yes"', 'server.reflection = "yes": must be true or false'),
    ("[server]\nroots = [3]", "server.roots[0] = 3: must be a path: a text that is not empty"),
    ('[server]\nroots = "/data"', 'server.roots = "/data": must be a list'),
    ("server = 3", "server = 3: must be a table"),
    ('[device]\nprefer = "gpu"', 'device.prefer = "gpu": must be one of "auto", "cpu" or "cuda"'),
    (
        '[device]\nprefer = "cpu"\nrequire_gpu = true',
        'device.require_gpu = true: must be false where prefer is "cpu"',
    ),
    ("[device]\nthreads = 0", "device.threads = 0: must be >= 1"),
    ("[device]\nthreads = true", "device.threads = true: must be a whole number"),
    (
        '[device]\nmemory_budget = "4 gigabytes"',
        'device.memory_budget = "4 gigabytes": must be a size such as "512MiB" or "4GiB", or a share of what '
        'is free such as "50%"',
    ),
    ('[models]\nfolder = ""', 'models.folder = "": must be a path: a text that is not empty'),
    (
        '[models]\nfolder = "~no-such-user/x"',
        'models.folder = "~no-such-user/x": must not start with ~ and the name of a user '
        "without a home folder",
    ),
    ("[journal]\nretention_days = 0", "journal.retention_days = 0: must be > 0"),
    ("[journal]\nretention_days = inf", "journal.retention_days = inf: must be a finite number"),
    (
        "[journal]\nretention_events = 2020-01-01",
        "journal.retention_events = 2020-01-01: must be a whole number",
    ),
    ("[jurnal]\nx = 1", "jurnal = { x = 1 }: unknown key; did you mean journal?"),
    (
        "qqq = 1",
        "qqq = 1: unknown key; known are device, journal, metrics, models, open_inference, server, "
        "tracing, training, watch",
    ),
    ("[watch]\nid = 1", "watch = { id = 1 }: must be a list of tables, written [[watch]]"),
    ("watch = [3]", "watch[0] = 3: must be a table"),
    ('[[watch]]\nid = "a"\nfolder = "/in"', "watch[0].model = (missing): must be given"),
    (WATCH + "settle_second = 3", "watch[0].settle_second = 3: unknown key; did you mean settle_seconds?"),
    (WATCH + "settle_seconds = -1", "watch[0].settle_seconds = -1: must be >= 0"),
    (WATCH + "settle_seconds = nan", "watch[0].settle_seconds = nan: must be a finite number"),
    (WATCH + 'settle_seconds = "2"', 'watch[0].settle_seconds = "2": must be a number'),
    (WATCH + "give_up_seconds = 1", "watch[0].give_up_seconds = 1.0: must be >= settle_seconds (2)"),
    (WATCH + "poll_seconds = 0", "watch[0].poll_seconds = 0: must be > 0"),
    (
        WATCH + 'outputs = ["labels", "masks"]',
        'watch[0].outputs[1] = "masks": must be one of "labels", "confidence", "classes", '
        '"overlay" or "thumbnail"',
    ),
    (
        WATCH + 'compression = "lzw"',
        'watch[0].compression = "lzw": must be one of "deflate" or "zstd"',
    ),
    (
        WATCH + 'results_format = "czi"\ncompression = "deflate"',
        'watch[0].compression = "deflate": must be "zstd" where results_format is "czi"',
    ),
    (WATCH + "outputs = []", "watch[0].outputs = []: must not be empty"),
    (WATCH + 'include = ["*.tif", ""]', 'watch[0].include[1] = "": must not be empty'),
    (WATCH + "min_confidence = 101", "watch[0].min_confidence = 101: must be <= 100"),
    (WATCH + "tile = 15", "watch[0].tile = 15: must be >= 16"),
    (WATCH + "border = -1", "watch[0].border = -1: must be >= 0"),
    (
        WATCH + 'postprocessing = "median"',
        'watch[0].postprocessing = "median": must be one of "none" or "crf"',
    ),
    (
        WATCH + 'confidence = "marginal"',
        'watch[0].confidence = "marginal": needs postprocessing = "crf"',
    ),
    (WATCH + "with_image = true", 'watch[0].with_image = true: needs "classes" among the outputs'),
    (WATCH + 'confidence = "x"', 'watch[0].confidence = "x": must be one of "map" or "marginal"'),
    (
        WATCH + 'after = "move:/in/x/.."',
        'watch[0].after = "move:/in": must not move images to the watched folder or among the results',
    ),
    (WATCH + 'after = "delete"', 'watch[0].after = "delete": must be "keep" or "move:DIR"'),
    (
        WATCH + 'marker_file = "../here"',
        'watch[0].marker_file = "../here": must be the path of a file in the watched folder, relative to it',
    ),
    (WATCH + 'results = "/in/x/.."', 'watch[0].results = "/in": must not be the watched folder'),
    (
        WATCH + '[server]\nroots = ["/data"]',
        'watch[0].folder = "/in": must lie in a folder of server.roots',
    ),
    (WATCH + WATCH.replace('"/in"', '"/b"'), 'watch[1].id = "a": must differ from watch[0].id'),
    (WATCH + WATCH.replace('"a"', '"b"'), 'watch[1].folder = "/in": must differ from watch[0].folder'),
    (
        WATCH + WATCH.replace('"a"', '"b"').replace('"/in"', '"/b"') + 'results = "/in/segmented"',
        'watch[1].results = "/in/segmented": must differ from the results folder of watch[0]',
    ),
]


def problems_of(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "segmentd.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    return caught.value.problems


@pytest.mark.parametrize(("text", "line"), FAULTS)
def test_a_fault_names_key_value_and_rule(tmp_path: Path, text: str, line: str) -> None:
    assert problems_of(tmp_path, text) == [line]


@pytest.mark.parametrize("name", ["", "A", "1a", "a-", "a_b", "a" * 64, "ä"])
def test_an_id_is_a_slug(tmp_path: Path, name: str) -> None:
    (problem,) = problems_of(tmp_path, WATCH.replace('"a"', f'"{name}"'))
    assert problem.startswith(f'watch[0].id = "{name}": must be 1 to 63 lower-case letters')


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = '[server]\nlisten = "0.0.0.0:1"\nx = 1\n'
    text += '[device]\nprefer = "x"\nthreads = 0\n[journal]\nfolder = 1\n' + WATCH + "tile = 1\n" + WATCH * 2
    keys = [problem.partition(" = ")[0] for problem in problems_of(tmp_path, text)]
    assert keys == [
        "server.x",
        "server.listen",
        "device.prefer",
        "device.threads",
        "journal.folder",
        "watch[0].tile",
        "watch[2].id",
        "watch[2].folder",
    ]


def test_control_characters_and_long_values_stay_on_one_short_line(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, '[models]\nx = "' + r"\u001b[31m\n" + "y" * 500 + '"')
    assert r'"\u001b[31m\nyyy' in problem
    assert problem.isprintable()
    assert len(problem) < 300


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "[server]\nlisten =")
    assert problem.startswith(f"{tmp_path}/segmentd.toml: must be TOML; Invalid value (at")


def test_a_file_that_is_not_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigurationError, match=r"bad\.toml: must be UTF-8 text; byte 5 is not"):
        load(tmp_path / "bad.toml")


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: cannot be read \(No such file or directory\)"):
        load(tmp_path / "none.toml")


def test_without_a_file_everything_is_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGMENTD_CONFIG", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data/home")
    settings = load(None)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 50051)
    assert settings.models.folder == Path("/data/home/segmentd/models")
    assert settings.journal.folder == Path("/data/home/segmentd/journal")
    assert settings.device.threads >= 1
    assert settings.watch_specs() == ()


def test_a_relative_data_home_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    monkeypatch.setenv("HOME", "/home/someone")
    assert Settings().models.folder == Path("/home/someone/.local/share/segmentd/models")


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.toml").write_text('[server]\nlisten = "[::1]:0"\n', encoding="utf-8")
    monkeypatch.setenv("SEGMENTD_CONFIG", str(tmp_path / "s.toml"))
    assert (load(None).server.host, load(None).server.port) == ("::1", 0)


def test_a_named_file_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.toml").write_text("[device]\nthreads = 3\n", encoding="utf-8")
    monkeypatch.setenv("SEGMENTD_CONFIG", str(tmp_path / "none.toml"))
    assert load(tmp_path / "s.toml").device.threads == 3


def test_paths_are_meant_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    text = '[models]\nfolder = "~/m"\nvgg19_weights = "w.h5"\n[journal]\nfolder = "../j"\n' + WATCH.replace(
        '"/in"', '"in"'
    )
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    settings = load(tmp_path / "s.toml")
    assert settings.models.folder == Path("/home/someone/m")
    assert settings.models.vgg19_weights == tmp_path / "w.h5"
    assert settings.journal.folder == tmp_path.parent / "j"
    assert settings.watch[0].folder == tmp_path / "in"


def test_a_watch_gets_its_defaults() -> None:
    (spec,) = parse(
        {"watch": [{"id": "a", "folder": "/in", "model": "m", "settle_seconds": 3}]}, BASE
    ).watch_specs()
    assert spec == WatchSpec(
        id="a",
        folder=Path("/in"),
        model="m",
        results=Path("/in/segmented"),
        settle_seconds=3.0,
        give_up_seconds=15.0,
    )


def test_a_watch_keeps_what_it_is_told() -> None:
    told = {
        "id": "left-scope",
        "folder": "/in",
        "model": "Nuclei of the left scope",
        "include": ["*.tif", "*.png"],
        "recursive": False,
        "results": "/out",
        "outputs": ["classes", "overlay"],
        "settle_seconds": 0.5,
        "give_up_seconds": 7,
        "poll_seconds": 1,
        "poll": "always",
        "rescan_seconds": 30,
        "existing": "ignore",
        "after": "move:done",
        "min_confidence": 51,
        "border": 8,
        "tile": 256,
        "priority": -2,
        "with_image": True,
        "compression": "zstd",
        "results_format": "ome-zarr",
        "confidence": "marginal",
        "postprocessing": "crf",
    }
    (spec,) = parse({"watch": [told]}, BASE).watch_specs()
    assert spec == WatchSpec(
        id="left-scope",
        folder=Path("/in"),
        model="Nuclei of the left scope",
        results=Path("/out"),
        include=("*.tif", "*.png"),
        recursive=False,
        outputs=("classes", "overlay"),
        with_image=True,
        form=ResultForm("zstd", "ome-zarr"),
        settle_seconds=0.5,
        give_up_seconds=7.0,
        poll_seconds=1.0,
        poll="always",
        rescan_seconds=30.0,
        existing="ignore",
        move_to=BASE / "done",
        priority=-2,
        options=SegmentOptions(
            border_px=8, tile_px=256, min_confidence=51, postprocessing="crf", confidence="marginal"
        ),
    )


def test_the_face_for_triton_takes_larger_messages_unless_told_otherwise(tmp_path: Path) -> None:
    face = {"open_inference": {"enabled": True}}
    assert parse({}, tmp_path).server.max_receive_mib == 4
    assert parse(face, tmp_path).server.max_receive_mib == 64
    assert parse(face | {"server": {"max_receive_mib": 4}}, tmp_path).server.max_receive_mib == 4


def test_short_settling_still_leaves_time_to_finish_a_file() -> None:
    (spec,) = parse(
        {"watch": [{"id": "a", "folder": "/in", "model": "m", "settle_seconds": 0.1}]}, BASE
    ).watch_specs()
    assert spec.give_up_seconds == 5.0


def test_a_link_to_a_watched_folder_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    watches = [{"id": name, "folder": folder, "model": "m"} for name, folder in (("a", "in"), ("b", "link"))]
    with pytest.raises(
        ConfigurationError, match=r"watch\[1\]\.folder = .*: must differ from watch\[0\]\.folder"
    ):
        parse({"watch": watches}, tmp_path)


@pytest.mark.parametrize(
    ("format_", "package", "extra"), [("czi", "pylibCZIrw", "czi"), ("ome-zarr", "zarr", "zarr")]
)
def test_a_format_of_results_needs_its_package(
    monkeypatch: pytest.MonkeyPatch, format_: str, package: str, extra: str
) -> None:
    watch = {"id": "a", "folder": "/in", "model": "m", "results_format": format_}
    assert parse({"watch": [watch]}, BASE).watch[0].results_format == format_
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError) as caught:
        parse({"watch": [watch]}, BASE)
    assert caught.value.problems == [
        f'watch[0].results_format = "{format_}": needs the package {package}, which is not installed: '
        f'pip install "segmentd[{extra}]"',
    ]


def test_every_key_is_documented() -> None:
    tables = [field.annotation for name, field in Settings.model_fields.items() if name != "watch"]
    assert len(tables) == 8
    for table in tables:
        assert table is not None
        assert all(field.description for field in table.model_fields.values())
