"""A device without a device: engines that plan, take memory and end as the real ones, and count bytes.

`FakeDevice` is an engine factory for ModelManager. What a model takes is what its folder's name says it
takes; what all living engines take together may never exceed the memory, or the test fails.
"""

import asyncio
import json
from pathlib import Path

import msgspec
from support.fake_model import READY, FakeEngine
from support.tokenizers import save_byte_level_tokenizer

from ondol.engine.messages import EngineConfig, EngineReady, LoadPlan, LoadProgress
from ondol.errors import OndolError

# Of every model here: one block, one request, all requests.
MIN_KV, REQUEST_KV, MAX_KV = 1, 4, 20


class FakeDevice:
    """Spawns `DeviceEngine`s.

    `weights` holds sizes by folder name (10 where none is given); `failures` what `plan` or `proceed` of a
    folder raises; loads wait for `gate` between plan and weights.
    """

    def __init__(self, total_bytes: int = 100) -> None:
        self.total_bytes = total_bytes
        self.weights: dict[str, int] = {}
        self.failures: dict[tuple[str, str], OndolError] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.engines: list[DeviceEngine] = []
        self.configs: list[EngineConfig] = []
        self.most_loading = 0

    async def spawn(self) -> "DeviceEngine":
        engine = DeviceEngine(self)
        self.engines.append(engine)
        loading = [engine for engine in self.engines if not engine.is_closed and not engine.has_weights]
        self.most_loading = max(self.most_loading, len(loading))
        return engine

    @property
    def used_bytes(self) -> int:
        return sum(engine.used_bytes for engine in self.engines)

    @property
    def running(self) -> list[str]:
        """Folder names of the engines that are not closed."""
        return [engine.folder for engine in self.engines if not engine.is_closed]


class DeviceEngine(FakeEngine):
    """EngineClient's contract from `plan` on."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__()
        self.device = device
        self.folder = ""
        self.used_bytes = 0
        self.has_weights = False
        self.is_closed = False

    async def plan(self, config: EngineConfig) -> LoadPlan:
        self.device.configs.append(config)
        self.folder = Path(config.model_path).name
        await self._fail("plan")
        asked = config.kv_cache_bytes
        return LoadPlan(
            device="cpu",
            weights_bytes=self.device.weights.get(self.folder, 10),
            workspace_bytes=1,
            min_kv_bytes=asked or (REQUEST_KV if config.max_model_len else MIN_KV),
            request_kv_bytes=asked or REQUEST_KV,
            max_kv_bytes=asked or MAX_KV,
            context=config.max_model_len or READY.max_model_len,
            free_bytes=self.device.total_bytes - self.device.used_bytes,
            total_bytes=self.device.total_bytes,
        )

    async def proceed(self, kv_cache_bytes, *, max_queue_size, on_progress) -> EngineReady:
        weights_bytes = self.device.weights.get(self.folder, 10)
        self.used_bytes = weights_bytes + kv_cache_bytes
        assert self.device.used_bytes <= self.device.total_bytes, "the device is out of memory"
        on_progress(LoadProgress(weights_bytes // 2, weights_bytes))
        await self.device.gate.wait()
        await self._fail("proceed")
        self.has_weights = True
        self.ready = msgspec.structs.replace(
            READY, weights_bytes=weights_bytes, kv_cache_bytes=kv_cache_bytes
        )
        return self.ready

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.used_bytes = 0
        self.is_closed = True
        if self.failure is None:
            self.die("the engine was closed")

    async def _fail(self, step: str) -> None:
        await asyncio.sleep(0)
        if error := self.device.failures.get((self.folder, step)):
            self.used_bytes = 0
            raise error


def save_bare_model(folder: Path) -> Path:
    """A folder that passes for a complete model, with a real tokenizer and no weights to speak of."""
    folder.mkdir(parents=True)
    save_byte_level_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return folder
