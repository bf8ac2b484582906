"""JupyterLab with the lab's workspace: started, waited for, and ended with everything that ran in it.

It listens on 127.0.0.1 with a token of its own. Its workspaces are the lab's, in the cache, so that a person's
own JupyterLab stays as it is.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import sys
import time
import urllib.request
from pathlib import Path

from wasmlab.console import say
from wasmlab.modules.files import MATERIAL, root
from wasmlab.notebooks import workspace
from wasmlab.paths import cache_dir
from wasmlab.process import Child, free_ports

NAME = "wasmlab"
_READY_TIMEOUT_S = 90.0
# It ends its kernels first, and these the clusters that they started.
_STOP_GRACE_S = 30.0


def directory(here: Path) -> Path:
    """Return the directory to serve: `here` if the notebooks are in it, else the checkout.

    Without a checkout the notebooks are copied out of the package into `here`, where they can be written to.
    """
    if (here / workspace.FIRST).is_file():
        return here
    base = root()
    if base.name != MATERIAL:
        return base
    shutil.copytree(base / "notebooks", here / "notebooks")
    return here


class JupyterLab:
    """One running JupyterLab.

    Parameters
    ----------
    served : Path
        The directory that it shows.
    port : int
        0: any that is free.
    browser : bool
        Let it open a browser.
    reset : bool
        Open the lab's own tabs again, whatever was arranged last.

    Raises
    ------
    ProcessError
        If it does not come up; with its last lines.
    """

    def __init__(self, served: Path, *, port: int = 0, browser: bool = True, reset: bool = False) -> None:
        home = cache_dir("jupyter")
        workspace.save(home / "workspaces", NAME, readme=(served / workspace.README).is_file(), reset=reset)
        self.port = port or free_ports(1)[0]
        self._token = secrets.token_urlsafe(24)
        self.log = home / f"{self.port}.log"
        self.log.unlink(missing_ok=True)
        self.address = f"http://127.0.0.1:{self.port}/lab/workspaces/{NAME}?token={self._token}"
        argv = [
            *(
                sys.executable,
                "-m",
                "jupyterlab",
                f"--ServerApp.root_dir={served}",
                "--ServerApp.ip=127.0.0.1",
            ),
            *(f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0"),
            *(
                f"--LabApp.workspaces_dir={home / 'workspaces'}",
                f"--LabApp.default_url=/lab/workspaces/{NAME}",
            ),
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            *(() if browser else ("--no-browser",)),
            *(("--allow-root",) if os.geteuid() == 0 else ()),
        ]
        env = {
            **os.environ,
            "JUPYTER_TOKEN": self._token,  # not an argument: everybody can read those
            "JUPYTER_CONFIG_PATH": os.pathsep.join(
                filter(
                    None,
                    (str(workspace.without_news(home / "config")), os.environ.get("JUPYTER_CONFIG_PATH")),
                )
            ),
            # This environment's kernels and commands, also in terminals.
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        self.child = Child(argv, log=self.log, env=env, cwd=served)
        self.child.wait_ready(self._answers, _READY_TIMEOUT_S, what="JupyterLab", interval_s=0.1)

    def _answers(self) -> bool:
        # With the token: on a port that is taken somebody else's JupyterLab would answer for this one.
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/status", headers={"Authorization": f"token {self._token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return "started" in json.load(answer)
        except (OSError, ValueError, http.client.HTTPException):  # nothing yet, or not what was asked for
            return False

    def wait(self) -> int:
        """Wait until it ends (File > Shut Down) and return its exit code."""
        while (code := self.child.returncode) is None:
            time.sleep(0.2)
        return code

    def stop(self) -> None:
        """End it, its kernels, and what they started; its log stays only if it failed."""
        if self.child.stop(_STOP_GRACE_S) == 0:
            self.log.unlink(missing_ok=True)


def run(here: Path, *, port: int = 0, browser: bool = True, reset: bool = False) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit code: 0, unless JupyterLab itself failed."""
    served = directory(here.resolve())
    lab = JupyterLab(served, port=port, browser=browser, reset=reset)
    try:
        print(lab.address, flush=True)
        say(
            f"JupyterLab shows {served}. Ctrl-C ends it, with its kernels and their clusters. Its log: {lab.log}"
        )
        return lab.wait()
    except KeyboardInterrupt:
        say("ending JupyterLab and its kernels")
        return 0
    finally:
        lab.stop()
