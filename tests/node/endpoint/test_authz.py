from __future__ import annotations

import pytest

from wasmlab.node.endpoint import authz
from wasmlab.node.endpoint.authz import Request, User


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        # What the kubelet of 1.37 asks for: pkg/kubelet/server/auth.go.
        ("GET", "/pods", "get", ("pods", "proxy")),
        ("GET", "/pods/", "get", ("pods", "proxy")),
        ("GET", "/runningpods/", "get", ("pods", "proxy")),
        ("GET", "/healthz", "get", ("healthz", "proxy")),
        ("GET", "/healthz/ping", "get", ("healthz", "proxy")),
        ("GET", "/configz", "get", ("configz", "proxy")),
        ("GET", "/stats/summary", "get", ("stats",)),
        ("POST", "/stats/", "create", ("stats",)),
        ("GET", "/metrics", "get", ("metrics",)),
        ("GET", "/metrics/resource", "get", ("metrics",)),
        ("GET", "/logs/kern.log", "get", ("log",)),
        ("POST", "/checkpoint/a/b/c", "create", ("checkpoint",)),
        ("GET", "/flagz", "get", ("configz",)),
        ("GET", "/containerLogs/default/p/c", "get", ("proxy",)),
        ("PUT", "/anything", "update", ("proxy",)),
        ("PATCH", "/", "patch", ("proxy",)),
        ("DELETE", "/anything", "delete", ("proxy",)),
        ("HEAD", "/pods", "", ("pods", "proxy")),
        # Names that only begin alike are something else.
        ("GET", "/podsx", "get", ("proxy",)),
        ("GET", "/metricsx", "get", ("proxy",)),
        ("GET", "/pods%2fx", "get", ("proxy",)),
        ("GET", "//pods", "get", ("proxy",)),
        # Stricter than the kubelet: what enters a pod is never only read.
        ("GET", "/exec/default/p/c", "create", ("proxy",)),
        ("POST", "/exec/default/p/c", "create", ("proxy",)),
        ("GET", "/attach/default/p/c", "create", ("proxy",)),
        ("GET", "/run/default/p/c", "create", ("proxy",)),
        ("GET", "/portForward/default/p", "create", ("proxy",)),
    ],
)
def test_what_a_request_asks_for(method: str, path: str, verb: str, subresources: tuple[str, ...]) -> None:
    assert authz.request(method, path) == Request(verb, subresources)


def test_the_review_says_who_wants_what() -> None:
    user = User("jane", "7", ("dev", "system:authenticated"), {"scopes": ["a", "b"]})
    assert authz.review(user, "get", "metrics", "n1")["spec"] == {
        "user": "jane",
        "uid": "7",
        "groups": ["dev", "system:authenticated"],
        "extra": {"scopes": ["a", "b"]},
        "resourceAttributes": {
            "verb": "get",
            "group": "",
            "version": "v1",
            "resource": "nodes",
            "subresource": "metrics",
            "name": "n1",
        },
    }
    assert set(authz.review(User("x"), "get", "pods", "n1")["spec"]) == {
        "user",
        "groups",
        "resourceAttributes",
    }


def test_messages_are_the_kubelets() -> None:
    asked = authz.request("GET", "/pods")
    assert (
        authz.forbidden(User("jane"), asked)
        == "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
    )
