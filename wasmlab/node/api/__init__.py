"""What the node and the Kubernetes API say to each other: requests, watches, events, quantities, times."""
