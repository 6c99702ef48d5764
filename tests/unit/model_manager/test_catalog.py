import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.errors import ModelNotFound
from ondol.model_manager.catalog import (
    HubSource,
    WheelSource,
    check_name,
    is_name,
    load_catalog,
    parse_hub_id,
)


def test_the_catalog_knows_the_starter_by_hash_and_the_hub_original():
    catalog = load_catalog()
    starter = catalog["starter"]
    assert isinstance(starter, WheelSource)
    assert len(bytes.fromhex(starter.sha256)) == 32
    assert catalog["smollm2-135m-instruct"] == HubSource(
        repo="HuggingFaceTB/SmolLM2-135M-Instruct",
        description=catalog["smollm2-135m-instruct"].description,
        licence="Apache-2.0",
    )


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a\0", ".hidden", "a..b", "x" * 97, "a\n", "~"]
)
def test_a_name_that_could_leave_its_folder_is_no_name(name):
    assert not is_name(name)
    with pytest.raises(ModelNotFound):
        check_name(name)


@given(name=st.text(max_size=20))
def test_a_name_is_always_one_path_component(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp()
    if is_name(name):
        assert (root / name).resolve().parent == root.resolve()


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("owner/name", HubSource(repo="owner/name")),
        ("Qwen/Qwen2-1.5B-Instruct", HubSource(repo="Qwen/Qwen2-1.5B-Instruct")),
        ("owner/name@v1.0", HubSource(repo="owner/name", revision="v1.0")),
        ("owner/name@refs/pr/1", HubSource(repo="owner/name", revision="refs/pr/1")),
    ],
)
def test_a_hub_id_is_owner_and_name_and_perhaps_a_revision(text, source):
    assert parse_hub_id(text) == source


@pytest.mark.parametrize(
    "text",
    ["name", "a/b/c", "../name", "owner/..", "owner/name@", "owner/name@../../x", "owner/name@/x", "/x"],
)
def test_what_is_no_hub_id_is_not_taken_for_one(text):
    assert parse_hub_id(text) is None
