import pytest

from ondol.model_manager.load_order import LoadOrder, own_name


def test_a_folder_is_called_by_its_own_name(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "tiny")
    assert own_name(f"{tmp_path}/tiny/") == "tiny"
    assert own_name(str(tmp_path / "link")) == "tiny"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("starter", "starter"),
        ("owner/model", "owner/model"),
        ("owner/model@main", "owner/model"),
        ("no such / thing", "no such / thing"),
        ("", ""),
        ("with\0zero/", "with\0zero/"),
    ],
)
def test_other_models_are_called_as_the_catalog_or_the_hub_does(model, name):
    assert own_name(model) == name


def test_a_served_name_goes_before_and_is_composed():
    assert LoadOrder("starter", served_name="\u1112\u1161\u11ab").name == "\ud55c"


def test_only_what_changes_the_loaded_model_makes_another_form():
    order = LoadOrder("m", quantization="nf4", keep_alive_s=3)
    assert order.loads_like(LoadOrder("m", quantization="nf4", is_pinned=True, allow_download=False))
    assert not order.loads_like(LoadOrder("m"))
    assert not order.loads_like(LoadOrder("m", quantization="nf4", max_model_len=3))
    assert not order.loads_like(LoadOrder("m", quantization="nf4", offload_bytes=3))
    assert not order.loads_like(LoadOrder("m", quantization="nf4", deterministic=True))
