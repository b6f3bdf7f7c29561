"""The one list of places is complete, and says of each what is declared elsewhere."""

import pytest

from cli.customer_data import PLACE_OF_TOPIC
from schemas import mongo
from schemas.personal_data import PLACES, Find, Goes, Place, Store, collection_places, personal_data_page, topic_places
from schemas.topics import topics

DAY_MS = 86_400_000


def named(store: Store) -> set[str]:
    return {place.name for place in PLACES if place.store is store}


def test_every_declared_topic_is_listed():
    assert named(Store.TOPIC) == {topic.name for topic in topics().values()}


def test_every_declared_collection_is_listed():
    assert named(Store.COLLECTION) == set(mongo.COLLECTIONS)


def test_no_place_is_listed_twice():
    assert len({(place.store, place.name) for place in PLACES}) == len(PLACES)


@pytest.mark.parametrize("topic", topics().values(), ids=topics().keys())
def test_a_topic_goes_as_its_declaration_says(topic):
    (place,) = [place for place in PLACES if place.name == topic.name]
    if topic.key.startswith("partition number"):
        assert (place.goes, place.find) == (Goes.NOT_STORED, Find.NONE)
    elif topic.is_compacted:
        assert place.goes is Goes.TOMBSTONE
        assert place.gone_days is not None
        assert place.gone_days * DAY_MS > int(topic.config["max.compaction.lag.ms"])
    else:
        assert place.goes is Goes.EXPIRES
        assert place.gone_days is not None
        assert place.gone_days * DAY_MS >= int(topic.config["retention.ms"]) + int(topic.config["segment.ms"])


def test_what_holds_customers_is_searched():
    searched = {place.name for place in [*topic_places(), *collection_places()]}
    assert searched >= set(PLACE_OF_TOPIC)
    for place in PLACES:
        holds_customers = place.goes in (Goes.TOMBSTONE, Goes.DELETED, Goes.EXPIRES)
        if place.store in (Store.TOPIC, Store.COLLECTION) and holds_customers:
            assert place.name in searched, place.name


@pytest.mark.parametrize("place", collection_places(), ids=lambda place: place.name)
def test_a_collection_is_searched_by_an_index(place: Place):
    indexed = {spec.keys[0][0] for spec in mongo.INDEXES if spec.collection == place.name} | {"_id"}
    assert place.field in indexed


def test_letters_are_found_in_mongodb_as_long_as_their_topic_keeps_them():
    letters = topics()["dead-letters"].config
    assert int(letters["retention.ms"]) + int(letters["segment.ms"]) < mongo.LETTERS_DAYS * DAY_MS
    assert mongo.LETTERS_DAYS + int(topics()["orders"].config["retention.ms"]) // DAY_MS <= mongo.ERASURES_DAYS


def test_the_page_names_every_place():
    page = personal_data_page("x")
    assert all(place.name in page for place in PLACES)
