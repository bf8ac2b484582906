"""What somebody who only has a browser gets: notebooks that run, a board to click on, in light and dark."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.ui.conftest import CHROMIUM, SHOTS

pytestmark = [
    pytest.mark.browser,
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)"),
]


def open_notebook(page: Any, lab: str, name: str) -> None:
    """Open a notebook; whatever JupyterLab asks (which kernel?) is answered with what it proposes."""
    accept = page.locator(".jp-Dialog .jp-mod-accept").first
    page.add_locator_handler(accept, lambda: accept.click(), no_wait_after=True)
    page.goto(lab.replace("/lab?", f"/lab/tree/{name}?") + "&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)


def run_all(page: Any) -> None:
    """Run > Run All Cells. Cells that are run before there is a kernel are passed over, so one is run first."""
    run_cell(page, 0)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("[data-command='runmenu:run-all']").click()


def errors(page: Any) -> list[str]:
    """Return what cells failed with."""
    found: list[str] = page.eval_on_selector_all(
        ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']",
        "all => all.map(one => one.innerText)",
    )
    return found


def wait_for_text(page: Any, selector: str, pattern: str, timeout_s: float) -> None:
    """Wait until an element's text matches; an error in a cell ends the waiting."""
    deadline = time.monotonic() + timeout_s
    while True:
        texts = page.eval_on_selector_all(selector, "all => all.map(one => one.innerText)")
        if any(re.search(pattern, text) for text in texts):
            return
        assert not errors(page), errors(page)
        assert time.monotonic() < deadline, f"waited for {pattern!r}; there is {texts}"
        page.wait_for_timeout(200)


@pytest.mark.parametrize("name", ["00_start_here", "05_the_node"])
def test_a_notebook_runs_in_the_browser(page: Any, lab: str, name: str) -> None:
    open_notebook(page, lab, f"notebooks/{name}.ipynb")
    run_all(page)
    # The last cell says where and when it ran.
    wait_for_text(page, ".jp-OutputArea-output", r"wasmlab\s+\d+\.\d+\.\d+", 120)
    assert not errors(page)
    page.keyboard.press("Control+s")
    shutdown(page)


def shutdown(page: Any) -> None:
    """End the kernel, and with it the cluster of the notebook."""
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator("[data-command='kernelmenu:shutdown']").click()
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator:not([data-status='idle'])", timeout=30_000)


def run_cell(page: Any, index: int) -> None:
    """Run one cell by the keyboard; again if there was no kernel yet."""
    cell = page.locator(".jp-CodeCell").nth(index)
    for _ in range(10):
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(2000)
        if cell.locator(".jp-InputPrompt").inner_text().strip("[]: \n"):
            return
    raise AssertionError("the cell does not start")


def test_the_live_notebook_by_mouse_and_keyboard(page: Any, lab: str) -> None:
    open_notebook(page, lab, "notebooks/live.ipynb")
    # A C cell that becomes a module, and what the module says of itself.
    run_cell(page, 0)
    run_cell(page, 1)
    wait_for_text(page, ".jp-OutputArea-output", "hello, reader, from a module", 100)
    run_cell(page, 2)
    wait_for_text(page, ".jp-OutputArea-output", "wasi_snapshot_preview1", 30)

    run_cell(page, 3)
    wait_for_text(page, ".wasmlab", r"wasm-node\s+Ready", 90)
    run_cell(page, 4)
    wait_for_text(page, ".jp-OutputArea-output", "applied 5 pods", 30)
    said = page.get_by_text("applied 5 pods of").last.inner_text()
    image = re.search(r"applied 5 pods of (\S+)", said)[1]  # type: ignore[index]
    wait_for_text(page, ".wasmlab", "5 pods: 5 Succeeded", 30)

    # By mouse: open the editor, paste a manifest, apply it.
    page.get_by_text("Apply a manifest").click()
    page.get_by_placeholder("paste a manifest").fill(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: clicked}\nspec:\n  restartPolicy: Never\n"
        f"  containers: [{{name: c, image: '{image}', args: [by, mouse]}}]\n"
        "  tolerations: [{key: kubernetes.io/arch, operator: Exists}]\n"
    )
    page.locator(".jupyter-button", has_text="Apply").click()
    wait_for_text(page, ".wasmlab", "applied Pod clicked", 30)
    wait_for_text(page, ".wasmlab-mono option", "clicked.*Completed", 30)

    # By keyboard alone: choose the pod in the list, read its log, delete it.
    page.locator(".wasmlab-mono select").focus()
    page.keyboard.press("Home")
    wait_for_text(page, ".wasmlab pre", r'Args are: \["by", "mouse"\]', 30)
    page.screenshot(path=SHOTS / "board.png")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    for _ in range(6):
        if page.evaluate("document.activeElement.innerText").strip() == "Delete pod":
            break
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText").strip() == "Delete pod"
    page.keyboard.press("Enter")
    wait_for_text(page, ".wasmlab", "pod default/clicked is being deleted", 30)
    wait_for_text(page, ".wasmlab", "5 pods: 5 Succeeded", 30)

    # The launcher: a few pods of both engines, with figures that appear.
    run_cell(page, 5)
    page.locator(".widget-slider .widget-readout").first.evaluate("one => one.textContent = '4'")
    page.locator(".widget-slider .widget-readout").first.press("Enter")
    page.locator(".jupyter-button", has_text="Launch").click()
    wait_for_text(page, ".wasmlab", r"done: \d+ runs, 0 failed", 90)
    page.wait_for_function(
        "[...document.querySelectorAll('.widget-image')].every(one => one.naturalWidth > 100)"
    )
    page.locator(".widget-image").first.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "launcher.png")

    # In the dark: the board's text follows the theme.
    light = page.locator(".wasmlab").first.evaluate("one => getComputedStyle(one).color")
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Theme").first.hover()
    page.locator(".lm-Menu-item", has_text=re.compile("^JupyterLab Dark$")).click()
    page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    page.wait_for_function(
        "light => getComputedStyle(document.querySelector('.wasmlab')).color != light",
        arg=light,
        timeout=10_000,
    )
    page.locator(".wasmlab").first.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "board_dark.png")

    run_cell(page, 6)
    wait_for_text(page, ".jp-OutputArea-output", "stopped", 60)
    shutdown(page)
