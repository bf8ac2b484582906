"""What the node serves: the kubelet's paths over TLS, and who may ask for them."""
