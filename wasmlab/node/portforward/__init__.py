"""``kubectl port-forward``: SPDY inside a WebSocket, to what a pod's modules listen on."""
