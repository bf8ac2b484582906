"""The volumes of the node's pods: set up before a container starts, kept true while it runs, gone with the pod.

What is done, by type: configMap, secret, downwardAPI and projected are written by `atomicwriter` below the pod's
private directory and shown read-only; changes of their sources follow every `sync_s` (labels and annotations at once),
tokens are renewed at 80 % of their life. emptyDir is a directory there; with ``medium: Memory`` a tmpfs of its own, if
this agent may mount (else a directory on disk, and an event says so). Its ``sizeLimit`` is the tmpfs's size, or watched
every `watch_s`; a pod that exceeds it is evicted. hostPath is the host's path. A persistentVolumeClaim, and the claim
of an ephemeral volume, is followed to what it is bound to, a hostPath or local volume on this node (`persistent`).
Anything else is refused by its name.

Read-only is enforced by the engine, in the module's process; wasmer's SDK, which has no host directories, gives the
guest a copy of a read-only one (its writes reach nobody, and changes do not reach it) and cannot give it a writable
one: such a container waits with CreateContainerConfigError. Owners and groups (``fsGroup``) mean nothing to a module.

References
----------
``k8s.io/kubernetes/pkg/kubelet/volumemanager``, ``pkg/volume/emptydir/empty_dir.go`` (size of a memory volume),
``pkg/kubelet/eviction/eviction_manager.go`` (``emptyDirLimitEviction``).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from pathlib import Path
from typing import Any

from wasmlab.node import log
from wasmlab.node.api import events, quantity
from wasmlab.node.api.kubeapi import ApiError, ApiUnavailable, Json
from wasmlab.node.inputs import atomicwriter, filesystems, hostpath, persistent
from wasmlab.node.inputs.apiobjects import ApiObjects, Token
from wasmlab.node.inputs.notmounted import NotMounted
from wasmlab.node.spec import claims, payload, podspec
from wasmlab.node.spec.downward import NodeSide
from wasmlab.node.spec.env import Reference
from wasmlab.node.spec.payload import TokenRequest
from wasmlab.node.spec.podspec import Refused

Tell = Callable[[Json, str, str, str], None]  # pod, type, reason, message
Evict = Callable[[str, str], object]  # uid, message


class PodVolumes:
    """The volumes of one pod.

    Parameters
    ----------
    pod : dict
        The pod, replaced when it changes.
    directory : Path
        The pod's own, private directory.
    """

    def __init__(self, objects: ApiObjects, side: NodeSide, pod: Json, directory: Path, tell: Tell) -> None:
        self.pod = pod
        self.roots: dict[str, Path] = {}
        self.lock = asyncio.Lock()
        self._objects = objects
        self._side = side
        self._directory = directory
        self._tell = tell
        self._tokens: dict[TokenRequest, Token] = {}

    @property
    def specs(self) -> dict[str, Json]:
        """Volume name -> v1.Volume, of the volumes that a container mounts."""
        spec = self.pod["spec"]
        used = {
            mount["name"]
            for container in (*spec["containers"], *(spec.get("initContainers") or ()))
            for mount in container.get("volumeMounts") or ()
        }
        return {v["name"]: v for v in spec.get("volumes") or () if v["name"] in used}

    async def set_up(self, without: Collection[str] = ()) -> None:
        """Have every volume ready, but those `without` which the caller can do.

        Raises
        ------
        NotMounted
            One cannot be, now or ever.
        """
        async with self.lock:
            lacking = {
                name: volume
                for name, volume in self.specs.items()
                if name not in self.roots and name not in without
            }
            if lacking:
                filesystems.private(self._directory / "volumes", within=self._directory.parent)
            for name, volume in lacking.items():
                try:
                    self.roots[name] = await self._set_up(name, volume)
                except (payload.PayloadError, hostpath.WrongType, Refused) as error:
                    raise NotMounted(name, str(error)) from error
                except (ApiError, ApiUnavailable) as error:
                    raise NotMounted(name, error.message) from error
                except (OSError, ValueError) as error:
                    raise NotMounted(name, str(error)) from error

    def take_up(self) -> None:
        """Know the volumes that an earlier agent set up; what it did not is set up when a container needs it."""
        for name, volume in self.specs.items():
            root = self._directory / "volumes" / name
            if root.is_dir():
                self.roots[name] = root
            elif "hostPath" in volume:
                self.roots[name] = Path(volume["hostPath"].get("path", ""))

    async def _set_up(self, name: str, volume: Json) -> Path:
        kind = payload.kind_of(volume)
        body = volume[kind] or {} if kind in volume else {}
        root = self._directory / "volumes" / name
        if kind in payload.KINDS:
            await self._fill(root, volume)
        elif kind == "emptyDir":
            await asyncio.to_thread(self._empty_dir, name, root, body)
        elif kind == "hostPath":
            return await asyncio.to_thread(hostpath.prepare, body.get("path", ""), body.get("type") or "")
        elif kind in claims.KINDS:
            return await persistent.place(self._objects, self._side.node_name, self.pod, volume)
        else:
            raise Refused(
                f"a volume of type {kind} is not supported by this node; emptyDir, hostPath, persistentVolumeClaim,"
                " configMap, secret, downwardAPI and projected are"
            )
        return root

    def _empty_dir(self, name: str, root: Path, body: Json) -> None:
        root.mkdir(mode=0o700, exist_ok=True)
        medium = body.get("medium") or ""
        if not medium or os.path.ismount(root):
            return
        if medium != "Memory":
            raise Refused(f"emptyDir medium {medium} is not supported by this node")
        limit = body.get("sizeLimit")
        try:
            filesystems.tmpfs(root, quantity.parse(limit) if limit else _memory_limit(self.pod))
        except OSError as error:
            self._tell(
                self.pod,
                events.WARNING,
                "MemoryVolumeOnDisk",
                f"volume {name} is a directory on disk: this node may not mount a file system in memory"
                f" ({error.strerror})",
            )

    async def _fill(self, root: Path, volume: Json) -> bool:
        namespace = self.pod["metadata"]["namespace"]
        objects: dict[Reference, Json | None] = {}
        for reference in payload.references(volume):
            objects[reference] = await self._objects.get(namespace, reference)
        tokens = {wanted: await self._token(wanted) for wanted in payload.token_requests(volume)}
        files = payload.files(volume, self.pod, self._side, objects, tokens)
        return await asyncio.to_thread(atomicwriter.write, root, files)

    async def _token(self, wanted: TokenRequest) -> str:
        token = self._tokens.get(wanted)
        if token is None or time.monotonic() >= token.renew_at:
            token = self._tokens[wanted] = await self._objects.token(self.pod, wanted)
        return token.value

    async def sync(self, only_downward: bool = False) -> None:
        """Bring the files of the API-filled volumes up to date. What cannot be read stays as it is."""
        async with self.lock:
            for name, volume in self.specs.items():
                if name not in self.roots or payload.kind_of(volume) not in payload.KINDS:
                    continue
                if only_downward and not _has_downward(volume):
                    continue
                try:
                    if await self._fill(self.roots[name], volume):
                        log.debug("volume updated", pod=podspec.key(self.pod), volume=name)
                except (payload.PayloadError, ApiError, ApiUnavailable, OSError, ValueError) as error:
                    # As the kubelet: what was mounted stays; a source that is gone does not end a running pod.
                    log.info("cannot update a volume", pod=podspec.key(self.pod), volume=name, error=error)

    @property
    def filled(self) -> bool:
        """Whether it has volumes that the API fills."""
        return any(payload.kind_of(v) in payload.KINDS for v in self.specs.values())

    def limited(self) -> dict[str, tuple[Path, int, str]]:
        """emptyDir volumes on disk with a sizeLimit: directory, bytes, as written."""
        result = {}
        for name, volume in self.specs.items():
            limit = (volume.get("emptyDir") or {}).get("sizeLimit")
            root = self.roots.get(name)
            if limit and root is not None and quantity.parse(limit) > 0 and not os.path.ismount(root):
                result[name] = (root, quantity.parse(limit), str(limit))
        return result


class VolumeManager:
    """The volumes of all pods.

    Parameters
    ----------
    objects : ApiObjects
        Where the content comes from.
    side : NodeSide
        The node's part of the downward API.
    pods_dir : Path
        Where the pods' directories are.
    tell : callable
        Makes an event of a pod.
    sync_s : float
        How often the files follow their sources.
    watch_s : float
        How often the sizes of emptyDirs are looked at.
    """

    def __init__(
        self,
        objects: ApiObjects,
        side: NodeSide,
        pods_dir: Path,
        tell: Tell,
        *,
        sync_s: float,
        watch_s: float,
    ) -> None:
        self._objects = objects
        self._side = side
        self._pods_dir = pods_dir
        self._tell = tell
        self._sync_s = sync_s
        self._watch_s = watch_s
        self._pods: dict[str, PodVolumes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._removals: dict[str, asyncio.Task[None]] = {}
        self.evict: Evict | None = None

    async def set_up(self, pod: Json, without: Collection[str] = ()) -> PodVolumes:
        """Have all volumes of a pod ready.

        Parameters
        ----------
        without : collection of str
            Volumes that are not needed now.

        Raises
        ------
        NotMounted
            One cannot be.
        """
        uid = pod["metadata"]["uid"]
        one = self._pods.get(uid)
        if one is None:
            if not any(c.get("volumeMounts") for c in _containers(pod)):
                return PodVolumes(self._objects, self._side, pod, self._pods_dir / uid, self._tell)
            one = PodVolumes(self._objects, self._side, pod, self._pods_dir / uid, self._tell)
            self._pods[uid] = one
        await one.set_up(without)
        return one

    def adopt(self, pod: Json) -> None:
        """Go on looking after the volumes of a pod that an earlier agent started."""
        uid = pod["metadata"]["uid"]
        if uid not in self._pods and (self._pods_dir / uid / "volumes").exists():
            one = self._pods[uid] = PodVolumes(
                self._objects, self._side, pod, self._pods_dir / uid, self._tell
            )
            one.take_up()

    def update(self, pod: Json) -> None:
        """The pod changed: its labels and annotations may be in files."""
        one = self._pods.get(pod["metadata"]["uid"])
        if one is None:
            return
        before, one.pod = one.pod["metadata"], pod
        after = pod["metadata"]
        if any(before.get(key) != after.get(key) for key in ("labels", "annotations")):
            self._spawn(one.sync(only_downward=True))

    def release(self, uid: str) -> None:
        """The pod is over: its volumes go (its logs stay until it is deleted)."""
        one = self._pods.pop(uid, None)
        directory = self._pods_dir / uid
        if uid not in self._removals and (one is not None or (directory / "volumes").exists()):
            task = self._removals[uid] = self._spawn(asyncio.to_thread(_remove, directory))
            task.add_done_callback(lambda _: self._removals.pop(uid, None))

    async def released(self, uid: str) -> None:
        """Wait until what `release` removes is removed."""
        task = self._removals.get(uid)
        if task is not None:
            await asyncio.wait({task})

    async def run(self) -> None:
        """Keep files true and sizes watched, until cancelled."""
        synced = time.monotonic()
        while True:
            await asyncio.sleep(min(self._sync_s, self._watch_s))
            try:
                await self._watch_sizes()
                if time.monotonic() - synced >= self._sync_s:
                    synced = time.monotonic()
                    await self._sync_all([one for one in self._pods.values() if one.filled])
            except Exception as error:  # a bug with one pod's volumes must not end the care for all others
                log.error("cannot look after volumes", exc_info=error)

    async def _sync_all(self, pods: Iterable[PodVolumes]) -> None:
        gate = asyncio.Semaphore(8)  # few at a time: this is in no hurry, and the API server has other work

        async def one(volumes: PodVolumes) -> None:
            async with gate:
                await volumes.sync()

        await asyncio.gather(*(one(volumes) for volumes in pods))

    async def _watch_sizes(self) -> None:
        for uid, one in list(self._pods.items()):
            for name, (root, limit, text) in one.limited().items():
                used = await asyncio.to_thread(used_bytes, root)
                if used > limit and self.evict is not None and uid in self._pods:
                    # The message is the kubelet's (emptyDirMessageFmt).
                    self.evict(uid, f'Usage of EmptyDir volume "{name}" exceeds the limit "{text}". ')

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Let go of pods that run on; what is being removed is removed."""
        for task in self._tasks - set(self._removals.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _remove(directory: Path) -> None:
    for name in ("volumes", "mounts"):
        filesystems.remove(directory / name)


def used_bytes(root: Path) -> int:
    """What a directory takes on disk, files with several names counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                info = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                total += info.st_blocks * 512
    return total


def _containers(pod: Json) -> tuple[Json, ...]:
    return (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))


def _has_downward(volume: Json) -> bool:
    return any(kind == "downwardAPI" for kind, _, _ in payload.sources(volume))


def _memory_limit(pod: Json) -> int | None:
    """Most that the pod's containers may have together; None if one has no limit."""
    limits = [podspec.memory_limit(c) for c in pod["spec"]["containers"]]
    return None if any(one is None for one in limits) else sum(one for one in limits if one is not None)
