"""The properties of GPUs for XLA's compiler, as a GpuTargetConfigProto in text format.

The numbers are from NVIDIA's CUDA C++ Programming Guide (compute capabilities) and data sheets.
"""

_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {block_memory}
  shared_memory_per_core: {core_memory}
  core_count: {cores}
  fpus_per_core: {units}
  clock_rate_ghz: {gigahertz}
  l2_cache_size: {cache}
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} minor: 0 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{name}"
"""

_KIB, _MIB = 2**10, 2**20
_HOPPER = {
    "major": 9,
    "block_memory": 227 * _KIB,
    "core_memory": 228 * _KIB,
    "cores": 132,
    "units": 128,
    "gigahertz": 1.98,
    "cache": 50 * _MIB,
}

A100 = _TARGET.format(
    name="NVIDIA A100-SXM4-80GB",
    major=8,
    block_memory=163 * _KIB,
    core_memory=164 * _KIB,
    cores=108,
    units=64,
    gigahertz=1.41,
    cache=40 * _MIB,
    bandwidth=2_039_000_000_000,
    memory=int(79.1 * 2**30),
)
H100 = _TARGET.format(
    name="NVIDIA H100 80GB HBM3",
    bandwidth=3_350_000_000_000,
    memory=int(79.1 * 2**30),
    **_HOPPER,
)
H200 = _TARGET.format(
    name="NVIDIA H200",
    bandwidth=4_800_000_000_000,
    memory=int(139.8 * 2**30),
    **_HOPPER,
)
