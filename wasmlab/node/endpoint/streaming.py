"""``kubectl exec`` and ``kubectl attach``, over WebSockets or SPDY.

What exec means here: a module is one program, there is no shell and no second file to start. So the words after ``--``
are the arguments of another instance of the container's module, in a sandbox with the same engine, environment,
directories and limits. The first word may repeat the module's own name (``hello.wasm``, ``/hello.wasm``), and is not an
argument then; any other ``.wasm`` as the first word is refused, because this pod has no other. ``-t`` is refused: a
module has no terminal. An instance ends with its container, and when its client leaves.

What attach means here: the running module's output from now on, read where its log is written; input if the container
was given ``stdin: true``.

An API server of 1.36 or newer passes WebSockets on to a node that declares ``ExtendWebSocketsToKubelet``; an older one
speaks SPDY, whatever its client speaks.

References
----------
``k8s.io/kubernetes/pkg/kubelet/server/server.go`` (``getExec``, ``getAttach``);
``k8s.io/cri-streaming/pkg/streaming/remotecommand``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from wasmlab.errors import WasmlabError
from wasmlab.node import log
from wasmlab.node.containers import instances
from wasmlab.node.containers.container import ContainerTask
from wasmlab.node.containers.services import Services
from wasmlab.node.containers.stdin import Stdin
from wasmlab.node.endpoint import streams
from wasmlab.node.endpoint.guard import user_name
from wasmlab.node.endpoint.logserver import FOLLOW_POLL_S
from wasmlab.node.endpoint.logview import Tail, has_ended
from wasmlab.node.endpoint.session import Session
from wasmlab.node.endpoint.spdysession import SpdySession
from wasmlab.node.endpoint.streams import Frame, Streams
from wasmlab.node.pods.manager import PodManager
from wasmlab.node.pods.worker import PodWorker
from wasmlab.node.portforward import upgrade
from wasmlab.node.runtime.crilog import StreamSplitter
from wasmlab.node.runtime.pipes import Pipe, write
from wasmlab.node.spec import podspec
from wasmlab.node.status import outcomes

_NO_UPGRADE = "unable to upgrade: exec and attach need a connection that becomes a WebSocket, or SPDY/3.1\n"
_NO_TERMINAL = "a WASM module has no terminal: leave -t out (-i alone passes stdin)"


class StreamServer:
    """Serves exec and attach.

    Parameters
    ----------
    services : Services
        The node.
    manager : PodManager
        The pods.
    """

    def __init__(self, services: Services, manager: PodManager) -> None:
        self._services = services
        self._manager = manager
        self._sessions: set[asyncio.Task[object]] = set()

    async def aclose(self) -> None:
        """End the sessions."""
        for task in self._sessions:
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def exec(self, request: web.Request) -> web.StreamResponse:
        """/exec/{namespace}/{pod}[/{uid}]/{container}?command=..&input=1&output=1&error=1."""
        return await self._serve(request, "exec")

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """/attach/{namespace}/{pod}[/{uid}]/{container}?input=1&output=1&error=1."""
        return await self._serve(request, "attach")

    async def _serve(self, request: web.Request, action: str) -> web.StreamResponse:
        try:
            wanted = Streams.of(request.query)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        path = request.match_info
        worker = self._manager.by_name(path["namespace"], path["pod"])
        if worker is None or path.get("uid", worker.uid) != worker.uid:
            return web.Response(status=404, text="pod does not exist\n")
        container = worker.find(path["container"])
        if container is None:
            return web.Response(status=404, text=f'container not found ("{path["container"]}")\n')
        opened: type[Session | SpdySession] = Session
        if upgrade.is_wanted(request):
            opened, known = SpdySession, upgrade.agreed(request, (streams.V4,)) is not None
        elif request.headers.get("Upgrade", "").lower() == "websocket":
            offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
            known = bool(set(offered) & set(streams.PROTOCOLS))
        else:
            return web.Response(status=400, text=_NO_UPGRADE)
        if not known:
            return web.Response(status=403, text="none of the requested protocols is supported\n")
        command = request.query.getall("command", [])
        log.info(
            action,
            pod=podspec.key(worker.pod),
            container=container.record.name,
            user=user_name(request),
            arguments=len(command),
            over=request.headers["Upgrade"],
        )
        try:
            session = await opened.open(request, wanted)
        except ConnectionError:
            return upgrade.Nothing()
        work = (
            self._exec(session, container, command)
            if action == "exec"
            else self._attach(session, worker, container)
        )
        task = asyncio.create_task(work)
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        try:
            status = await task
        except ConnectionError:
            status = None
        except (WasmlabError, OSError) as error:
            status = streams.failure(f"{action}: {getattr(error, 'message', error)}")
        if status is not None:
            await session.finish(status)
        return session.response

    async def _exec(
        self, session: Session | SpdySession, container: ContainerTask, command: Sequence[str]
    ) -> bytes | None:
        """Run an instance to its end. Returns the Status to send, or None if nobody is there to read it."""
        if session.streams.tty:
            return streams.failure(_NO_TERMINAL, code=400, reason="BadRequest")
        try:
            arguments = arguments_of(command, podspec.module_name(container.spec["image"]))
        except ValueError as error:
            return streams.failure(str(error), code=400, reason="BadRequest")
        with contextlib.ExitStack() as stack:
            pipes = (
                Pipe(session.streams.stdin, to_module=True),
                Pipe(session.streams.stdout),
                Pipe(session.streams.stderr),
            )
            for pipe in pipes:
                stack.callback(pipe.close)
            stdin, stdout, stderr = pipes
            run = await instances.start(
                self._services,
                container,
                arguments,
                stdin=stdin.theirs,
                stdout=stdout.theirs,
                stderr=stderr.theirs,
            )
            for pipe in pipes:
                pipe.handed_over()

            async def feed(frame: Frame) -> None:
                if frame.end:
                    stdin.close()
                elif stdin.ours >= 0:
                    try:
                        await write(stdin.ours, frame.data, given_up=session.gone)
                    except BrokenPipeError:
                        stdin.close()  # the module reads no more; what comes is dropped

            client = asyncio.create_task(session.receive(feed))
            copies = asyncio.create_task(_copy_both(session, stdout, stderr))
            ended = asyncio.create_task(run.wait())
            tasks: tuple[asyncio.Task[Any], ...] = (client, copies, ended)
            try:
                await asyncio.wait({client, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():
                    log.info("a client left; its instance is ended", container=container.record.name)
                    return None
                outcome = ended.result()
                # All it wrote is in the pipes: a slow client may take its time, one that leaves is noticed.
                await asyncio.wait({client, copies}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if not run.done:
                    with contextlib.suppress(WasmlabError):
                        await asyncio.shield(run.kill(signal.SIGKILL))
            end = outcomes.ended(outcome, run.id)
            if end.message:
                await session.send(streams.STDERR, f"{end.message}\n".encode())
            return streams.exited(end.exit_code)

    async def _attach(
        self, session: Session | SpdySession, worker: PodWorker, container: ContainerTask
    ) -> bytes | None:
        """Show what the container prints until it has ended or the client has left."""
        if session.streams.tty:
            return streams.failure(_NO_TERMINAL, code=400, reason="BadRequest")
        run_id = container.current
        if run_id is None:
            name = container.record.name
            return streams.failure(f'container "{name}" is not running', code=400, reason="BadRequest")
        stdin = Stdin(self._services.runtime, container, run_id)
        if session.streams.stdin and not stdin.wanted:
            note = f'container "{container.record.name}" was not started with stdin: true; input is not passed on\n'
            await session.send(streams.STDERR, note.encode())

        async def feed(frame: Frame) -> None:
            if not stdin.wanted:
                return
            if frame.end:
                await stdin.end()
            else:
                await stdin.write(frame.data, given_up=session.gone)

        with Tail(container.log_path(run_id.attempt)) as tail:
            tail.skip_to_last(0)
            client = asyncio.create_task(session.receive(feed))
            shown = asyncio.create_task(_show(session, worker, container, str(run_id), tail))
            try:
                await asyncio.wait({client, shown}, return_when=asyncio.FIRST_COMPLETED)
                if not shown.done():
                    return None
                shown.result()
                return streams.success()
            finally:
                for task in (client, shown):
                    task.cancel()
                await asyncio.gather(client, shown, return_exceptions=True)
                if session.streams.stdin:
                    await stdin.end()


def arguments_of(command: Sequence[str], module: str) -> Sequence[str]:
    """What the words after ``--`` are to the module.

    Raises
    ------
    ValueError
        The first one names another module.
    """
    first = command[0] if command else ""
    if not first.endswith(".wasm"):
        return command
    name, own = first.rsplit("/", 1)[-1], f"{module.removesuffix('.wasm')}.wasm"
    if name != own:
        raise ValueError(
            f"{first}: this container is the module {module} and holds no other; the words after -- are its "
            f"arguments (if {name} is meant as one, put {own} before it)"
        )
    return command[1:]


async def _copy_both(session: Session | SpdySession | SpdySession, stdout: Pipe, stderr: Pipe) -> None:
    await asyncio.gather(_copy(session, streams.STDOUT, stdout), _copy(session, streams.STDERR, stderr))


async def _copy(session: Session | SpdySession | SpdySession, channel: int, pipe: Pipe) -> None:
    async for data in pipe.portions():
        await session.send(channel, data)


async def _show(
    session: Session | SpdySession, worker: PodWorker, container: ContainerTask, run_id: str, tail: Tail
) -> None:
    splitter, pause_s = StreamSplitter(), FOLLOW_POLL_S[0]
    while True:
        # In this order: once the end is known, one more read sees all there will ever be.
        ended = has_ended(worker, container, run_id)
        data = tail.read()
        if data:
            pause_s = FOLLOW_POLL_S[0]
            for stream, text in splitter.feed(data):
                await session.send(streams.STDERR if stream == "stderr" else streams.STDOUT, text)
        elif ended:
            return
        else:
            await asyncio.sleep(pause_s)
            pause_s = min(FOLLOW_POLL_S[1], pause_s * 1.5)
