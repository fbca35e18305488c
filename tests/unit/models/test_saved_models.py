"""TensorFlow SavedModels in packages: what is taken of them, and what is refused without TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from segmentd.compute.network import Network
from segmentd.compute.tensorflow_graph import OUTPUT
from segmentd.errors import Reason, SegmentdError
from segmentd.models import archive, files, network_model, packages, tf_check, tf_saved_model
from segmentd.models.network_model import NetworkModel

from .. import tiny_networks as tiny
from .. import tiny_saved_models as saved
from ..tiny_saved_models import FLOAT, INNER_NODES, STRING, TOP, VALUES, field, kind, node


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "keras"):
        monkeypatch.setitem(sys.modules, name, None)


def parsed(data: bytes) -> NetworkModel:
    model = files.parse(tiny.czann(data), "the package", "x")
    assert isinstance(model, NetworkModel)
    return model


def ending_in(*nodes: bytes) -> bytes:
    """A SavedModel whose function ends in other nodes; the last one is its result."""
    return saved.saved_model(
        functions=[saved.inner(*INNER_NODES, *nodes, result="last:output:0"), saved.restore()]
    )


def using(operator: str, *inputs: str, **attributes: bytes) -> bytes:
    return ending_in(node("last", operator, *(inputs or ("Softmax:softmax:0",)), **attributes))


def constant(value: bytes) -> bytes:
    return ending_in(
        node("c", "Const", dtype=kind(FLOAT), value=value),
        node("last", "AddV2", "Softmax:softmax:0", "c:output:0", T=kind(FLOAT)),
    )


def with_values(**values: np.ndarray) -> bytes:
    return saved.saved_model(values=values)


def changed_file(name: str, change: Callable[[bytes], bytes]) -> bytes:
    made = saved.files()
    return tiny.zipped({**made, name: change(made[name])})


def top(*nodes: bytes) -> bytes:
    return saved.saved_model([*nodes, *TOP])


INDEX = "variables/variables.index"
DATA = "variables/variables.data-00000-of-00001"
HOSTILE = {
    "reads a file": (using("ReadFile"), "'ReadFile'"),
    "writes a file": (using("WriteFile", "image", "image"), "'WriteFile'"),
    "runs Python": (using("PyFunc", token=field(2, "pyfunc_0")), "'PyFunc'"),
    "runs Python at once": (using("EagerPyFunc"), "'EagerPyFunc'"),
    "an operator of its own": (using("Backdoor"), "'Backdoor'"),
    "a loop": (using("While", cond=field(10, field(1, "f")), body=field(10, field(1, "f"))), "'While'"),
    "prints": (using("PrintV2"), "'PrintV2'"),
    "a decoder": (using("DecodePng"), "'DecodePng'"),
    "a lookup table": (using("HashTableV2"), "'HashTableV2'"),
    "random": (using("RandomUniform"), "'RandomUniform'"),
    "restores in the network": (using("RestoreV2"), "'RestoreV2'"),
    "another device's code": (using("XlaLaunch"), "'XlaLaunch'"),
    "an old graph": (
        saved.saved_model([node("w", "VariableV2"), *TOP[1:]]),
        "'VariableV2'",
    ),
    "a function as an attribute": (using("Identity", T=field(10, field(1, "f"))), "names a function"),
    "a tensor as an attribute": (
        using("Identity", T=field(8, saved.tensor(FLOAT, [1], b"abcd"))),
        "holds a tensor",
    ),
    "an attribute twice": (
        ending_in(node("last", "Identity") + field(5, field(1, "T")) * 2),
        "twice",
    ),
    "a function that is not there": (
        using("PartitionedCall", f=field(10, field(1, "gone"))),
        "does not have",
    ),
    "calls itself": (
        using("PartitionedCall", "image", "slope", "offset", f=field(10, field(1, saved.INNER))),
        "themselves",
    ),
    "a large constant in few bytes": (
        constant(field(8, saved.tensor(FLOAT, [1 << 20, 1 << 20]))),
        "more than 1,073,741,824 bytes",
    ),
    "an impossible shape": (constant(field(8, saved.tensor(FLOAT, [-5]))), "impossible shape"),
    "a short constant": (constant(field(8, saved.tensor(FLOAT, [8], b"abcd"))), "does not hold"),
    "text as a constant": (
        constant(field(8, saved.tensor(STRING, [1], strings=["/etc/passwd"]))),
        "not numbers",
    ),
    "a second input": (
        saved.saved_model(
            [
                node("more", "Placeholder"),
                *TOP[:3],
                saved.call(saved.CALL, saved.INNER, saved.INPUT, "more", "b"),
                *TOP[4:],
            ]
        ),
        "second input",
    ),
    "a name of ours": (
        saved.saved_model(
            [
                *TOP[:2],
                node("segmentd_value/w", "Const"),
                *TOP[2:3],
                saved.call(saved.CALL, saved.INNER, saved.INPUT, "segmentd_value/w", "b"),
                *TOP[4:],
            ]
        ),
        "reserved name",
    ),
    "two nodes of a name": (top(TOP[0]), "two nodes called 'w'"),
    "a node that is not there": (using("Identity", "nothing:0"), "no node 'nothing'"),
    "fields that nobody knows": (saved.saved_model(more=field(77, b"x")), "field 77"),
    "cut off": (changed_file("saved_model.pb", lambda data: data[:-20]), "cut off"),
    "variables that are gone": (with_values(), "no variable 'w/.VALUE'"),
    "a variable too short": (changed_file(DATA, lambda data: data[:-1]), "does not lie where it says"),
    "an index cut off": (changed_file(INDEX, lambda data: data[:-9]), "no index of a checkpoint"),
    "an index of nonsense": (changed_file(INDEX, lambda data: b"\xff" * 99 + data[-8:]), "bits"),
    "an index that leads outside": (
        changed_file(INDEX, lambda data: data[:-48] + b"\0\0" + b"\xff\x7f\x7f".ljust(38, b"\0") + data[-8:]),
        "beyond its end",
    ),
    "a path upwards": (tiny.zipped({**saved.files(), "../../escaped": b"x"}), "unsafe name"),
    "too many folders": (tiny.zipped({f"d{number}/": b"" for number in range(300)}), "300 members"),
    "a bomb": (tiny.zipped({**saved.files(), "assets/zeros": bytes(96 << 20)}), "inflates"),
    "two of them": (tiny.zipped({**saved.files(), "b/saved_model.pb": b""}), "2 TensorFlow SavedModels"),
    "another archive": (tiny.zipped({"a.txt": b"x"}), "0 TensorFlow SavedModels"),
    "two graphs": (
        tiny.zipped({**saved.files(), "saved_model.pb": saved.files()["saved_model.pb"] * 2}),
        "given twice",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_saved_model_is_refused_without_tensorflow(name: str, tmp_path: Path) -> None:
    data, words = HOSTILE[name]
    sent = tmp_path / "sent"
    sent.write_bytes(tiny.czseg(data))
    with pytest.raises(SegmentdError) as caught:
        packages.read(sent, "the package")
    assert caught.value.reason is Reason.MODEL_UNUSABLE
    assert words in caught.value.message
    assert ";" in caught.value.message, "it says what to do"
    assert list(tmp_path.iterdir()) == [sent]


def test_only_what_the_output_needs_is_taken() -> None:
    model = parsed(saved.saved_model())
    for left_behind in (b"SaveV2", b"RestoreV2", b"saver_filename", b"AssignVariableOp", b"NoOp"):
        assert left_behind not in model.network
    assert model.spec.tile_shape == (32, 48)
    assert (model.spec.outputs, model.spec.batch_free) == (3, True)
    assert tf_check.check(model.network).output_shape == (None, 32, 48, 3)


def test_it_is_kept_in_a_container_and_checked_again(tmp_path: Path) -> None:
    model = parsed(saved.saved_model())
    network_model.save(model, tmp_path / "m.segmodel")
    again = files.load(tmp_path / "m.segmodel")
    assert isinstance(again, NetworkModel)
    assert (again.network, again.card.digest) == (model.network, model.card.digest)


def stored(*nodes: bytes, library: bytes = b"") -> bytes:
    """A graph as it would lie in a container that somebody else wrote."""
    ends = (
        node("x", "Placeholder", dtype=kind(FLOAT), shape=field(7, saved.shape([1, 32, 48, 1]))),
        node(OUTPUT, "Identity", "x", T=kind(FLOAT), _output_shapes=field(1, field(7, saved.shape([1, 2])))),
    )
    return b"".join(field(1, one) for one in (*ends, *nodes)) + field(2, library)


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (stored(node("w", "Relu") + field(4, "/job:else/device:CPU:0")), "how it wants to be run"),
        (stored(node("w", "Relu", _XlaMustCompile=field(5, 1))), "how it wants to be run"),
        (stored(node("w", "PartitionedCall", config_proto=field(2, "x"))), "how it wants to be run"),
        (stored(node("w", "VarHandleOp", shared_name=field(2, "another"))), "shared under another name"),
        (stored(node("w", "Placeholder")), "2 inputs"),
        (stored(library=field(1, saved.inner(node("p", "Placeholder")))), "'Placeholder'"),
        (stored(library=field(1, saved.inner(node("p", "VarHandleOp")))), "'VarHandleOp'"),
        (stored(library=field(2, b"x")), "gradients"),
        (stored(library=field(1, saved.inner() + field(5, b"x"))), "attributes"),
        (stored(library=field(1, saved.inner()) * 2), "two functions"),
        (stored(library=field(1, saved.restore())), "no numbers"),
        (stored(node("w", "MatchingFiles")), "'MatchingFiles'"),
        (stored(node("x", "Relu")), "two nodes"),
        (field(1, node("x", "Relu")), "0 inputs"),
    ],
)
def test_a_graph_in_a_container_of_others_is_checked_as_strictly(graph: bytes, words: str) -> None:
    assert tf_check.check(stored()).input_shape == (1, 32, 48, 1)
    with pytest.raises(ValueError, match=words):
        tf_check.check(graph)


def test_calls_that_would_grow_without_end_are_refused() -> None:
    """Sixteen functions that each call the next one twice are 65,536 nodes."""

    def doubled(count: int) -> bytes:
        functions: Sequence[bytes] = [
            saved.function(
                f"f{number}",
                {"x": FLOAT},
                [
                    node(f"c{n}", "PartitionedCall", "x", f=field(10, field(1, f"f{number + 1}")))
                    for n in (0, 1)
                ],
                ("y", "c0:output:0", FLOAT),
            )
            for number in range(count)
        ]
        last = saved.function(
            f"f{count}", {"x": FLOAT}, [node("i", "Relu", "x")], ("y", "i:activations:0", FLOAT)
        )
        library = b"".join(field(1, one) for one in (*functions, last))
        return stored(node("call", "PartitionedCall", "x", f=field(10, field(1, "f0"))), library=library)

    tf_check.check(doubled(8))
    with pytest.raises(ValueError, match="more than 20,000 nodes"):
        tf_check.check(doubled(15))
    with pytest.raises(ValueError, match="deep"):
        tf_check.check(doubled(30))


def test_folders_in_an_archive_are_passed_over() -> None:
    made = {
        "variables/": b"",
        "nested/assets/": b"",
        **{f"nested/{n}": d for n, d in saved.files().items() if d},
    }
    assert parsed(tiny.zipped(made)).network == parsed(saved.saved_model()).network
    assert len(made) < archive.MAX_MEMBERS


def test_a_signature_must_be_clear() -> None:
    made = saved.files()
    graph = made["saved_model.pb"].replace(b"serving_default\x12", b"serving_defaulu\x12")
    assert tf_saved_model.to_graph({**made, "saved_model.pb": graph}), "the only one serves as well"
    with pytest.raises(ValueError, match="0 inputs and 0 outputs"):
        tf_saved_model.to_graph(
            {**made, "saved_model.pb": graph.replace(b"__saved_model_init_op", b"__saved_model_init_oq")}
        )


def test_values_of_variables_come_along() -> None:
    one = parsed(saved.saved_model())
    other = parsed(saved.saved_model(values={**VALUES, "b/.VALUE": saved.OFFSET + 1}))
    assert one.card.digest != other.card.digest
    assert saved.SLOPE.tobytes() in one.network


def test_without_tensorflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parsed(saved.saved_model())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SegmentdError, match=r"segmentd\[deep\]") as caught:
        Network(model.network, model.spec)
    assert caught.value.reason is Reason.MISSING_EXTRA
