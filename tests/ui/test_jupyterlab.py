"""What somebody who only has a browser gets: notebooks that run, a board to click on, in light and dark."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.ui.conftest import SHOTS, missing

pytestmark = [
    pytest.mark.browser,
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(missing()), reason=missing()),
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
        page.wait_for_timeout(100)


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
        for _ in range(30):
            if cell.locator(".jp-InputPrompt").inner_text().strip("[]: \n"):
                return
            page.wait_for_timeout(100)
    raise AssertionError("the cell does not start")


def press_until(page: Any, key: str, name: str) -> None:
    """Press a key until the element with this accessible name or text has the focus: what a keyboard alone can do."""
    for _ in range(30):
        page.keyboard.press(key)
        if page.evaluate(FOCUSED).strip() == name:
            return
    raise AssertionError(f"{key} does not lead to {name!r}; it leads to {page.evaluate(FOCUSED)!r}")


FOCUSED = """(() => {
    const one = document.activeElement;
    const label = one.id && document.querySelector(`label[for="${CSS.escape(one.id)}"]`);
    return one.getAttribute('aria-label') || (label && label.textContent) || one.innerText || one.title || '';
})()"""


def widget(page: Any, number: int) -> Any:
    """Return the board (0) or the launcher (1)."""
    return page.locator(".wasmlab-board").nth(number)


def field(page: Any, name: str) -> Any:
    return page.locator(".wasmlab-board").get_by_label(name, exact=True)


def button(page: Any, name: str) -> Any:
    return page.locator(".jupyter-button", has_text=re.compile(f"^{name}$"))


def nameless(page: Any) -> list[str]:
    """Return the controls of the widgets that have no accessible name."""
    found: list[str] = page.eval_on_selector_all(
        ".wasmlab-board :is(button, select, input, textarea, [role=img])",
        """all => all.filter(one => one.offsetParent && !(
            one.getAttribute('aria-label') || one.title || one.innerText ||
            [...(one.labels || [])].some(label => label.textContent.trim())
        )).map(one => one.outerHTML.slice(0, 200))""",
    )
    return found


def use_theme(page: Any, name: str) -> None:
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Theme").first.hover()
    page.locator(".lm-Menu-item", has_text=re.compile(f"^{name}$")).click()
    light = str("Light" in name).lower()
    page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")


def look(page: Any, number: int, name: str) -> None:
    """Keep a picture of a widget."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    widget(page, number).evaluate("one => one.scrollIntoView()")
    page.screenshot(path=SHOTS / f"{name}.png")


def test_the_live_notebook_by_mouse_and_keyboard(page: Any, lab: str) -> None:
    open_notebook(page, lab, "notebooks/live.ipynb")
    # A C cell that becomes a module, and what the module says of itself.
    run_cell(page, 0)
    run_cell(page, 1)
    wait_for_text(page, ".jp-OutputArea-output", "hello, reader, from a module", 100)
    run_cell(page, 2)
    wait_for_text(page, ".jp-OutputArea-output", "wasi_snapshot_preview1", 30)

    run_cell(page, 3)
    run_cell(page, 4)
    wait_for_text(page, ".wasmlab", r"wasm-node\s+✓ Ready", 90)
    run_cell(page, 5)
    wait_for_text(page, ".jp-OutputArea-output", "applied 5 pods", 30)
    said = page.get_by_text("applied 5 pods of").last.inner_text()
    image = re.search(r"applied 5 pods of (\S+)", said)[1]  # type: ignore[index]
    wait_for_text(page, ".wasmlab", "5 pods: 5 ✓ Succeeded", 60)
    board_by_mouse(page, image)
    board_by_keyboard(page)

    run_cell(page, 6)
    wait_for_text(page, ".wasmlab", "no pod has ended yet", 60)
    assert not nameless(page), "a screen reader finds controls without a name"
    measure(page)
    burst(page)
    run_cell(page, 7)
    wait_for_text(page, ".jp-RenderedHTMLCommon .wasmlab", "cancelled: of 1000 pods", 60)
    themes(page)

    run_cell(page, 8)
    wait_for_text(page, ".jp-OutputArea-output", "stopped", 90)
    shutdown(page)


def board_by_mouse(page: Any, image: str) -> None:
    """Open the editor, paste a manifest, apply it; what is wrong is said with its remedy."""
    button(page, "Apply a manifest").click()
    manifest = field(page, "Manifest")
    manifest.fill("kind: [")
    button(page, "Apply").click()
    wait_for_text(page, ".wasmlab .trouble", "this is no YAML(.|\n)*Try: look at line", 60)
    manifest.fill(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: clicked}\nspec:\n  restartPolicy: Never\n"
        f"  containers: [{{name: c, image: '{image}', args: [by, mouse]}}]\n"
        "  tolerations: [{key: kubernetes.io/arch, operator: Exists}]\n"
    )
    button(page, "Apply").click()
    wait_for_text(page, ".wasmlab", "applied Pod clicked", 60)
    wait_for_text(page, ".wasmlab-mono option", "Completed.*clicked", 60)
    button(page, "Apply a manifest").click()
    look(page, 0, "board")


def board_by_keyboard(page: Any) -> None:
    """Choose the pod in the list, read its log, delete it."""
    # By name: pods of the same second stand in any order.
    field(page, "Filter").fill("clicked")
    wait_for_text(page, ".wasmlab-mono select", r"^\S+\sCompleted\s+clicked\s[^\n]*$", 60)
    field(page, "Filter").focus()
    press_until(page, "Tab", "Pods")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", (
        "no focus is seen"
    )
    page.keyboard.press("Home")
    wait_for_text(page, ".wasmlab pre", r'Args are: \["by", "mouse"\]', 60)
    press_until(page, "Tab", "Delete pod")
    page.keyboard.press("Enter")
    wait_for_text(page, ".wasmlab", "pod default/clicked is being deleted", 60)
    field(page, "Filter").fill("")
    wait_for_text(page, ".wasmlab", "5 pods: 5 ✓ Succeeded", 60)


def measure(page: Any) -> None:
    """A few pods of both engines, with figures that appear."""
    field(page, "of each engine").fill("8")
    field(page, "of each engine").press("Enter")
    button(page, "Launch").click()
    wait_for_text(page, ".wasmlab", r"done: 16 pods in .*, 0 failed", 120)
    wait_for_text(page, ".wasmlab .card", r"wasmer(.|\n)*95 % interval(.|\n)*n = \d$", 60)
    assert page.locator(".wasmlab-board svg").count() == 4, "the board's wall and three charts"
    look(page, 1, "launcher")


def burst(page: Any) -> None:
    """More pods than anybody wants to wait for; cancelled by the keyboard, which was left on the button."""
    field(page, "of each engine").fill("500")
    field(page, "of each engine").press("Enter")
    widget(page, 1).get_by_label("Pods", exact=True).select_option("all at once")
    button(page, "Launch").click()
    wait_for_text(page, ".wasmlab", r"\d of 1000 pods have ended", 120)
    wait_for_text(page, ".wasmlab", r"^[\d,]+ pods:|\d pods: ", 60)
    look(page, 0, "board_burst")
    look(page, 1, "launcher_burst")
    page.wait_for_function(f"{FOCUSED}.trim() === 'Cancel'")
    page.keyboard.press("Enter")
    wait_for_text(page, ".wasmlab", r"cancelled: of 1000 pods \d+ had ended \(0 failed\).*None is left", 120)
    wait_for_text(page, ".wasmlab", "5 pods: 5 ✓ Succeeded", 60)


def themes(page: Any) -> None:
    """Text and charts follow the theme."""

    def colors() -> list[str]:
        found: list[str] = page.evaluate(
            """['.wasmlab', '.wasmlab .good', '.wasmlab svg text', '.wasmlab svg path[style*="--wl-wasmer"]'].map(
                one => { const found = getComputedStyle(document.querySelector(`.wasmlab-board ${one}`));
                         return found.fill + found.stroke + found.color; })"""
        )
        return found

    light = colors()
    use_theme(page, "JupyterLab Dark")
    deadline = time.monotonic() + 30
    while not all(one != other for one, other in zip(light, colors(), strict=True)):
        assert time.monotonic() < deadline, f"in the dark as in the light: {light}, {colors()}"
        page.wait_for_timeout(100)
    look(page, 0, "board_dark")
    look(page, 1, "launcher_dark")
