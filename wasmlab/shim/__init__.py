"""A containerd shim (runtime v2) that runs WASM modules: path 2 of the lab.

containerd runs ``containerd-shim-wasm-v1 start`` (`entry`, standard library only), which asks the node's shim zygote
(`zygote`) for a shim. The zygote has everything imported and a shim forked ahead; that shim (`server`) takes the name
of the pod, binds the pod's socket and serves containerd's Task service (`service`) over ttrpc (`frames`, `rpc`). The
module runs in a worker forked by the shim (`worker`), inside the container's cgroup, network and mounts
(`cgroups`, `isolation`, `mounts`), by the same engines, the same compile cache and the same verdicts as on path 1.

A shim outlives the zygote and containerd; a worker does not outlive its shim.
"""
