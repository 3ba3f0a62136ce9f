"""The root credential over starts: the operator's word counts, and so does what root itself did through the API."""

import pytest

from wicketgate.api.__main__ import brought_up_to_date
from wicketgate.model import AccessKey, Change, Settings, apply_change
from wicketgate.store import RootCredential, open_store

MADE = RootCredential(access_key_id="AKIAMADEMADEMADEMADE", secret_access_key="made")
GIVEN = RootCredential(access_key_id="AKIAGIVENGIVENGIVEN0", secret_access_key="given")
OWN = AccessKey(id="AKIAOWNOWNOWNOWNOWN0", secret="own", created_at=1_800_000_000.0)


@pytest.fixture
def started(tmp_path):
    """Starts on one store: (root credential, whether it was given) -> the ids of root's keys then in force."""
    store = open_store(tmp_path / "store")

    def start(root, *, given=False):
        world = brought_up_to_date(Settings(), store, store.load(), root, given=given)
        assert world == store.load()
        return {key.id for key in world.access_keys}

    def change(*puts, deletes=()):
        change = Change(puts=puts, deletes=tuple(("access-key", one) for one in deletes))
        apply_change(store.load(), change)
        store.commit(change, store.revision)

    start.change = change
    yield start
    store.close()


def test_made(started):
    """The one that was made is there from the first start on."""
    assert started(MADE) == started(MADE) == {MADE.access_key_id}


def test_given_and_taken_back(started):
    """A given one takes the place of the one before; without it the one that was made is back."""
    started(MADE)
    assert started(GIVEN, given=True) == {GIVEN.access_key_id}
    assert started(MADE) == {MADE.access_key_id}


def test_deleted_stays_deleted(started):
    """Root deleted its key and was told so: no start brings it back, unless the operator says so."""
    started(MADE)
    started.change(OWN)
    started.change(deletes=(MADE.access_key_id,))
    assert started(MADE) == {OWN.id}
    started.change(deletes=(OWN.id,))
    assert started(MADE) == set()
    assert started(GIVEN, given=True) == {GIVEN.access_key_id}


def test_made_through_the_api(started):
    """A key that root made for itself outlives every start."""
    started(MADE)
    started.change(OWN)
    assert started(MADE) == {MADE.access_key_id, OWN.id}
    assert started(GIVEN, given=True) == {GIVEN.access_key_id, OWN.id}


def test_inactive_stays_inactive(started):
    """A key that root made inactive is not made active by a start."""
    started(GIVEN, given=True)
    started.change(AccessKey(id=GIVEN.access_key_id, secret="given", active=False))
    assert started(GIVEN, given=True) == {GIVEN.access_key_id}
