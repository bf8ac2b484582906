"""A person at a JupyterLab, without a browser: start a notebook's kernel and run its cells, over HTTP and WebSocket.

References
----------
Jupyter Server's REST API; Jupyter's messaging protocol 5.4.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import nbformat


async def _wait(server: aiohttp.ClientSession, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                async with server.get("api/status") as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)


async def _execute(socket: aiohttp.ClientWebSocketResponse, code: str) -> str:
    """Run one cell and return what it failed with, or nothing."""
    sent = uuid.uuid4().hex
    header = {
        "msg_id": sent,
        "msg_type": "execute_request",
        "username": "",
        "session": sent,
        "version": "5.4",
    }
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "allow_stdin": False,
        "stop_on_error": True,
    }
    await socket.send_json(
        {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
            "buffers": [],
        }
    )
    async for message in socket:
        if message.type != aiohttp.WSMsgType.TEXT:  # buffers of widgets
            continue
        said: dict[str, Any] = json.loads(message.data)
        if said["header"]["msg_type"] == "execute_reply" and said["parent_header"].get("msg_id") == sent:
            reply = said["content"]
            return "" if reply["status"] == "ok" else f"{reply.get('ename')}: {reply.get('evalue')}"
    return "the kernel's connection ended (did the kernel?)"


async def run_notebook(
    address: str, token: str, notebook: Path, timeout_s: float, *, before: str = ""
) -> None:
    """Run the cells of a notebook in a kernel of the server.

    Parameters
    ----------
    address, token : str
        Of the server, which may still be starting.
    notebook : Path
        Its file here; below the server's root it is in ``notebooks``.
    before : str
        Run only the cells before the first that has this text, and let the kernel stay, as in a tab that nobody closed.
        Else the kernel is shut down at the end.

    Raises
    ------
    SystemExit
        If a cell fails.
    """
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    headers = {"Authorization": f"token {token}"}
    total = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(base_url=f"{address}/", headers=headers, timeout=total) as server:
        await _wait(server, 120)
        path = f"notebooks/{notebook.name}"
        wish = {"path": path, "name": notebook.name, "type": "notebook", "kernel": {"name": "python3"}}
        async with server.post("api/sessions", json=wish) as answer:
            answer.raise_for_status()
            session = await answer.json()
        channels = f"api/kernels/{session['kernel']['id']}/channels"
        try:
            async with asyncio.timeout(timeout_s), server.ws_connect(channels, max_msg_size=0) as socket:
                for code in cells:
                    if before and before in code:
                        break
                    if failed := await _execute(socket, code):
                        raise SystemExit(f"{path} in JupyterLab: {failed}, in the cell\n{code}")
        finally:
            if not before:
                async with server.delete(f"api/sessions/{session['id']}") as answer:
                    answer.raise_for_status()
