import msgspec
import pytest
from support.front_door import is_openai_error, open_front_door

from ondol.engine.stored_weights import StoredWeights, WeightsReport
from ondol.model_manager.model_status import ModelStatus

pytestmark = pytest.mark.anyio

NF4 = StoredWeights(
    kind="nf4", container="uint8", num_modules=7, num_weights=128, num_bytes=72, bits_per_weight=4.5
)


async def test_info_tells_how_weights_are_stored(model):
    report = WeightsReport(stored=(NF4,), unquantized=("lm_head", "model.layers.*.mlp.gate"))
    model.engine.ready = msgspec.structs.replace(model.engine.ready, weights=report, notes=("a note",))
    answer = await open_front_door(model).client().get("/models/info", params={"model": "tiny"})
    assert answer.status_code == 200
    assert answer.json() == {
        "id": "tiny",
        "object": "model.info",
        "device": "cpu",
        "dtype": "float32",
        "deterministic": False,
        "max_model_len": 256,
        "weights_bytes": 1,
        "host_weights_bytes": 0,
        "stored": [
            {
                "kind": "nf4",
                "container": "uint8",
                "num_modules": 7,
                "num_weights": 128,
                "num_bytes": 72,
                "bits_per_weight": 4.5,
            }
        ],
        "unquantized": ["lm_head", "model.layers.*.mlp.gate"],
        "kv_cache": {"num_bytes": 1, "num_tokens": 1024, "block_size": 16, "dtype": "float32"},
        "load_seconds": 0.0,
        "notes": ["a note"],
    }


async def test_info_of_an_unknown_model_is_openais_404(door):
    answer = await door.client().get("/models/info", params={"model": "nobody"})
    assert answer.status_code == 404
    assert is_openai_error(answer)
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_info_without_a_model_says_what_is_missing(door):
    for params in ({}, {"model": ""}):
        answer = await door.client().get("/models/info", params=params)
        assert answer.status_code == 400
        assert is_openai_error(answer)
        assert answer.json()["error"]["param"] == "model"


async def test_info_needs_a_key_where_keys_are_set(model):
    door = open_front_door(model, api_keys=("secret",))
    assert (await door.client().get("/models/info?model=tiny")).status_code == 401
    with_key = door.client(authorization="Bearer secret")
    assert (await with_key.get("/models/info?model=tiny")).status_code == 200


async def test_info_of_a_model_that_is_not_loaded_says_so(door):
    door.manager.publish(ModelStatus("small", "unloaded"))
    answer = await door.client().get("/models/info", params={"model": "small"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_loaded")
