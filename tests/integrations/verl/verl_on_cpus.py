"""Imported before the rest of verl: answers for CPUs under gloo what verl asks of an accelerator."""

import contextlib
import os
from types import SimpleNamespace

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import set_platform


def answer(value=None):
    return lambda *_, **__: value


class Processors(PlatformBase):
    device_name = vendor_name = "cpu"
    device_module = SimpleNamespace(
        get_device_name=answer("CPU"),
        synchronize=answer(),
        empty_cache=answer(),
        memory_allocated=answer(0),
        memory_reserved=answer(0),
        max_memory_allocated=answer(0),
        max_memory_reserved=answer(0),
        mem_get_info=answer((0, 0)),
        get_rng_state=torch.get_rng_state,
        set_rng_state=torch.set_rng_state,
    )
    is_available = is_ipc_supported = answer(True)
    current_device, device_count = answer("cpu"), answer(1)
    set_device = synchronize = manual_seed = manual_seed_all = set_allocator_settings = empty_cache = answer()
    profiler_start = profiler_stop = cudart = answer()
    get_device_capability = answer((None, None))
    communication_backend_name, visible_devices_envvar = answer("gloo"), answer("CUDA_VISIBLE_DEVICES")
    nvtx_range = answer(contextlib.nullcontext())
    ray_resource_name, ray_noset_envvars = answer("CPU"), answer([])


os.environ["VERL_ENGINE_DEVICE"] = "cuda"  # the engine is registered for accelerators
set_platform(Processors())
