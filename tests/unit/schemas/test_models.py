"""The pointer's moves against a naive registry that keeps a list of everything: any sequence of moves, any order."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.models import FORMER_MAX, NotAllowed, Pointer, Status, challenged, pointer_of, promoted, rolled_back

versions = st.sampled_from(["a", "b", "c", "d"])
moves = st.lists(
    st.one_of(
        st.tuples(st.just("promote"), versions),
        st.tuples(st.just("challenge"), st.one_of(st.none(), versions)),
        st.just(("rollback", None)),
    ),
    max_size=80,
)


def apply(pointer: Pointer, move: tuple[str, str | None]) -> Pointer:
    kind, version = move
    if kind == "promote":
        return promoted(pointer, version)
    return rolled_back(pointer) if kind == "rollback" else challenged(pointer, version)


@given(moves)
def test_the_pointer_does_what_a_list_of_champions_does(made):
    pointer, champions, trial, done = Pointer(), [], None, 0
    for kind, version in made:
        allowed = {
            "promote": not champions or champions[-1] != version,
            "rollback": len(champions) > 1,
            "challenge": version != trial and (version is None or (bool(champions) and version != champions[-1])),
        }[kind]
        if not allowed:
            with pytest.raises(NotAllowed):
                apply(pointer, (kind, version))
            continue
        pointer, done = apply(pointer, (kind, version)), done + 1
        if kind == "promote":
            champions.append(version)
        elif kind == "rollback":
            champions.pop()
        else:
            trial = version
        if champions and trial == champions[-1]:
            trial = None
        assert (pointer.champion, pointer.challenger, pointer.revision) == (
            champions[-1] if champions else None,
            trial,
            done,
        )
        assert pointer.former == tuple(champions[:-1][-FORMER_MAX:])
        roles = [pointer.status_of(each, used=True) for each in "abcd"]
        assert roles.count(Status.CHAMPION) == bool(champions)
        assert roles.count(Status.CHALLENGER) == (trial is not None)


@given(moves)
def test_a_pointer_survives_its_document(made):
    pointer = Pointer()
    for move in made:
        try:
            pointer = apply(pointer, move)
        except NotAllowed:
            continue
    assert pointer_of({"_id": "pointer", **msgspec.to_builtins(pointer)}) == pointer


def test_what_was_never_used_is_registered_and_what_was_is_archived():
    pointer = Pointer(3, "a", "b", ("c",))
    assert pointer.status_of("d", used=False) is Status.REGISTERED
    assert pointer.status_of("c", used=True) is Status.ARCHIVED
    assert pointer_of(None) == Pointer()


def test_only_so_many_former_champions_are_kept():
    pointer = Pointer()
    for number in range(2 * FORMER_MAX):
        pointer = promoted(pointer, f"v{number}")
    assert len(pointer.former) == FORMER_MAX
    assert rolled_back(pointer).champion == f"v{2 * FORMER_MAX - 2}"
