"""A containerd shim (runtime v2) that runs WASM modules: path 2 of the lab.

containerd runs ``containerd-shim-wasm-v1 start`` (`entry`, standard library only), which asks the node's shim zygote
(`zygote`) for a shim. The zygote has everything imported and a shim forked ahead; that shim (`server`) takes the name
of the pod, binds the pod's socket and serves containerd's Task service (`service`) over ttrpc (`frames`, `rpc`). The
module runs in a worker forked by the shim (`worker`), inside the container's cgroup, network and mounts
(`cgroups`, `isolation`, `mounts`), by the same engines, the same compile cache and the same verdicts as on path 1.

A shim outlives the zygote and containerd; a worker does not outlive its shim.

What a container means here
    * The module is ``args[0]``: a path, relative to the working directory, or a name that is looked up in PATH, in the
      working directory and in the root (or the only layer of a WASM image). Anything else is refused at Create.
    * The guest sees the container's root, with its mounts, as ``/``. Mounts are real ones, in the worker's own mount
      namespace; the worker's root is the container's root before the guest exists. A relative path starts at ``/``:
      WASI has no working directory.
    * Exec: if ``args[0]`` names a module of the container, that module runs with these arguments; else the container's
      own module runs once more, with all of ``args`` as arguments after its own ``argv[0]``. It shares cgroup, network
      and mounts, and ends with the container.
    * Exit codes are the guest's, 0-255. A trap is 134, running out of memory 137 (and an OOM event), a module that
      could not be linked 128; the reason is on stderr and in the termination log. A signal N is 128 + N: a WASI
      program cannot handle signals, so every deadly one ends it.
    * Memory: the guest may have the limit less 8 MiB (at least half of it) and sees allocation fail there; the cgroup
      enforces the whole. Update changes the cgroup only.
    * Users, groups, capabilities and no_new_privs are the spec's. Left out, because a module makes no system calls:
      seccomp, AppArmor, SELinux, rlimits, hooks, /proc, /sys, IPC, PID and UTS namespaces. User namespaces are refused.
    * The sandbox container runs nothing: the shim sleeps for it, and neither its image nor runc is needed.
"""
